"""PyTorch behind the Session protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from ..core.artifact import ModelRef
from ..core.errors import InputError
from ..core.files import sha256_of
from ..core.session_defaults import Device
from ..core.signature import Signature
from .archive import open_archive, quiet
from .calling import calling_of_program, flat_outputs
from .description import read_description
from .program import signature_of
from .session import SessionSettings

_CPU = torch.device("cpu")


class TorchSession:
    """A model in eager PyTorch, on CPU or on the first GPU that CUDA sees.

    PyTorch's thread pool is one per process, so the settings of the session opened last hold for all of them.
    """

    def __init__(self, forward: Callable[..., object], signature: Signature, ref: ModelRef, device: torch.device = _CPU) -> None:
        self._forward = forward
        self._signature = signature
        self._ref = ref
        self._outputs = [o.name for o in signature.outputs]
        self._device = device

    @classmethod
    def open_file(cls, path: Path, settings: SessionSettings, *, signature: Signature | None = None) -> TorchSession:
        """Load a torch.export archive, scanned before PyTorch reads it; its digest is the sha256 of the file.

        Roles and score are those that `liftgate.save` wrote; another archive says nothing about roles, and without `signature` every input
        is a candidate input. Raises UntrustedError when reading it
        would run code, InputError when it is damaged, something else, or takes other inputs than `signature`.
        """
        _set_threads(settings.thread_count)
        device = _device(settings.device, str(path))
        program = open_archive(path)
        description = read_description(path)
        found = signature_of(program, str(path), description.roles())
        if description.score is not None:
            found = found.with_score(description.score, where=str(path))
        if signature is not None and [s.name for s in signature.inputs] != [s.name for s in found.inputs]:
            expected = ", ".join(s.name for s in signature.inputs)
            raise InputError.mismatch(str(path), expected=f"the inputs {expected}", found=", ".join(s.name for s in found.inputs))
        ref = ModelRef(name=path.stem, digest=sha256_of(path), runtime="pytorch", size_bytes=path.stat().st_size)
        with quiet():
            module = on_device(program, device).module(check_guards=False)
        return cls(calling_of_program(program, where=str(path)).flat(module), signature or found, ref, device)

    @classmethod
    def of_module(cls, module: Callable[..., object], signature: Signature, ref: ModelRef) -> TorchSession:
        """A session over a function that takes the signature's inputs by position, in order, and returns its outputs."""
        return cls(module, signature, ref)

    @property
    def ref(self) -> ModelRef:
        return self._ref

    @property
    def signature(self) -> Signature:
        return self._signature

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = self._forward(*(torch.from_numpy(feeds[s.name]).to(self._device) for s in self._signature.inputs))
            # Copying to main memory waits for what the GPU still computes.
            return {name: tensor.detach().cpu().numpy() for name, tensor in zip(self._outputs, flat_outputs(found), strict=True)}


def on_device(program: torch.export.ExportedProgram, device: torch.device) -> torch.export.ExportedProgram:
    """The program with its weights, and whatever its graph creates, on `device`; archives may have been written elsewhere."""
    if device == _CPU:
        return program
    from torch.export.passes import move_to_device_pass  # noqa: PLC0415 - only a GPU needs it

    return move_to_device_pass(program, device)


def _device(wanted: Device, where: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        built = "built for CPU only" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}, which finds no GPU"
        fix = "install a PyTorch built for the CUDA that the driver has"
        raise InputError.mismatch(where, expected="a GPU for PyTorch", found=f"torch {torch.__version__} {built}", fix=fix)
    return torch.device(wanted)


def _set_threads(count: int) -> None:
    """Threads within an operator, and one operator at a time."""
    torch.set_num_threads(count)
    if torch.get_num_interop_threads() != 1:
        with suppress(RuntimeError):  # it can be set once per process, before the pool has been used
            torch.set_num_interop_threads(1)
