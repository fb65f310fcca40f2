"""A pool of fronts: each request to the next one; those that are gone are replaced while the others go on."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait

from strategies.interface.errors import AccountError
from strategies.support.actor_ways import ActorGone
from strategies.support.actors import ActorBank, ActorRef, make_room
from strategies.support.cluster import NoCluster
from strategies.support.fates import NotAnswered, NotSent
from strategies.support.front_actor import FrontActor, request

_PATIENCE = 1 / 3
"""The part of a call's time after which another front is asked, where asking again does no harm."""

_ATTEMPTS = 12
"""Of one call; most of them find a front gone, which takes a millisecond."""

_AVOIDED_S = 1.0
"""How long the fronts of a worker that did not answer are not asked while there are others."""

_MAKING_S = 3.0
"""For new workers to import what fronts need. Calls wait as long as they may, the next one for the same fronts."""

_PAUSE_S = 0.1
"""Between two attempts to make fronts."""


class Fronts:
    """The fronts of one bank, from one process; shared by its threads."""

    def __init__(self, bank: ActorBank, known: Sequence[ActorRef]) -> None:
        self._bank = bank
        self._known = list(known)
        self._size = len(known)
        self._turns = itertools.count(random.randrange(self._size))
        self._avoided: dict[str, float] = {}
        """Addresses of workers, and until when."""
        self._lock = threading.Lock()
        self._making: Future[list[ActorRef]] | None = None

    @property
    def known(self) -> Sequence[ActorRef]:
        """For a copy of the handle."""
        return self._known

    def ask(self, handle: bytes, batch: bytes, deadline: float, *, again: bool) -> bytes | memoryview:
        """The reply to a request; `again` allows to send it to one front after another until one answers.

        Raises:
            NotSent: it had no effect.
            NotAnswered: nobody knows whether it had any.
        """
        patience_s = (deadline - time.monotonic()) * _PATIENCE
        unanswered: Exception | None = None
        try:
            for front in itertools.islice(self._next(deadline), _ATTEMPTS):
                remaining_s = deadline - time.monotonic()
                is_last = not again or remaining_s < 1.5 * patience_s
                until = deadline if is_last else deadline - remaining_s + patience_s
                try:
                    return self._bank.ask(front, request(handle, remaining_s, batch), until)
                except (ActorGone, NotSent, NoCluster) as error:
                    problem: Exception = error
                except AccountError:  # of a handle that is closed
                    raise
                except Exception as error:
                    unanswered = problem = error
                    if not again:
                        break
                self._avoided[front.address] = time.monotonic() + _AVOIDED_S
        except NotSent as error:
            problem = error
        if unanswered is not None:
            raise NotAnswered(str(unanswered) or repr(unanswered)) from unanswered
        raise NotSent(str(problem) or "the fronts are gone") from problem

    def _next(self, deadline: float) -> Iterator[ActorRef]:
        """One front after the other.

        Raises:
            NotSent: there is none, and none could be made in time.
        """
        while True:  # ends with the deadline
            live = [front for front in self._known if not front.gone]
            making = self._make() if len(live) < self._size else None
            now = time.monotonic()
            if now >= deadline:
                raise NotSent("the deadline had passed")
            if live:
                trusted = [front for front in live if self._avoided.get(front.address, 0.0) < now]
                yield (trusted or live)[next(self._turns) % len(trusted or live)]
            elif making is not None:
                make_room()
                wait([making], deadline - now)
                if not making.done():
                    raise NotSent("no front is left, and none could be made in time")

    def _make(self) -> Future[list[ActorRef]]:
        """Have fronts made in place of those that are gone, if nobody does yet. It may come to nothing."""
        with self._lock:
            if self._making is None or self._making.done():
                self._making = Future()
                threading.Thread(target=self._run, args=[self._making], name="fronts", daemon=True).start()
            return self._making

    def _run(self, making: Future[list[ActorRef]]) -> None:
        gone = {front.key for front in self._known if front.gone}
        try:
            found = self._bank.open_shards(self._size, FrontActor, lost=gone, timeout_s=_MAKING_S)
        except Exception as error:
            time.sleep(_PAUSE_S)
            making.set_exception(error)
        else:
            self._known = found
            self._avoided.clear()
            making.set_result(found)
