"""Constructs that need the values of tensors while the graph is recorded: branches, conversions to numbers, NumPy."""

from __future__ import annotations

import ast

from .finding import Clue, Finding
from .places import Site
from .rewriting import aliases, assigned, calls, dotted, in_torch, kept, name_of, path_to, shown, uses, without_leaving

_READS = (
    "Could not guard on data-dependent",
    "Data-dependent branching",
    "Data dependent operator",
    "Converting a tensor to a Python boolean",
)
_NUMBERS = (
    "Could not extract specialized integer",
    "Converting a tensor to a Python",
    "`tolist()`",
    "Failed to trace builtin",
    "unhashable type",
)
_WHOLE = ("aten.equal", "aten.allclose", "aten.is_nonzero")
_MASKED = frozenset(
    {"any", "all", "isnan", "isinf", "isfinite", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not"}
)
_REDUCTIONS = frozenset({"max", "min", "sum", "sorted", "any", "all"})


def numpy_call(clue: Clue) -> Finding | None:
    """NumPy or SciPy on tensors."""
    site = clue.site
    numpy, scipy = aliases(site.tree, "numpy"), aliases(site.tree, "scipy")
    here = uses(site.nodes(), numpy) or bool(calls(site.nodes(), "numpy", "from_numpy"))
    if not (clue.says(".numpy()", "to a NumPy array") or (here and not clue.says("Size-like symbols: u"))):
        return None
    if any(isinstance(node, ast.ClassDef) and any("Function" in dotted(base) for base in node.bases) for node in site.around):
        change = "write the function's forward with torch operations; torch.export cannot look into NumPy"
        return Finding("NumPy in a custom autograd function", change)
    if uses(ast.walk(site.function) if site.function else iter(()), scipy):
        change = "build the matrix once in __init__ (`self.register_buffer(...)`, dense) and multiply it with torch.matmul"
        return Finding("a SciPy matrix in forward", change)
    return Finding("NumPy in forward", _numpy_change(site, numpy))


def _numpy_change(site: Site, numpy: frozenset[str]) -> str:
    rewritten = numpy_in_torch(site, numpy)
    below = _numpy_below(site, numpy)
    if rewritten is None:
        used = sorted({dotted(c.func) for c in calls_of(site) if dotted(c.func).partition(".")[0] in numpy})
        return f"use torch operations instead of {', '.join(used) or '.numpy()'}, on the tensors themselves"
    target = site.statement.targets[0] if isinstance(site.statement, ast.Assign) else None
    if isinstance(rewritten, ast.Assign) and target is not None and shown(rewritten.value) == shown(target):
        return "drop this line" + (f", and write what follows without {below}" if below else "")
    change = f"stay with tensors: `{shown(rewritten)}`"
    if isinstance(target, ast.Name) and site.function is not None:
        for call in calls(ast.walk(site.function), "from_numpy", "tensor", "as_tensor"):
            if call.lineno > site.place.line and call.args and isinstance(call.args[0], ast.Name) and call.args[0].id == target.id:
                return f"{change}, and `{target.id}` where it says `{shown(call)}`"
    return f"{change}, and write what follows without {below}" if below else change


def numpy_in_torch(site: Site, numpy: frozenset[str]) -> ast.stmt | None:
    """The statement with PyTorch's functions, where they have the same names and the statement is a simple one."""
    import torch  # noqa: PLC0415 - takes seconds

    if site.statement is None or site.header != (site.statement,):
        return None
    if any(name_of(call) in {"tolist", "set", "sorted", "list", "dict"} for call in calls_of(site)):
        return None  # Python values made of the array: the same line on tensors means something else
    return in_torch(site.statement, numpy, lambda name: hasattr(torch, name))


def _numpy_below(site: Site, numpy: frozenset[str]) -> str:
    """What else of NumPy the function uses further down."""
    nodes = ast.walk(site.function) if site.function is not None else iter(())
    used = [c for c in nodes if isinstance(c, ast.Call) and c.lineno > site.place.line and dotted(c.func).partition(".")[0] in numpy]
    names = list(dict.fromkeys(dotted(c.func) for c in sorted(used, key=lambda c: c.lineno)))
    return ", ".join(names[:3]) + (" and the like" if len(names) > 3 else "")


def calls_of(site: Site) -> list[ast.Call]:
    """Every call on the line."""
    return [node for node in site.nodes() if isinstance(node, ast.Call)]


def check(clue: Clue) -> Finding | None:
    """A test of values that only raises."""
    statement = clue.site.statement
    raises = isinstance(statement, ast.If) and all(isinstance(part, ast.Raise | ast.Expr) for part in statement.body)
    raises = raises and isinstance(statement, ast.If) and any(isinstance(part, ast.Raise) for part in statement.body)
    if not (raises or isinstance(statement, ast.Assert)) or not clue.says(*_READS, *_NUMBERS, *_WHOLE):
        return None
    return Finding("a check of tensor values", "remove the check from forward, or make it before the model is called", "trace")


def branch(clue: Clue) -> Finding | None:
    """Python control flow that depends on values."""
    if not clue.says(*_READS, *_WHOLE):
        return None
    decision = _decision(clue.site)
    if decision is None:
        return None
    selected = clue.says("Size-like symbols: u") and not clue.says("Size-like symbols: none")
    if selected:
        change = "keep all elements and weigh them with the mask: torch.where(mask, value, 0) instead of value[mask]"
        return Finding("a Python branch on how many elements were selected", change, "script")
    if isinstance(decision, ast.While):
        step = _assignment(decision.body)
        body = (
            f"{step[0]} = torch.where({_condition(decision.test)}, {shown(step[1])}, {step[0]})"
            if step
            else "torch.where(condition, new, old)"
        )
        change = f"take a fixed number of steps that is enough: `for _ in range(N): {body}`"
        return Finding("a Python loop that ends by tensor values", change, "script")
    builtin = isinstance(decision, ast.Call) and name_of(decision) in _REDUCTIONS
    construct = (
        f"Python's {name_of(decision)}() of tensors" if builtin and isinstance(decision, ast.Call) else "a Python branch on tensor values"
    )
    return Finding(construct, _branch_change(clue.site, decision) + _kept_numbers(clue.site, decision), "script")


def _decision(site: Site) -> ast.AST | None:
    """What asks for a truth value: around the expression that ran, or else the first on the line."""
    ran = site.focus is not None and site.statement is not None
    nodes = path_to(site.statement, site.focus) if ran and site.statement and site.focus else list(site.nodes())
    named = [c for c in nodes if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)]
    reducing = [call for call in named if name_of(call) in _REDUCTIONS]
    if reducing or isinstance(site.statement, ast.If | ast.While):
        return reducing[0] if reducing else site.statement
    asking = [node for node in nodes if isinstance(node, ast.IfExp | ast.BoolOp) or _negates(node)]
    asking += [call for call in named if name_of(call) == "bool"]
    return asking[0] if asking else next((node for node in site.nodes() if isinstance(node, ast.comprehension)), None)


