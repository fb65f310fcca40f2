"""Faults in what is called: arguments and results that cannot be serialised, methods that exit or do not return."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from benchmarks.harness.environment import Environment, in_time
from benchmarks.harness.faults import FaultAction, NotInjected
from benchmarks.harness.load import shipped_by_value
from benchmarks.harness.process_faults import ClusterFault, await_state
from benchmarks.harness.servers import kind_for
from strategies.interface import (
    AccountError,
    AccountExists,
    Accounts,
    Caller,
    Capabilities,
    Context,
    Fault,
    Indeterminate,
    Resource,
    Unavailable,
)

if TYPE_CHECKING:
    import redis

_ASK_S = 10.0
"""For a question that a worker or a server answers in milliseconds."""
_POLL_S = 0.01
_SLACK_S = 1.0
"""Beyond a deadline, for the call to come back on a busy machine."""
_OPENING = 1000

_HANG_SCRIPT = """
local began = os.clock()
while os.clock() - began < tonumber(ARGV[1]) do end
return 1
"""
"""`os.clock` counts processor time, and goes on while a script runs; the server's `TIME` does not."""


class Poisoned(RuntimeError):
    """A strategy did not keep its word about a call that it could not make."""


class PoisonArgument(FaultAction):
    """Deposits into an account beside the load's, each with an argument that cannot be serialised in its own way."""

    fault = Fault.POISON_ARGUMENT
    target = "three calls: a name with half a surrogate pair that passes for ASCII, a name and an amount of \
types that refuse to be pickled"
    emulates = "a caller's bug: subclasses of str and int that no wire form can carry"
    healed_by = "nothing: only those calls are concerned"
    cannot_show = "arguments that break the receiver while it reads them; these never leave the caller whole"

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        if claims.needs or caller is Caller.TASK:
            return None
        return "its arguments never leave the caller's process"

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        return None

    def inject(self, accounts: Accounts) -> str:
        victim = f"poisoned-{self.chance.randrange(2**32)}"
        _open(accounts, victim)
        told = []
        for poison in ("name not to be encoded", "name not to be pickled", "amount not to be pickled"):
            before = self._balance(accounts, victim)
            ended = self._ended(accounts, victim, poison)
            changed = self._balance(accounts, victim) != before
            if changed and ended not in ("a receipt", Indeterminate.__name__):
                raise Poisoned(f"a deposit with a {poison} raised {ended}, and had its effect")
            if ended == "a receipt" and not changed:
                raise Poisoned(f"a deposit with a {poison} gave a receipt, and had no effect")
            told.append(f"{poison}: {ended}")
        return ", ".join(told)

    def _ended(self, accounts: Accounts, victim: str, poison: str) -> str:
        """What the call gave, or the name of what it raised."""
        call = _poisoned_deposit(victim, poison)
        from_task = self.caller is Caller.TASK
        limit_s = self.deadline_s + (_ASK_S if from_task else _SLACK_S)
        try:
            return in_time(limit_s, lambda: self._in_task(call, accounts) if from_task else call(accounts))
        except TimeoutError as error:
            raise Poisoned(
                f"a deposit with a {poison} did not end within {limit_s:g} s; its deadline was {self.deadline_s:g} s"
            ) from error

    def _in_task(self, call: Callable[[Accounts], str], accounts: Accounts) -> str:
        future = self.environment.client.submit(shipped_by_value(call), accounts, pure=False)
        ended: str = future.result(timeout=self.deadline_s + _ASK_S)
        return ended

    def _balance(self, accounts: Accounts, victim: str) -> int:
        deadline = time.monotonic() + _ASK_S
        while True:  # ends with the deadline
            try:
                return accounts.balance(victim).balance
            except AccountError as error:
                if not isinstance(error, Unavailable) or time.monotonic() > deadline:
                    raise Poisoned(
                        f"after a deposit with a poisoned argument the account is not served: {error}"
                    ) from error


def _open(accounts: Accounts, victim: str) -> None:
    """With patience: the deadline of a call is short for the fault's sake."""
    deadline = time.monotonic() + _ASK_S
    while True:  # ends with the deadline
        try:
            accounts.open_account(victim, _OPENING)
        except AccountExists:
            return
        except AccountError as error:
            if time.monotonic() > deadline:
                raise NotInjected(f"no account could be opened for the poison: {error}") from error
        else:
            return


