"""Whether one order of all operations fits all accounts: a transfer's two legs are one instant."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.harness.history import Bools, Int64s
from benchmarks.harness.legs import Legs

_CYCLE_NODES_MAX = 2_000
"""Of a set of operations that are in each other's way, so many are searched for the shortest cycle."""
_CYCLE_STARTS_MAX = 64


def cycles(line: Legs, begins: Bools, broken: Bools) -> list[list[int]]:
    """Circles of operations, as rows: each comes before the next, by an account's seqs or by real time.

    One for each set of operations that cannot be put in order. `line` is in each account's order, where `begins`
    marks the first of each; `broken` accounts, which have no order, do not count.
    """
    if not line.is_transfer.any():
        return []
    rows, node = np.unique(line.row, return_inverse=True)
    size = len(rows)
    begun_ns, done_ns = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
    begun_ns[node], done_ns[node] = line.begun_ns, line.done_ns
    before, after = _by_seq(line, node, begins, broken)

    # An instant just before each operation began leads to it and to the next such instant; what is complete by then
    # leads to the instant. So real time takes as many edges as operations, not their square.
    by_begin = np.argsort(begun_ns, kind="stable")
    instant = size + np.arange(size)
    next_instant = np.searchsorted(begun_ns[by_begin], done_ns, side="right")
    precedes = next_instant < size
    start = np.concatenate([before, instant, instant[:-1], np.flatnonzero(precedes)], dtype=np.int32)
    end = np.concatenate([after, by_begin, instant[1:], size + next_instant[precedes]], dtype=np.int32)
    graph = coo_array((np.ones(len(start), dtype=np.int8), (start, end)), shape=(2 * size, 2 * size)).tocsr()
    count, component = connected_components(graph, connection="strong")
    if count == 2 * size:
        return []
    component = component[:size]
    members = np.bincount(component)
    found = []
    for each in np.flatnonzero(members > 1).tolist():
        inside = np.flatnonzero(component == each)[:_CYCLE_NODES_MAX]
        found.append(rows[_shortest(inside, before, after, begun_ns, done_ns)].tolist())
    return found


def _by_seq(line: Legs, node: Int64s, begins: Bools, broken: Bools) -> tuple[Int64s, Int64s]:
    """Edges between operations on one account: from each change to what comes behind it until the next, and to that.

    Reads of one state have no order among them.
    """
    size = len(line)
    index = np.arange(size)
    counts = ~broken[line.account]
    change = np.where(line.is_read, -1, index)
    begin = index[begins][np.cumsum(begins) - 1]
    last_change = np.concatenate([[-1], np.maximum.accumulate(change)[:-1]])
    has_before = (last_change >= begin) & counts
    following = np.minimum.accumulate(np.where(line.is_read, size, index)[::-1])[::-1]
    next_change = np.append(following[1:], size)
    end = np.append(index[begins][1:], size)[np.cumsum(begins) - 1]
    has_after = (next_change < end) & counts & line.is_read
    before = np.concatenate([node[last_change[has_before]], node[index[has_after]]])
    after = np.concatenate([node[index[has_before]], node[next_change[has_after]]])
    other = before != after  # a transfer to the same account
    return before[other], after[other]


def _shortest(inside: Int64s, before: Int64s, after: Int64s, begun_ns: Int64s, done_ns: Int64s) -> Int64s:
    """The shortest circle through one of the first of these operations; as they are if none is found."""
    size = len(inside)
    leads = done_ns[inside][:, None] < begun_ns[inside][None, :]
    both = np.isin(before, inside) & np.isin(after, inside)
    leads[np.searchsorted(inside, before[both]), np.searchsorted(inside, after[both])] = True
    best: Int64s | None = None
    for start in range(min(size, _CYCLE_STARTS_MAX)):
        reached_from = np.full(size, -1)
        reached_from[start] = start
        front, length = np.array([start]), 1
        while len(front) and (best is None or length < len(best)):
            closing = front[leads[front, start]]
            if len(closing):
                path = [int(closing[0])]
                while path[-1] != start:
                    path.append(int(reached_from[path[-1]]))
                best = np.array(path[::-1])
                break
            steps = leads[front] & (reached_from < 0)[None, :]
            new = np.flatnonzero(steps.any(axis=0))
            reached_from[new] = front[steps[:, new].argmax(axis=0)]
            front, length = new, length + 1
    return inside if best is None else inside[best]
