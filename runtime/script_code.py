"""What the code inside a TorchScript archive defines, parsed and checked before PyTorch compiles it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..core.errors import InputError, UntrustedError

_FIX = "save it as a torch.export archive; --trust-pickle is only for a file you made yourself"
_MEMBER = re.compile(r"code/(__torch__(?:/\w+)*)\.py", re.ASCII)
_DEEPEST = 240
_LARGEST_SOURCE_BYTES = 2**24


@dataclass(frozen=True)
class ScriptClass:
    """A class of the archive: its attributes with their declared types, in order."""

    name: str
    attributes: Mapping[str, ast.expr]


@dataclass
class ScriptCode:
    """Everything the archive's code defines; `files` by member name."""

    classes: dict[str, ScriptClass] = field(default_factory=dict)
    tuples: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)
    files: dict[str, ast.Module] = field(default_factory=dict)

    @property
    def types(self) -> set[str]:
        """Qualified names of all types it defines."""
        return self.classes.keys() | self.tuples


def read_code(members: Mapping[str, bytes | bytearray], where: str) -> ScriptCode:
    """The definitions in the archive's `code/` members, by name; raises UntrustedError for kinds of classes that are not supported."""
    code = ScriptCode()
    for member, source in members.items():
        match = _MEMBER.fullmatch(member)
        if match is not None:
            code.files[member] = _parsed(source, f"{where}: {member}")
            _define(match[1].replace("/", "."), code.files[member], code, f"{where}: {member}")
    return code


def dotted(node: ast.expr) -> str:
    """`__torch__.a.B` of nested attributes, empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _parsed(source: bytes | bytearray, where: str) -> ast.Module:
    damaged = InputError(where, "is not readable TorchScript code (damaged)", fix="save the model again")
    if len(source) > _LARGEST_SOURCE_BYTES:
        raise damaged
    try:
        tree = ast.parse(bytes(source).decode("ascii"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise damaged from None
    if _depth(tree) > _DEEPEST:
        raise UntrustedError(where, "holds code nested absurdly deep", fix="save the model again")
    return tree


def _depth(tree: ast.AST) -> int:
    deepest, pending = 0, [(tree, 1)]
    while pending:
        node, depth = pending.pop()
        deepest = max(deepest, depth)
        pending.extend((child, depth + 1) for child in ast.iter_child_nodes(node))
    return deepest


def _define(module: str, tree: ast.Module, code: ScriptCode, where: str) -> None:
    """Note what the file defines; what it says is checked once all names are known."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            code.functions.add(f"{module}.{statement.name}")
        elif isinstance(statement, ast.ClassDef):
            name = f"{module}.{statement.name}"
            attributes = dict(_attributes(statement))
            bases = [dotted(base) for base in statement.bases]
            if bases == ["NamedTuple"]:
                code.tuples.add(name)
            elif bases in ([], ["Module"]):
                code.classes[name] = ScriptClass(name=name, attributes=attributes)
            else:
                raise UntrustedError(where, f"holds the class '{name}' of a kind that is not supported ({', '.join(bases)})", fix=_FIX)
            code.members |= (
                set(attributes) | set(_constants(statement)) | {s.name for s in statement.body if isinstance(s, ast.FunctionDef)}
            )


def _attributes(definition: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Declared attributes with their types: `weight : Tensor`, or `__annotations__["0"] = ...` where the name is no identifier."""
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value is None:
            yield statement.target.id, statement.annotation
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Subscript):
            key = statement.targets[0].slice
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, statement.value


def _constants(definition: ast.ClassDef) -> Iterator[str]:
    """Declared constants: `in_features : Final[int] = 4`."""
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value is not None:
            yield statement.target.id
