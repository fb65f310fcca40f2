"""Throughput, latency and outages from histories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.harness.history import NEVER_NS, OK, Bools, Floats, History, Int64s

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}

_SAMPLES_BEYOND = 3
"""Samples that must lie beyond a percentile: 300 for a p99. With fewer it is one operation's luck."""


@dataclass(frozen=True)
class Speed:
    """Throughput and latency of one trial's answered operations."""

    seconds: float
    operations: int
    ops_per_s: float
    latency_us: dict[str, float | None]
    """By percentile name and `max`. A percentile that too few samples lie beyond is None, and so is one that
    falls among operations that were due and never sent."""
    warmup_operations: int
    """Answered before the measured time."""
    achieved_ratio: float | None = None
    """Open loop: answered operations over those that were due, in the measured time."""
    generator_share: float | None = None
    """Closed loop: share of its clients' time that was not spent in calls."""
    generator_lag_us_p99: float | None = None
    """Open loop: how late operations were sent by clients that were free to send them."""


def speed(history: History, warmup_s: float, seconds: float | None = None) -> Speed:
    """Of a closed loop: operations sent after the warm-up, up to the moment at which the first client had finished.

    At most `seconds` of them. Latency is service time.
    """
    clients = [history.client == client for client in np.unique(history.client)]
    begin_ns = max(int(history.sent_ns[rows].min()) for rows in clients) + int(warmup_s * 1e9)
    end_ns = min(int(history.done_ns[rows].max()) for rows in clients)
    if seconds is not None:
        end_ns = min(end_ns, begin_ns + int(seconds * 1e9))
    within = (history.sent_ns >= begin_ns) & (history.done_ns <= end_ns)
    rows = within & (history.fate == OK)
    measured_s = max((end_ns - begin_ns) / 1e9, 1e-9)
    latency_ns = (history.done_ns - history.sent_ns)[rows]
    return Speed(
        seconds=measured_s,
        operations=len(latency_ns),
        ops_per_s=len(latency_ns) / measured_s,
        latency_us=_percentiles_us(latency_ns),
        warmup_operations=int(((history.sent_ns < begin_ns) & (history.fate == OK)).sum()),
        generator_share=_share_between_calls(history.where(within)),
    )


def open_speed(history: History, due_s: Floats, warmup_s: float, seconds: float) -> Speed:
    """Of an open loop: operations that were due in `seconds` after the warm-up. Latency is response time.

    `due_s` are the due times of all operations from the start, sent or not.
    """
    start_ns = int(history.due_ns.min()) - int(due_s[0] * 1e9)
    begin_ns = start_ns + int(warmup_s * 1e9)
    end_ns = begin_ns + int(seconds * 1e9)
    answered = history.fate == OK
    within = (history.due_ns >= begin_ns) & (history.due_ns < end_ns)
    latency_ns = (history.done_ns - history.due_ns)[within & answered]
    due = int(((due_s >= warmup_s) & (due_s < warmup_s + seconds)).sum())
    # Clients take operations in the order in which they are due, so what was never sent is the last.
    unsent_s = due_s[len(history) :]
    never_sent = int(((unsent_s >= warmup_s) & (unsent_s < warmup_s + seconds)).sum())
    done = int((answered & (history.done_ns >= begin_ns) & (history.done_ns < end_ns)).sum())
    return Speed(
        seconds=seconds,
        operations=len(latency_ns),
        ops_per_s=done / seconds,
        latency_us=_percentiles_us(latency_ns, never_sent=never_sent),
        warmup_operations=int(((history.due_ns < begin_ns) & answered).sum()),
        achieved_ratio=min(1.0, done / due) if due else None,
        generator_lag_us_p99=_lag_us_p99(history, within),
    )


def _percentiles_us(latency_ns: Int64s, never_sent: int = 0) -> dict[str, float | None]:
    ordered = np.sort(latency_ns)
    samples = len(ordered) + never_sent
    found: dict[str, float | None] = {}
    for name, percentile in PERCENTILES.items():
        known = samples * (100 - percentile) / 100 >= max(_SAMPLES_BEYOND, never_sent + 1)
        # What was never sent took longer than anything that was: the percentile moves up among the others.
        rank = percentile * (samples - 1) / max(1, len(ordered) - 1)
        found[name] = round(float(np.percentile(ordered, min(100.0, rank))) / 1e3, 3) if known else None
    found["max"] = round(float(ordered[-1]) / 1e3, 3) if len(ordered) and not never_sent else None
    return found


