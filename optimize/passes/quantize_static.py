"""Static int8: weights and activations in 8 bits, with activation ranges calibrated on requests, written as ONNX Q/DQ."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization import quantize_static as ort_quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep
from ...recipes.steps import Calibration, QuantizeStatic
from ...runtime.archive import quiet
from ..context import StepContext
from ..convert.onnx_graph import save
from .calibration import Feeds, calibration_feeds, ids_seen, require_alike
from .kernels import int8_kernels
from .number_format import WeightNumbers, weight_numbers
from .qdq import free_relus
from .quantizable import Quantizable, read_quantizable, require_same_tables
from .sensitivity import REQUESTS_COMPARED, answers, ranking_loss

_LINEAR = ["MatMul", "Gemm"]
_METHODS: dict[Calibration, CalibrationMethod] = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


def quantize_static(step: QuantizeStatic, context: StepContext) -> StepRecord:
    """Calibrate, measure what each node's quantization alone does to the ranking, quantize the nodes that bear it.

    Only what linear nodes read is quantized, never what they write: scores in 8 bits would be 256 different ones at most. Raises
    RefusedStep for requests that are too few or unlike one another, when no node bears it, when ONNX Runtime would run all of them
    in float again, or when a table was touched; UnknownName for an excluded node that does not exist.
    """
    where = f"quantize --static {context.where}"
    before = read_quantizable(context.source, step.exclude, where, fuse=True)
    feeds = calibration_feeds(context, where)
    require_alike(before.model, [before.node(name).input[0] for name in before.wanted], feeds, where)
    numbers = weight_numbers(step.format)
    with tempfile.TemporaryDirectory(prefix="liftgate-") as scratch:
        tool = _Tool(where=where, before=before, step=step, numbers=numbers, feeds=feeds, folder=Path(scratch))
        losses = _losses(tool, context)
        chosen = [name for name in before.wanted if losses[name] <= step.max_sensitivity]
        if not chosen:
            worst = ", ".join(f"'{name}' {loss:.3g}" for name, loss in sorted(losses.items(), key=lambda item: item[1])[:5])
            problem = f"every node lowers the rank correlation by more than {step.max_sensitivity:g} when it alone is quantized: {worst}"
            raise RefusedStep(where, problem, fix="try calibration = 'percentile', the step smooth_activations before, or dynamic int8")
        tool.quantize(chosen, context.target)
    after = onnx.load(context.target)
    require_same_tables(before.model, after, where)
    kernels = int8_kernels(context.target)
    if not kernels:
        context.target.unlink()
        raise RefusedStep(
            where, "ONNX Runtime would run every quantized node in float", fix="use dynamic int8: optimize quantize MODEL --int8"
        )
    return _record(step, before, numbers, losses, chosen, kernels=kernels, feeds=len(feeds), ids=ids_seen(context, feeds))


class _Tool(msgspec.Struct, frozen=True, kw_only=True):
    """ONNX Runtime's quantizer with everything but the choice of nodes; ranges are calibrated once and kept in `folder`."""

    where: str
    before: Quantizable
    step: QuantizeStatic
    numbers: WeightNumbers
    feeds: Feeds
    folder: Path

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the tool raises whatever it trips over
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            fix = "use calibration = 'minmax', or exclude the nodes of small or 16-bit numbers"
            raise RefusedStep(self.where, f"ONNX Runtime's quantizer fails ({reason[:240]})", fix=fix) from error

    def quantize(self, nodes: Sequence[str], target: Path) -> None:
        """Write the model with `nodes` quantized to `target`."""
        model = onnx.ModelProto()
        model.CopyFrom(self.before.model)
        # The tool asks for its own optimizer to have run; what matters of that (Gemm for MatMul and Add) is done, with names kept.
        add_pre_process_metadata(model)
        with quiet(), contextlib.redirect_stdout(io.StringIO()), self._refusing():
            ort_quantize_static(
                model,
                target,
                _Reader(self.feeds),
                op_types_to_quantize=_LINEAR,
                nodes_to_quantize=list(nodes),
                per_channel=self.step.per_channel,
                reduce_range=self.numbers.bits < 8,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8 if self.numbers.signed else QuantType.QUInt8,
                calibrate_method=_METHODS[self.step.calibration],
                calibration_cache_path=self.folder / "ranges.json",
                use_external_data_format=self.before.external,
                extra_options={
                    "OpTypesToExcludeOutputQuantization": _LINEAR,
                    "MatMulConstBOnly": True,
                    # One request at a time: requests differ in size, and all activations of all requests do not fit in memory.
                    "CalibStridedMinMax": 1,
                },
            )
        written = ir.load(target)
        ir.external_data.load_to_model(written)  # the file is about to be replaced
        if free_relus(written):
            save(written, target)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # the tool comes without types
    """Requests as the tool reads them."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._rest: Iterator[dict[str, np.ndarray]] = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rest, None)

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._rest = iter(self._feeds[start_index:end_index])


def _losses(tool: _Tool, context: StepContext) -> dict[str, float]:
    """By how much the quantization of each wanted node alone lowers the rank correlation of the scores."""
    feeds = tool.feeds[:: max(1, len(tool.feeds) // REQUESTS_COMPARED)][:REQUESTS_COMPARED]
    expected = answers(context.source, context.signature, feeds)
    found = {}
    for number, name in enumerate(tool.before.wanted):
        context.progress("measuring sensitivity", number, len(tool.before.wanted))
        alone = tool.folder / "alone.onnx"
        tool.quantize([name], alone)
        found[name] = ranking_loss(expected, answers(alone, context.signature, feeds))
    context.progress("measuring sensitivity", len(found), len(found))
    return found


def _record(
    step: QuantizeStatic,
    before: Quantizable,
    numbers: WeightNumbers,
    losses: dict[str, float],
    chosen: list[str],
    *,
    kernels: int,
    feeds: int,
    ids: str,
) -> StepRecord:
    kept = [f"{name} ({losses[name]:.3g})" for name in before.wanted if name not in chosen]
    worst = max(chosen, key=losses.__getitem__)
    parts = [
        f"{len(chosen)} of {len(before.linear)} MatMul/Gemm in int8 ({', '.join(chosen)})",
        numbers.note,
        f"{step.calibration} ranges from {feeds} requests" + (f", which reach {ids}" if ids else ""),
        f"most sensitive of them: {worst}, rank correlation down by {losses[worst]:.2g} when it alone is quantized",
        "embedding tables untouched",
    ]
    if kept:
        parts.append(f"left in float, too sensitive: {', '.join(kept)}")
    if before.without_weight:
        parts.append(f"left alone, no constant weight: {', '.join(before.without_weight)}")
    if kernels < len(chosen):
        parts.append(f"{len(chosen) - kernels} of them run in float all the same in ONNX Runtime {onnxruntime.__version__}")
    return StepRecord(
        kind="quantize_static",
        settings={
            "calibration": step.calibration,
            "per_channel": step.per_channel,
            "format": step.format,
            "max_sensitivity": step.max_sensitivity,
            "exclude": ",".join(step.exclude),
        },
        summary="; ".join(parts),
        numbers={
            "nodes_quantized": float(len(chosen)),
            "int8_kernels": float(kernels),
            "calibration_requests": float(feeds),
            "weight_bits": float(numbers.bits),
            **{f"sensitivity {name}": loss for name, loss in losses.items()},
        },
    )
