"""Pieces of the user's own source, and the rewrites of them that an error message can suggest."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

# Where NumPy and PyTorch have one function under two names.
_TORCH_NAMES = {
    **{"concatenate": "cat", "power": "pow", "absolute": "abs", "expand_dims": "unsqueeze", "max": "amax", "min": "amin"},
    **{"invert": "bitwise_not", "arccos": "acos", "arcsin": "asin", "arctan": "atan", "copy": "clone", "matmul": "matmul"},
}
_TORCH_KEYWORDS = {"axis": "dim", "keepdims": "keepdim"}
_SAME = frozenset({"array", "asarray", "ascontiguousarray", "float32", "float64", "int64"})
_WRAPPERS = frozenset({"from_numpy", "tensor", "as_tensor", "FloatTensor", "LongTensor", "Tensor"})
_LISTS = (ast.List, ast.ListComp, ast.GeneratorExp, ast.Constant)
_LEAVING = frozenset({"numpy", "cpu", "detach", "item", "tolist", "resolve_conj", "resolve_neg"})

Node = TypeVar("Node", bound=ast.AST)


def shown(node: ast.AST | None, limit: int = 90) -> str:
    """`node` as one line of code."""
    text = " ".join(ast.unparse(node).split()) if node is not None else ""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def dotted(node: ast.AST) -> str:
    """`nn.utils.rnn.pack_padded_sequence` of a chain of names, the last name of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return ""


def name_of(call: ast.Call) -> str:
    """The name that is called, without what it is called on."""
    return dotted(call.func).rpartition(".")[2]


def calls(nodes: Iterator[ast.AST], *names: str) -> list[ast.Call]:
    """The calls of functions or methods with one of these names."""
    return [node for node in nodes if isinstance(node, ast.Call) and name_of(node) in names]


def aliases(tree: ast.AST | None, package: str) -> frozenset[str]:
    """What a file calls `package` and what it imports from it."""
    found = set()
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Import):
            found |= {item.asname or item.name.partition(".")[0] for item in node.names if item.name.partition(".")[0] == package}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == package:
            found |= {item.asname or item.name for item in node.names}
    return frozenset(found)


def uses(nodes: Iterator[ast.AST], names: frozenset[str]) -> bool:
    """Whether any of the names occurs."""
    return any(isinstance(node, ast.Name) and node.id in names for node in nodes)


def is_zero(node: ast.AST) -> bool:
    """Whether an index is written as 0."""
    return isinstance(node, ast.Constant) and node.value == 0


def receiver(node: ast.AST) -> ast.expr | None:
    """What a method is called on."""
    return node.func.value if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else None


def kept(node: ast.expr) -> ast.expr:
    """`node` without the calls at its end that leave the graph: `x.sum().cpu().item()` is `x.sum()`, `int(n.max())` is `n.max()`."""
    if not isinstance(node, ast.Call):
        return node
    inner = receiver(node)
    if inner is not None and name_of(node) in _LEAVING:
        return kept(inner)
    converts = isinstance(node.func, ast.Name) and node.func.id in {"float", "int", "bool"} and len(node.args) == 1
    return kept(node.args[0]) if converts else node


def replaced(node: Node, change: Callable[[ast.expr], ast.expr | None]) -> Node:
    """A copy of `node` where every expression that `change` gives something for is that."""

    class Replace(ast.NodeTransformer):
        def visit(self, part: ast.AST) -> ast.AST:
            part = self.generic_visit(part)
            new = change(part) if isinstance(part, ast.expr) else None
            return part if new is None else new

    return ast.fix_missing_locations(cast("Node", Replace().visit(copy.deepcopy(node))))


def renamed(node: Node, names: dict[str, ast.expr]) -> Node:
    """A copy of `node` with variables replaced."""
    return replaced(node, lambda part: names.get(part.id) if isinstance(part, ast.Name) else None)


def without_leaving(node: Node) -> Node:
    """A copy of `node` that stays with tensors: no .numpy(), .item(), float() and the like."""

    def change(part: ast.expr) -> ast.expr | None:
        stays = kept(part)
        return None if stays is part else stays

    return replaced(node, change)


def in_torch(node: Node, numpy: frozenset[str], known: Callable[[str], bool]) -> Node | None:
    """A copy of `node` that calls PyTorch where it called NumPy; None when some function has no counterpart that `known` knows."""

    def change(part: ast.expr) -> ast.expr | None:
        if not isinstance(part, ast.Call):
            return None
        if dotted(part.func).partition(".")[0] in numpy:
            return _counterpart(part, known)
        wraps = name_of(part) in _WRAPPERS and part.args and not isinstance(part.args[0], _LISTS)
        return part.args[0] if wraps else None

    result = replaced(without_leaving(node), change)
    return None if uses(ast.walk(result), numpy) else result


def _counterpart(call: ast.Call, known: Callable[[str], bool]) -> ast.expr | None:
    """PyTorch's expression for a call of NumPy's."""
    name, first = name_of(call), call.args[0] if call.args else None
    if name in _SAME and isinstance(first, ast.Call) and dotted(first.func) == "range":
        return ast.Call(ast.Attribute(ast.Name("torch"), "arange"), first.args, [])
    if name in _SAME and first is not None and not isinstance(first, _LISTS):
        return first
    torch_name = _TORCH_NAMES.get(name, name)
    if dotted(call.func).count(".") > 1 or not known(torch_name):
        return None
    keywords = [ast.keyword(_TORCH_KEYWORDS.get(k.arg or "", k.arg), k.value) for k in call.keywords]
    return ast.Call(ast.Attribute(ast.Name("torch"), torch_name), call.args, keywords)


def assigned(function: ast.AST | None, name: str, before: int) -> ast.expr | None:
    """The value last assigned to a variable above line `before`."""
    found: ast.expr | None = None
    for node in ast.walk(function) if function is not None else ():
        if isinstance(node, ast.Assign) and node.lineno < before:
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == name:
                    found = node.value
    return found


def path_to(root: ast.AST, node: ast.AST) -> list[ast.AST]:
    """`node` and what holds it, up to `root`; empty when it is not inside."""
    if root is node:
        return [root]
    for child in ast.iter_child_nodes(root):
        below = path_to(child, node)
        if below:
            return [*below, root]
    return []


def arguments(function: ast.FunctionDef | None) -> list[str]:
    """Names of the arguments, without self."""
    if function is None:
        return []
    return [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs) if a.arg != "self"]
