"""Transformers as Hugging Face saves them, converted by optimum; nothing is fetched, and no code of the folder is run.

Only two things of a folder are read: `config.json`, and its weights as `--weights` reads them. Both become a model here, so that
transformers itself opens no file: not the folder's Python files, not a pickle, nothing from the network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.errors import InputError, UntrustedError
from ..runtime.archive import quiet
from ..runtime.kinds import read_config
from ..runtime.weights import read_weights

if TYPE_CHECKING:
    import torch

_TASKS = {"ForSequenceClassification": "text-classification", "ForMaskedLM": "fill-mask"}
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Keys that only say how to load or place a model; some of them name code to fetch.
_IGNORED = {"attn_implementation", "_attn_implementation", "dtype", "torch_dtype", "_name_or_path", "transformers_version"}
_MOST_LAYERS = 1000
_MOST_LABELS = 100_000
_LARGEST_INDEX_BYTES = 2**26
# Parts that no file holds, such as a tied output layer, are fewer than the weights; small models have some fixed ones.
_SPARE_PARAMETERS = 10_000_000
_SAVE_AGAIN = "save the model again with save_pretrained"


class Converted(msgspec.Struct, frozen=True):
    """A transformer as ONNX, with what its scores can be compared with.

    `module` takes the tensors of `examples` by position, in their order, which is that of the ONNX inputs, and gives the logits:
    [rows, labels] of a classifier, [rows, tokens, vocabulary] of a masked language model.
    """

    onnx: Path
    module: torch.nn.Module
    examples: dict[str, torch.Tensor]


def check_folder(folder: Path) -> None:
    """Raise UntrustedError where the folder needs code to be read, InputError where it is damaged or no ranker."""
    config = _config(folder)
    _task(config, folder)
    weight_files(folder)


def convert(folder: Path, into: Path) -> Converted:
    """Convert the model in `folder` to an ONNX file `into`; raises InputError, also when the extra `hf` is not installed."""
    where = str(folder)
    config = _config(folder)
    architecture, task = _task(config, folder)
    tasks, export = _optimum(where)
    import torch  # noqa: PLC0415 - takes seconds

    with quiet(), _explained(where):
        model = _model(config, architecture, folder)
        exporter = tasks.get_exporter_config_constructor("onnx", model=model, task=task, library_name="transformers")(model.config)
        names, outputs = export(model, exporter, into, opset=18)
        if outputs[0] != "logits":
            raise InputError.mismatch(where, expected="a model whose first output is 'logits'", found=f"'{outputs[0]}'")
        made: dict[str, torch.Tensor] = exporter.generate_dummy_inputs(framework="pt", batch_size=8, sequence_length=12)
        examples = {name: made[name] for name in names}

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(**dict(zip(names, tensors, strict=True))).logits
            return logits

    return Converted(onnx=into, module=Logits().eval(), examples=examples)


def weight_files(folder: Path) -> list[Path]:
    """The files with the folder's weights, safetensors before pickles; raises InputError when there are none or one is missing."""
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file() and index.stat().st_size <= _LARGEST_INDEX_BYTES:
            return _shards(index)
    expected = "its weights (model.safetensors or pytorch_model.bin)"
    raise InputError.mismatch(str(folder), expected=expected, found="none", fix=_SAVE_AGAIN)


