"""The folder of a comparison: its result, its raw samples, and every user's quality."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import InputError
from ..core.files import new_file, new_folder, sha256_of, write_atomically
from ..quality.evaluate import Evaluation
from .measure import Run
from .result import Comparison
from .samples import write_samples

COMPARISON_FILE = "comparison.json"
SAMPLES_FILE = "samples.parquet"
QUALITY_FILE = "quality_per_user.parquet"
# Written by `--explain` after the comparison, and by nothing that judges.
EXPLANATION_FILE = "explanation.json"


def check_folder(folder: Path) -> None:
    """Raise InputError unless `folder` can be written or made; leaves no trace."""
    missing = [place for place in (folder, *folder.parents) if not os.path.exists(place)]  # noqa: PTH110 - Path.exists may raise
    try:
        with new_folder(folder):
            return
    finally:
        for place in missing:
            with suppress(OSError):
                place.rmdir()


def check_file(path: Path) -> None:
    """Raise InputError unless the file `path` can be written; leaves no trace."""
    if path.is_dir():
        raise InputError.mismatch(str(path), expected="a file to write", found="a folder")
    check_folder(path.parent)


def write_run(folder: Path, result: Comparison, runs: Sequence[Run], evaluations: Sequence[Evaluation]) -> Comparison:
    """All files of a run; an earlier run's result goes first and the new one comes last, so a folder with one is complete.

    Returns `result` as written: with the digest of the raw samples.
    """
    for earlier in (COMPARISON_FILE, SAMPLES_FILE, QUALITY_FILE, EXPLANATION_FILE):
        (folder / earlier).unlink(missing_ok=True)
    write_samples([run.samples for run in runs], folder / SAMPLES_FILE)
    if evaluations:
        with new_file(folder / QUALITY_FILE) as temporary:
            pq.write_table(pa.concat_tables([_per_user_table(e) for e in evaluations]), temporary, compression="zstd")
    result = msgspec.structs.replace(result, samples_sha256=sha256_of(folder / SAMPLES_FILE))
    write_atomically(folder / COMPARISON_FILE, msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    return result


def _per_user_table(evaluation: Evaluation) -> pa.Table:
    """One row per metric, segment and user."""
    sizes = [len(p.per_user.users) for p in evaluation.parts]
    return pa.table(
        {
            "model": pa.array([evaluation.model.name] * sum(sizes), type=pa.string()),
            "metric": pa.array(np.repeat([p.per_user.metric for p in evaluation.parts], sizes).tolist(), type=pa.string()),
            "segment": pa.array(np.repeat([p.segment for p in evaluation.parts], sizes).tolist(), type=pa.string()),
            "user_id": pa.array([u for p in evaluation.parts for u in p.per_user.users], type=pa.string()),
            "value": pa.array(np.concatenate([p.per_user.values for p in evaluation.parts]), type=pa.float64()),
        }
    )
