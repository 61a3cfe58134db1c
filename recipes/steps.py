"""The steps a recipe may hold: a frozen type per technique, read from TOML by its `kind`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from ..core.errors import InputError

# What a step is for: `speed` (one that makes the model slower is refused), `memory`, or `same` (it prepares for other steps).
Promise = Literal["speed", "memory", "same"]
NumberFormat = Literal["auto", "native", "s8", "u8"]
Calibration = Literal["minmax", "percentile", "entropy"]
Keep = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]
RelativeError = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]
Multiple = Annotated[int, msgspec.Meta(ge=1, le=256)]


class HoistRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="hoist_request"):
    """Compute once per request what is the same for all its candidates; exact. The model's layout becomes `request`."""

    promise: ClassVar[Promise] = "speed"


class QuantizeDynamic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="quantize_dynamic"):
    """int8 weights for MatMul and Gemm, activations quantized as they come; embedding tables stay as they are.

    `format`: `auto` (7-bit weights, right on every CPU, as nobody knows where an artifact will run), `native` (what this machine's CPU
    adds up exactly), `s8` (8 bits, for CPUs with VNNI), `u8` (unsigned, exact everywhere, slower without VNNI). `exclude` names nodes to
    leave alone.
    """

    promise: ClassVar[Promise] = "speed"
    per_channel: bool = True
    format: NumberFormat = "auto"
    exclude: tuple[str, ...] = ()


class QuantizeStatic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="quantize_static"):
    """int8 weights and activations of MatMul and Gemm, with activation ranges calibrated on requests; works on any artifact.

    `calibration` takes ranges as they are (`minmax`), without the outermost 0.001 % (`percentile`), or where they lose least information
    (`entropy`). Nodes whose quantization alone lowers the rank correlation of the scores by more than `max_sensitivity` stay in float.
    `format` and `exclude` as in QuantizeDynamic.
    """

    promise: ClassVar[Promise] = "speed"
    calibration: Calibration = "minmax"
    per_channel: bool = True
    format: NumberFormat = "auto"
    max_sensitivity: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.005
    exclude: tuple[str, ...] = ()


class TuneStatic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="tune_static"):
    """Static int8 tuned by neural-compressor until the worst segment keeps its quality; needs the PyTorch model and labelled requests.

    A configuration is good when NDCG@10 falls by at most the share `tolerance` in every segment. `format` as in QuantizeDynamic, `exclude`
    names layers (`mlp.4`) to leave in float.
    """

    promise: ClassVar[Promise] = "speed"
    tolerance: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.005
    format: Literal["auto", "native", "s8"] = "auto"
    exclude: tuple[str, ...] = ()


class QuantizeWeights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="quantize_weights"):
    """Weights of MatMul and Gemm in 8 or 4 bits, one scale per `block_size` of them, to save memory; activations stay in float."""

    promise: ClassVar[Promise] = "memory"
    bits: Literal[8, 4] = 8
    block_size: Literal[16, 32, 64, 128, 256] = 32
    exclude: tuple[str, ...] = ()


class SmoothActivations(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="smooth_activations"):
    """Even out the columns that a linear layer reads, before they are quantized with one range; exact in float.

    Each column is divided by a power of two near max|activation|^`alpha` / max|weight|^(1 - `alpha`), folded into whatever wrote it, and
    its weights are multiplied by the same (SmoothQuant, Xiao et al. 2022, https://arxiv.org/abs/2211.10438).
    """

    promise: ClassVar[Promise] = "same"
    alpha: Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)] = 0.5
    exclude: tuple[str, ...] = ()


class ToHalf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="to_half"):
    """Weights and activations in 16-bit floats, for GPUs; inputs and outputs keep their types, ids their exact values.

    `runs_on` says where the model will run: `cpu` is refused where ONNX Runtime would only convert back and forth. `exclude` names nodes to
    leave in float.
    """

    promise: ClassVar[Promise] = "memory"
    number: Literal["fp16", "bf16"] = "fp16"
    runs_on: Literal["cpu", "gpu"] = "cpu"
    exclude: tuple[str, ...] = ()


class Prune(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="prune"):
    """Remove the least important hidden units between linear layers, so that the matrices really become smaller.

    Either each hidden layer keeps the share `keep` of its units, or as few as leave the layers behind them within `max_error` of what they
    gave before, on requests that nothing was fitted on; both rounded up to a multiple of `multiple_of`. `refit`: where there are
    calibration requests, the weights behind the removed units are fitted anew, so that nothing has to be trained.
    """

    promise: ClassVar[Promise] = "speed"
    keep: Keep | None = None
    max_error: RelativeError | None = None
    refit: bool = True
    multiple_of: Multiple = 8
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # The annotations only bind what is read from a file.
        _one_of("prune", keep=self.keep, max_error=self.max_error)
        if not 1 <= self.multiple_of <= 256:
            raise InputError.mismatch("prune: multiple of", expected="a number from 1 to 256", found=str(self.multiple_of))


