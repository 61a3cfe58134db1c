"""From a module in memory to an exported program: which dimensions vary, and torch.export's modes in turn."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ...core.errors import InputError
from ...core.signature import Signature
from ...runtime.archive import quiet
from ...runtime.calling import Calling, calling_of, calling_of_program, flat_module
from ...runtime.program import ROWS
from ..loading import Module, Program
from ..samples import Samples
from .examples import Examples, arranged, parameters_of, same_rows, take_rows

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch.utils._pytree import TreeSpec

Axis = tuple[str, int]


class Original(msgspec.Struct, frozen=True, kw_only=True):
    """A module that is known to run, and how: `examples` are its flat inputs by name, all with the same number of rows.

    `varying` are the axes, besides rows, that the module takes in other sizes too.
    """

    module: torch.nn.Module
    where: str
    calling: Calling
    examples: dict[str, torch.Tensor]
    varying: frozenset[Axis] = frozenset()

    @property
    def forward(self) -> Callable[..., list[torch.Tensor]]:
        """The module as a function of flat tensors; it gets copies, so that a forward that writes into its inputs harms nobody."""
        flat = self.calling.flat(self.module)
        return lambda *tensors: flat(*(tensor.clone() for tensor in tensors))

    def outputs(self, tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """What the module returns for these inputs, flattened."""
        import torch  # noqa: PLC0415 - takes seconds

        with quiet(), torch.no_grad():
            return self.forward(*tensors.values())

    def output_structure(self) -> TreeSpec:
        """How the flat outputs were laid out."""
        import torch  # noqa: PLC0415 - takes seconds
        from torch.utils._pytree import tree_structure  # noqa: PLC0415

        args, kwargs = self.calling.arguments([tensor.clone() for tensor in self.examples.values()])
        with quiet(), torch.no_grad():
            return tree_structure(self.module(*args, **kwargs))

    def runs_on(self, feeds: Mapping[str, np.ndarray]) -> bool:
        """Whether the module runs on `feeds` and gives no NaN."""
        import torch  # noqa: PLC0415 - takes seconds

        tensors = {name: torch.from_numpy(feeds[name]) for name in self.examples}
        return why_it_fails(self, tensors) is None and not any(t.isnan().any() for t in self.outputs(tensors) if t.is_floating_point())

    def at_rows(self, rows: int) -> dict[str, torch.Tensor]:
        """The examples with this number of rows."""
        return {name: take_rows(tensor, rows) for name, tensor in self.examples.items()}


def original_of(
    module: torch.nn.Module,
    examples: Examples,
    where: str,
    *,
    names: tuple[str, ...] | None = None,
    varying: frozenset[Axis] | None = None,
) -> Original:
    """`module` in evaluation mode, run once on its examples; `varying` is found by trying other sizes where it is not given.

    Inputs are called `names`, or by their paths. Raises InputError when the arguments do not fit the forward, or when it fails on them.
    """
    import torch  # noqa: PLC0415 - takes seconds

    _to_evaluation(module)
    calling = calling_of(examples.args, examples.kwargs, parameters_of(module), where=where)
    calling = msgspec.structs.replace(calling, names=names or calling.names)
    tensors = [leaf for leaf in _leaves(examples) if isinstance(leaf, torch.Tensor)]
    if not tensors:
        raise InputError.mismatch(f"{where}: example inputs", expected="tensors", found="none")
    flat = same_rows(dict(zip(calling.names, tensors, strict=True)), where)
    original = Original(module=module, where=where, calling=calling, examples=flat)
    failure = why_it_fails(original, flat)
    if failure is not None:
        fix = f"it was given {', '.join(flat)}: forward must need no more, and run with them on the CPU in evaluation mode"
        raise InputError(where, f"fails on {examples.note} ({failure})", fix=fix)
    return msgspec.structs.replace(original, varying=varying if varying is not None else frozenset(_varying(original)))


def why_it_fails(original: Original, tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Why the module does not run on `tensors`, in one line; None when it does."""
    import torch  # noqa: PLC0415 - takes seconds

    with quiet(), torch.no_grad():
        try:
            original.forward(*tensors.values())
        except Exception as error:  # the user's forward may raise anything
            return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
    return None


def other_size(original: Original, axes: Sequence[Axis], lengths: Sequence[int] = (-1, 1)) -> dict[str, torch.Tensor] | None:
    """Examples whose `axes` are longer or shorter by one of `lengths`, in the rows on which the module runs; None when it never does."""
    for length in lengths:
        resized = {
            name: _resized(tensor, [axis for owner, axis in axes if owner == name], length) for name, tensor in original.examples.items()
        }
        if why_it_fails(original, resized) is None:
            return resized
        # A row may speak of the length itself, as `history_length` does: then only shorter histories fit.
        fitting = [row for row in range(len(next(iter(resized.values())))) if _runs_alone(original, resized, row)]
        if fitting:
            return {name: tensor[fitting] for name, tensor in resized.items()}
    return None


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """A program, and what PyTorch said of the first way that was tried where that was not the one that worked."""

    program: torch.export.ExportedProgram
    objection: Exception | None


def trace(original: Original) -> Traced:
    """Export with rows and the varying axes dynamic: without Dynamo, then with it, then with fewer axes dynamic.

    Raises the first error, as PyTorch raised it, when every way fails.
    """
    first: Exception | None = None
    last: Exception | None = None
    for varying, strict in _attempts(original):
        with quiet():
            try:
                return Traced(program=_export(original, varying, strict=strict), objection=first)
            except Exception as error:  # torch.export and the user's forward may raise anything
                first, last = first or error, error
    if first is None:
        raise AssertionError("there is always a way to try")
    raise first from (last if last is not first else None)


