"""Constructs that tie a model to one number of rows: loops over rows, sizes written down, state of the last batch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from .construct_values import calls_of, numpy_in_torch
from .finding import Clue, Finding
from .places import Site
from .rewriting import aliases, assigned, calls, dotted, kept, name_of, receiver, renamed, replaced, shown, without_leaving

_FIXED = (
    *("Constraints violated", "specialized it to be a constant", "is invalid for input of size", "must match the size of tensor"),
    *("Sizes of tensors must match", "Expected hidden size", "attempting to expand", "out of bounds for dimension 0"),
)
_SIZES = re.compile(
    r"constant \((\d+)\)|shape '\[(\d+)|tensor b \((\d+)\)|but got (\d+)|got [\[(]\d+, (\d+)|-> (\d+)!|dimension 0 with size (\d+)"
)
_MAKERS = frozenset(
    {"zeros", "ones", "empty", "full", "rand", "randn", "arange", "eye", "expand", "repeat", "view", "reshape", "range", "tile"}
)
Loop = ast.For | ast.comprehension


def mask_loop(clue: Clue) -> Finding | None:
    """A mask filled row by row: `for i, n in enumerate(lengths): mask[i, :n] = 1`."""
    site = clue.site
    for loop in _loops(site):
        if not isinstance(loop, ast.For) or len(loop.body) != 1 or not isinstance(loop.body[0], ast.Assign):
            continue
        target, value = loop.body[0].targets[0], loop.body[0].value
        placed = _scattered(loop, target, value)
        if placed:
            return Finding("a Python loop that sets one entry per row", f"set them at once: `{placed}`", "script")
        if not (isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Tuple) and isinstance(value, ast.Constant)):
            continue
        cut = target.slice.elts[-1]
        lengths = _lengths(loop, cut.upper or cut.lower) if isinstance(cut, ast.Slice) else None
        if lengths is None or not isinstance(cut, ast.Slice):
            continue
        mask, sign = shown(target.value), "<" if cut.upper is not None else ">="
        inside = f"torch.arange({mask}.shape[1], device={lengths}.device)[None, :] {sign} {lengths}[:, None]"
        return Finding(
            "a Python loop that fills a mask row by row", f"compute it at once: `{mask} = {_filled(mask, inside, value)}`", "script"
        )
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


def _filled(mask: str, inside: str, value: ast.Constant) -> str:
    return f"({inside}).to({mask}.dtype)" if value.value in {1} else f"{mask}.masked_fill({inside}, {value.value!r})"


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
    if not clue.says(*_FIXED, "data-dependent", "Iterating over a tensor", "Converting a tensor to a Python", "ata-dependent"):
        return None
    for loop in _loops(clue.site):
        over = _rows_of(clue, loop)
        if over is not None:
            return Finding("a Python loop over rows", _at_once(clue.site, loop, over), "script")
    if clue.says(*_FIXED) and calls(clue.site.nodes(), "tolist"):
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
    source = loop.iter
    if isinstance(source, ast.Call) and isinstance(source.func, ast.Name) and source.func.id == "range":
        bound = kept(source.args[-1])
        if isinstance(bound, ast.Name):
            bound = assigned(clue.site.function, bound.id, clue.site.place.line) or bound
        if isinstance(bound, ast.Subscript) and dotted(bound.value).endswith(".shape") and _is_zero(bound.slice):
            return bound.value.value if isinstance(bound.value, ast.Attribute) else None
        if isinstance(bound, ast.Call) and name_of(bound) == "size" and bound.args and _is_zero(bound.args[0]):
            return receiver(bound)
        if isinstance(bound, ast.Call) and name_of(bound) == "len":
            return bound.args[0]
        return _indexed(clue.site, loop) if clue.says("out of bounds for dimension 0") else None
    if isinstance(source, ast.Call) and name_of(source) in {"enumerate", "zip"} and source.args:
        source = source.args[0]
    if isinstance(source, ast.Call) and name_of(source) in {"unbind", "split", "chunk"}:
        cut = [*source.args, *[k.value for k in source.keywords if k.arg == "dim"]]
        along = cut[1:] if name_of(source) != "unbind" or receiver(source) is None else cut
        return receiver(source) if not along or _is_zero(along[-1]) else None
    return source if isinstance(source, ast.Name) else None


def _indexed(site: Site, loop: Loop) -> ast.expr | None:
    """What the loop variable indexes."""
    element = _element(site, loop)
    for node in ast.walk(element) if element is not None else ():
        if isinstance(node, ast.Subscript) and shown(node.slice) == shown(loop.target):
            return node.value
    return None


def _is_zero(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == 0


def _at_once(site: Site, loop: Loop, over: ast.expr) -> str:
    """The loop's body for all rows, where one row's code is a call that works on the last dimension; a general hint otherwise."""
    rows = shown(over)
    element = _element(site, loop)
    iterated = _iterated(loop)
    index = loop.target.id if isinstance(loop.target, ast.Name) else ""

    def whole(part: ast.expr) -> ast.expr | None:
        return part.value if isinstance(part, ast.Subscript) and index and shown(part.slice) == index else None

    if element is None:
        return f"compute all rows of `{rows}` at once, with masks where rows differ"
    if isinstance(whole(element) or element, ast.Name):
        return f"use `{rows}` itself"

    at_once = replaced(element, whole) if _is_range(loop) else renamed(element, {index: over})
    picked = {shown(n) for n in ast.walk(at_once) if isinstance(n, ast.Name)}
    if index in picked and _is_range(loop):
        return f"compute all rows of `{rows}` at once, with masks where rows differ"
    if len(iterated) > 1:
        others = ", ".join(f"`{shown(value)}`" for value in iterated.values())
        return f"compute all rows of {others} at once; lengths become a mask: `torch.arange({rows}.shape[1])[None, :] < lengths[:, None]`"
    if isinstance(element, ast.Call) and len(element.args) == 1 and dotted(element.func).startswith("self."):
        return f"compute all rows at once: `{shown(at_once)}` instead of the loop and torch.stack"
    variable = index if not _is_range(loop) else "row"
    body = replaced(element, lambda part: ast.Name(variable) if whole(part) is not None else None)
    return f"compute all rows at once: `torch.vmap(lambda {variable}: {shown(body)})({rows})` instead of the loop and torch.stack"


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


def rows_in_numpy(clue: Clue) -> Finding | None:
    """NumPy given the number of rows."""
    numpy = aliases(clue.site.tree, "numpy")
    for call in calls_of(clue.site):
        counts = [n for n in ast.walk(call) if _counts_rows(n)]
        if counts and dotted(call.func).partition(".")[0] in numpy and clue.says(*_FIXED):
            rewritten = numpy_in_torch(clue.site, numpy)
            change = (
                f"use PyTorch's: `{shown(rewritten)}`" if rewritten is not None else f"use PyTorch's counterpart of {dotted(call.func)}"
            )
            return Finding("NumPy given the number of rows", change)
    return None


def _counts_rows(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript):
        return dotted(node.value).endswith(".shape") and _is_zero(node.slice)
    return isinstance(node, ast.Call) and (
        name_of(node) == "len" or (name_of(node) == "size" and bool(node.args) and _is_zero(node.args[0]))
    )


def row_branch(clue: Clue) -> Finding | None:
    """A branch on how many rows there are."""
    statement = clue.site.statement
    test = statement.test if isinstance(statement, ast.If | ast.While | ast.Assert) else None
    test = test or next((n.test for n in clue.site.nodes() if isinstance(n, ast.IfExp)), None)
    if test is None or not _measures(test) or not clue.says(*_FIXED, "Not all values", "to a Python boolean"):
        return None
    if clue.says("to a Python boolean"):
        return Finding("a Python branch on a size", "write one expression that holds for any size", "script")
    if any(isinstance(n, ast.Subscript) and not _is_zero(n.slice) for n in ast.walk(test)):
        return None
    return Finding("a Python branch on the number of rows", "write one expression that holds for any number of rows", "script")


def _measures(test: ast.AST) -> bool:
    return any(dotted(n).endswith(".shape") for n in ast.walk(test) if isinstance(n, ast.Attribute)) or bool(
        calls(ast.walk(test), "size", "len")
    )


def cut_rows(clue: Clue) -> Finding | None:
    """Rows split into a fixed number of parts."""
    for call in calls(clue.site.nodes(), "chunk", "split", "tensor_split", "unbind"):
        if clue.says(*_FIXED):
            change = "leave the rows together (a request may have one); split along another dimension, or pass the parts as two inputs"
            return Finding(f"rows cut into pieces with {name_of(call)}", change)
    return None


def fixed_rows(clue: Clue) -> Finding | None:
    """A size written down where the number of rows belongs."""
    if not clue.says(*_FIXED):
        return None
    wanted = {int(n) for groups in _SIZES.findall(clue.message) for n in groups if n}
    line = clue.site.place.line
    here = [node for node in clue.site.nodes() if _is_size(clue, node, wanted)]
    if here and calls(clue.site.nodes(), *_MAKERS):
        return _with_rows(clue, clue.site.statement, here[0])
    for node in clue.site.nodes():
        value = assigned(clue.site.function, node.id, line) if isinstance(node, ast.Name) else None
        sizes = [n for n in ast.walk(value) if _is_size(clue, n, wanted)] if value is not None and calls(ast.walk(value), *_MAKERS) else []
        if sizes and isinstance(node, ast.Name) and value is not None:
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


def _with_rows(clue: Clue, statement: ast.AST | None, size: ast.AST) -> Finding:
    """The rewrite of a statement with the number of rows in place of a size."""
    owner = (
        next((receiver(c) for c in calls(ast.walk(statement), "view", "reshape") if isinstance(receiver(c), ast.Name)), None)
        if statement
        else None
    )
    rows = f"{owner.id}.shape[0]" if isinstance(owner, ast.Name) and owner.id != "torch" else clue.rows
    text = ast.dump(size)
    rewritten = (
        replaced(statement, lambda part: ast.parse(rows, mode="eval").body if ast.dump(part) == text else None) if statement else None
    )
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