class Fuse(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="fuse"):
    """Exact clean-ups of the graph: fewer nodes for the same numbers, within the rounding of float32."""

    promise: ClassVar[Promise] = "speed"


class Precompute(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="precompute"):
    """What depends on one id alone is computed for all ids once and looked up; exact within the rounding of float32.

    New tables take at most `max_mib` together.
    """

    promise: ClassVar[Promise] = "speed"
    max_mib: Annotated[float, msgspec.Meta(gt=0.0)] = 64.0


def _one_of(kind: str, **shares: float | None) -> None:
    """Raise InputError unless exactly one of these settings is given, and is a share between 0 and 1."""
    given = {name.replace("_", " "): value for name, value in shares.items() if value is not None}
    names = " or ".join(name.replace("_", " ") for name in shares)
    if len(given) != 1:
        found = "neither" if not given else " and ".join(given)
        raise InputError.mismatch(kind, expected=f"either {names}", found=found, fix="give one of them")
    for name, value in given.items():
        if not 0 < value < 1:
            raise InputError.mismatch(f"{kind}: {name}", expected="a share between 0 and 1", found=f"{value:g}", fix="for example 0.7")


class LowRank(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="low_rank"):
    """Replace a weight by the product of two thin ones, where that is less work.

    Each layer takes the smallest rank, a multiple of `multiple_of`, that leaves it within `max_error` of what it gave before, on requests
    that nothing was fitted on. `exclude` names layers to leave whole.
    """

    promise: ClassVar[Promise] = "speed"
    max_error: RelativeError
    multiple_of: Multiple = 8
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _one_of("low_rank", max_error=self.max_error)


class PruneHeads(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="prune_heads"):
    """Remove the attention heads that are missed least, with their queries, keys and values, and fit the projection behind them anew.

    Each attention keeps the share `keep` of its heads, rounded up. `exclude` names projections behind attentions to leave alone.
    """

    promise: ClassVar[Promise] = "speed"
    keep: Keep
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _one_of("prune_heads", keep=self.keep)


class Sparsify(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="sparsify"):
    """Set the share `share` of each linear layer's weights to zero, those that matter least; ONNX Runtime is not faster for it.

    It multiplies by zeros like by any other number, so this prepares for another runtime, or for a smaller compressed file.
    """

    promise: ClassVar[Promise] = "same"
    share: Keep
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _one_of("sparsify", share=self.share)


class CompressTables(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="compress_tables"):
    """Embedding tables in 16, 8 or 4 bits per number, with a scale per row below 16; ids that lie outside still fail.

    Tables below `min_rows` rows, and those that `exclude` names, stay as they are.
    """

    promise: ClassVar[Promise] = "memory"
    format: Literal["fp16", "int8", "int4"] = "fp16"
    min_rows: Annotated[int, msgspec.Meta(ge=1)] = 1000
    exclude: tuple[str, ...] = ()


class TrimTables(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="trim_tables"):
    """Rows that no calibration request asks for share one cold row: their mean, or row 0 (`padding`). Every id stays valid.

    Refused where more than the share `max_cold` of the ids in one half of the requests would be cold after the other half.
    """

    promise: ClassVar[Promise] = "memory"
    cold: Literal["mean", "padding"] = "mean"
    max_cold: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.01
    min_rows: Annotated[int, msgspec.Meta(ge=1)] = 1000
    exclude: tuple[str, ...] = ()


class Blend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="blend"):
    """Weights between those of the version before (1 - alpha) and of this model (alpha); costs nothing when serving.

    `auto` tries 0 to 1 in tenths on labelled requests and takes the best NDCG@10 whose worst segment keeps the share `floor` of the base's.
    """

    promise: ClassVar[Promise] = "same"
    alpha: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | Literal["auto"] = "auto"
    floor: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.99

    def __post_init__(self) -> None:
        if isinstance(self.alpha, float) and not 0 <= self.alpha <= 1:
            raise InputError.mismatch("blend: alpha", expected="a share from 0 to 1, or auto", found=f"{self.alpha:g}")


Step = (
    HoistRequest
    | QuantizeDynamic
    | QuantizeStatic
    | TuneStatic
    | QuantizeWeights
    | SmoothActivations
    | ToHalf
    | Prune
    | Fuse
    | Precompute
    | LowRank
    | PruneHeads
    | Sparsify
    | CompressTables
    | TrimTables
    | Blend
)


def promises(step: Step) -> Promise:
    """What `step` is for, as its class says; `same` for one whose class says nothing."""
    promise: Promise = getattr(step, "promise", "same")
    return promise
