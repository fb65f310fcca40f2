"""The scoreboard's baselines: `<strategy>.py` makes that strategy's single call by hand, with its own client library.

Such a module defines `opened(context)`, a context manager that prepares one account on the resources in the context
and yields a function without arguments: one deposit of 1 that keeps what the strategy's call keeps without an op id,
and nothing else. It works only if the account is there; the answer is the account's new seq and balance.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from strategies.interface import Context

Deposit = Callable[[], Sequence[int]]
Opened = Callable[[Context], AbstractContextManager[Deposit]]


def names() -> Sequence[str]:
    """Of the strategies that have such a baseline, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Opened:
    """What opens this strategy's baseline."""
    opened: Opened = importlib.import_module(f"{__name__}.{name}").opened
    return opened