def trace_flat(source: Module | Program, signature: Signature, samples: Samples) -> torch.export.ExportedProgram:
    """Export `source` once more as a function of flat tensors, for a signature that is known and with sample rows at hand."""
    import torch  # noqa: PLC0415 - takes seconds

    rows = samples.rows(7)
    tensors = {spec.name: torch.from_numpy(rows[spec.name]) for spec in signature.inputs}
    if isinstance(source, Program):
        module: torch.nn.Module = source.program.module(check_guards=False)
        calling = calling_of_program(source.program, where=source.source)
    else:
        parameters = parameters_of(source.module)
        examples = arranged(tensors, parameters, source.where, note=samples.note)
        module, calling = source.module, calling_of(examples.args, examples.kwargs, parameters, where=source.where)
    flat = Examples(args=tuple(tensors.values()), kwargs={}, note=samples.note)
    names = tuple(tensors)
    original = original_of(flat_module(module, calling), flat, source.source, names=names, varying=varying_axes(signature))
    return trace(original).program


def varying_axes(signature: Signature) -> frozenset[Axis]:
    """The axes of the inputs, besides rows, that have no fixed size."""
    return frozenset((spec.name, axis) for spec in signature.inputs for axis, dim in enumerate(spec.shape) if axis and isinstance(dim, str))


def _attempts(original: Original) -> Iterator[tuple[frozenset[Axis], bool]]:
    for varying in (original.varying, frozenset[Axis]()) if original.varying else (original.varying,):
        yield varying, False
        yield varying, True


def _export(original: Original, varying: frozenset[Axis], *, strict: bool) -> torch.export.ExportedProgram:
    import torch  # noqa: PLC0415 - takes seconds

    rows = torch.export.Dim(ROWS, min=1)
    shapes = [
        {axis: rows if axis == 0 else torch.export.Dim.AUTO for axis in range(tensor.ndim) if axis == 0 or (name, axis) in varying}
        for name, tensor in original.examples.items()
    ]
    args, kwargs = original.calling.arguments([tensor.clone() for tensor in original.examples.values()])
    shape_args, shape_kwargs = original.calling.shapes(shapes)
    bound: dict[str, Any] = dict(inspect.signature(original.module.forward).bind(*shape_args, **shape_kwargs).arguments)
    from .data_attribute import DataIsDetach  # noqa: PLC0415 - torch takes seconds

    mode = contextlib.nullcontext() if strict else DataIsDetach()
    # PyTorch prints the graph it had so far to standard error before it raises.
    with torch.no_grad(), mode, contextlib.redirect_stderr(io.StringIO()):
        return torch.export.export(original.module, args, kwargs=kwargs, dynamic_shapes=bound, strict=strict)


@contextlib.contextmanager
def kept_modes(module: torch.nn.Module) -> Iterator[None]:
    """Give every part of `module` back the mode it was in, training or evaluation, when the block ends."""
    # What torch.jit.freeze made has no mode any more.
    modes = {part: part.training for part in module.modules() if hasattr(part, "training")}
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _to_evaluation(module: torch.nn.Module) -> None:
    """Evaluation mode; the module of an exported program is in it for good and refuses to be asked."""
    try:
        module.eval()
    except NotImplementedError:
        return


def _leaves(examples: Examples) -> list[Any]:
    from torch.utils._pytree import tree_leaves  # noqa: PLC0415 - torch takes seconds

    return tree_leaves((examples.args, examples.kwargs))


def _varying(original: Original) -> set[Axis]:
    """The axes besides rows that may be shorter: axes of one size are tried together, as a history and its mask are.

    The columns of a float matrix are features, not a history, although a forward that slices them may well run with fewer; and longer than
    in training is never tried, as a forward that picks columns ignores what it does not know.
    """
    groups: dict[int, list[Axis]] = {}
    for name, tensor in original.examples.items():
        for axis in range(1, tensor.ndim):
            if tensor.shape[axis] > 1:
                groups.setdefault(tensor.shape[axis], []).append((name, axis))
    found: set[Axis] = set()
    for axes in groups.values():
        for together in (axes, *([axis] for axis in axes if len(axes) > 1)):
            if not found & set(together) and _may_be_history(original, together) and other_size(original, together, (-1,)) is not None:
                found.update(together)
    return found


def _may_be_history(original: Original, axes: Sequence[Axis]) -> bool:
    return any(not original.examples[name].is_floating_point() or original.examples[name].ndim > 2 for name, _ in axes)


def _resized(tensor: torch.Tensor, axes: Sequence[int], length: int) -> torch.Tensor:
    """`length` entries less at the end of every axis, or as many more, the last one again and again."""
    import torch  # noqa: PLC0415 - takes seconds

    for axis in axes:
        size = tensor.shape[axis]
        tensor = (
            tensor.narrow(axis, 0, size + length)
            if length < 0
            else torch.cat([tensor, *[tensor.narrow(axis, size - 1, 1)] * length], dim=axis)
        )
    return tensor


def _runs_alone(original: Original, tensors: dict[str, torch.Tensor], row: int) -> bool:
    """Whether the module runs on this row; it is given twice, as some modules fail on a single row whatever it holds."""
    return why_it_fails(original, {name: tensor[[row, row]] for name, tensor in tensors.items()}) is None
