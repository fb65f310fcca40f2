"""Which acknowledged changes lie on the way to the final state."""

from __future__ import annotations

import numpy as np

from benchmarks.harness.history import Bools, Int64s
from benchmarks.harness.legs import Final, Legs, among, places, repeats, running_maximum


def survivors(acknowledged: Legs, state: Final) -> tuple[Bools, Bools]:
    """Which acknowledged changes are in the final state, and of which ones that is not told for certain.

    A later owner's first change of an account shows from where it went on: what an earlier owner acknowledged from
    that seq on is gone, unless the later one's changes go on from it. Of several under one seq of one owner, all but
    one were overwritten.
    """
    account, seq, epoch = acknowledged.account, acknowledged.seq, acknowledged.epoch
    survives: Bools = (seq <= state.seq[account]) & (epoch <= state.epoch[account])
    rows = np.flatnonzero(survives)
    owner = np.unique(epoch[rows], return_inverse=True)[1]
    order = np.lexsort((-owner, places(acknowledged)[rows]))
    rows, owner = rows[order], owner[order]
    kept = owner == running_maximum(owner, account[rows])
    superseded = rows[~kept]
    rows = rows[kept]
    if len(superseded):
        survives[superseded] = False
        survives[superseded] = _gone_on_from(acknowledged, superseded, rows, state)

    untold = np.zeros_like(survives)
    again = repeats(account[rows], seq[rows])
    if again.any():
        _overwrite(acknowledged, rows[np.append(again[1:], False) | again], state, survives, untold)
    return survives, untold


def _gone_on_from(acknowledged: Legs, superseded: Int64s, kept: Int64s, state: Final) -> Bools:
    """Which of an earlier owner's changes a later owner, or the final state, has below its own."""
    legs, later = acknowledged.where(superseded), acknowledged.where(kept)
    is_free = ~among((legs.account, legs.seq), (later.account, later.seq))
    every = np.arange(len(state.seq))
    below = ((every, state.seq, state.balance), (later.account, later.seq - 1, later.balance - later.change))
    known = [np.concatenate(pair) for pair in zip(*below, strict=True)]
    found = is_free & among((legs.account, legs.seq, legs.balance), known)
    # One may lie below another that does.
    leads = {
        (account, seq, balance)
        for account, seq, balance in zip(
            legs.account[found].tolist(),
            (legs.seq[found] - 1).tolist(),
            (legs.balance[found] - legs.change[found]).tolist(),
            strict=True,
        )
    }
    if leads:
        for index in np.flatnonzero(is_free & ~found)[np.argsort(-legs.seq[is_free & ~found], kind="stable")].tolist():
            if (int(legs.account[index]), int(legs.seq[index]), int(legs.balance[index])) in leads:
                found[index] = True
                before = int(legs.balance[index] - legs.change[index])
                leads.add((int(legs.account[index]), int(legs.seq[index]) - 1, before))
    return found


def _overwrite(acknowledged: Legs, rivals: Int64s, state: Final, survives: Bools, untold: Bools) -> None:
    """Let one of the rivals, in order, for each place survive.

    That one which the final receipt shows or the next change goes on from. Where it is not told so,
    the one by which the fewest transfers are torn.
    """
    legs = acknowledged.where(rivals)
    every = np.arange(len(state.seq))
    gone_on_from = (acknowledged.account, acknowledged.seq - 1, acknowledged.balance - acknowledged.change)
    known = [np.concatenate(pair) for pair in zip((every, state.seq, state.balance), gone_on_from, strict=True)]
    shown = among((legs.account, legs.seq, legs.balance), known)
    place = np.cumsum(~repeats(legs.account, legs.seq))
    told = (np.bincount(place, weights=shown) == 1)[place]
    survives[rivals] = told & shown
    rivals = rivals[~told]
    untold[rivals] = True

    legs = legs.where(~told)
    both_untold = np.bincount(legs.row)[legs.row] == 2
    other_is_gone = np.isin(legs.row, acknowledged.row[~survives & ~untold])
    torn_if_kept = legs.is_transfer & other_is_gone
    torn_if_overwritten = legs.is_transfer & ~other_is_gone & ~both_untold
    doubt = torn_if_kept.astype(np.int8) - torn_if_overwritten
    # The first that was sent, at last: of two transfers that meet at both ends, one is kept at both.
    order = np.lexsort((legs.row, legs.begun_ns, doubt, ~shown[~told], places(legs)))
    survives[rivals[order]] = ~repeats(legs.account[order], legs.seq[order])
