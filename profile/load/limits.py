"""Latency limits under load, as a person types them: `p95 20 ms`, `p95 20 ms, p99 50 ms`, or the gates of a budget file."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from ...core.errors import InputError
from ...core.units import parse_quantity
from ..budget import LATENCY, Max, read_budget

_WRITTEN = re.compile(r"\s*p(\d{1,2}(?:\.\d{1,3})?)\s*(?:<=|<|:|=)?\s*(\S.*)")


class LatencyLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Quantile `p` (0 to 1) of latency is to be at most `limit_ms`; `alpha` is the chance of a wrong answer, either way."""

    quantile: str
    p: float
    limit_ms: float
    alpha: float = 0.05

    @property
    def text(self) -> str:
        return f"{self.quantile} {self.limit_ms:g} ms"


def parse_limits(text: str, *, instance: str, where: str = "--budget") -> tuple[LatencyLimit, ...]:
    """Limits from words, or from the `latency_… max` gates for `instance` of the budget file that `text` names.

    Raises InputError for words that are neither, and for a budget without such a gate.
    """
    if not text.strip():
        raise InputError.mismatch(where, expected='limits such as "p95 20 ms", or a budget.toml', found="nothing")
    if _WRITTEN.match(text) is None:
        return _of_file(Path(text), instance, where)
    return tuple(_limit(part, where) for part in text.split(","))


def _limit(part: str, where: str) -> LatencyLimit:
    match = _WRITTEN.fullmatch(part)
    if match is None:
        raise InputError.mismatch(where, expected='a quantile and a time such as "p95 20 ms"', found=repr(part.strip()))
    p = float(match[1]) / 100
    limit_ms = parse_quantity(match[2].strip(), "ms", where=where)
    if not (p > 0 and limit_ms > 0):
        raise InputError.mismatch(where, expected="a quantile above p0 and a time above 0 ms", found=repr(part.strip()))
    return LatencyLimit(quantile=f"p{match[1]}", p=p, limit_ms=limit_ms)


def _of_file(path: Path, instance: str, where: str) -> tuple[LatencyLimit, ...]:
    if path.suffix != ".toml" and not path.is_file():
        raise InputError.mismatch(where, expected='limits such as "p95 20 ms", or a budget.toml', found=repr(str(path)))
    budget = read_budget(path)
    found = tuple(
        LatencyLimit(quantile=gate.metric.removeprefix("latency_"), p=LATENCY[gate.metric], limit_ms=gate.limit.value, alpha=gate.alpha)
        for gate in budget.gates
        if gate.metric in LATENCY and isinstance(gate.limit, Max) and gate.at is not None and gate.at.instance == instance
    )
    if not found:
        latency = [gate.name for gate in budget.gates if gate.metric in LATENCY and gate.at is not None]
        expected = f"a gate with a latency and 'max' for instance {instance}"
        raise InputError.mismatch(str(path), expected=expected, found=", ".join(latency) or "no gate on latency")
    return found
