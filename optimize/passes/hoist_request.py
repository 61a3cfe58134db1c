"""Request-only work once per request: the model's layout becomes `request`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...core.artifact import ModelRef, StepRecord
from ...core.errors import InputError, RefusedStep
from ...core.signature import Signature
from ...recipes.steps import HoistRequest
from ...runtime.onnx_file import load
from ...runtime.onnx_session import OnnxSession, load_onnx
from ...runtime.session import SessionSettings
from ..context import StepContext
from ..convert.onnx_graph import opset_of, save
from ..cost.cost import cost_of
from ..cost.sizes import CANDIDATES, Sizes, sizes_of
from ..hoist.facts import lengths_of
from ..hoist.hoist import Hoisted, hoist

# Sums are made in another order, so the last bits of a score may differ: relative to the largest score.
_ROUNDING = 1e-5
_ROWS = (1, 2, 7, 64)
_ROWS_AT_LENGTHS = (2, 7)
# Of the usual length; what cuts a sequence at a fixed position shows at some of them.
_LENGTHS = (0.0, 0.1, 0.25, 0.5, 0.8, 1.3, 2.0)
# Shape with a start, and axes as inputs.
_OLDEST_OPSET = 15
_LEAVE = "leave this step out, and report the model: the step should be exact"


def hoist_request(step: HoistRequest, context: StepContext) -> tuple[StepRecord, Signature]:
    """Compute once what is the same for all candidates of a request; scores stay the same within 1e-5 of the largest.

    The model then takes request inputs with leading dimension 1; sessions still take rows of any number of requests. Raises RefusedStep
    when no input is a request input, when nothing could be moved, and, writing nothing, when the result would cost more or score otherwise.
    """
    del step
    where = f"hoist {context.where}"
    signature = context.signature
    _check(signature, where)
    model = load(context.source, where)
    if opset_of(model) < _OLDEST_OPSET:
        raise RefusedStep(where, f"needs opset {_OLDEST_OPSET} or newer, the model has {opset_of(model)}", fix="export it anew")
    hoisted = hoist(model, signature, context.samples)
    sizes = sizes_of(signature, candidates=CANDIDATES, dims=lengths_of(signature, context.samples))
    before = cost_of(model, signature, sizes, context.samples)
    after = cost_of(hoisted.model, hoisted.signature, sizes, context.samples)
    flops, bytes_moved = (before.flops.total, after.flops.total), (before.bytes.total, after.bytes.total)
    counted = not before.unknown
    if counted and flops[1] >= flops[0] and bytes_moved[1] >= bytes_moved[0]:
        problem = f"nothing became less: {flops[0]:,} FLOPs and {bytes_moved[0]:,} bytes for {CANDIDATES} candidates before and after"
        raise RefusedStep(where, problem, fix="leave this step out")
    for what, (earlier, later) in (("FLOPs", flops), ("bytes", bytes_moved)):
        if counted and later > earlier:
            problem = f"would do more work for {CANDIDATES} candidates: {later:,} {what} instead of {earlier:,}"
            raise RefusedStep(where, problem, fix="leave this step out")
    save(hoisted.model, context.target)
    try:
        gap = _gap(context, hoisted, where)
    except RefusedStep:
        context.target.unlink(missing_ok=True)
        raise
    times = flops[0] / max(flops[1], 1)
    record = StepRecord(
        kind="hoist_request",
        settings={},
        summary=f"{_millions(flops[0])} -> {_millions(flops[1])} FLOPs per request of {CANDIDATES} candidates ({times:.1f}x fewer)",
        numbers={
            "flops_before": float(flops[0]),
            "flops_after": float(flops[1]),
            "flops_moved": float(before.flops.request - before.flops.request_once),
            "bytes_before": float(bytes_moved[0]),
            "bytes_after": float(bytes_moved[1]),
            "max_relative_difference": gap,
            **{f"rule_{name}": float(count) for name, count in hoisted.applied.items()},
        },
    )
    return record, hoisted.signature


def _check(signature: Signature, where: str) -> None:
    roles = {spec.role for spec in signature.inputs}
    if signature.layout == "request":
        raise RefusedStep(where, "its request inputs already come once per request", fix="leave this step out")
    if "request" not in roles:
        fix = "say which inputs belong to the request: optimize export ... --request-inputs user,history"
        raise RefusedStep(where, "no input is known to be the same for all candidates", fix=fix)
    if "candidate" not in roles:
        raise RefusedStep(
            where, "no input differs from candidate to candidate", fix="leave this step out: such a model scores no candidates"
        )
    for spec in signature.outputs:
        if not spec.shape or isinstance(spec.shape[0], int):
            problem = f"output '{spec.name}' of shape {list(spec.shape)} has no row per candidate"
            raise RefusedStep(where, problem, fix="export the model without that output")


def _millions(flops: int) -> str:
    return f"{flops / 1e6:,.2f} million"


def _gap(context: StepContext, hoisted: Hoisted, where: str) -> float:
    """The largest difference between the outputs before and after, relative to the largest output; raises RefusedStep above 1e-5.

    Rows are compared at the samples' lengths, and at shorter and longer ones that the model before the step takes.
    """
    before, after = _session(context.source, context.signature), _after(context, hoisted, where)
    usual = lengths_of(context.signature, context.samples)
    worst = 0.0
    for rows in _ROWS:
        for times in (1.0, *(_LENGTHS if usual and rows in _ROWS_AT_LENGTHS else ())):
            dims = {name: max(1, round(size * times)) for name, size in usual.items()}
            sizes = Sizes(candidates=rows, dims=dims)
            feeds = context.samples.of_sizes({spec.name: sizes.shape(spec, context.signature) for spec in context.signature.inputs})
            try:
                expected = before.run(feeds)
            except Exception as error:  # ONNX Runtime's own types
                if times != 1.0:
                    continue
                problem = f"the model fails at {rows} rows before the step: {_line(error)}"
                raise RefusedStep(where, problem, fix="give --requests that it takes") from error
            worst = max(worst, _compare(expected, _run(after, feeds, where), hoisted.signature, f"{rows} rows", where))
    return worst


def _after(context: StepContext, hoisted: Hoisted, where: str) -> OnnxSession:
    try:
        return _session(context.target, hoisted.signature)
    except InputError as error:
        raise RefusedStep(where, f"gives a model that ONNX Runtime refuses: {error}", fix=_LEAVE) from error


def _run(session: OnnxSession, feeds: dict[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    try:
        return session.run(feeds)
    except Exception as error:  # ONNX Runtime's own types
        raise RefusedStep(where, f"gives a model that fails: {_line(error)}", fix=_LEAVE) from error


def _compare(expected: dict[str, np.ndarray], found: dict[str, np.ndarray], signature: Signature, at: str, where: str) -> float:
    worst = 0.0
    for spec in signature.outputs:
        gap = _relative(expected[spec.name], found[spec.name])
        if gap > _ROUNDING:
            problem = f"output '{spec.name}' at {at} would differ by {gap:.2g} of its largest value (at most {_ROUNDING:g})"
            raise RefusedStep(where, problem, fix=_LEAVE)
        worst = max(worst, gap)
    return worst


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:240]


def _relative(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(expected, found) else float("inf")
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(found.astype(np.float64) - expected))
    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    worst = float(gap.max(initial=0.0))
    return worst / largest if largest else worst


def _session(path: Path, signature: Signature) -> OnnxSession:
    ref = ModelRef(name=path.name, digest="", runtime="onnxruntime", size_bytes=0)
    return OnnxSession(load_onnx(path, SessionSettings()), signature, ref)
