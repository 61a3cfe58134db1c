"""What a rule looks at, and what it finds: a construct that cannot be exported and the smallest change that helps."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import msgspec

from .places import Site
from .rewriting import arguments

if TYPE_CHECKING:
    import torch

# PyTorch's texts about a model that fits one number of rows.
FIXED_ROWS = (
    *("Constraints violated", "specialized it to be a constant", "is invalid for input of size", "must match the size of tensor"),
    *("Sizes of tensors must match", "Expected hidden size", "attempting to expand", "out of bounds for dimension 0"),
)
# What still says the truth for every input: a traced graph, only a scripted one (a trace would keep the example's way), or neither.
Keeps = Literal["trace", "script", "neither"]


class Clue(msgspec.Struct, frozen=True):
    """The line, PyTorch's own text, and the model."""

    site: Site
    message: str
    module: torch.nn.Module

    def says(self, *parts: str) -> bool:
        """Whether PyTorch's text has one of these parts."""
        return any(part in self.message for part in parts)

    @property
    def rows(self) -> str:
        """An expression for the number of rows, by the first argument of the function."""
        names = [name for name in arguments(self.site.function) if name not in {"ctx", "module", "mode"}]
        return f"{names[0]}.shape[0]" if names else "x.shape[0]"

    def owners(self) -> list[torch.nn.Module]:
        """The modules whose class has the method the line is in."""
        name = self.site.name.partition(".")[0]
        return [m for m in self.module.modules() if any(base.__name__ == name for base in type(m).__mro__)]

    def attribute(self, node: ast.AST) -> object:
        """The value of `self.x` (or `self.x.y`) in the first module that has it, None where there is none."""
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        if not (names and isinstance(node, ast.Name) and node.id == "self"):
            return None
        for owner in self.owners():
            value: object = owner
            for name in names:
                value = getattr(value, name, None)
            if value is not None:
                return value
        return None


class Finding(msgspec.Struct, frozen=True):
    """A short noun phrase, the rewrite, and what TorchScript makes of it."""

    construct: str
    change: str
    keeps: Keeps = "neither"


Rule = Callable[[Clue], Finding | None]
