"""Loops in Python over rows, or over as many steps as there are rows."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .finding import FIXED_ROWS, Clue, Finding
from .places import Site
from .rewriting import assigned, calls, dotted, is_zero, kept, name_of, receiver, renamed, replaced, shown, without_leaving

Loop = ast.For | ast.comprehension


def mask_loop(clue: Clue) -> Finding | None:
    """Entries set row by row: `for i, n in enumerate(lengths): mask[i, :n] = 1`."""
    for loop in _loops(clue.site):
        if not isinstance(loop, ast.For) or len(loop.body) != 1 or not isinstance(loop.body[0], ast.Assign):
            continue
        target, value = loop.body[0].targets[0], loop.body[0].value
        placed, filled = _scattered(loop, target, value), _filled(loop, target, value)
        if placed:
            return Finding("a Python loop that sets one entry per row", f"set them at once: `{placed}`", "script")
        if filled:
            return Finding("a Python loop that fills a mask row by row", f"compute it at once: `{filled}`", "script")
    return None


def _scattered(loop: ast.For, target: ast.expr, value: ast.expr) -> str | None:
    """`for i, n in enumerate(positions): x[i][n] = value` (or `x[i, n]`) as one call."""
    if not isinstance(target, ast.Subscript):
        return None
    if isinstance(target.slice, ast.Tuple) and len(target.slice.elts) == 2:
        row, column, owner = *target.slice.elts, target.value
    elif isinstance(target.value, ast.Subscript):
        row, column, owner = target.value.slice, target.slice, target.value.value
    else:
        return None
    positions = _lengths(loop, column) if isinstance(row, ast.Name) and not isinstance(column, ast.Slice) else None
    simple = isinstance(value, ast.Constant | ast.Attribute)
    return f"{shown(owner)} = {shown(owner)}.scatter(1, {positions}[:, None], {shown(value)})" if positions and simple else None


def _filled(loop: ast.For, target: ast.expr, value: ast.expr) -> str | None:
    """`for i, n in enumerate(lengths): mask[i, :n] = 1` as one comparison."""
    if not (isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Tuple) and isinstance(value, ast.Constant)):
        return None
    cut = target.slice.elts[-1]
    lengths = _lengths(loop, cut.upper or cut.lower) if isinstance(cut, ast.Slice) else None
    if lengths is None or not isinstance(cut, ast.Slice):
        return None
    mask, sign = shown(target.value), "<" if cut.upper is not None else ">="
    inside = f"torch.arange({mask}.shape[1], device={lengths}.device)[None, :] {sign} {lengths}[:, None]"
    return f"{mask} = {mask}.masked_fill({inside}, {value.value!r})"


def _lengths(loop: ast.For, bound: ast.expr | None) -> str | None:
    """The tensor of lengths a slice's bound comes from: `n` of enumerate(lengths), or `lengths[i]`."""
    if bound is None:
        return None
    bound = kept(bound)
    if isinstance(bound, ast.Subscript):
        return shown(bound.value)
    iterated = _iterated(loop)
    return shown(iterated[bound.id]) if isinstance(bound, ast.Name) and bound.id in iterated else None


def row_loop(clue: Clue) -> Finding | None:
    """Python code that visits rows one by one."""
    if not clue.says(*FIXED_ROWS, "ata-dependent", "Iterating over a tensor", "Converting a tensor to a Python"):
        return None
    for loop in _loops(clue.site):
        over = _rows_of(clue, loop)
        if over is not None:
            return Finding("a Python loop over rows", _at_once(clue.site, loop, over), "script")
    if clue.says(*FIXED_ROWS) and calls(clue.site.nodes(), "tolist") and clue.site.statement is not None:
        return Finding("a tensor's .tolist()", f"keep it a tensor: `{shown(without_leaving(clue.site.statement))}`")
    return None


def _loops(site: Site) -> Iterator[Loop]:
    """Loops around the line and on it, innermost first."""
    for node in site.nodes():
        if isinstance(node, ast.comprehension):
            yield node
    if isinstance(site.statement, ast.For):
        yield site.statement
    for node in site.around:
        if isinstance(node, ast.For):
            yield node


def _iterated(loop: Loop) -> dict[str, ast.expr]:
    """What each loop variable runs over: `a` over `x` and `n` over `lengths` in `for a, n in zip(x, lengths)`."""
    source, target = loop.iter, loop.target
    if isinstance(source, ast.Call) and isinstance(source.func, ast.Name) and isinstance(target, ast.Tuple):
        names = [t.id if isinstance(t, ast.Name) else "" for t in target.elts]
        if source.func.id == "zip":
            return dict(zip(names, source.args, strict=False))
        if source.func.id == "enumerate" and len(names) == 2:
            return {names[1]: source.args[0]}
    return {target.id: source} if isinstance(target, ast.Name) else {}


