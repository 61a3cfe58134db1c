"""From whatever PyTorch has to an ONNX graph, with the original kept beside it to compare with."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import onnx_ir as ir

from ...core.artifact import ModelRef
from ...core.errors import InputError
from ...core.requests import Requests
from ...core.signature import Dim, InputSpec, OutputSpec, Role, Signature
from ...runtime.archive import quiet
from ...runtime.calling import calling_of_program, output_names
from ...runtime.onnx_file import load
from ...runtime.onnx_signature import signature_from_graph
from ...runtime.program import ROWS, signature_of
from ..loading import Module, Pretrained, Program, Script
from ..rewrites.bag_loops import rewrite_graph
from ..rewrites.embedding_bag import rewrite_program
from ..rewrites.row_loops import warn_row_loops
from ..rewrites.squeezes import mend_squeezes
from ..samples import Samples, from_examples, from_requests, from_signature
from .examples import Examples
from .onnx_graph import to_onnx
from .tables import with_tables
from .tracing import Axis, Original, original_of, other_size, trace, varying_axes

if TYPE_CHECKING:
    import torch

    from ...runtime.torch_session import TorchSession

Fallback = Literal["torchscript"]


class Conversion(msgspec.Struct, frozen=True, kw_only=True):
    """An ONNX graph and the PyTorch model it was made from.

    `examples_note` says where the example rows come from, `notes` what a user should know of how the graph was made, `rewritten` what was
    written otherwise than PyTorch's exporter does, `saved_roles` and `saved_score` what the source itself says.
    """

    graph: ir.Model
    signature: Signature
    original: Original
    examples_note: str
    notes: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()
    saved_roles: dict[str, Role] = {}
    saved_score: str | None = None

    def session(self, signature: Signature) -> TorchSession:
        """The original behind the Session protocol."""
        from ...runtime.torch_session import TorchSession  # noqa: PLC0415 - torch takes seconds

        ref = ModelRef(name=self.original.where, digest="", runtime="pytorch", size_bytes=0)
        return TorchSession.of_module(self.original.forward, signature, ref)

    def samples(self, requests: Requests | None, signature: Signature) -> Samples:
        """Rows to check on: those of the requests, else the example inputs, also recombined."""
        if requests is not None:
            return from_requests(requests, signature)
        feeds = {name: tensor.numpy() for name, tensor in self.original.examples.items()}
        return from_examples(feeds, self.original.runs_on, note=self.examples_note)

    def resized(self) -> tuple[list[tuple[str, dict[str, np.ndarray]]], tuple[str, ...]]:
        """Feeds with other sizes of every dimension that varies besides rows, and the dimensions PyTorch takes in no other size.

        A branch on a size is gone from the graph, so small sizes and larger ones than the example's are tried too.
        """
        found: list[tuple[str, dict[str, np.ndarray]]] = []
        rigid = []
        for dim in dict.fromkeys(d for spec in self.signature.inputs for d in spec.shape[1:] if isinstance(d, str)):
            axes = [(spec.name, axis) for spec in self.signature.inputs for axis, d in enumerate(spec.shape) if d == dim]
            size = min(self.original.examples[name].shape[axis] for name, axis in axes)
            tried = [
                other_size(self.original, axes, (by,))
                for by in dict.fromkeys((-1, 2 - size, -(size // 2), 1, size))
                if size + by > 0 and by
            ]
            taken = [{name: np.ascontiguousarray(t.numpy()) for name, t in tensors.items()} for tensors in tried if tensors is not None]
            found.extend((dim, feeds) for feeds in taken)
            rigid.extend([] if taken else [dim])
        return found, tuple(rigid)


def convert_program(source: Program, where: str, requests: Requests | None) -> Conversion:
    """A torch.export program; where it brings no example inputs, rows are taken from the requests or generated from its signature."""
    calling = calling_of_program(source.program, where=where)
    bare = signature_of(source.program, where)
    rewritten, bags = rewrite_program(source.program)
    graph = to_onnx(rewritten, bare, where)
    signature = with_tables(bare, graph)
    tensors, note = _program_examples(source, signature, requests, where)
    args, kwargs = calling.arguments(tensors)
    with quiet():
        module = source.program.module(check_guards=False)
    examples = Examples(args=args, kwargs=kwargs, note=note)
    original = original_of(module, examples, where, names=calling.names, varying=varying_axes(signature))
    return Conversion(
        graph=graph,
        signature=signature,
        original=original,
        examples_note=note,
        notes=(*bags.warnings, *warn_row_loops(graph)),
        rewritten=bags.done,
        saved_roles=source.description.roles(),
        saved_score=source.description.score,
    )


def program_of(module: torch.nn.Module, examples: Examples, where: str) -> tuple[torch.export.ExportedProgram, Original]:
    """`module` as an exported program; raises InputError that names the line of the model that stands in the way."""
    original = original_of(module, examples, where)
    try:
        return trace(original).program, original
    except Exception as error:  # torch.export and the user's forward may raise anything
        raise _explained(error, original, where, None) from error


def convert_module(
    source: Module | Script, examples: Examples, where: str, fallback: Fallback | None, *, resizable: bool = True
) -> Conversion:
    """A module in memory: through torch.export, or through TorchScript where that is asked for or all there is.

    Only the number of rows varies unless the model is `resizable`: then every size does that it takes in other sizes. Raises
    InputError that names the line of the model that stands in the way, and what to write instead.
    """
    original = original_of(source.module, examples, where, varying=None if resizable else frozenset())
    if isinstance(source, Script):
        return _through_torchscript(original, examples, ())
    try:
        traced = trace(original)
    except Exception as error:  # torch.export and the user's forward may raise anything
        if fallback is None:
            raise _explained(error, original, where, examples) from error
        return _through_torchscript(
            original, examples, (f"converted through TorchScript, as torch.export could not: {_first_line(error)}",)
        )
    rewritten, bags = rewrite_program(traced.program)
    bare = signature_of(traced.program, where)
    try:
        graph = to_onnx(rewritten, bare, where)
    except InputError as error:
        if fallback is None:
            raise error if traced.objection is None else _explained(traced.objection, original, where, examples) from error
        return _through_torchscript(original, examples, (f"converted through TorchScript, as torch.onnx could not: {error.problem}",))
    notes = (*bags.warnings, *warn_row_loops(graph))
    fixed = sorted(original.varying - varying_axes(bare))
    if fixed:
        notes = (*notes, f"fixed although PyTorch takes other sizes: {', '.join(f'{name} axis {axis}' for name, axis in fixed)}")
    return Conversion(
        graph=graph,
        signature=with_tables(bare, graph),
        original=original,
        examples_note=examples.note,
        notes=notes,
        rewritten=bags.done,
    )


def convert_pretrained(source: Pretrained, where: str) -> Conversion:
    """A Hugging Face folder, by optimum; raises InputError as `huggingface.convert` does."""
    from ..huggingface import convert  # noqa: PLC0415 - transformers takes seconds

    with tempfile.TemporaryDirectory(prefix="liftgate-") as scratch:
        found = convert(source.folder, Path(scratch) / "model.onnx")
        graph = load(found.onnx, where)
        ir.external_data.load_to_model(graph)
    signature = with_tables(signature_from_graph(graph, where), graph)
    note = "generated tokens"
    examples = Examples(args=tuple(found.examples.values()), kwargs={}, note=note)
    original = original_of(found.module, examples, where, names=tuple(found.examples), varying=varying_axes(signature))
    return Conversion(graph=graph, signature=signature, original=original, examples_note=note, notes=warn_row_loops(graph))


def _through_torchscript(original: Original, examples: Examples, notes: tuple[str, ...]) -> Conversion:
    from . import torchscript_onnx  # noqa: PLC0415 - torch takes seconds

    args, kwargs = original.calling.arguments([tensor.clone() for tensor in original.examples.values()])
    try:
        bare = _signature_by_running(original)
        graph, how = torchscript_onnx.to_onnx(
            original.module, args, kwargs, inputs=_dims(bare.inputs), outputs=_dims(bare.outputs), where=original.where
        )
    except InputError:
        raise
    except Exception as error:  # the user's forward at another number of rows, and PyTorch's deprecated exporter, raise anything
        fix = "the model must return the same tensors for any number of rows, of common dtypes"
        raise InputError(original.where, f"cannot be converted through TorchScript ({_first_line(error)})", fix=fix) from error
    mend_squeezes(graph)
    bags = rewrite_graph(graph)
    return Conversion(
        graph=graph,
        signature=with_tables(bare, graph),
        original=original,
        examples_note=examples.note,
        notes=(*notes, *bags.warnings),
        rewritten=(f"converted through TorchScript ({how})", *bags.done),
    )


def _converts_through_torchscript(original: Original, examples: Examples) -> bool:
    try:
        _through_torchscript(original, examples, ())
    except InputError:
        return False
    return True


def _dims(specs: Sequence[InputSpec | OutputSpec]) -> dict[str, dict[int, str]]:
    """The varying dimensions by axis, per tensor."""
    return {spec.name: {axis: dim for axis, dim in enumerate(spec.shape) if isinstance(dim, str)} for spec in specs}


def _explained(error: BaseException, original: Original, where: str, examples: Examples | None) -> InputError:
    """The error with the line that caused it; TorchScript is offered only where it was tried on `examples` and works."""
    from ..explain.diagnosis import diagnose, text  # noqa: PLC0415 - only when something went wrong

    found = diagnose(error, original.module)
    if found.sound_with_torchscript and (examples is None or not _converts_through_torchscript(original, examples)):
        found = msgspec.structs.replace(found, sound_with_torchscript=False)
    place, problem, fix = text(found, where)
    return InputError(place if place == where else f"{where}: {place}", problem, fix=fix)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _program_examples(source: Program, signature: Signature, requests: Requests | None, where: str) -> tuple[list[torch.Tensor], str]:
    """Example tensors in the signature's order, and where they come from."""
    import torch  # noqa: PLC0415 - takes seconds
    from torch.utils._pytree import tree_leaves  # noqa: PLC0415

    saved = {name: example.array(where) for name, example in source.description.examples.items()}
    if set(saved) == {spec.name for spec in signature.inputs}:
        return [torch.from_numpy(saved[spec.name]) for spec in signature.inputs], "example inputs saved with the model"
    tensors = [leaf for leaf in tree_leaves(source.program.example_inputs) if isinstance(leaf, torch.Tensor)]
    if len(tensors) == len(signature.inputs):
        return tensors, "example inputs of the model"
    samples = from_requests(requests, signature) if requests is not None else from_signature(signature)
    return [torch.from_numpy(samples.rows(64)[spec.name]) for spec in signature.inputs], samples.note


