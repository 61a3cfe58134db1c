"""JSON Schema of what liftgate writes for programs, and of the budget that people write."""

from __future__ import annotations

import inspect

import msgspec

from ..budget import BudgetFile
from ..calibrate import Calibration
from ..load.result import Batches, ColdStart, Load, Sweep
from ..mlperf.result import CrossCheck
from ..result import Comparison
from ..trace.explanation import Explanations
from ..trend import TrendLine

_TYPES: dict[str, type[msgspec.Struct]] = {
    "comparison": Comparison,
    "budget": BudgetFile,
    "trend": TrendLine,
    "load": Load,
    "sweep": Sweep,
    "coldstart": ColdStart,
    "batches": Batches,
    "calibration": Calibration,
    "cross_check": CrossCheck,
    "explanations": Explanations,
}
_ABOUT = {
    "comparison": "comparison.json of a run folder, and what --json writes",
    "budget": "budget.toml, as the values its TOML stands for",
    "trend": "one line of a trend file",
    "load": "load.json, and what profile load --json writes",
    "sweep": "sweep.json, and what profile sweep --json writes",
    "coldstart": "coldstart.json, and what profile coldstart --json writes",
    "batches": "what profile run --batch --json writes",
    "calibration": "what profile calibrate --json writes and the store keeps",
    "cross_check": "what profile run --mlperf --json writes",
    "explanations": "explanation.json of a run folder, and what profile explain --json writes",
}


def schema(document: str) -> bytes:
    """The schema as JSON text, made from the types that read and write the document: it cannot fall behind them."""
    body = _cleaned(msgspec.json.schema(_TYPES[document]))
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:liftgate:{document}:1",
        "title": f"liftgate {document}",
        "description": _ABOUT[document],
    }
    return msgspec.json.format(msgspec.json.encode({**head, **body}), indent=2)


def _cleaned(part: dict[str, object]) -> dict[str, object]:
    """Descriptions are docstrings: without the indentation of the source."""
    found: dict[str, object] = {}
    for key, value in part.items():
        if isinstance(value, dict):
            found[key] = _cleaned(value)
        else:
            found[key] = inspect.cleandoc(value) if key == "description" and isinstance(value, str) else value
    return found