def _gaps_ns(history: History) -> tuple[Int64s, Bools]:
    """Time from each row's answer to the same client's next call, and which rows have a next one."""
    same_client = history.client[1:] == history.client[:-1]
    return history.sent_ns[1:] - history.done_ns[:-1], same_client


def _share_between_calls(history: History) -> float | None:
    """None where a client has several operations in flight: its time is then not one after another."""
    gaps_ns, same_client = _gaps_ns(history)
    one_call = history.sent_ns[1:] == history.sent_ns[:-1]
    if not len(gaps_ns) or bool((same_client & ~one_call & (gaps_ns < 0)).any()):
        return None
    between_ns = int(gaps_ns[same_client & ~one_call].sum())
    new_call = np.concatenate([[True], ~(same_client & one_call)])
    called_ns = int((history.done_ns - history.sent_ns)[new_call].sum())
    return round(between_ns / max(1, between_ns + called_ns), 4)


def _lag_us_p99(history: History, within: Bools) -> float | None:
    if not len(history):
        return None
    # Of what is sent in one call, the last: a batch waits for it.
    same_client = history.client[1:] == history.client[:-1]
    last = np.append(~same_client | (history.sent_ns[1:] != history.sent_ns[:-1]), True)
    calls, counted = history.where(last), within[last][1:]
    if not counted.any():
        return None
    free_ns = np.where(calls.client[1:] == calls.client[:-1], calls.done_ns[:-1], 0)
    lag_ns = calls.sent_ns[1:] - np.maximum(calls.due_ns[1:], free_ns)
    return round(float(np.percentile(np.maximum(lag_ns[counted], 0), 99)) / 1e3, 3)


@dataclass(frozen=True)
class Outage:
    """How one fault was felt by callers. Seconds; a mean gap between due times is the resolution."""

    unavailable_s: float
    """Longest time for which some account got no acknowledgement, from the fault to the end of the load."""
    detection_s: float | None
    """From the fault to the first caller that was told of it; None if nobody was."""
    recovery_s: float | None
    """From the fault until every account that was asked was served again, and refused no more; None if one never was,
    or none was asked."""
    served_again: bool
    """Whether every account that was asked was served again. One whose caller died with the fault was not asked."""


def outage(history: History, fault_ns: int) -> Outage:
    """What the accounts' callers saw after `fault_ns`, a reading of `perf_counter_ns`."""
    returned = history.where(history.done_ns != NEVER_NS)
    if not len(returned):
        return Outage(0.0, None, None, served_again=True)
    end_ns = int(returned.done_ns.max())
    failed = returned.where((returned.fate != OK) & (returned.done_ns >= fault_ns))
    # What was acknowledged after the blow and sent before it may be its caller's last: a kill takes a moment.
    asked = np.unique(np.concatenate([returned.account[returned.sent_ns >= fault_ns], failed.account]))
    acknowledged = returned.where(returned.fate == OK)
    gaps_ns, back_ns = [0], []
    for account in asked:
        done = np.sort(acknowledged.done_ns[acknowledged.account == account])
        edges = np.concatenate([[fault_ns], done[done >= fault_ns], [end_ns]])
        gaps_ns.append(int(np.diff(edges).max()))
        refused_ns = int(failed.done_ns[failed.account == account].max(initial=fault_ns))
        # Before the last refusal it was not served for good: a fault may take its time to bite.
        served = acknowledged.account == account
        served &= acknowledged.sent_ns >= refused_ns
        back_ns.append(int(acknowledged.done_ns[served].min()) - fault_ns if served.any() else None)
    latest = [back for back in back_ns if back is not None]
    served_again = len(latest) == len(back_ns)
    return Outage(
        unavailable_s=max(gaps_ns) / 1e9,
        detection_s=(int(failed.done_ns.min()) - fault_ns) / 1e9 if len(failed) else None,
        recovery_s=max(latest) / 1e9 if latest and served_again else None,
        served_again=served_again,
    )
