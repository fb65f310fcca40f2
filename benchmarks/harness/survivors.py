"""Which acknowledged changes lie on the way to the final state."""

from __future__ import annotations

import numpy as np

from benchmarks.harness.history import Bools, Int64s
from benchmarks.harness.legs import Final, Legs, among, places, repeats, running_maximum


def survivors(answers: Legs, state: Final) -> tuple[Bools, Bools]:
    """Which acknowledged changes are in the final state, and of which ones that is not told for certain.

    What a later owner answered first shows from where it went on: what an earlier owner acknowledged behind that is
    gone, unless the later one's changes go on from it. Of several under one seq of one owner, all but one were
    overwritten. Reads survive.
    """
    account, seq, epoch = answers.account, answers.seq, answers.epoch
    counts = (seq <= state.seq[account]) & (epoch <= state.epoch[account])
    survives: Bools = counts | answers.is_read
    superseded = np.flatnonzero(superseded_by_owners(answers, counts) & ~answers.is_read)
    survives[superseded] = False
    changes = np.flatnonzero(survives & ~answers.is_read)
    if len(superseded):
        survives[superseded] = _gone_on_from(answers, superseded, changes, state)

    untold = np.zeros_like(survives)
    changes = changes[np.argsort(places(answers)[changes], kind="stable")]
    again = repeats(account[changes], seq[changes])
    if again.any():
        _overwrite(answers, changes[np.append(again[1:], False) | again], state, survives, untold)
    return survives, untold


def superseded_by_owners(answers: Legs, counts: Bools) -> Bools:
    """Of those that count, answers of an owner behind one of a later owner, which has an earlier seq or the same."""
    superseded = np.zeros(len(answers), dtype=np.bool_)
    epoch = answers.epoch
    if not len(epoch) or epoch.min() == epoch.max():
        return superseded
    rows = np.flatnonzero(counts)
    owner = np.unique(epoch[rows], return_inverse=True)[1]
    # Who reads the state that an earlier owner left, reads it later.
    order = np.lexsort((np.where(answers.is_read[rows], owner, -owner), places(answers)[rows]))
    rows, owner = rows[order], owner[order]
    superseded[rows] = owner != running_maximum(owner, answers.account[rows])
    return superseded


def _gone_on_from(answers: Legs, superseded: Int64s, kept: Int64s, state: Final) -> Bools:
    """Which of an earlier owner's changes a later owner, or the final state, has below its own."""
    legs, later = answers.where(superseded), answers.where(kept)
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


def _overwrite(answers: Legs, rivals: Int64s, state: Final, survives: Bools, untold: Bools) -> None:
    """Let one of the rivals, in order, for each place survive.

    That one which the final receipt shows or the next change goes on from. Where it is not told so,
    the one by which the fewest transfers are torn; at last the one that was answered last, as where a store
    went back to an earlier state and gave out the same seqs and balances again.
    """
    acknowledged = np.flatnonzero(~answers.is_read)
    legs = answers.where(rivals)
    every = np.arange(len(state.seq))
    below = answers.balance - answers.change
    gone_on_from = (answers.account[acknowledged], answers.seq[acknowledged] - 1, below[acknowledged])
    known = [np.concatenate(pair) for pair in zip((every, state.seq, state.balance), gone_on_from, strict=True)]
    shown = among((legs.account, legs.seq, legs.balance), known)
    place = np.cumsum(~repeats(legs.account, legs.seq))
    told = (np.bincount(place, weights=shown) == 1)[place]
    survives[rivals] = told & shown
    rivals = rivals[~told]
    untold[rivals] = True

    legs = legs.where(~told)
    both_untold = np.bincount(legs.row)[legs.row] == 2
    other_is_gone = np.isin(legs.row, answers.row[~survives & ~untold])
    torn_if_kept = legs.is_transfer & other_is_gone
    torn_if_overwritten = legs.is_transfer & ~other_is_gone & ~both_untold
    doubt = torn_if_kept.astype(np.int8) - torn_if_overwritten
    # By the row, in the end: of two transfers that meet at both ends, one is kept at both.
    order = np.lexsort((legs.row, -legs.done_ns, doubt, ~shown[~told], places(legs)))
    survives[rivals[order]] = ~repeats(legs.account[order], legs.seq[order])
