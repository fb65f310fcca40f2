"""Faults of messages between callers and owners: late, lost, unanswered; by a proxy, or by the kernel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.harness import namespaces, proxied_cluster
from benchmarks.harness.environment import THREADS_PER_WORKER, WORKERS_OF_A_TRIAL, Environment
from benchmarks.harness.faults import FaultAction, NotInjected
from benchmarks.harness.namespaces import Namespace
from benchmarks.harness.process_faults import USERS_CLUSTER
from benchmarks.harness.proxy import Address, Counts, Proxy
from benchmarks.harness.servers import addresses_of, at_addresses, kind_for
from strategies.interface import Accounts, Caller, Capabilities, Context, Fault, Resource

if TYPE_CHECKING:
    from distributed import Client

_IN_PROCESS = "it is called within its caller's process: there is no message to break"
_WORKERS_OWN = "tasks call it by their worker's own connections to the scheduler, without which there is no worker"
_OWN_DOOR = "tasks call it at a port that it opens and advertises itself: nothing can be put in between"


class _ByProxy(FaultAction):
    """The owner, a server or a Dask worker, is reached through a proxy: by drivers, tasks and the scheduler.

    A Dask worker advertises the proxy's address as its own, so a trial with actors has a cluster of its own. Where the
    owner is the scheduler, the trial's client reaches it so.
    """

    healed_by = "the proxy, which passes everything on again, and resets connections that lost bytes"
    proxy: Proxy
    felt: Counts
    """What the proxy had done when it was healed."""

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        kind = kind_for(claims)
        if kind is not None:
            return kind.no_proxy
        if Resource.DASK in claims.needs:
            return None
        if Resource.SCHEDULER in claims.needs:
            return _WORKERS_OWN if caller is Caller.TASK else None
        return _IN_PROCESS if caller is Caller.DRIVER or Resource.DIRECTORY in claims.needs else _OWN_DOOR

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        if not environment.owns_cluster:
            return USERS_CLUSTER
        return environment.users_server(claims)

    @property
    def lasts_s(self) -> float:
        return 1.5 * self.deadline_s

    @contextmanager
    def prepared(self, context: Context) -> Iterator[Context]:
        with ExitStack() as stack:
            workers: list[Address] = []
            if Resource.DASK in self.claims.needs:
                workers = proxied_cluster.free_addresses(WORKERS_OF_A_TRIAL)
            kind = kind_for(self.claims)
            url = getattr(context, kind.url_field) if kind else None
            if Resource.SCHEDULER in self.claims.needs:
                assert context.client is not None
                url = context.client.scheduler_info()["address"]
            self.proxy = stack.enter_context(Proxy([*workers, *(addresses_of(url) if url else ())]))
            if url:
                moved = at_addresses(url, self.proxy.addresses[len(workers) :])
                if kind:
                    context = kind.found_at(moved, context)
                else:
                    context = replace(context, client=stack.enter_context(_client_at(moved)))
                    stack.callback(self.proxy.heal)  # a client that does not reach its scheduler does not close in time
            if workers:
                made = proxied_cluster.cluster(workers, self.proxy, THREADS_PER_WORKER)
                context = replace(context, client=stack.enter_context(made))
                stack.callback(self.proxy.heal)  # nor does a cluster whose workers are not reached
            yield context

    def inject(self, accounts: Accounts) -> str:
        self.break_()
        return "all messages to and from the owner"

    @abstractmethod
    def break_(self) -> None:
        """Tell the proxy."""

    @abstractmethod
    def struck(self) -> int:
        """How much of what passed the proxy it broke."""

    def heal(self) -> None:
        self.felt = self.proxy.counts()
        self.proxy.heal()

    def confirm(self, begun_again: int) -> None:
        if not self.struck():
            raise NotInjected("no message passed while messages were broken")


def _client_at(scheduler: str) -> Client:
    from distributed import Client

    return Client(scheduler, set_as_default=False)


class Delay(_ByProxy):
    """Each piece is late, by as much as leaves a request, its answer and a handshake before them within a deadline."""

    fault = Fault.DELAY
    target = "messages between callers and owner, in both directions"
    emulates = "a congested or distant network: there and back takes 0.2 to 0.4 of a deadline longer"
    cannot_show = "loss, and what TCP does about it (netem_delay); little bandwidth"

    def break_(self) -> None:
        self.proxy.delay(0.1 * self.deadline_s, 0.2 * self.deadline_s, seed=self.chance.getrandbits(32))

    def struck(self) -> int:
        return self.felt.requests_delayed


class DropReply(_ByProxy):
    """Requests pass. Of the answers, every fourth is dropped and its connection reset, by the seed."""

    fault = Fault.DROP_REPLY
    target = "answers of the owner"
    emulates = "a load balancer or NAT that loses connections: the effect is there, its answer is not"
    cannot_show = "an owner that dies with its answer unsent (worker_kill, server_kill)"

    def break_(self) -> None:
        self.proxy.drop_replies(0.25, seed=self.chance.getrandbits(32))

    def struck(self) -> int:
        return self.felt.replies_dropped


class HalfOpen(_ByProxy):
    """Requests pass, answers do not, connections stay open."""

    fault = Fault.HALF_OPEN
    target = "answers of the owner"
    emulates = "a firewall or route that fails in one direction: effects without answers, and nobody is told"
    cannot_show = "TCP that stalls because its acknowledgements are lost too: the proxy acknowledges all it reads"

    def break_(self) -> None:
        self.proxy.half_open()

    def struck(self) -> int:
        return self.felt.replies_swallowed_bytes


class Partition(_ByProxy):
    """Nothing passes, connections stay open, attempts to connect are not answered."""

    fault = Fault.PARTITION
    target = "messages between callers and owner, in both directions"
    emulates = "a network split behind which both sides live on; afterwards, a firewall that forgot its connections"
    cannot_show = "requests that TCP delivers late, after the split (link_down); a worker that its scheduler misses"

    def break_(self) -> None:
        self.proxy.partition()

    def struck(self) -> int:
        return self.felt.requests_swallowed_bytes


class _ByKernel(FaultAction):
    """The trial's server is in a network namespace of its own, joined by one link."""

    namespace: Namespace

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        kind = kind_for(claims)
        return kind.no_proxy if kind else "no server holds its state that a namespace could hold"

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        return environment.users_server(claims) or namespaces.missing()

    @property
    def lasts_s(self) -> float:
        return 1.5 * self.deadline_s

    @contextmanager
    def prepared(self, context: Context) -> Iterator[Context]:
        kind = kind_for(self.claims)
        assert kind is not None
        with (
            Namespace() as self.namespace,
            kind(
                self.claims.durability,
                nodes=self.claims.nodes,
                host=self.namespace.host,
                namespace=self.namespace.path,
            ) as server,
        ):
            yield kind.found_at(server.url, context)


class LinkDown(_ByKernel):
    """The link goes down at the server's end."""

    fault = Fault.LINK_DOWN
    target = "the network link of the store's own namespace"
    emulates = "a pulled cable or a dead switch: TCP sends again until it is back, so requests can arrive late"
    healed_by = "the link, which comes up again"
    cannot_show = "a caller's own network card that reports the loss; routes that change"

    def inject(self, accounts: Accounts) -> str:
        self.namespace.down()
        return "the server's link"

    def heal(self) -> None:
        self.namespace.up()


class NetemDelay(_ByKernel):
    """The kernel's netem at both ends of the link."""

    fault = Fault.NETEM_DELAY
    target = "packets to and from the store's own namespace"
    emulates = (
        "a congested or distant network: 0.1 of a deadline and some jitter each way, and one packet in fifty lost"
    )
    healed_by = "netem, which is removed"
    cannot_show = "little bandwidth; losses in bursts"

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        return environment.users_server(claims) or namespaces.netem_missing()

    def inject(self, accounts: Accounts) -> str:
        delay_ms = 100 * self.deadline_s
        self.namespace.slow(delay_ms, delay_ms / 4, 2.0)
        return "the server's link"

    def heal(self) -> None:
        self.namespace.unslow()
