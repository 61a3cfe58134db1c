"""What the user names as a model: a file of some kind, or code that builds one."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..core.errors import InputError, UnknownName, UntrustedError
from ..runtime.archive import open_archive, quiet
from ..runtime.content import open_content
from ..runtime.description import Description, read_description
from ..runtime.kinds import a, kind_of
from ..runtime.script import open_script
from ..runtime.weights import fit_names, read_weights
from .huggingface import check_folder

if TYPE_CHECKING:
    import torch

_ARCHIVE_FIX = "save the model with liftgate.save(model, example_inputs, path)"
_FACTORY_FIX = "name the code that builds the model and give the file as its weights: optimize export train.py:make_model --weights {file}"


class Program(msgspec.Struct, frozen=True):
    """An exported program; `source` names it in manifests, without folders, and `description` is what `liftgate.save` wrote beside it."""

    program: torch.export.ExportedProgram
    source: str
    description: Description = Description()


class Module(msgspec.Struct, frozen=True):
    """A module in memory, still to be exported; `where` names it in errors."""

    module: torch.nn.Module
    source: str
    where: str


class Script(msgspec.Struct, frozen=True):
    """A TorchScript module, scripted or traced, still to be exported; `where` names it in errors."""

    module: torch.jit.ScriptModule
    source: str
    where: str


class Graph(msgspec.Struct, frozen=True):
    """A model that is an ONNX file already."""

    path: Path
    source: str


class Pretrained(msgspec.Struct, frozen=True):
    """A folder as Hugging Face's `save_pretrained` writes it, still to be converted (see huggingface.py)."""

    folder: Path
    source: str


Source = Program | Module | Script | Graph | Pretrained


def load_source(model: object, *, weights: Path | None = None, trust_pickle: bool = False) -> Source:
    """What `model` is, loaded: a module, a path to a file of a known kind, or `module:factory` / `path/to/file.py:factory`.

    Nothing in a file is executed unless `trust_pickle` says that the user made the file; a factory is code that the user names, so it is
    run. Raises InputError for anything else, UntrustedError where a file would have to be unpickled.
    """
    import torch  # noqa: PLC0415 - takes seconds

    if isinstance(model, Program | Module | Script | Graph | Pretrained):
        return model
    if isinstance(model, torch.nn.Module):
        return _in_memory(_with_weights(model, weights, type(model).__name__), type(model).__name__, type(model).__name__)
    if not isinstance(model, str | Path):
        raise InputError.mismatch("model", expected="a torch.nn.Module, a path or 'module:factory'", found=type(model).__name__)
    text = str(model)
    file, colon, factory = text.rpartition(":")
    if colon and factory.isidentifier() and not Path(text).exists():
        built = _build(file, factory)
        return _in_memory(_with_weights(built, weights, text), f"{Path(file).name}:{factory}", text)
    if weights is not None:
        raise InputError(text, "weights were given, but this is no code to load them into", fix=_FACTORY_FIX.format(file=weights))
    return _load_file(Path(text), trust_pickle)


def _in_memory(module: torch.nn.Module, source: str, where: str) -> Module | Script:
    import torch  # noqa: PLC0415 - takes seconds

    kind = Script if isinstance(module, torch.jit.ScriptModule) else Module
    return kind(module=module, source=source, where=where)  # type: ignore[arg-type]  # just checked