def _negates(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _branch_change(site: Site, decision: ast.AST) -> str:
    if isinstance(decision, ast.If):
        return _if_change(site, decision)
    if isinstance(decision, ast.IfExp):
        chosen = f"torch.where({_condition(decision.test)}, {shown(decision.body)}, {shown(decision.orelse)})"
        return f"choose with `{chosen}`"
    if isinstance(decision, ast.BoolOp | ast.UnaryOp):
        return f"combine the tensors: `{_condition(decision)}`"
    if isinstance(decision, ast.Call) and name_of(decision) == "bool" and decision.args:
        return f"keep the tensor, `{shown(_tensor_test(decision.args[0]))}`, and choose with torch.where instead of if"
    if isinstance(decision, ast.Call):
        name, given = name_of(decision), ", ".join(shown(a) for a in decision.args)
        torch_name = (
            {"sorted": "sort", "max": "maximum", "min": "minimum"}.get(name, name) if len(decision.args) > 1 or name == "sorted" else name
        )
        return f"use PyTorch's instead of Python's {name}: `torch.{torch_name}({given})`"
    return "compute both ways and choose with torch.where(condition, a, b)"


def _if_change(site: Site, decision: ast.If) -> str:
    condition = _condition(decision.test)
    yes, no = _assignment(decision.body), _assignment(decision.orelse)
    if yes and (no is None or no[0] == yes[0]) and (no or not decision.orelse):
        other = shown(no[1]) if no else yes[0]
        return f"replace the branch by `{yes[0]} = torch.where({condition}, {shown(yes[1])}, {other})`"
    first = decision.body[0]
    after = decision.orelse or _following(site, decision)
    if isinstance(first, ast.Return) and after and isinstance(after[0], ast.Return):
        return f"replace the branch by `return torch.where({condition}, {shown(first.value)}, {shown(after[0].value)})`"
    return f"compute both ways and choose with `torch.where({condition}, a, b)`"


def _assignment(body: list[ast.stmt]) -> tuple[str, ast.expr] | None:
    """Variable and new value where a block is one assignment."""
    if len(body) != 1:
        return None
    only = body[0]
    if isinstance(only, ast.Assign) and len(only.targets) == 1 and isinstance(only.targets[0], ast.Name):
        return only.targets[0].id, only.value
    if isinstance(only, ast.AugAssign) and isinstance(only.target, ast.Name):
        return only.target.id, ast.BinOp(ast.Name(only.target.id), only.op, only.value)
    return None


def _following(site: Site, statement: ast.stmt) -> list[ast.stmt]:
    """What comes after a statement in its block."""
    for holder in site.around:
        body = getattr(holder, "body", [])
        if isinstance(body, list) and statement in body:
            return body[body.index(statement) + 1 :]
    return []


def _condition(test: ast.expr) -> str:
    return shown(_tensor_test(test))


def _tensor_test(test: ast.expr) -> ast.expr:
    """A test as a tensor of booleans: `a and not b` is `(a) & ~(b)`."""
    test = kept(test)
    if isinstance(test, ast.BoolOp):
        operator = ast.BitAnd() if isinstance(test.op, ast.And) else ast.BitOr()
        parts = [_tensor_test(value) for value in test.values]
        result = parts[0]
        for part in parts[1:]:
            result = ast.BinOp(result, operator, part)
        return result
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return ast.UnaryOp(ast.Invert(), _tensor_test(test.operand))
    if isinstance(test, ast.Call) and name_of(test) in {"equal", "allclose"}:
        close = "eq" if name_of(test) == "equal" else "isclose"
        elementwise = ast.Call(ast.Attribute(ast.Name("torch"), close), test.args, test.keywords)
        return ast.Call(ast.Attribute(elementwise, "all"), [], [])
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.In) and isinstance(test.comparators[0], ast.List | ast.Tuple):
        values = ast.Call(ast.Attribute(ast.Name("torch"), "tensor"), [test.comparators[0]], [])
        return ast.Call(ast.Attribute(ast.Name("torch"), "isin"), [test.left, values], [])
    if isinstance(test, ast.Compare) or (isinstance(test, ast.Call) and name_of(test) in _MASKED):
        return without_leaving(test)
    return ast.Compare(without_leaving(test), [ast.NotEq()], [ast.Constant(0)])


