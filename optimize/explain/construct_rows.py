"""Constructs that tie a model to one number of rows: sizes written down, branches on them, state of the last batch."""

from __future__ import annotations

import ast
import re

from .construct_values import calls_of, numpy_in_torch
from .finding import FIXED_ROWS, Clue, Finding
from .rewriting import aliases, assigned, calls, dotted, is_zero, name_of, receiver, replaced, shown

_SIZES = re.compile(
    r"constant \((\d+)\)|shape '\[(\d+)|tensor b \((\d+)\)|but got (\d+)|got [\[(]\d+, (\d+)|-> (\d+)!|dimension 0 with size (\d+)"
)
_MAKERS = frozenset(
    {"zeros", "ones", "empty", "full", "rand", "randn", "arange", "eye", "expand", "repeat", "view", "reshape", "range", "tile"}
)


def rows_in_numpy(clue: Clue) -> Finding | None:
    """NumPy given the number of rows."""
    numpy = aliases(clue.site.tree, "numpy")
    for call in calls_of(clue.site):
        counts = [n for n in ast.walk(call) if _counts_rows(n)]
        if counts and dotted(call.func).partition(".")[0] in numpy and clue.says(*FIXED_ROWS):
            rewritten = numpy_in_torch(clue.site, numpy)
            what = f": `{shown(rewritten)}`" if rewritten is not None else f" counterpart of {dotted(call.func)}"
            return Finding("NumPy given the number of rows", f"use PyTorch's{what}")
    return None


def _counts_rows(node: ast.AST) -> bool:
    """`x.shape[0]`, `x.size(0)` or `len(x)`."""
    if isinstance(node, ast.Subscript):
        return dotted(node.value).endswith("shape") and is_zero(node.slice)
    sized = isinstance(node, ast.Call) and name_of(node) == "size" and bool(node.args) and is_zero(node.args[0])
    return sized or (isinstance(node, ast.Call) and name_of(node) == "len")


def row_branch(clue: Clue) -> Finding | None:
    """A branch on how many rows there are."""
    statement = clue.site.statement
    test = statement.test if isinstance(statement, ast.If | ast.While | ast.Assert) else None
    test = test or next((n.test for n in clue.site.nodes() if isinstance(n, ast.IfExp)), None)
    if test is None or not _measures(test) or not clue.says(*FIXED_ROWS, "Not all values", "to a Python boolean"):
        return None
    if clue.says("to a Python boolean"):
        return Finding("a Python branch on a size", "write one expression that holds for any size", "script")
    if any(isinstance(n, ast.Subscript) and not is_zero(n.slice) for n in ast.walk(test)):
        return None
    return Finding("a Python branch on the number of rows", "write one expression that holds for any number of rows", "script")


def _measures(test: ast.AST) -> bool:
    shapes = any(isinstance(node, ast.Attribute) and node.attr == "shape" for node in ast.walk(test))
    return shapes or bool(calls(ast.walk(test), "size", "len"))


def cut_rows(clue: Clue) -> Finding | None:
    """Rows split into a fixed number of parts."""
    for call in calls(clue.site.nodes(), "chunk", "split", "tensor_split", "unbind"):
        if clue.says(*FIXED_ROWS):
            change = "leave the rows together (a request may have one); split along another dimension, or pass the parts as two inputs"
            return Finding(f"rows cut into pieces with {name_of(call)}", change)
    return None


def fixed_rows(clue: Clue) -> Finding | None:
    """A size written down where the number of rows belongs."""
    if not clue.says(*FIXED_ROWS):
        return None
    wanted = {int(n) for groups in _SIZES.findall(clue.message) for n in groups if n}
    line = clue.site.place.line
    here = [node for node in clue.site.nodes() if _is_size(clue, node, wanted)]
    if here and clue.site.statement is not None and calls(clue.site.nodes(), *_MAKERS):
        return _with_rows(clue, clue.site.statement, here[0])
    for node in clue.site.nodes():
        value = assigned(clue.site.function, node.id, line) if isinstance(node, ast.Name) else None
        if isinstance(node, ast.Name) and value is not None and calls(ast.walk(value), *_MAKERS):
            sizes = [part for part in ast.walk(value) if _is_size(clue, part, wanted)]
            if sizes:
                return _with_rows(clue, ast.Assign([ast.Name(node.id)], value), sizes[0])
        held = clue.attribute(node) if isinstance(node, ast.Attribute) else None
        if wanted & set(getattr(held, "shape", ())):
            return _held(clue, node)
    return None


def _is_size(clue: Clue, node: ast.AST, wanted: set[int]) -> bool:
    value: object = None
    if isinstance(node, ast.Constant):
        value = node.value
    elif isinstance(node, ast.Attribute):
        value = clue.attribute(node)
    elif isinstance(node, ast.Name) and clue.site.tree is not None:
        found = assigned(ast.Module([n for n in clue.site.tree.body if isinstance(n, ast.Assign)], []), node.id, clue.site.place.line)
        value = found.value if isinstance(found, ast.Constant) else None
    return type(value) is int and value in wanted


def _with_rows(clue: Clue, statement: ast.stmt, size: ast.AST) -> Finding:
    """The rewrite of a statement with the number of rows in place of a size."""
    reshaped = [receiver(call) for call in calls(ast.walk(statement), "view", "reshape")]
    owner = next((node.id for node in reshaped if isinstance(node, ast.Name) and node.id != "torch"), None)
    rows, text = ast.parse(f"{owner}.shape[0]" if owner else clue.rows, mode="eval").body, ast.dump(size)
    rewritten = replaced(statement, lambda part: rows if ast.dump(part) == text else None)
    what = shown(size)
    return Finding(f"a fixed number of rows ({what})", f"take it from the input: `{shown(rewritten)}`")


def _held(clue: Clue, node: ast.AST) -> Finding:
    """State or a table with as many rows as one batch."""
    name = shown(node)
    stored = clue.site.function is not None and any(
        isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store) and shown(n) == name for n in ast.walk(clue.site.function)
    )
    if stored:
        change = f"start every call anew: `torch.zeros(..., {clue.rows}, ...)` instead of `{name}` of the call before"
        return Finding(f"state kept in {name} from one batch to the next", change)
    return Finding(f"{name}, which holds as many rows as one batch", f"index it by an input, or cut it: `{name}[:{clue.rows}]`")
