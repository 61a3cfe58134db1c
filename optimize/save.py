"""Writing a model as an archive that describes itself and holds nothing that has to be unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError, UnknownName
from ..core.files import new_file
from ..runtime.archive import quiet
from ..runtime.description import MEMBER, describe
from ..runtime.program import signature_of

if TYPE_CHECKING:
    import torch


def save(
    model: torch.nn.Module,
    example_inputs: object,
    path: Path | str,
    *,
    request_inputs: Sequence[str] | None = None,
    score: str | None = None,
) -> Path:
    """Write `model` to `path` as a torch.export archive with its example inputs, roles and score in plain JSON; returns the path.

    `example_inputs` are positional arguments (a tuple), a mapping by name, or the path of an .npz file, one row per candidate in every
    tensor. `request_inputs` names those with one value per request (user, context, history), `score` what candidates are ranked by, as for
    `export`. The number of rows varies in the archive, and so does every other size that the model takes in other sizes. Raises InputError,
    and writes nothing, when torch.export cannot export the model; it names the line that stands in the way.
    """
    import torch  # noqa: PLC0415 - takes seconds

    from .convert.conversion import program_of  # noqa: PLC0415 - torch takes seconds
    from .convert.examples import examples_for  # noqa: PLC0415
    from .convert.tracing import kept_modes  # noqa: PLC0415

    where = type(model).__name__
    if not isinstance(model, torch.nn.Module):
        raise InputError.mismatch("liftgate.save", expected="a torch.nn.Module", found=where)
    with kept_modes(model):
        program, original = program_of(model, examples_for(model, where=where, given=example_inputs), where)
    signature = signature_of(program, where)
    arrays = {spec.name: tensor.numpy() for spec, tensor in zip(signature.inputs, original.examples.values(), strict=True)}
    for name in request_inputs or ():
        if name not in arrays:
            raise UnknownName(f"liftgate.save: {where}", "request input", name, arrays)
    if score is not None:
        signature.with_score(score, where=where)
    text = describe(arrays, None if request_inputs is None else tuple(request_inputs), score)
    # PyTorch would pickle them into the archive.
    program.example_inputs = None
    target = Path(path)
    with new_file(target) as temporary, quiet(), temporary.open("wb") as file:
        torch.export.save(program, file, extra_files={MEMBER: text})
    return target
