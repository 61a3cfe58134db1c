"""Checking the graph inside a torch.export archive before PyTorch reads it.

PyTorch rebuilds the program by running text from this file: names become Python source (`torch.fx` code generation), shape expressions
go through `sympy.sympify`, guards through `exec`, targets are looked up with `getattr` from `torch`, pytree contexts import modules (read
in torch/_export/serde/serialize.py, torch/export/_unlift.py and torch/fx/graph.py of 2.13). So every string has to be plain first.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping

from ..core.errors import InputError, UntrustedError

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None

_NAME = re.compile(r"[\w.$@+\-/]{0,400}", re.ASCII)
_TEXT = re.compile(r"[\w.,\-> :]{0,400}", re.ASCII)
_SYMBOL = re.compile(r"[a-z_]{1,12}\d+", re.ASCII)
_TENSOR_OP = re.compile(r"torch\.ops\.(aten|prims)\.(?!__)(\w+)(\.(?!__)\w+)?", re.ASCII)
# These read or write files the archive names.
_DENIED_OPS = {"from_file", "save", "_save"}
_CONTROL_FLOW = {"wrap_with_set_grad_enabled", "wrap_with_autocast", "cond", "while_loop", "map_impl", "scan", "associative_scan"}
_ARITHMETIC = {
    "add",
    "sub",
    "mul",
    "floordiv",
    "truediv",
    "mod",
    "neg",
    "pow",
    "getitem",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "and_",
    "or_",
    "not_",
}
_PLAIN_TARGETS = (
    {f"torch.ops.higher_order.{name}" for name in _CONTROL_FLOW}
    | {f"_operator.{name}" for name in _ARITHMETIC}
    | {"math.ceil", "math.floor", "math.trunc", "torch._sym_sqrt"}
    | {f"torch.sym_{name}" for name in ("float", "int", "ite", "max", "min", "not", "sqrt", "sum")}
)
_EXPRESSION_CALLS = frozenset(
    {
        "Symbol",
        "Integer",
        "Rational",
        "Float",
        "Add",
        "Mul",
        "Pow",
        "Mod",
        "Max",
        "Min",
        "Abs",
        "Equality",
        "Unequality",
        "Eq",
        "Ne",
        "LessThan",
        "StrictLessThan",
        "GreaterThan",
        "StrictGreaterThan",
        "And",
        "Or",
        "Not",
        "FloorDiv",
        "ModularIndexing",
        "Where",
        "PythonMod",
        "CleanDiv",
        "CeilToInt",
        "FloorToInt",
        "CeilDiv",
        "LShift",
        "RShift",
        "PowByNatural",
        "FloatPow",
        "FloatTrueDiv",
        "IntTrueDiv",
        "IsNonOverlappingAndDenseIndicator",
        "TruncToFloat",
        "TruncToInt",
        "RoundToInt",
        "RoundDecimal",
        "ToFloat",
        "Identity",
    }
)
_EXPRESSION_NODES = (
    *(ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword),
    *(ast.BinOp, ast.UnaryOp, ast.USub, ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod),
)
_LARGEST_EXPRESSION = 300
_POWERS = {"Pow", "PowByNatural", "FloatPow", "LShift"}
# Maps from a name that the author chose: a tensor called `device` is no device (torch/_export/serde/schema.py).
_NAME_KEYED = {"tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values", "range_constraints", "config"}
_CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}


def clean_program(text: bytes, where: str) -> bytes:
    """The archive's `models/model.json` with only what is needed to rebuild the program.

    Guards and per-node metadata (stack traces, which name the author's files) are dropped. Raises UntrustedError when a string could run
    code, InputError when it is not a program at all.
    """
    checked = clean_json(text, where)
    if not checked.startswith(b"{") or b'"graph_module"' not in checked:
        raise InputError(where, "holds no exported program (damaged)", fix="save it again with torch.export.save")
    return checked


def clean_json(text: bytes, where: str) -> bytes:
    """Any JSON of the archive, checked string by string."""
    try:
        value = json.loads(text)
        if isinstance(value, dict) and "guards_code" in value:
            value["guards_code"] = []
        _clean(value, "", where)
    except RecursionError:
        raise UntrustedError(where, "its program is nested absurdly deep", fix="save it again with torch.export.save") from None
    except (ValueError, TypeError, AttributeError):  # also of a list where a name belongs
        raise InputError(where, "its program is not readable JSON (damaged)", fix="save it again with torch.export.save") from None
    return json.dumps(value).encode()


def _clean(value: Json, key: str, where: str) -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _require(_NAME.fullmatch(name) is not None, where, f"a key that is no plain name: {name[:60]!r}")
            if key in _NAME_KEYED:
                # Without a key of its own: a tensor called `tensor_values` is no map either.
                _clean(inner, "", where)
            elif name == "metadata":
                value[name] = {}
            elif name == "target" and "inputs" in value and "outputs" in value:
                _check_target(inner, where)
            elif name == "device" and isinstance(inner, dict) and inner.get("type") != "cpu":
                fix = "move the model to the CPU, export and save it again"
                raise InputError.mismatch(where, expected="tensors on the CPU", found=f"device '{inner.get('type')}'", fix=fix)
            elif name in {"as_custom_obj", "custom_obj"}:
                _require(False, where, "a custom object, which only unpickling can restore")
            else:
                _clean(inner, name, where)
    elif isinstance(value, list):
        for inner in value:
            _clean(inner, key, where)
    elif isinstance(value, str):
        _check_string(value, key, where)


def _check_string(value: str, key: str, where: str) -> None:
    if key == "expr_str":
        _check_expression(value, where)
    elif key in {"in_spec", "out_spec"}:
        _check_treespec(value, where)
    elif key == "as_operator":
        _check_target(value, where)
    else:
        pattern = _TEXT if key == "as_string" else _NAME
        _require(pattern.fullmatch(value) is not None, where, f"a name that is no plain name: {value[:60]!r}")


def _check_target(target: Json, where: str) -> None:
    match = _TENSOR_OP.fullmatch(target) if isinstance(target, str) else None
    allowed = match[2] not in _DENIED_OPS if match else isinstance(target, str) and target in _PLAIN_TARGETS
    _require(allowed, where, f"a call of {target!r}, which is no tensor operation PyTorch ships")


def _check_expression(text: str, where: str) -> None:
    problem = f"a shape expression that is not arithmetic: {text[:60]!r}"
    _require(len(text) <= 2000, where, problem)
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise UntrustedError(where, f"holds {problem}", fix="save it again with torch.export.save") from None
    # sympy compares every argument of Max and Min with every other one, and simplifies as it builds.
    _require(sum(1 for _ in ast.walk(tree)) <= _LARGEST_EXPRESSION, where, problem)
    for node in ast.walk(tree):
        _require(isinstance(node, _EXPRESSION_NODES), where, problem)
        if isinstance(node, ast.Call):
            _require(isinstance(node.func, ast.Name) and node.func.id in _EXPRESSION_CALLS, where, problem)
            if isinstance(node.func, ast.Name) and node.func.id in _POWERS:
                inner = [*ast.walk(node)]
                small = all(abs(c.value) <= 64 for c in inner if isinstance(c, ast.Constant) and isinstance(c.value, int))
                # A power of a power of small numbers is already larger than the memory.
                _require(small and sum(isinstance(c, ast.Name) and c.id in _POWERS for c in inner) == 1, where, problem)
        elif isinstance(node, ast.Name):
            _require(node.id in _EXPRESSION_CALLS or _SYMBOL.fullmatch(node.id) is not None, where, problem)
        elif isinstance(node, ast.Constant):
            plain = isinstance(node.value, int | float) or (
                isinstance(node.value, str) and re.fullmatch(r"[\w.\-]{1,40}", node.value, re.ASCII)
            )
            _require(bool(plain), where, problem)


def _check_treespec(text: str, where: str) -> None:
    """PyTorch imports the modules that a pytree context names; plain containers have a context without names."""
    try:
        _, spec = json.loads(text) if text else (1, None)
    except (ValueError, TypeError, RecursionError):
        raise InputError(where, "its argument structure is not readable (damaged)", fix="save it again with torch.export.save") from None
    pending = [spec] if spec is not None else []
    while pending:
        node = pending.pop()
        _require(isinstance(node, Mapping), where, "an argument structure that is not one")
        kind, context = node.get("type"), node.get("context")
        _require(kind is None or kind in _CONTAINERS, where, f"arguments of the type {kind!r}")
        keys = json.loads(context) if isinstance(context, str) else context
        plain = keys is None or (isinstance(keys, list) and all(isinstance(k, str | int) and _NAME.fullmatch(str(k)) for k in keys))
        _require(plain, where, "an argument structure that names a module")
        pending.extend(node.get("children_spec") or [])


def _require(condition: bool, where: str, found: str) -> None:
    if not condition:
        raise UntrustedError(
            where,
            f"holds {found}",
            fix="export a model of plain tensors; `optimize export --trust-pickle` is only for a file you made yourself",
        )