class _MethodFault(ClusterFault):
    """One call of `deposit`, of one actor, goes wrong inside its worker: the live actor is patched for that call."""

    kind: str
    """For `_next_deposit`."""
    _struck: tuple[str, str, int] | None = None
    """Worker, key, process id."""

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        if Resource.DASK in claims.needs:
            return None
        if kind_for(claims):
            return "its owner is a server, which runs no Python"
        return "its owner's methods run in the driver, which the harness lives in"

    def inject(self, accounts: Accounts) -> str:
        actors = [(worker, key) for worker, keys in self.actors().items() for key in keys]
        if not actors:
            raise NotInjected("no worker holds an actor")
        worker, key = self.chance.choice(actors)
        self._struck = worker, key, self.environment.worker_pids()[worker]
        try:
            self._ask(worker, _next_deposit(key, self.kind, self.lasts_s))
        except AttributeError as error:
            raise NotInjected("the actor has no method deposit to be patched") from error
        return f"actor {actors.index((worker, key))} of {len(actors)}"

    def confirm(self, begun_again: int) -> None:
        assert self._struck is not None
        worker, key, _ = self._struck
        if not self._ask(worker, _was_called(key)):
            raise NotInjected("nobody called the patched method")

    def _ask(self, worker: str, question: Callable[..., Any]) -> Any:
        client = self.environment.client
        return in_time(_ASK_S, lambda: client.run(question, workers=[worker]))[worker]


class PoisonResult(_MethodFault):
    """The owner's method has its effect, and returns what cannot be serialised."""

    fault = Fault.POISON_RESULT
    target = "the next deposit into one actor"
    emulates = "an owner's bug: a lock, a socket or a generator in an answer"
    healed_by = "nothing: only that call is concerned"
    cannot_show = "a result that cannot be read where it arrives"
    kind = "result"


class MethodExit(_MethodFault):
    """The owner's method raises SystemExit, which ends its worker."""

    fault = Fault.METHOD_EXIT
    target = "the next deposit into one actor"
    emulates = "an owner, or a library that it uses, that calls sys.exit()"
    healed_by = "the worker's nanny, which starts a blank one"
    cannot_show = "an exit after the effect; here it comes before"
    kind = "exit"

    def confirm(self, begun_again: int) -> None:
        assert self._struck is not None
        worker, _, pid = self._struck
        if worker in self.environment.scheduler.workers:
            with suppress(OSError, LookupError, TimeoutError):  # it is leaving
                super().confirm(begun_again)
        await_state(pid, lambda found: found is None)  # that takes 2 s, from when it has left


class MethodHang(_MethodFault):
    """The owner does not return for longer than a deadline: one method of an actor, or a script in a server."""

    fault = Fault.METHOD_HANG
    target = "the next deposit into one actor, which waits before it does its work; or the server, by a script"
    emulates = "a method that waits for a lock or for another system; a careless script on a shared server"
    healed_by = "the method's return; for a server, SCRIPT KILL"
    cannot_show = (
        "a method that never returns, which keeps its worker's only thread for actors; a server's default patience "
        "with scripts (5 s): it says BUSY to others after 1.25 deadlines here"
    )
    kind = "hang"
    _script: _HangingScript | None = None

    @property
    def lasts_s(self) -> float:
        return 1.5 * self.deadline_s

    @classmethod
    def out_of_reach(cls, claims: Capabilities, caller: Caller) -> str | None:
        return None if Resource.REDIS in claims.needs else super().out_of_reach(claims, caller)

    @classmethod
    def missing(cls, environment: Environment, claims: Capabilities) -> str | None:
        return super().missing(environment, claims) or environment.users_server(claims)

    @contextmanager
    def prepared(self, context: Context) -> Iterator[Context]:
        with super().prepared(context), ExitStack() as self._stack:
            yield context

    def inject(self, accounts: Accounts) -> str:
        if Resource.REDIS not in self.claims.needs:
            return super().inject(accounts)
        url = self.environment.server(self.claims).url
        self._script = self._stack.enter_context(_HangingScript(url, 1.25 * self.deadline_s, 2 * self.lasts_s))
        return "the server"

    def heal(self) -> None:
        if self._script is not None:
            self._script.end()

    def confirm(self, begun_again: int) -> None:
        if self._script is None:
            super().confirm(begun_again)
        elif not self._script.was_killed:
            raise NotInjected("the script had ended before it was killed")


