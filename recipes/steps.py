"""The steps a recipe may hold: a frozen type per technique, read from TOML by its `kind`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from ..core.errors import InputError

# What a step is for: `speed` (one that makes the model slower is refused), `memory`, or `same` (it prepares for other steps).
Promise = Literal["speed", "memory", "same"]
Keep = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]
Multiple = Annotated[int, msgspec.Meta(ge=1, le=256)]


class QuantizeDynamic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="quantize_dynamic"):
    """int8 weights for MatMul and Gemm, activations quantized as they come; embedding tables stay as they are.

    `reduce_range` keeps weights to 7 bits: without it, 8-bit weights times 8-bit activations overflow 16-bit sums on x86 CPUs that lack
    VNNI (ONNX Runtime, docs/performance/model-optimizations/quantization.md), and nobody knows on which CPU an artifact will run.
    `exclude` names nodes to leave alone.
    """

    promise: ClassVar[Promise] = "speed"
    per_channel: bool = True
    reduce_range: bool = True
    exclude: tuple[str, ...] = ()


class QuantizeStatic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="quantize_static"):
    """int8 weights and activations with ranges calibrated on requests, by neural-compressor; needs the PyTorch model.

    `reduce_range` as in QuantizeDynamic. `exclude` names layers (`mlp.4`) to leave in float.
    """

    promise: ClassVar[Promise] = "speed"
    observer: Literal["minmax", "kl"] = "minmax"
    reduce_range: bool = True
    exclude: tuple[str, ...] = ()


class Prune(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="prune"):
    """Remove the least important hidden units between two linear layers, so that the matrices really become smaller.

    Each hidden layer keeps the share `keep` of its units, rounded up to a multiple of `multiple_of`.
    """

    promise: ClassVar[Promise] = "speed"
    keep: Keep
    multiple_of: Multiple = 8
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # The annotations only bind what is read from a file.
        if not 0 < self.keep < 1:
            raise InputError.mismatch("prune: keep", expected="a share between 0 and 1", found=f"{self.keep:g}", fix="for example 0.7")
        if not 1 <= self.multiple_of <= 256:
            raise InputError.mismatch("prune: multiple of", expected="a number from 1 to 256", found=str(self.multiple_of))


Step = QuantizeDynamic | QuantizeStatic | Prune


def promises(step: Step) -> Promise:
    """What `step` is for, as its class says; `same` for one whose class says nothing."""
    promise: Promise = getattr(step, "promise", "same")
    return promise
