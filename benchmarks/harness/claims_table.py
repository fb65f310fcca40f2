"""What every strategy claims, as the table of docs/strategies.md: a row for each variant, from the claims alone."""

from __future__ import annotations

from benchmarks.harness import faults
from strategies.interface import Accounts, Batched, Capabilities, Fault, Pipelined, Retries, load, names

HEADER = (
    *("strategy", "durability", "consistency", "transfers", "sent again with an op id", "`apply`", "`submit`"),
    *("callers", "needs", "does not survive"),
)


def claims_table() -> list[list[str]]:
    """Header, then rows."""
    return [list(HEADER), *(_row(load(name), variant) for name in names() for variant in _variants(name))]


def does_not_survive(claims: Capabilities) -> list[Fault]:
    """The faults that can reach it, and after which something acknowledged may be lost, or service not resume."""
    return [
        fault
        for fault in Fault
        if fault not in claims.survives
        and any(faults.load(fault).out_of_reach(claims, caller) is None for caller in claims.callers)
    ]


def _variants(name: str) -> tuple[str, ...]:
    return load(name).capabilities.variants


def _row(kind: type[Accounts], variant: str) -> list[str]:
    claims = kind.claims(variant)
    needs: list[str] = sorted(claims.needs)
    if claims.nodes > 1:
        needs.append(f"{claims.nodes} nodes")
    return [
        f"{kind.name}:{variant}",
        claims.durability,
        claims.consistency,
        claims.transfers,
        "one effect" if claims.retries is Retries.SAFE_WITH_OP_ID else "may double",
        "native" if issubclass(kind, Batched) else "n/a",
        "native" if issubclass(kind, Pipelined) else "n/a",
        ", ".join(sorted(claims.callers)),
        ", ".join(needs) or "-",
        ", ".join(f"`{fault}`" for fault in does_not_survive(claims)) or "-",
    ]
