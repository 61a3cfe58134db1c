"""`python -m liftgate.bench.zoo.one package/name FILE`: export one model in this process and write its Outcome as JSON."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import msgspec

from ...core.errors import LiftgateError
from ...optimize.export import export
from .case import Case
from .catalogue import case_of
from .eager import first_line
from .outcome import Outcome
from .verify import Disagreement, nodes_of, verify


def judge(case: Case, store: Path) -> Outcome:
    """Export `case` into `store` and compare the file with PyTorch; what is refused is tried once more through TorchScript."""
    usual = _export(case, store, None)
    if usual.verdict != "refused":
        return usual
    other = _export(case, store, "torchscript")
    if other.verdict == "refused":
        return msgspec.structs.replace(usual, other_reason=other.reason)
    return msgspec.structs.replace(other, fallback=True, other_reason=usual.reason)


def _export(case: Case, store: Path, fallback: Literal["torchscript"] | None) -> Outcome:
    outcome = Outcome(package=case.package, name=case.name, kind=case.kind, verdict="crashed")
    module, args = case.make()
    start = time.perf_counter()
    try:
        artifact = export(module, name="model", store=store, example_inputs=args, fallback=fallback)
    except LiftgateError as error:
        seconds = time.perf_counter() - start
        return msgspec.structs.replace(outcome, verdict="refused", reason=str(error), export_seconds=seconds)
    except Exception as error:  # an export that raises anything else is a finding
        return msgspec.structs.replace(outcome, reason=f"export raised {first_line(error)}", export_seconds=time.perf_counter() - start)
    written = msgspec.structs.replace(
        outcome,
        export_seconds=time.perf_counter() - start,
        nodes=nodes_of(artifact.model_path),
        inputs=tuple(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in artifact.manifest.signature.inputs),
        warnings=artifact.manifest.warnings,
        checks=tuple(f"{check.name}: {check.detail}" for check in artifact.manifest.checks),
    )
    try:
        return msgspec.structs.replace(written, verdict="equal", compared=verify(artifact.model_path, case))
    except Disagreement as error:
        return msgspec.structs.replace(written, verdict="wrong", reason=str(error))


def main(key: str, target: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outcome = judge(case_of(key), Path(folder))
    Path(target).write_bytes(msgspec.json.encode(outcome))


if __name__ == "__main__":
    main(*sys.argv[1:])
