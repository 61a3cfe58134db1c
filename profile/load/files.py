"""Folders of load results: the result as JSON, and every request as it was timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...core.files import new_file, write_atomically
from .load import LoadRun
from .trial import Trial

LOAD_FILE = "load.json"
SWEEP_FILE = "sweep.json"
PLOT_FILE = "sweep.svg"
COLDSTART_FILE = "coldstart.json"
SAMPLES_FILE = "load_samples.parquet"


def write_load(folder: Path, run: LoadRun) -> None:
    """Samples first and the result last, so that a folder with one is complete."""
    (folder / LOAD_FILE).unlink(missing_ok=True)
    tables = [
        _table(run, model.model.name, launch, trial)
        for model, trials in zip(run.result.models, run.trials, strict=True)
        for launch, trial in enumerate(trials)
    ]
    with new_file(folder / SAMPLES_FILE) as temporary:
        pq.write_table(pa.concat_tables(tables), temporary, compression="zstd")
    write_result(folder / LOAD_FILE, run.result)


def write_result(path: Path, result: msgspec.Struct) -> None:
    """A result as indented JSON, all or nothing."""
    write_atomically(path, msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def _table(run: LoadRun, model: str, launch: int, trial: Trial) -> pa.Table:
    """One row per request that came; times of those that were never begun are missing."""
    asked = len(trial.due_ns)
    return pa.table(
        {
            "instance": pa.array([run.result.provenance.instance] * asked, type=pa.string()),
            "model": pa.array([model] * asked, type=pa.string()),
            "launch": pa.array(np.full(asked, launch, dtype=np.int32)),
            "request_id": pa.array(np.asarray(run.request_ids)[trial.requests]),
            "due_ns": pa.array(trial.due_ns),
            "latency_ns": _padded(trial.latency_ns, asked),
            "service_ns": _padded(trial.service_ns, asked),
            "lag_ns": _padded(trial.lag_ns, asked),
        }
    )


def _padded(ns: Sequence[int] | np.ndarray, size: int) -> pa.Int64Array:
    values = np.zeros(size, dtype=np.int64)
    values[: len(ns)] = ns
    return pa.array(values, type=pa.int64(), mask=np.arange(size) >= len(ns))