def _shards(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        files = sorted(index.parent / name for name in names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(str(index), "is damaged", fix=_SAVE_AGAIN) from None
    for file in files:
        if file.parent != index.parent or file.name in {"", ".."} or not file.is_file():
            raise InputError.mismatch(str(index), expected="files of weights beside it", found=str(file)[:120], fix=_SAVE_AGAIN)
    return files


def _config(folder: Path) -> dict[str, object]:
    """The folder's config without what only says how to load it; raises UntrustedError where it names code."""
    where = str(folder / "config.json")
    config = read_config(folder)
    if config is None:
        raise InputError.mismatch(where, expected="the config of a transformer", found="nothing readable", fix=_SAVE_AGAIN)
    if "auto_map" in config:
        raise UntrustedError(where, "names code of its own (auto_map); reading the model would run it", fix="export the module from Python")
    if "quantization_config" in config:
        fix = "save the model it was quantized from; liftgate quantizes it after the export"
        raise InputError.mismatch(where, expected="weights in floating point", found="a quantized model", fix=fix)
    if (folder / "adapter_config.json").exists():
        fix = "merge it first: model.merge_and_unload().save_pretrained(folder)"
        raise InputError.mismatch(str(folder), expected="a whole model", found="an adapter (adapter_config.json)", fix=fix)
    for key, value in config.items():
        most = _MOST_LAYERS if "layer" in key and "drop" not in key else _MOST_LABELS if key == "num_labels" else 2**31
        if isinstance(value, int) and abs(value) > most:
            raise InputError.mismatch(where, expected=f"'{key[:60]}' of at most {most:,}", found=f"{value:,}"[:40], fix="check the file")
    return {key: value for key, value in config.items() if key not in _IGNORED}


def _task(config: dict[str, object], folder: Path) -> tuple[str, str]:
    """The class of the model and what optimum calls its task."""
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    for suffix, task in _TASKS.items():
        if architecture.endswith(suffix):
            return architecture, task
    expected = f"a transformer that scores rows ({' or '.join('…' + suffix for suffix in _TASKS)})"
    fix = "train it with a head that scores, such as AutoModelForSequenceClassification with num_labels=1"
    raise InputError.mismatch(str(folder), expected=expected, found=architecture[:80] or "no architecture in config.json", fix=fix)


def _optimum(where: str) -> tuple[Any, Any]:
    """optimum's table of tasks and its export function."""
    with quiet():
        try:
            from optimum.exporters.onnx import export  # noqa: PLC0415 - an extra
            from optimum.exporters.tasks import TasksManager  # noqa: PLC0415
        except ImportError:
            fix = "install it: pip install 'liftgate[hf]'"
            raise InputError(where, "is a Hugging Face model, which only the extra 'hf' converts", fix=fix) from None
    return TasksManager, export


def _model(config: dict[str, object], architecture: str, folder: Path) -> torch.nn.Module:
    """The transformer with its weights; raises InputError where the two do not fit."""
    import torch  # noqa: PLC0415 - as above
    import transformers  # noqa: PLC0415 - only after the check for the extra

    where = str(folder)
    kind = getattr(transformers, architecture, None)
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel) or kind.config_class is None:
        raise InputError.mismatch(where, expected=f"a model of transformers {transformers.__version__}", found=architecture[:80])
    settings = kind.config_class.from_dict(config)
    settings.return_dict = True
    state = {name: tensor for file in weight_files(folder) for name, tensor in read_weights(file).items()}
    with torch.device("meta"):
        described = sum(parameter.numel() for parameter in kind(settings).parameters())
    held = sum(tensor.numel() for tensor in state.values())
    if described > 2 * held + _SPARE_PARAMETERS:
        raise InputError(where, f"its config describes {described:,} parameters, its weights hold {held:,}", fix=_SAVE_AGAIN)
    model: torch.nn.Module
    model, found = kind.from_pretrained(
        None, config=settings, state_dict=state, output_loading_info=True, local_files_only=True, attn_implementation="eager"
    )
    missing = sorted(found["missing_keys"])
    if missing:
        names = ", ".join(missing[:3])
        fix = "save the fine-tuned model, not the one it started from"
        raise InputError(where, f"holds no weights for {names}; they would be random numbers", fix=fix)
    return model.eval()


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn what transformers and optimum raise into one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # both raise whatever they trip over
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(where, f"cannot be converted ({type(error).__name__}: {reason[:240]})", fix=_SAVE_AGAIN) from error
