"""How a model wants to be run, where nobody says otherwise: what a recipe's `[session]` says and a manifest records."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Runtime = Literal["onnxruntime", "openvino"]
Precision = Literal["f32", "fastest"]
# Where a session computes; no recipe chooses it: it is a fact of the machine.
Device = Literal["cpu", "cuda"]


class SessionDefaults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Only settings that were seen to matter; None leaves one to whoever opens the model.

    `threads` compute one request, `spinning` lets them wait busily for work, `arena` keeps memory between requests instead of giving it
    back (off: less memory, slower; ONNX Runtime only). `precision` is OpenVINO's: `f32` as the weights are, or the `fastest` that the CPU
    has (bfloat16 where it can), which moves scores.
    """

    runtime: Runtime = "onnxruntime"
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None
    spinning: bool | None = None
    arena: bool | None = None
    precision: Precision = "f32"
