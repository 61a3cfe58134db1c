"""TorchScript of a model that torch.export cannot record: compiled where that works, else a trace that holds for other inputs."""

from __future__ import annotations

import ast
import copy
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ...core.errors import InputError
from ...runtime.archive import quiet
from ...runtime.calling import Calling, calling_of, flat_module
from ..explain.constructs import recognise
from ..explain.finding import Clue
from ..explain.places import Place, chain, described, in_traceback, is_users, look
from ..explain.rewriting import assigned, calls, dotted, shown
from .examples import parameters_of

if TYPE_CHECKING:
    import torch

How = Literal["scripted", "traced"]
Axis = tuple[str, int]

_SOURCE = re.compile(r"# (?P<path>[^\n]+?):(?P<line>\d+):\d+")
_MANGLED = re.compile(r"___torch_mangle_\d+\.")
# What PyTorch says of the constructs that make a trace keep a value without a warning.
_KEPT = "Converting a tensor to a Python integer; specialized it to be a constant; fake tensor in the exported program constant's list"
_PLAIN_FIX = "change the line so that torch.export takes it"


def can_script(module: torch.nn.Module) -> bool:
    """Whether torch.jit.script compiles `module`, so that its control flow is kept."""
    return _scripted(module) is not None


def script_or_trace(
    module: torch.nn.Module,
    args: Sequence[object],
    kwargs: Mapping[str, object] | None = None,
    *,
    varying: frozenset[Axis] = frozenset(),
    where: str = "",
) -> tuple[torch.jit.ScriptModule, How]:
    """`module` as TorchScript that takes its tensors by position, in the order of their paths in the arguments.

    Compiled code keeps branches and loops. Where it does not compile, a trace is taken, and refused when anything in it was decided by the
    example: when PyTorch warns that a tensor became a Python value, or when tracing other rows, another number of rows, or other sizes of
    the `varying` axes (input and axis) records another graph. Raises InputError with the line of the user's code.
    """
    import torch  # noqa: PLC0415 - takes seconds

    # A script's graph is rewritten for the exporter, and the caller keeps theirs to compare with.
    compiled = _scripted(copy.deepcopy(module) if isinstance(module, torch.jit.ScriptModule) else module)
    if compiled is None:
        return trace(module, args, kwargs, varying=varying, where=where), "traced"
    calling = calling_of(args, dict(kwargs or {}), parameters_of(module), where=where or type(module).__name__)
    return _flat(compiled, calling, tensors_of(args, kwargs)), "scripted"


def trace(
    module: torch.nn.Module,
    args: Sequence[object],
    kwargs: Mapping[str, object] | None = None,
    *,
    varying: frozenset[Axis] = frozenset(),
    where: str = "",
) -> torch.jit.ScriptModule:
    """A trace of `module`, checked as in `script_or_trace`."""
    where = where or type(module).__name__
    calling = calling_of(args, dict(kwargs or {}), parameters_of(module), where=where)
    tensors, module = tensors_of(args, kwargs), _untied(module)
    first = _trace(module, calling, tensors, where)
    expected = _fingerprint(first)
    for others in _variations(calling.names, tensors, varying, lambda given: _runs(module, calling, given), where):
        different = _difference(expected, _fingerprint(_trace(module, calling, others, where)))
        if different is not None:
            raise _depends_on_example(module, different, where)
    return first


def tensors_of(args: Sequence[object], kwargs: Mapping[str, object] | None = None) -> list[Any]:
    """The tensors in the arguments of a forward, in the order in which a script of it takes them."""
    import torch  # noqa: PLC0415 - takes seconds
    from torch.utils._pytree import tree_leaves  # noqa: PLC0415

    return [leaf for leaf in tree_leaves((tuple(args), dict(kwargs or {}))) if isinstance(leaf, torch.Tensor)]


def _scripted(module: torch.nn.Module) -> torch.jit.ScriptModule | None:
    import torch  # noqa: PLC0415 - takes seconds

    with quiet():
        try:
            compiled = torch.jit.script(module)
        except Exception:
            return None
    return compiled if isinstance(compiled, torch.jit.ScriptModule) else None