def _rows_of(clue: Clue, loop: Loop) -> ast.expr | None:
    """The tensor whose rows a loop visits; None for a loop over something else."""
    found = _visited(clue, loop)
    held = clue.attribute(found) if isinstance(found, ast.Attribute) else None
    return found if held is None or hasattr(held, "dtype") else None


def _visited(clue: Clue, loop: Loop) -> ast.expr | None:
    """What a loop goes over, where that can be the rows of something."""
    source = loop.iter
    if _is_range(loop) and isinstance(source, ast.Call):
        return _counted(clue, kept(source.args[-1])) or (_indexed(clue.site, loop) if clue.says("out of bounds for dimension 0") else None)
    if isinstance(source, ast.Call) and name_of(source) in {"enumerate", "zip"} and source.args:
        source = source.args[0]
    if isinstance(source, ast.Call) and name_of(source) in {"unbind", "split", "chunk"}:
        cut = [*source.args, *[k.value for k in source.keywords if k.arg == "dim"]]
        along = cut if name_of(source) == "unbind" else cut[1:]
        return receiver(source) if not along or is_zero(along[-1]) else None
    computed = isinstance(source, ast.Call) and hasattr(clue.attribute(source.func), "forward")
    return source if computed or isinstance(source, ast.Name) else None


def _counted(clue: Clue, bound: ast.expr) -> ast.expr | None:
    """`x` of `x.shape[0]`, `x.size(0)` and `len(x)`, also by way of a variable."""
    if isinstance(bound, ast.Name):
        bound = assigned(clue.site.function, bound.id, clue.site.place.line) or bound
    if isinstance(bound, ast.Subscript) and isinstance(bound.value, ast.Attribute) and bound.value.attr == "shape" and is_zero(bound.slice):
        return bound.value.value
    if isinstance(bound, ast.Call) and name_of(bound) == "size" and bound.args and is_zero(bound.args[0]):
        return receiver(bound)
    return bound.args[0] if isinstance(bound, ast.Call) and name_of(bound) == "len" and bound.args else None


def _indexed(site: Site, loop: Loop) -> ast.expr | None:
    """What the loop variable indexes."""
    element = _element(site, loop)
    for node in ast.walk(element) if element is not None else ():
        if isinstance(node, ast.Subscript) and shown(node.slice) == shown(loop.target):
            return node.value
    return None


def _at_once(site: Site, loop: Loop, over: ast.expr) -> str:
    """The loop's body for all rows, where one row's code is a call that works on the last dimension; a general hint otherwise."""
    rows, iterated, element = shown(over), _iterated(loop), _element(site, loop)
    index = loop.target.id if isinstance(loop.target, ast.Name) else ""
    hint = f"compute all rows of `{rows}` at once, with masks where rows differ"
    if len(iterated) > 1:
        others = ", ".join(f"`{shown(value)}`" for value in iterated.values())
        return f"compute all rows of {others} at once; lengths become a mask: `torch.arange({rows}.shape[1])[None, :] < lengths[:, None]`"
    if element is None or not index:
        return hint

    def picked(part: ast.expr) -> ast.expr | None:
        return part.value if isinstance(part, ast.Subscript) and shown(part.slice) == index else None

    if isinstance(picked(element) or element, ast.Name):
        return f"use `{rows}` itself"
    of_all = replaced(element, picked) if _is_range(loop) else renamed(element, {index: over})
    if index in {shown(part) for part in ast.walk(of_all) if isinstance(part, ast.Name)}:
        return hint
    if isinstance(element, ast.Call) and len(element.args) == 1 and dotted(element.func).startswith("self."):
        return f"compute all rows at once: `{shown(of_all)}` instead of the loop and torch.stack"
    row = "row" if _is_range(loop) else index
    body = replaced(element, lambda part: ast.Name(row) if picked(part) is not None else None)
    return f"compute all rows at once: `torch.vmap(lambda {row}: {shown(body)})({rows})` instead of the loop and torch.stack"


def _is_range(loop: Loop) -> bool:
    return isinstance(loop.iter, ast.Call) and name_of(loop.iter) == "range"


def _element(site: Site, loop: Loop) -> ast.expr | None:
    """What the loop computes for one row: of a comprehension its element, of a loop the one thing it appends."""
    if isinstance(loop, ast.comprehension):
        holders = (n for n in site.nodes() if isinstance(n, ast.ListComp | ast.GeneratorExp) and loop in n.generators)
        return next((n.elt for n in holders), None)
    if len(loop.body) == 1 and isinstance(loop.body[0], ast.Expr):
        appended = calls(ast.walk(loop.body[0]), "append")
        return appended[0].args[0] if appended and appended[0].args else None
    return None