def _kept_numbers(site: Site, decision: ast.AST) -> str:
    """The lines above that made numbers of tensors the decision depends on."""
    test = getattr(decision, "test", decision)
    for node in ast.walk(test):
        if isinstance(node, ast.Name):
            value = assigned(site.function, node.id, site.place.line)
            if value is not None and kept(value) is not value:
                return f", with `{node.id} = {shown(kept(value))}`"
    return ""


def lookup(clue: Clue) -> Finding | None:
    """Python's own functions and containers asked by a tensor."""
    if not clue.says(*_READS, *_NUMBERS):
        return None
    site = clue.site
    for call in calls_of(site):
        if dotted(call.func).startswith("math.") and call.args:
            change = f"use the torch function: `torch.{name_of(call)}({', '.join(shown(kept(a)) for a in call.args)})`"
            return Finding("Python's math on a tensor", change)
        if isinstance(call.func, ast.Name) and call.func.id == "range" and call.args and not _is_shape(call.args[-1]):
            bound = shown(kept(call.args[-1]))
            change = f"run to a size that is fixed (the padded length) and choose with `torch.where(i < {bound}, new, old)` in each step"
            return Finding("a Python loop as long as a tensor says", change, "script")
    for node in site.nodes():
        if not isinstance(node, ast.Subscript):
            continue
        if isinstance(node.value, ast.List):
            change = f"make the list a tensor: `torch.tensor({shown(node.value)})[{shown(kept(node.slice))}]`"
            return Finding("a Python list indexed by a tensor", change)
        if isinstance(assigned(site.function, dotted(node.value), site.place.line), ast.Dict | ast.DictComp):
            change = f"make `{dotted(node.value)}` a tensor with one entry per key (register_buffer in __init__) and index that"
            return Finding("a Python dict looked up by tensor values", change)
    return None


def _is_shape(node: ast.expr) -> bool:
    return any(isinstance(n, ast.Attribute) and n.attr in {"shape", "size"} for n in ast.walk(node)) or bool(calls(ast.walk(node), "len"))


def number(clue: Clue) -> Finding | None:
    """A tensor made a Python number."""
    site = clue.site
    if not clue.says(*_READS, *_NUMBERS) or site.statement is None:
        return None
    leaving = [c for c in calls_of(site) if kept(c) is not c and name_of(c) not in {"numpy", "cpu", "detach"}]
    if not leaving:
        return None
    name = name_of(leaving[0])
    phrase = {"item": "a tensor's .item()", "tolist": "a tensor's .tolist()"}.get(name, f"{name}() of a tensor")
    target = site.statement.targets[0] if isinstance(site.statement, ast.Assign) else None
    if isinstance(target, ast.Name) and _bounds_a_slice(site, target.id):
        change = f"drop `{target.id}`: use the padded length, and mask what lies behind `{shown(kept(leaving[0]))}`"
    else:
        change = f"keep it a tensor: `{shown(without_leaving(site.statement))}`"
    return Finding(phrase, change, "script")


def _bounds_a_slice(site: Site, name: str) -> bool:
    nodes = ast.walk(site.function) if site.function is not None else iter(())
    return any(isinstance(n, ast.Slice) and uses(ast.walk(n), frozenset({name})) for n in nodes)