def _flat(compiled: torch.jit.ScriptModule, calling: Calling, tensors: Sequence[torch.Tensor]) -> torch.jit.ScriptModule:
    """`compiled` as a function of tensors: itself where it is one, else traced around, which keeps what is inside compiled."""
    import torch  # noqa: PLC0415 - takes seconds

    args, kwargs = calling.arguments(tensors)
    with quiet(), torch.no_grad():
        found = compiled(*(t.clone() if isinstance(t, torch.Tensor) else t for t in args), **kwargs)
        takes = len(compiled.forward.schema.arguments) - 1  # type: ignore[attr-defined]  # a script's forward is a ScriptMethod
        plain = not kwargs and len(args) == takes and all(isinstance(a, torch.Tensor) for a in args)
        if plain and (isinstance(found, torch.Tensor) or (isinstance(found, tuple) and all(isinstance(t, torch.Tensor) for t in found))):
            return compiled
        return _record(flat_module(compiled, calling), tensors)


def _trace(module: torch.nn.Module, calling: Calling, tensors: Sequence[torch.Tensor], where: str) -> torch.jit.ScriptModule:
    import torch  # noqa: PLC0415 - takes seconds
    from torch.jit._trace import TracerWarning  # noqa: PLC0415

    clones = tuple(tensor.clone() for tensor in tensors)
    with quiet(), warnings.catch_warnings(record=True) as seen, torch.no_grad():
        warnings.simplefilter("always")
        try:
            found = _record(flat_module(module, calling), clones)
        except Exception as error:  # the user's forward may raise anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            place = next((found for found in map(in_traceback, chain(error)) if found is not None), None)
            at, line = (described(look(place)), f"`{look(place).code}`") if place is not None else (where, "it")
            raise InputError(at, f"torch.jit.trace cannot record {line} ({reason[:200]})", fix=_PLAIN_FIX) from error
    for warning in seen:
        if issubclass(warning.category, TracerWarning) and is_users(warning.filename):
            place, message = Place(warning.filename, warning.lineno), str(warning.message)
            if not _harmless(Clue(look(place), message, module)):
                raise _baked(module, place, message, where)
    return found


def _record(module: torch.nn.Module, tensors: Sequence[torch.Tensor]) -> torch.jit.ScriptModule:
    import torch  # noqa: PLC0415 - takes seconds

    found: torch.jit.ScriptModule = torch.jit.trace(module, tuple(tensors), strict=False, check_trace=False)  # type: ignore[no-untyped-call]
    return found


def _untied(module: torch.nn.Module) -> torch.nn.Module:
    """`module`, or a copy in which weights that have two names are two weights: a trace knows each by one name."""
    import torch  # noqa: PLC0415 - takes seconds

    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    if len(names) == len(list(module.parameters())):
        return module
    untied, seen = copy.deepcopy(module), set[int]()
    for owner in untied.modules():
        for name, parameter in list(owner._parameters.items()):
            if parameter is not None and id(parameter) in seen:
                owner._parameters[name] = torch.nn.Parameter(parameter.detach().clone(), requires_grad=False)
            elif parameter is not None:
                seen.add(id(parameter))
    return untied


def _harmless(clue: Clue) -> bool:
    """Whether a warning is about a check that only raises, which a trace leaves out, or about a constant that is written down."""
    statement = clue.site.statement
    if isinstance(statement, ast.Assert):
        return True
    if isinstance(statement, ast.If) and all(isinstance(part, ast.Raise) for part in statement.body):
        return True
    if clue.says("registered as constants"):
        made = calls(clue.site.nodes(), "tensor", "as_tensor", "from_numpy", "Tensor", "FloatTensor", "LongTensor", "BoolTensor")
        return bool(made) and all(_constant(argument, clue) for call in made for argument in call.args[:1])
    return False


def _constant(node: ast.AST, clue: Clue) -> bool:
    """Whether an expression is made of numbers that are written down or kept in the model, and of no tensor."""
    if isinstance(node, ast.Name):
        value = assigned(clue.site.function, node.id, clue.site.place.line)
        return value is not None and _constant(value, clue)
    if isinstance(node, ast.Attribute):
        held = clue.attribute(node)
        return isinstance(held, int | float) or dotted(node) in {"np.inf", "numpy.inf", "math.inf", "torch.inf", "math.pi", "np.pi"}
    if isinstance(node, ast.IfExp):
        return _constant(node.body, clue) and _constant(node.orelse, clue)
    if isinstance(node, ast.List | ast.Tuple | ast.UnaryOp | ast.BinOp):
        return all(_constant(part, clue) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr))
    return isinstance(node, ast.Constant) or shown(node) in {"float('inf')", "float('-inf')"}


