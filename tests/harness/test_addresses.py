"""Addresses in URLs of servers: found, replaced, and shown without secrets."""

from __future__ import annotations

import pytest

from benchmarks.harness.servers import addresses_of, at_addresses, without_secret


@pytest.mark.parametrize(
    ("url", "addresses", "moved", "shown"),
    [
        ("redis://:secret@h:6379/0", [("h", 6379)], "redis://:secret@p:1/0", "redis://h:6379/0"),
        ("redis://h/0?password=secret", [("h", 0)], "redis://p:1/0?password=secret", "redis://h/0"),
        (
            "zookeeper://a:1,b:2,c:3/bench",
            [("a", 1), ("b", 2), ("c", 3)],
            "zookeeper://p:1,p:2,p:3/bench",
            "zookeeper://a:1,b:2,c:3/bench",
        ),
        ("x://user:secret@a:1,b:2", [("a", 1), ("b", 2)], "x://user:secret@p:1,p:2", "x://a:1,b:2"),
    ],
)
def test_addresses(url: str, addresses: list[tuple[str, int]], moved: str, shown: str) -> None:
    assert addresses_of(url) == addresses
    assert at_addresses(url, [("p", number) for number in range(1, len(addresses) + 1)]) == moved
    assert without_secret(url) == shown


@pytest.mark.parametrize("url", ["redis://:secret/x@h:1", "redis://:secret,more/x@h:1", "redis://:s@h:secret"])
def test_what_is_no_url_shows_no_secret_either(url: str) -> None:
    assert "secret" not in without_secret(url)
    assert "more" not in without_secret(url)