def _signature_by_running(original: Original) -> Signature:
    """Inputs as the examples have them; output dimensions that change with rows or with another dimension carry its name."""
    labels = _labels(original)
    inputs = tuple(
        InputSpec(
            name=name,
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(labels.get((name, axis), size) for axis, size in enumerate(tensor.shape)),
            role="candidate",
        )
        for name, tensor in original.examples.items()
    )
    rows = len(next(iter(original.examples.values())))
    first, more = original.outputs(original.examples), original.outputs(original.at_rows(rows + 1))
    shapes: list[list[Dim]] = [
        [ROWS if a != b else a for a, b in zip(x.shape, y.shape, strict=True)] for x, y in zip(first, more, strict=True)
    ]
    for dim in dict.fromkeys(label for label in labels.values() if label != ROWS):
        resized = other_size(original, [axis for axis, label in labels.items() if label == dim])
        for shape, tensor in zip(shapes, original.outputs(resized) if resized else (), strict=False):
            shape[:] = [known if known in {ROWS, size} else dim for known, size in zip(shape, tensor.shape, strict=True)]
    names = output_names(original.output_structure(), [True] * len(first))
    return Signature(
        inputs=inputs,
        outputs=tuple(
            OutputSpec(name=name, dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(shape))
            for name, tensor, shape in zip(names, first, shapes, strict=True)
        ),
    )


def _labels(original: Original) -> dict[Axis, str]:
    """A name per varying axis: `rows`, else that of the first input whose axis had the same size in the examples."""
    labels: dict[Axis, str] = {(name, 0): ROWS for name in original.examples}
    by_size: dict[int, str] = {}
    for name, axis in sorted(original.varying, key=lambda a: (list(original.examples).index(a[0]), a[1])):
        labels[name, axis] = by_size.setdefault(original.examples[name].shape[axis], f"{name}_{axis}")
    return labels