class _HangingScript:
    """A script that occupies a server until it is ended, or for `limit_s` of processor time. A context manager."""

    def __init__(self, url: str, patience_s: float, limit_s: float) -> None:
        """After `patience_s` the server stops being silent to others, and tells them that it is busy."""
        self.was_killed = False
        self._url = url
        self._patience_ms = round(1000 * patience_s)
        self._limit_s = limit_s
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._server = self._connected()
            self._usual = str(self._server.config_get("lua-time-limit")["lua-time-limit"])
            self._server.config_set("lua-time-limit", self._patience_ms)
            # Its answer comes when it is killed; nobody reads it.
            connection = self._connected().connection
            assert connection is not None
            connection.send_command("EVAL", _HANG_SCRIPT, 0, self._limit_s)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            self.end()
            self._server.config_set("lua-time-limit", self._usual)

    def end(self) -> None:
        """Kill it, if it still runs, and wait until it is gone: the server only makes a note of the order."""
        import redis

        with suppress(redis.ResponseError):  # NOTBUSY
            self._server.script_kill()
            self.was_killed = True
        deadline = time.monotonic() + _ASK_S
        while True:
            try:
                self._server.ping()
            except redis.ResponseError:  # BUSY
                if time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(_POLL_S)

    def _connected(self) -> redis.Redis:
        import redis

        client = redis.Redis.from_url(self._url, socket_timeout=_ASK_S, retry=None, single_connection_client=True)
        self._stack.callback(client.close)
        return client


def _poisoned_deposit(account: str, poison: str) -> Callable[[Accounts], str]:
    """A deposit of 1. What is nested travels by value into a task."""

    def deposit(accounts: Accounts) -> str:
        def refuse(*_: object) -> Any:
            raise RuntimeError("this cannot be pickled")

        class Garbled(str):
            """The account to whoever asks it; not to what reads its characters."""

            def __eq__(self, other: object) -> bool:
                return account == other

            def __hash__(self) -> int:
                return hash(account)

            def isascii(self) -> bool:
                return True

            def encode(self, *_: Any) -> bytes:
                return account.encode()

        name, amount = account, 1
        if poison == "name not to be encoded":
            name = Garbled(account + "\ud800")
        elif poison == "name not to be pickled":
            name = type("Name", (str,), {"__reduce_ex__": refuse})(account)
        else:
            amount = type("Amount", (int,), {"__reduce_ex__": refuse})(amount)
        try:
            accounts.deposit(name, amount)
        except Exception as error:
            return type(error).__name__
        return "a receipt"

    return deposit


def _next_deposit(key: str, kind: str, lasts_s: float) -> Callable[..., None]:
    """What makes the actor's next deposit go wrong, in its worker: a call of `deposit`, or of `apply` with a batch."""

    def patch(dask_worker: Any) -> None:
        import threading
        import time

        actor = dask_worker.state.actors[key]

        def poisoned(method: Any) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                for name in methods:
                    delattr(actor, name)
                if kind == "exit":
                    raise SystemExit(1)
                if kind == "hang":
                    time.sleep(lasts_s)
                    return method(*arguments, **options)
                method(*arguments, **options)
                return threading.Lock()

            return call

        methods = [name for name in ("deposit", "apply") if hasattr(actor, name)]
        if not methods:
            raise AttributeError("deposit")
        for name in methods:
            setattr(actor, name, poisoned(getattr(actor, name)))

    return patch


def _was_called(key: str) -> Callable[..., bool]:
    """Whether the patched method was called; it is not patched any more, either way."""

    def look(dask_worker: Any) -> bool:
        patched = vars(dask_worker.state.actors[key])
        return [patched.pop(name, None) for name in ("deposit", "apply")] == [None, None]

    return look
