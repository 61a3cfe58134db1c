"""Where in the user's code something happened: the line, the statement on it and the function around it."""

from __future__ import annotations

import ast
import linecache
import re
import sysconfig
import traceback
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

import msgspec

# Libraries a model calls; every other package (deepctr_torch, recbole, ...) counts as the user's model.
_LIBRARIES = frozenset(
    ("torch", "torchgen", "functorch", "numpy", "scipy", "pandas", "sympy", "einops", "onnx", "onnx_ir", "onnxscript", "onnxruntime")
)
_OURS = tuple(str(Path(__file__).resolve().parents[2] / room) for room in ("core", "optimize", "runtime"))
_FRAME = re.compile(r'File "(?P<path>[^"\n]+)", line (?P<line>\d+)(?:, in (?P<function>\S+))?')
_CODE_LIMIT = 120


class Place(msgspec.Struct, frozen=True):
    """A line of a file, the function it was reached in, and the columns of the expression that ran (UTF-8 bytes) where they are known."""

    path: str
    line: int
    function: str = ""
    end_line: int | None = None
    column: int | None = None
    end_column: int | None = None


class Site(msgspec.Struct, frozen=True):
    """A place with its source: the innermost statement, the expression that ran, and what is around them (innermost first)."""

    place: Place
    code: str
    name: str
    statement: ast.stmt | None = None
    focus: ast.expr | None = None
    around: tuple[ast.AST, ...] = ()
    tree: ast.Module | None = None

    @property
    def function(self) -> ast.FunctionDef | None:
        """The function or method around the statement."""
        return next((node for node in self.around if isinstance(node, ast.FunctionDef)), None)

    @property
    def header(self) -> tuple[ast.AST, ...]:
        """The parts of the statement that are on its own lines: all of a simple one, the head of a compound one."""
        return () if self.statement is None else tuple(_header(self.statement))

    def nodes(self) -> Iterator[ast.AST]:
        """Every node of the header, outer ones first."""
        for part in self.header:
            yield from ast.walk(part)


def is_users(path: str) -> bool:
    """Whether a file is neither the standard library's, nor PyTorch's or another library's, nor ours."""
    return not path.startswith("<") and _is_users(path)


@cache
def _is_users(path: str) -> bool:
    file = Path(path).resolve()
    for folder in ("site-packages", "dist-packages"):
        if folder in file.parts:
            package = file.parts[len(file.parts) - file.parts[::-1].index(folder)]
            return package.removesuffix(".py") not in _LIBRARIES
    standard = [str(Path(sysconfig.get_paths()[kind]).resolve()) for kind in ("stdlib", "platstdlib")]
    return not _is_torch(path) and not any(file.is_relative_to(folder) for folder in [*standard, *_OURS])


@cache
def _is_torch(path: str) -> bool:
    import torch  # noqa: PLC0415 - takes seconds

    return Path(path).resolve().is_relative_to(Path(torch.__file__).resolve().parent)


def chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and what led to it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def in_traceback(error: BaseException) -> Place | None:
    """The deepest line of the user's code that `error` itself passed through below PyTorch, which called it."""
    frames = list(traceback.extract_tb(error.__traceback__))
    called = next((i for i, frame in enumerate(frames) if _is_torch(frame.filename)), len(frames))
    frames = [frame for frame in frames[called:] if is_users(frame.filename)]
    if not frames:
        return None
    frame = frames[-1]
    return Place(frame.filename, frame.lineno or 0, frame.name, frame.end_lineno, frame.colno, frame.end_colno)


def in_stack(error: BaseException) -> Place | None:
    """The deepest line of the user's code in the stack that torch.compile's tracer keeps with its errors."""
    frames = [frame for frame in getattr(error, "real_stack", None) or () if is_users(frame.filename)]
    return Place(frames[-1].filename, frames[-1].lineno or 0, frames[-1].name) if frames else None


def in_text(text: str) -> Place | None:
    """The deepest line of the user's code in the first stack that a message quotes (torch.compile's tracer has stacks of its own)."""
    _, found, rest = text.rpartition("from user code:")
    stack = rest if found else text
    places: list[Place] = []
    for match in _FRAME.finditer(stack):
        if match["path"].endswith("functional_export.py") and places:
            break
        if is_users(match["path"]):
            places.append(Place(match["path"], int(match["line"]), (match["function"] or "").rstrip(",")))
    return places[-1] if places else None


