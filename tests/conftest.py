"""One environment for the whole session: raising a cluster takes seconds, a test milliseconds."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from benchmarks.harness.environment import Environment


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--everywhere", action="store_true", help="call every variant from tasks too, not only the first")


@pytest.fixture(scope="session")
def environment() -> Iterator[Environment]:
    """A Dask cluster of four worker processes and a Redis server per durability class, each raised when first used."""
    with Environment() as raised:
        yield raised


@pytest.fixture
def bank(environment: Environment) -> Iterator[str]:
    """A name that no other test uses: a bank is blank when it is first opened. Its actors end with the test."""
    yield f"test-{uuid.uuid4().hex}"
    environment.drop_actors()
