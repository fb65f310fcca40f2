"""Parametrises by what strategies claim. A new strategy is covered as soon as its file is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from benchmarks.harness.environment import Environment
from strategies.interface import Accounts, Caller, Capabilities
from tests.contract.callers import InTasks
from tests.contract.rows import PLACES, Place, Row, rows

Opener = Callable[[], Accounts]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" in metafunc.fixturenames:
        alike = metafunc.definition.get_closest_marker("alike") is not None
        chosen = rows(everywhere=metafunc.config.getoption("everywhere"), alike=alike)
        metafunc.parametrize("row", chosen, ids=str)
    elif "place" in metafunc.fixturenames:
        metafunc.parametrize("place", PLACES, ids=str)


def skip_if_missing(claims: Capabilities, environment: Environment) -> None:
    missing = environment.missing(claims)
    if missing:
        pytest.skip(missing)


@pytest.fixture
def claims(row: Row) -> Capabilities:
    return row.claims


@pytest.fixture
def open_handle(row: Row, environment: Environment, bank: str) -> Iterator[Opener]:
    """Opens one more handle on the test's bank; calls come from where the row says."""
    skip_if_missing(row.claims, environment)
    opened: list[Accounts] = []

    def open_one() -> Accounts:
        handle = row.place.kind.open(row.place.context(environment, bank))
        opened.append(handle)
        return InTasks(handle, environment.client) if row.caller is Caller.TASK else handle

    try:
        yield open_one
    finally:
        for handle in opened:
            handle.close()
        environment.drop_actors()


@pytest.fixture
def accounts(open_handle: Opener) -> Accounts:
    """A handle on a blank bank."""
    return open_handle()


@pytest.fixture
def open_in_driver(place: Place, environment: Environment, bank: str) -> Iterator[Opener]:
    """As `open_handle`, for what does not depend on where calls come from."""
    skip_if_missing(place.claims, environment)
    opened: list[Accounts] = []

    def open_one() -> Accounts:
        opened.append(place.kind.open(place.context(environment, bank)))
        return opened[-1]

    try:
        yield open_one
    finally:
        for handle in opened:
            handle.close()
        environment.drop_actors()
