"""The hash ring: the same in every process, even, and stable when shards are added."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.support.sharding import HashRing, stable_digest

NAMES = [f"account-{number}" for number in range(20_000)]
_PRINT = """
from strategies.support.sharding import HashRing, stable_digest
ring = HashRing(7)
print([stable_digest(name) for name in ("a", "Zoë", "x" * 256)], [ring.shard_of(str(n)) for n in range(50)], hash("a"))
"""


def test_every_process_sees_the_same_digest_and_shard() -> None:
    seen = []
    for seed in ("0", "1", "6640", "random"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", _PRINT], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        seen.append(done.stdout.rsplit(" ", 1))
    assert len({hashed for _, hashed in seen}) > 1, "the salt of hash() must have differed, or this shows nothing"
    assert len({stable for stable, _ in seen}) == 1


def test_the_digest_never_changes() -> None:
    """A change would send a running cluster's accounts to other shards."""
    assert stable_digest("a") == 0x40F89E395B66422F
    assert [HashRing(4).shard_of(name) for name in ("a", "b", "c", "Zoë")] == [2, 1, 0, 2]
    assert 0 <= stable_digest("") < 2**64


@given(st.text(max_size=50), st.integers(1, 12))
def test_every_text_has_a_shard(name: str, shards: int) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    ring = HashRing(shards)
    assert 0 <= ring.shard_of(name) < shards
    assert HashRing(shards).shard_of(name) == ring.shard_of(name)


@pytest.mark.parametrize("shards", [1, 2, 3, 4, 8, 15])
def test_one_more_shard_takes_its_share_and_moves_nothing_else(shards: int) -> None:
    before, after = HashRing(shards), HashRing(shards + 1)
    moved = [name for name in NAMES if before.shard_of(name) != after.shard_of(name)]
    assert {after.shard_of(name) for name in moved} == {shards}, "only to the new shard"
    fair = 1 / (shards + 1)
    assert 0.6 * fair < len(moved) / len(NAMES) < 1.5 * fair


@pytest.mark.parametrize("shards", [2, 4, 8, 16])
def test_shards_hold_about_the_same(shards: int) -> None:
    ring = HashRing(shards)
    held = Counter(ring.shard_of(name) for name in NAMES)
    assert set(held) == set(range(shards))
    assert max(held.values()) < 1.4 * len(NAMES) / shards
    assert min(held.values()) > 0.6 * len(NAMES) / shards


@pytest.mark.parametrize("shards", [0, -1])
def test_a_ring_has_a_shard(shards: int) -> None:
    with pytest.raises(ValueError, match=str(shards)):
        HashRing(shards)
