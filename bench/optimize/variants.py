"""What is compared: PyTorch, the peers and the shipped recipes; each is built and run by one interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

Environment = Literal["main", "zoo", "peers"]
Runner = Literal["onnxruntime", "liftgate", "eager", "compile", "openvino"]
RECIPES = ("exact", "int8-safe", "small-memory", "fastest")
REFERENCE = "ort-fp32"


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """`label` is its name in tables."""

    name: str
    label: str
    environment: Environment
    runner: Runner

    @property
    def ours(self) -> bool:
        return self.runner == "liftgate"


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """A variant of a case, ready to run: the file or folder to load, or why there is none; `settings` says what was done."""

    key: str
    path: Path | None
    settings: str
    seconds: float
    failure: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a builder needs: the exported artifact, validation requests to calibrate on, and the folder to write into."""

    case: str
    variant: str
    folder: Path
    base: Path
    store: Path
    calibration: Path
    weights: Path
    users: int
    items: int


PEERS = (
    Variant(name="eager", label="PyTorch eager", environment="zoo", runner="eager"),
    Variant(name="compile", label="torch.compile", environment="zoo", runner="compile"),
    Variant(name=REFERENCE, label="ONNX Runtime fp32", environment="main", runner="onnxruntime"),
    Variant(name="ort-dynamic", label="ONNX Runtime dynamic int8", environment="main", runner="onnxruntime"),
    Variant(name="ort-static", label="ONNX Runtime static int8", environment="main", runner="onnxruntime"),
    Variant(name="olive-fp32", label="Olive fp32", environment="peers", runner="onnxruntime"),
    Variant(name="olive-dynamic", label="Olive dynamic int8", environment="peers", runner="onnxruntime"),
    Variant(name="olive-static", label="Olive static int8", environment="peers", runner="onnxruntime"),
    Variant(name="openvino-fp32", label="OpenVINO fp32", environment="peers", runner="openvino"),
    Variant(name="openvino", label="OpenVINO, its default precision", environment="peers", runner="openvino"),
    Variant(name="nncf", label="NNCF int8 in OpenVINO", environment="peers", runner="openvino"),
    Variant(name="inc", label="neural-compressor static int8", environment="zoo", runner="onnxruntime"),
)
OURS = tuple(Variant(name=f"liftgate-{recipe}", label=f"liftgate {recipe}", environment="main", runner="liftgate") for recipe in RECIPES)
SEARCHED = Variant(name="liftgate-search", label="liftgate search (5 min)", environment="main", runner="liftgate")
VARIANTS: dict[str, Variant] = {variant.name: variant for variant in (*PEERS, *OURS, SEARCHED)}
# A search takes five minutes for each case: only where asked for.
USUAL = tuple(variant.name for variant in (*PEERS, *OURS))
