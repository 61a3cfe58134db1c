"""What `optimize quantize` was asked for, as the one step that does it."""

from __future__ import annotations

import msgspec

from ..core.errors import InputError
from ..recipes.steps import QuantizeDynamic, QuantizeStatic, QuantizeWeights, Step, ToHalf, TuneStatic

_COMMAND = "optimize quantize"


class QuantizeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The command's options as they were typed; None and False where they were not."""

    int8: bool = False
    static: bool = False
    calibration: str | None = None
    tune: bool = False
    tolerance: float | None = None
    weights_only: bool = False
    bits: int | None = None
    block_size: int | None = None
    fp16: bool = False
    bf16: bool = False
    gpu: bool = False
    per_channel: bool | None = None
    format: str | None = None
    exclude: tuple[str, ...] = ()
    requests: bool = False


# Which options each kind takes besides --exclude.
_TAKES: dict[str, frozenset[str]] = {
    "--int8": frozenset({"per_channel", "format"}),
    "--int8 --static": frozenset({"per_channel", "format", "calibration"}),
    "--int8 --static --tune": frozenset({"format", "tolerance"}),
    "--weights-only": frozenset({"bits", "block_size"}),
    "--fp16": frozenset({"gpu"}),
    "--bf16": frozenset({"gpu"}),
}
_FLAGS = {
    "per_channel": "--per-channel or --per-tensor",
    "format": "--format",
    "calibration": "--calibration",
    "tolerance": "--tolerance",
    "bits": "--bits",
    "block_size": "--block-size",
    "gpu": "--gpu",
}


def quantize_step(options: QuantizeOptions) -> tuple[str, Step]:
    """The step, and the suffix of its result's name; raises InputError for options that do not go together or values out of range."""
    kind = _kind(options)
    for field, flag in _FLAGS.items():
        given = options.gpu if field == "gpu" else getattr(options, field) is not None
        if given and field not in _TAKES[kind]:
            takers = " or ".join(f"`{name}`" for name, taken in _TAKES.items() if field in taken)
            raise InputError.mismatch(f"{_COMMAND} {kind}", expected=f"no {flag}", found=flag, fix=f"it goes with {takers}")
    if "--static" in kind and not options.requests:
        raise InputError.mismatch(f"{_COMMAND} {kind}", expected="requests to calibrate on", found="none", fix="add --requests FILE")
    suffix, step_type, settings = _step(kind, options)
    chosen = {name: value for name, value in settings.items() if value is not None}
    try:
        return suffix, msgspec.convert({"kind": step_type.__struct_config__.tag, **chosen, "exclude": list(options.exclude)}, step_type)
    except msgspec.ValidationError as error:
        raise InputError(f"{_COMMAND} {kind}", str(error), fix=f"see {_COMMAND} --help") from None


def _kind(options: QuantizeOptions) -> str:
    precisions = {"--int8": options.int8, "--weights-only": options.weights_only, "--fp16": options.fp16, "--bf16": options.bf16}
    chosen = [flag for flag, given in precisions.items() if given]
    if len(chosen) != 1:
        found = " and ".join(chosen) or "none"
        fix = "add --int8 for speed, --weights-only for memory, or --fp16 --gpu" if not chosen else "give one of them"
        raise InputError.mismatch(_COMMAND, expected="one precision", found=found, fix=fix)
    if options.static and not options.int8:
        raise InputError.mismatch(f"{_COMMAND} --static", expected="--int8", found=chosen[0], fix="only int8 activations have ranges")
    if options.tune and not options.static:
        raise InputError.mismatch(f"{_COMMAND} --tune", expected="--int8 --static", found=chosen[0], fix="it tunes static int8")
    return chosen[0] + (" --static" if options.static else "") + (" --tune" if options.tune else "")


def _step(kind: str, options: QuantizeOptions) -> tuple[str, type[Step], dict[str, object]]:
    """Suffix, type and settings (None: as the type has them)."""
    int8: dict[str, object] = {"format": options.format, "per_channel": options.per_channel}
    match kind:
        case "--int8":
            return "int8", QuantizeDynamic, int8
        case "--int8 --static":
            return "int8-static", QuantizeStatic, {**int8, "calibration": options.calibration}
        case "--int8 --static --tune":
            return "int8-tuned", TuneStatic, {"format": options.format, "tolerance": options.tolerance}
        case "--weights-only":
            bits = options.bits or 8
            return f"weights{bits}", QuantizeWeights, {"bits": bits, "block_size": options.block_size}
        case _:
            number = kind.removeprefix("--")
            return number, ToHalf, {"number": number, "runs_on": "gpu" if options.gpu else None}
