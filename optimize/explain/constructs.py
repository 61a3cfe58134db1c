"""Which construct of the user's code stops an export: the rules in the order in which they are asked."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import construct_calls as one
from . import construct_loops as loops
from . import construct_rows as rows
from . import construct_values as values
from .finding import Clue, Finding, Rule
from .places import Place, Site, is_users, look

if TYPE_CHECKING:
    import torch

RULES: tuple[Rule, ...] = (
    *(one.printing, one.hook, one.packed, one.scripted, one.device, one.tensor_of_tensors, one.sparse, one.one_hot),
    *(one.random_numbers, one.gradient, one.detached, values.numpy_call, values.check, loops.mask_loop, rows.row_branch, values.branch),
    *(values.lookup, loops.row_loop, values.number, rows.cut_rows, rows.fixed_rows, one.parallel, one.unsupported, one.caught),
)
# Errors that come without a line: only these constructs cause them, so they may be looked for.
_WITHOUT_LINE: tuple[Rule, ...] = (
    *(one.gradient, one.detached, rows.rows_in_numpy, loops.mask_loop, loops.row_loop),
    *(rows.row_branch, rows.cut_rows, rows.fixed_rows, one.parallel, one.caught),
)


def recognise(clue: Clue) -> Finding | None:
    """The construct on this line."""
    return next((found for found in (rule(clue) for rule in RULES) if found is not None), None)


def search(clue: Clue) -> tuple[Site, Finding] | None:
    """The first line of the model's own code that explains an error without a line."""
    sites = list(sites_of(clue.module))
    for rule in _WITHOUT_LINE:
        for site in sites:
            found = rule(Clue(site, clue.message, clue.module))
            if found is not None:
                return site, found
    return None


def sites_of(module: torch.nn.Module) -> Iterator[Site]:
    """Every statement that forward reaches in classes of the user's, by the names of the methods it calls."""
    seen: set[object] = set()
    for part in module.modules():
        pending = ["forward"]
        while pending:
            method = inspect.unwrap(getattr(type(part), pending.pop(), None) or _no_method)
            code = getattr(method, "__code__", None)
            if code is None or code in seen or not is_users(code.co_filename):
                continue
            seen.add(code)
            function = look(Place(code.co_filename, code.co_firstlineno)).around
            for node in ast.walk(function[0]) if function else ():
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                    pending.append(node.attr)
                if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef):
                    yield look(Place(code.co_filename, node.lineno))


def _no_method() -> None:
    """Stands for a method that a class does not have."""