def _load_file(path: Path, trust_pickle: bool) -> Source:
    where = str(path)
    match kind_of(path):
        case "torch.export archive":
            program = open_archive(path, trust_pickle=trust_pickle)
            return Program(program=program, source=path.name, description=read_description(path))
        case "TorchScript archive":
            return Script(module=open_script(path, trust_pickle=trust_pickle), source=path.name, where=where)
        case "ONNX model":
            from ..runtime.onnx_file import check_onnx  # noqa: PLC0415 - onnx takes a second

            check_onnx(path)
            return Graph(path=path, source=path.name)
        case "Hugging Face model folder":
            check_folder(path)
            return Pretrained(folder=path, source=path.resolve().name)
        case "safetensors file":
            found = "a safetensors file (weights without code)"
        case "torch.save file" | "pickle":
            found, needs_code = _what_is_saved(path)
            if needs_code:
                return _unpickle(path, found, trust_pickle)
        case kind:
            expected = "a torch.export or TorchScript archive, an ONNX file, a Hugging Face model folder or 'module:factory'"
            raise InputError.mismatch(where, expected=expected, found=a(kind), fix=_ARCHIVE_FIX)
    raise InputError.mismatch(where, expected="a model", found=found, fix=_FACTORY_FIX.format(file=path.name))


def _what_is_saved(path: Path) -> tuple[str, bool]:
    """What a torch.save file or pickle holds, in words, and whether only running code could restore it."""
    try:
        with open_content(path, str(path)) as content:
            return "a state_dict (weights without code)" if "" in content.state_dicts else content.what, content.needs_code
    except UntrustedError:
        return "a pickled object", True


def _unpickle(path: Path, what: str, trust_pickle: bool) -> Module | Script:
    import torch  # noqa: PLC0415 - takes seconds

    where = str(path)
    if not trust_pickle:
        fix = f"{_ARCHIVE_FIX}; or, if you made this file yourself, export it first with `optimize export {path.name} --trust-pickle`"
        raise UntrustedError(where, f"is {what}; reading it would execute code it contains", fix=fix)
    with quiet():
        try:
            module = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as error:  # unpickling raises whatever it trips over
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(where, f"cannot be unpickled ({reason[:200]})", fix=_ARCHIVE_FIX) from error
    if not isinstance(module, torch.nn.Module):
        raise InputError.mismatch(where, expected="a pickled torch.nn.Module", found=type(module).__name__, fix=_ARCHIVE_FIX)
    return _in_memory(module, path.name, where)


def _build(module_or_file: str, factory: str) -> torch.nn.Module:
    """Call the factory the user named."""
    import torch  # noqa: PLC0415 - takes seconds

    where = f"{module_or_file}:{factory}"
    module = _import_file(Path(module_or_file)) if module_or_file.endswith(".py") else _import_module(module_or_file)
    make: Callable[[], object] | None = getattr(module, factory, None)
    if make is None:
        callables = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UnknownName(where, "factory", factory, callables)
    try:
        built = make() if not isinstance(make, torch.nn.Module) else make
    except Exception as error:  # the factory is the user's code
        raise InputError(where, f"failed with {type(error).__name__}: {error}", fix="it must build the model without arguments") from error
    if not isinstance(built, torch.nn.Module):
        raise InputError.mismatch(where, expected="a torch.nn.Module from the factory", found=type(built).__name__)
    return built


def _import_module(name: str) -> object:
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except Exception as error:  # importing runs the user's code
        raise InputError(
            name, f"cannot be imported ({type(error).__name__}: {error})", fix="give the path of the file: train.py:make_model"
        ) from error


def _import_file(path: Path) -> object:
    if not path.is_file():
        raise InputError.mismatch(str(path), expected="a Python file", found="nothing", fix="check the path")
    spec = importlib.util.spec_from_file_location(f"liftgate_source_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError.mismatch(str(path), expected="a Python file", found="something else")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # importing runs the user's code
        raise InputError(str(path), f"cannot be imported ({type(error).__name__}: {error})") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _with_weights(module: torch.nn.Module, weights: Path | None, where: str) -> torch.nn.Module:
    """`module` with the state_dict at `weights` loaded, or as it is."""
    if weights is None:
        return module
    if not weights.is_file():
        raise InputError.mismatch(f"--weights {weights}", expected="a file of weights", found="nothing", fix="check the path")
    state = fit_names(read_weights(weights), set(module.state_dict()))
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise InputError(
            str(weights), f"does not fit {where} ({' '.join(lines[1:3])[:300]})", fix="give the weights of this very model"
        ) from None
    return module