def in_guards(error: BaseException) -> Place | None:
    """The line of the user's code whose comparison of sizes made PyTorch give up a size that varies."""
    frame = error.__traceback__
    while frame is not None:
        for guard in getattr(frame.tb_frame.f_locals.get("shape_env"), "guards", ()):
            summary = getattr(getattr(guard, "sloc", None), "framework_loc", None)
            path, line = getattr(summary, "filename", ""), getattr(summary, "lineno", None)
            if path and line and is_users(path):
                return Place(path, line, getattr(summary, "name", ""))
        frame = frame.tb_next
    return None


def look(place: Place) -> Site:
    """The source at `place`; where it cannot be read or parsed only the line itself."""
    lines = linecache.getlines(place.path)
    code = lines[place.line - 1].strip() if 0 < place.line <= len(lines) else ""
    plain = Site(place, code[:_CODE_LIMIT], place.function if place.function.isidentifier() else "")
    tree = _parsed("".join(lines))
    if tree is None:
        return plain
    around = _around(tree, place)
    statement = next((node for node in around if isinstance(node, ast.stmt)), None)
    if statement is None:
        return plain
    if not isinstance(statement, ast.FunctionDef | ast.ClassDef) and not _blocks(statement):
        code = " ".join(ast.unparse(statement).split()) if statement.end_lineno != statement.lineno else code
    code = code if len(code) <= _CODE_LIMIT else f"{code[: _CODE_LIMIT - 3]}..."
    outer = tuple(node for node in around if node is not statement or isinstance(node, ast.FunctionDef))
    return Site(place, code, _name(around), statement, _focus(statement, place), outer, tree)


@lru_cache(maxsize=64)
def _parsed(source: str) -> ast.Module | None:
    try:
        return ast.parse(source)
    except SyntaxError:
        return None


def described(site: Site) -> str:
    """`ranker.py:41 in MyModel.forward`."""
    return f"{Path(site.place.path).name}:{site.place.line}" + (f" in {site.name}" if site.name else "")


def _around(tree: ast.Module, place: Place) -> list[ast.AST]:
    """The statements and handlers that hold `place`, innermost first; of two on one line the outer one where no column says which."""
    found: list[ast.AST] = []
    inside: list[ast.AST] = [tree]
    while inside:
        inside = [child for node in inside for child in _blocks(node) if _holds(child, place)]
        found = inside + found
        if place.column is None and inside and _starts(inside[0]) == place.line and not isinstance(inside[0], ast.ClassDef):
            break
    return found


def _starts(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))


def _holds(node: ast.AST, place: Place) -> bool:
    if isinstance(node, ast.match_case):
        return any(_holds(child, place) for child in node.body)
    first = min([_starts(node), *[_starts(d) for d in getattr(node, "decorator_list", [])]])
    start, end = (first, getattr(node, "col_offset", 0)), (getattr(node, "end_lineno", 0), getattr(node, "end_col_offset", 0))
    if place.column is None:
        return start[0] <= place.line <= end[0]
    return start <= (place.line, place.column) < end


def _name(around: list[ast.AST]) -> str:
    """Class and method, or the function."""
    names: list[str] = []
    for node in around:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not names:
                names.append(node.name)
        elif isinstance(node, ast.ClassDef):
            names.append(node.name)
            break
    return ".".join(reversed(names))


def _blocks(statement: ast.AST) -> list[ast.AST]:
    """The statements nested in one."""
    nested: list[ast.AST] = []
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        value = getattr(statement, field, None)
        nested += value if isinstance(value, list) else []
    return nested


def _header(statement: ast.stmt) -> list[ast.AST]:
    nested = _blocks(statement)
    return [child for child in ast.iter_child_nodes(statement) if child not in nested] if nested else [statement]


def _focus(statement: ast.stmt, place: Place) -> ast.expr | None:
    """The expression with exactly the columns of `place`."""
    if place.column is None:
        return None
    wanted = (place.line, place.column, place.end_line, place.end_column)
    for node in ast.walk(statement):
        if isinstance(node, ast.expr) and (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset) == wanted:
            return node
    return None
