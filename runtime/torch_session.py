"""PyTorch behind the Session protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from ..core.artifact import ModelRef
from ..core.errors import InputError
from ..core.files import sha256_of
from ..core.signature import Signature
from .archive import open_archive, quiet
from .calling import calling_of_program, flat_outputs
from .description import read_description
from .program import signature_of
from .session import SessionSettings


class TorchSession:
    """A model in eager PyTorch on CPU.

    PyTorch's thread pool is one per process, so the settings of the session opened last hold for all of them.
    """

    def __init__(self, forward: Callable[..., object], signature: Signature, ref: ModelRef) -> None:
        self._forward = forward
        self._signature = signature
        self._ref = ref
        self._outputs = [o.name for o in signature.outputs]

    @classmethod
    def open_file(cls, path: Path, settings: SessionSettings, *, signature: Signature | None = None) -> TorchSession:
        """Load a torch.export archive, scanned before PyTorch reads it; its digest is the sha256 of the file.

        Roles and score are those that `liftgate.save` wrote; another archive says nothing about roles, and without `signature` every input
        is a candidate input. Raises UntrustedError when reading it
        would run code, InputError when it is damaged, something else, or takes other inputs than `signature`.
        """
        torch.set_num_threads(settings.thread_count)
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
            module = program.module(check_guards=False)
        return cls.of_module(calling_of_program(program, where=str(path)).flat(module), signature or found, ref)

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
            found = self._forward(*(torch.from_numpy(feeds[s.name]) for s in self._signature.inputs))
        return {name: tensor.detach().numpy() for name, tensor in zip(self._outputs, flat_outputs(found), strict=True)}
