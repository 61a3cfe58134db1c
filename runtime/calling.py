"""How a forward that takes nested arguments is called with flat, named tensors, and how its results are flattened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch.utils._pytree import KeyEntry, TreeSpec

_WRAP = "wrap the model in one that takes plain tensors, lists, tuples or dictionaries of them"
_CONSTANTS = (bool, int, float, str, type(None))


class Calling(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of one forward: `names` of its tensors in order, and everything else as it is.

    `structure` is PyTorch's description of (args, kwargs); `leaves` has None in the place of every tensor. A constant argument (a flag, a
    number, None) keeps the value it had in the example.
    """

    names: tuple[str, ...]
    structure: TreeSpec
    leaves: tuple[object, ...]
    tensors: tuple[int, ...]

    def arguments(self, tensors: Sequence[torch.Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments with these tensors, in the order of `names`."""
        from torch.utils._pytree import tree_unflatten  # noqa: PLC0415 - torch takes seconds

        leaves = list(self.leaves)
        for position, tensor in zip(self.tensors, tensors, strict=True):
            leaves[position] = tensor
        args, kwargs = tree_unflatten(leaves, self.structure)
        return tuple(args), dict(kwargs)

    def flat(self, forward: Callable[..., object]) -> Callable[..., list[torch.Tensor]]:
        """`forward` as a function of the tensors alone that returns a list of tensors."""

        def call(*tensors: torch.Tensor) -> list[torch.Tensor]:
            args, kwargs = self.arguments(tensors)
            return flat_outputs(forward(*args, **kwargs))

        return call

    def shapes(self, shapes: Sequence[object]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What torch.export takes as dynamic shapes, one value per tensor, laid out as the positional and keyword arguments are."""
        return msgspec.structs.replace(self, leaves=(None,) * len(self.leaves)).arguments(shapes)  # type: ignore[arg-type]  # no tensors


def calling_of(args: Sequence[object], kwargs: dict[str, object], parameters: Sequence[str], *, where: str) -> Calling:
    """How `forward(*args, **kwargs)` is called; `parameters` names its positional arguments.

    Names are paths: `user` for an argument, `features.user` for an entry of one. When a single argument is a container and nothing else is
    given, the paths inside it stand alone (`user`). Raises InputError for an argument that is neither a tensor nor a constant.
    """
    import torch  # noqa: PLC0415 - takes seconds
    from torch.utils._pytree import tree_flatten_with_path  # noqa: PLC0415

    found, structure = tree_flatten_with_path((tuple(args), dict(kwargs)))
    labels = [_path(path, parameters) for path, _ in found]
    alone = len(args) + len(kwargs) == 1 and all(len(label) > 1 for label in labels)
    names: list[str] = []
    leaves: list[object] = []
    tensors: list[int] = []
    for position, (label, (_, value)) in enumerate(zip(labels, found, strict=True)):
        name = ".".join(label[1:] if alone else label)
        if isinstance(value, torch.Tensor):
            names.append(name)
            tensors.append(position)
            leaves.append(None)
        elif isinstance(value, _CONSTANTS):
            leaves.append(value)
        else:
            raise InputError.mismatch(f"{where}: argument '{name}'", expected="a tensor", found=type(value).__name__, fix=_WRAP)
    return Calling(names=_unique(names), structure=structure, leaves=tuple(leaves), tensors=tuple(tensors))


def calling_of_program(program: torch.export.ExportedProgram, *, where: str) -> Calling:
    """How the module of an exported program is called; names as in `calling_of`."""
    from torch.utils._pytree import tree_unflatten  # noqa: PLC0415 - torch takes seconds

    structure = program.call_spec.in_spec
    if structure is None:
        raise InputError(where, "does not say how it is called", fix="save it again with torch.export.save")
    given = list(program.graph_signature.user_inputs)
    if len(given) != structure.num_leaves:
        raise InputError(where, "its arguments are not those its graph takes (damaged)", fix="save it again with torch.export.save")
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    args, kwargs = tree_unflatten([values.get(v, v) if isinstance(v, str) else v for v in given], structure)
    signature = program.module_call_graph[0].signature if program.module_call_graph else None
    parameters = (signature.forward_arg_names if signature is not None else None) or []
    if len(parameters) < len(args):
        # Programs saved by older versions do not name their arguments; a plain tensor has the name of its placeholder.
        parameters = [v if isinstance(v, str) and len(args) == len(given) else f"input_{i}" for i, v in enumerate(given[: len(args)])]
    return calling_of(args, kwargs, parameters, where=where)


def flat_module(module: Callable[..., object], calling: Calling) -> torch.nn.Module:
    """`module` as one that takes its tensors by position and returns a tuple of tensors, for tools that know nothing else."""
    import torch  # noqa: PLC0415 - takes seconds

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            args, kwargs = calling.arguments(tensors)
            return tuple(flat_outputs(self.inner(*args, **kwargs)))

    return Flat()


def flat_outputs(found: object) -> list[torch.Tensor]:
    """The tensors of what a forward returned, in order; anything else in it is dropped."""
    import torch  # noqa: PLC0415 - takes seconds
    from torch.utils._pytree import tree_leaves  # noqa: PLC0415

    return [found] if isinstance(found, torch.Tensor) else [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]


def output_names(structure: TreeSpec | None, present: Sequence[bool]) -> tuple[str, ...]:
    """A name per tensor a forward returns (`present` says which leaves are): its path in dictionaries, else `score`, `output_1`, …."""
    from torch.utils._pytree import tree_flatten_with_path, tree_unflatten  # noqa: PLC0415 - torch takes seconds

    positions = list(range(len(present)))
    paths = [path for path, _ in tree_flatten_with_path(tree_unflatten(positions, structure))[0]] if structure is not None else []
    names: list[str] = []
    for position in positions:
        if not present[position]:
            continue
        path = [_key(entry) for entry in paths[position]] if paths else []
        number = len(names)
        names.append(".".join(path) if any(not part.isdigit() for part in path) else "score" if number == 0 else f"output_{number}")
    return _unique(names)


def _path(path: Sequence[KeyEntry], parameters: Sequence[str]) -> list[str]:
    """`['features', 'user']` for the leaf at `args[0]['user']`, whose parameter is called `features`."""
    side, first, *rest = (_key(entry) for entry in path)
    named = parameters[int(first)] if side == "0" and int(first) < len(parameters) else f"input_{first}" if side == "0" else first
    return [named, *rest]


def _key(entry: KeyEntry) -> str:
    """The text of one step of a path: a dictionary's key, a position, an attribute."""
    for attribute in ("key", "idx", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with `_2`, `_3` behind those that came before."""
    counts: Counter[str] = Counter()
    found = []
    for name in names:
        counts[name] += 1
        found.append(name if counts[name] == 1 else f"{name}_{counts[name]}")
    return tuple(found)
