"""Which rejections gave a reason that did not hold at any time while the call ran."""

from __future__ import annotations

import numpy as np

from benchmarks.harness.attempts import Attempts
from benchmarks.harness.history import DEPOSIT, REASONS, TRANSFER, WITHDRAW, Bools, History, Int64s
from benchmarks.harness.legs import Final, range_minimum, repeats, running_maximum
from benchmarks.harness.receipts import Replay
from strategies.interface import DEDUP_WINDOW, MAX_MONEY

_CODE = {name: code for code, name in enumerate(REASONS)}


def wrong_rejections(
    history: History, attempts: Attempts, replay: Replay, opening: int, final: Final
) -> tuple[Int64s, Int64s]:
    """Rows of rejections that are wrong; first those that a balance disproves, then those that need none.

    Where it is not told which states an account went through meanwhile, nobody is accused.
    """
    rows = np.flatnonzero(attempts.refuses & (history.reason != 0))
    if not len(rows):
        return rows, rows
    reason, function, amount = history.reason[rows], history.function[rows], history.amount[rows]
    source, target = history.account[rows].astype(np.int64), history.target[rows].astype(np.int64)
    there = final.is_there & ~replay.broken_accounts

    def is_reason(name: str) -> Bools:
        found: Bools = reason == _CODE[name]
        return found

    in_range = (amount >= 1) & (amount <= MAX_MONEY)
    takes = (function == WITHDRAW) | (function == TRANSFER)
    receiver = np.where(function == TRANSFER, target, source)
    refused_funds = is_reason("InsufficientFunds") & takes & there[source]
    refused_sum = is_reason("InvalidAmount") & in_range & there[receiver]
    refused_sum &= (function == DEPOSIT) | ((function == TRANSFER) & (source != target))
    disproved = np.zeros(len(rows), dtype=np.bool_)
    for asked, account, sign in ((refused_funds, source, 1), (refused_sum, receiver, -1)):
        chosen = np.flatnonzero(asked)
        if len(chosen):
            worst = _worst(history, attempts, replay, opening, final, rows[chosen], account[chosen], sign)
            bound = amount[chosen] if sign > 0 else amount[chosen] - MAX_MONEY
            disproved[chosen] = (worst != _UNTOLD) & (worst >= bound)

    never_too_much = (function == WITHDRAW) | ((function == TRANSFER) & (source == target))
    both_there = final.is_there[source] & ((function != TRANSFER) | final.is_there[target])
    baseless = (
        (is_reason("InsufficientFunds") & ~takes)
        | (is_reason("InvalidAmount") & in_range & never_too_much)
        | (is_reason("UnknownAccount") & both_there)
        | is_reason("AccountExists")
        | is_reason("InvalidAccount")
        | (is_reason("OutOfScope") & (function != TRANSFER))
        | (is_reason("OperationMismatch") & ~(attempts.repeated_id[rows] & history.keyed[rows]))
        | (is_reason("OperationExpired") & ~_can_have_expired(history, rows))
    )
    return rows[disproved], rows[baseless]


_UNTOLD = np.iinfo(np.int64).min


def _can_have_expired(history: History, rows: Int64s) -> Bools:
    """Whether the client ever used numbers so high that these have left the window."""
    highest = np.zeros(int(history.client.max(initial=0)) + 1, dtype=np.int64)
    np.maximum.at(highest, history.client, history.number)
    can: Bools = history.keyed[rows] & (history.number[rows] <= highest[history.client[rows]] - DEDUP_WINDOW)
    return can


def _worst(
    history: History,
    attempts: Attempts,
    replay: Replay,
    opening: int,
    final: Final,
    rows: Int64s,
    account: Int64s,
    sign: int,
) -> Int64s:
    """The least of `sign` × the balances that the account can have had while each row ran.

    `_UNTOLD` if one of them is not known.
    """
    line = replay.line
    every = np.arange(len(final.seq))
    known_account = np.concatenate([every, line.account, every[final.is_there]])
    known_seq = np.concatenate([np.ones(len(every), np.int64), line.seq, final.seq[final.is_there]])
    known_balance = np.concatenate([np.full(len(every), opening), line.balance, final.balance[final.is_there]])
    order = np.lexsort((known_seq, known_account))
    order = order[~repeats(known_account[order], known_seq[order])]
    keys = (known_account[order] << 33) + known_seq[order]

    begun_ns, done_ns = attempts.begun_ns[rows], history.done_ns[rows]
    lowest = _highest_before(line.account, line.done_ns, line.seq, account, begun_ns, 1)
    highest = final.seq[account]
    later = _highest_before(line.account, -line.begun_ns, ~line.is_read - line.seq, account, -done_ns, -highest.max())
    highest = np.minimum(highest, -later)
    begin = np.searchsorted(keys, (account << 33) + lowest)
    end = np.searchsorted(keys, (account << 33) + highest, side="right")
    worst = np.full(len(rows), _UNTOLD)
    told = (lowest <= highest) & (end - begin == highest - lowest + 1)
    if told.any():
        worst[told] = range_minimum(sign * known_balance[order], begin[told], end[told])
    return worst


def _highest_before(
    account: Int64s, at_ns: Int64s, value: Int64s, asked_account: Int64s, asked_ns: Int64s, none: int
) -> Int64s:
    """For each question, the highest value of the same account before that time; `none` without one."""
    accounts = np.concatenate([account, asked_account]).astype(np.int64)
    asks = np.arange(len(accounts)) >= len(account)
    order = np.lexsort((~asks, np.concatenate([at_ns, asked_ns]), accounts))
    values = np.concatenate([value, np.full(len(asked_ns), none)])
    distinct, rank = np.unique(np.concatenate([values, [none]]), return_inverse=True)
    rank = np.maximum(rank[:-1], rank[-1])
    highest = np.empty(len(accounts), dtype=np.int64)
    highest[order] = distinct[running_maximum(rank[order], accounts[order])]
    return highest[len(account) :]
