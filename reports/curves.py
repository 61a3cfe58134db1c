"""Raw samples thinned to cumulative curves small enough for a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..core.errors import InputError
from .result import LatencyCurve

INSTANCE, MODEL, NS = "instance", "model", "ns"
_POINTS = 160


def read_curves(path: Path, instances: tuple[str, ...]) -> tuple[LatencyCurve, ...]:
    """One curve per instance and model from `samples.parquet` (columns `model`, `ns` and, with several instances, `instance`).

    Raises InputError when the file is not Parquet or lacks a column.
    """
    import pyarrow as pa  # noqa: PLC0415 - only when there are samples
    import pyarrow.parquet as pq  # noqa: PLC0415

    fix = "delete it to get a report without distributions, or measure again"
    try:
        names = pq.read_schema(path).names
        missing = [c for c in (MODEL, NS) if c not in names]
        if missing:
            raise InputError.mismatch(str(path), expected=f"a column '{missing[0]}'", found=", ".join(names), fix=fix)
        if INSTANCE not in names and len(instances) != 1:
            raise InputError.mismatch(str(path), expected=f"a column '{INSTANCE}'", found=", ".join(names), fix=fix)
        table = pq.read_table(path, columns=[c for c in (INSTANCE, MODEL, NS) if c in names])
        models = np.asarray(table[MODEL].to_pylist(), dtype=object)
        places = np.asarray(table[INSTANCE].to_pylist() if INSTANCE in names else [instances[0]] * len(models), dtype=object)
        ms = table[NS].to_numpy().astype(np.float64) / 1e6
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(str(path), f"is not a readable file of samples ({str(error).splitlines()[0]})", fix=fix) from None
    pairs = dict.fromkeys(zip(places, models, strict=True))
    return tuple(thin(str(place), str(model), ms[(places == place) & (models == model)]) for place, model in pairs)


def thin(instance: str, model: str, ms: np.ndarray) -> LatencyCurve:
    """The empirical distribution of `ms` (float64 `[samples]`) at evenly spaced ranks, denser in the last 5 %, both ends kept."""
    ordered = np.sort(ms)
    last = len(ordered) - 1
    ranks = np.unique(np.concatenate([np.linspace(0, last, _POINTS), np.linspace(0.95 * last, last, _POINTS // 4)]).round().astype(int))
    shares = (ranks + 1) / len(ordered)
    return LatencyCurve(
        instance=instance,
        model=model,
        samples=len(ordered),
        ms=tuple(float(v) for v in ordered[ranks].round(6)),
        share=tuple(float(v) for v in shares),
    )
