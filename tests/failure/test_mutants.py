"""The checker catches every planted bug, and calls it by its name."""

from __future__ import annotations

import pytest

from tests.failure import mutants
from tests.failure.mutants import Mutant
from tests.failure.simulation import run

SEEDS = range(20)
FIRED_MIN = 8
CAUGHT_MIN = 0.9
"""Of the runs in which the bug showed: some cannot be told from what may happen, such as a stale read that overlaps."""


def planted() -> list[type[Mutant]]:
    found = [each for each in vars(mutants).values() if isinstance(each, type) and issubclass(each, Mutant)]
    return [each for each in found if "kinds" in vars(each)]


def test_there_are_many_and_each_says_what_it_does() -> None:
    assert len(planted()) >= 24
    assert all(each.__doc__ for each in planted())
    assert len({each.__doc__ for each in planted()}) == len(planted())


@pytest.mark.parametrize("kind", planted(), ids=lambda each: each.__name__)
def test_a_planted_bug_is_caught_under_its_name(kind: type[Mutant]) -> None:
    fired, caught, named = 0, 0, 0
    for seed in SEEDS:
        made = run(kind.setting, seed, kind)
        if not made.owner.fired:
            continue
        fired += 1
        verdict = made.verdict(across_accounts=kind.across_accounts)
        found = {each.kind for each in verdict.violations}
        caught += bool(found & set(kind.kinds))
        named += kind.kinds[0] in found
        for each in verdict.violations:
            assert all(0 <= row < len(made.history) for row in each.rows)
            assert each.words
    assert fired >= FIRED_MIN
    assert caught >= CAUGHT_MIN * fired
    assert named