def _baked(module: torch.nn.Module, place: Place, message: str, where: str) -> InputError:
    site = look(place)
    finding = recognise(Clue(site, message, module))
    what = finding.construct if finding else message.partition(" might")[0].partition(". ")[0]
    problem = f"a trace would keep what the example gave for {what}: `{site.code}`"
    return InputError(described(site) if site.code else where, problem, fix=finding.change if finding else _PLAIN_FIX)


def _depends_on_example(module: torch.nn.Module, different: str, where: str) -> InputError:
    for match in _SOURCE.finditer(different):
        if is_users(match["path"]):
            site = look(Place(match["path"], int(match["line"])))
            problem = f"a trace would keep what the example gave here: `{site.code}` records something else for other inputs"
            finding = recognise(Clue(site, _KEPT, module))
            return InputError(described(site), problem, fix=finding.change if finding else _PLAIN_FIX)
    fix = "it uses loops over sizes, state or random numbers outside of PyTorch; write it with tensor operations alone"
    return InputError(where, "a trace of it depends on the example inputs", fix=fix)


def _variations(
    names: Sequence[str], tensors: Sequence[torch.Tensor], varying: frozenset[Axis], runs: Callable[[list[torch.Tensor]], bool], where: str
) -> Iterator[list[torch.Tensor]]:
    """Other inputs on which the model runs: other rows and one more of them, one row alone, and other sizes of the varying axes.

    Raises InputError when there are none, for then nothing would be checked.
    """
    import torch  # noqa: PLC0415 - takes seconds

    rows = len(tensors[0]) if tensors[0].ndim else 1

    def chosen(given: Sequence[torch.Tensor], index: list[int]) -> list[torch.Tensor]:
        return [t[torch.tensor(index)] if t.ndim and len(t) == rows else t for t in given]

    others = [v for v in (chosen(tensors, [*range(1, rows), 0, 0]), chosen(tensors, [0])) if runs(v)]
    if not others:
        raise InputError(where, "runs on no rows but its example, so a trace of it cannot be checked", fix=_PLAIN_FIX)
    yield from others
    if not varying:
        return
    longer, shorter = (
        [_resized(t, {axis for owner, axis in varying if owner == n}, by) for n, t in zip(names, tensors, strict=True)] for by in (1, -1)
    )
    # A row may speak of the length itself, as `history_length` does: then only some rows fit a shorter one.
    resized = next((v for v in (longer, shorter) if runs(v)), None)
    fitting = [row for row in range(rows) if resized is None and runs(chosen(shorter, [row]))]
    resized = chosen(shorter, fitting) if fitting else resized
    if resized is None:
        problem = f"runs at no other size of {', '.join(sorted(name for name, _ in varying))}, so a trace of it cannot be checked"
        raise InputError(where, problem, fix=_PLAIN_FIX)
    yield resized


def _resized(tensor: torch.Tensor, axes: set[int], by: int) -> torch.Tensor:
    for axis in axes:
        size = tensor.shape[axis]
        tensor = tensor.narrow(axis, 0, size - 1) if by < 0 else tensor.index_select(axis, _repeating_last(size))
    return tensor.contiguous()


def _repeating_last(size: int) -> torch.Tensor:
    import torch  # noqa: PLC0415 - takes seconds

    return torch.arange(size + 1).clamp(max=size - 1)


def _runs(module: torch.nn.Module, calling: Calling, tensors: Sequence[torch.Tensor]) -> bool:
    import torch  # noqa: PLC0415 - takes seconds

    args, kwargs = calling.arguments([t.clone() for t in tensors])
    with quiet(), torch.no_grad():
        try:
            module(*args, **kwargs)
        except Exception:
            return False
    return True


def _fingerprint(script: torch.jit.ScriptModule) -> list[str]:
    """The recorded operations, one a line, without the example's shapes; constants by value."""
    import torch  # noqa: PLC0415 - takes seconds

    graph = script.inlined_graph.copy()
    torch._C._jit_pass_erase_shape_information(graph)
    lines = _MANGLED.sub("", str(graph)).splitlines()
    for node in graph.nodes():
        if node.kind() == "prim::Constant" and node.hasAttribute("value") and node.kindOf("value") == "t":
            source = str(node).rpartition("#")[2].strip()
            value = node.t("value")
            lines.append(f"constant {tuple(value.shape)} {value.flatten()[:64].tolist()} # {source}")
    return lines


def _difference(expected: list[str], found: list[str]) -> str | None:
    """What differs first, with the lines that follow in both; None when nothing does."""
    for i in range(max(len(expected), len(found))):
        if expected[i : i + 1] != found[i : i + 1]:
            return "\n".join((*expected[i : i + 40], *found[i : i + 40]))
    return None
