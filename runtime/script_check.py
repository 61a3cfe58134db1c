"""Checking the code inside a TorchScript archive before PyTorch compiles it.

TorchScript can write and read files (`aten::save`, `aten::from_file`), call operators of any loaded library (`ops.<library>.*`), start
threads (`fork`), treat one object as another (`unchecked_cast`) and run methods while it is being loaded (`__setstate__`). So the code is
parsed, each construct is compared with what PyTorch prints for plain tensor code (torch/csrc/jit/serialization/python_print.cpp), and
PyTorch gets what was parsed, printed again: comments and whatever another parser might see differently are gone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from ..core.errors import UntrustedError
from .script_code import ScriptCode, dotted
from .script_operators import PRIM_OPS, is_allowed, is_operator

_TYPES = {"Tensor", "int", "float", "bool", "str", "NoneType", "Device", "number", "Any"}
_GENERICS = {"Optional", "List", "Dict", "Tuple"}
_FUNCTIONS = {
    "int",
    "float",
    "bool",
    "str",
    "print",
    "sorted",
    "annotate",
    "unchecked_cast",
    "uninitialized",
    "isinstance",
    "getattr",
    "range",
}
_NUMBERS = {"inf", "nan"}
_NAMES = _FUNCTIONS | _NUMBERS | {"torch", "ops", "CONSTANTS", "__torch__"}
_TAKES_TYPE = {"annotate", "unchecked_cast", "uninitialized"}
_READ_ONLY = {"value", "name", "tolist"}
_MAGIC = {"__init__", "__len__", "__getitem__", "__contains__", "__call__", "__enter__", "__exit__"}
_IDENTIFIER = re.compile(r"[A-Za-z_]\w{0,200}", re.ASCII)
_SUBMODULE = re.compile(r"[\w\-]{1,200}", re.ASCII)
_FIX = "save it as a torch.export archive; --trust-pickle is only for a file you made yourself"


def checked_sources(code: ScriptCode, where: str) -> dict[str, bytes]:
    """The sources to give to PyTorch, by member name; raises UntrustedError for anything but plain tensor code."""
    for member, tree in code.files.items():
        check = _Check(code, f"{where}: {member}")
        for statement in tree.body:
            check.definition(statement)
    return {member: ast.unparse(tree).encode() + b"\n" for member, tree in code.files.items()}


class _Check:
    """Compares the code of one file with what PyTorch prints for plain tensor code."""

    def __init__(self, code: ScriptCode, where: str) -> None:
        self.code = code
        self.where = where

    def definition(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.FunctionDef):
            self.function(statement)
        elif isinstance(statement, ast.ClassDef) and not statement.decorator_list and not statement.keywords:
            self.identifier(statement.name)
            for inner in statement.body:
                self.in_class(inner)
        else:
            self.refuse(statement)

    def in_class(self, statement: ast.stmt) -> None:
        match statement:
            case ast.FunctionDef():
                self.function(statement)
            case ast.Assign(targets=[ast.Name(id="__parameters__" | "__buffers__")], value=ast.List(elts=names)):
                self.require(all(isinstance(n, ast.Constant) and isinstance(n.value, str) for n in names), statement)
                self.each(names)
            case ast.Assign(targets=[ast.Name(id="__annotations__")], value=ast.List(elts=[])):
                pass
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id="__annotations__"), slice=ast.Constant(value=str(key)))], value=kind):
                self.require(_SUBMODULE.fullmatch(key) is not None, statement)
                self.type(kind)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind, value=None):
                self.identifier(name)
                self.type(kind)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Subscript(value=ast.Name(id="Final"), slice=kind), value=value):
                self.identifier(name)
                self.type(kind)
                self.literal(value)
            case ast.Pass():
                pass
            case _:
                self.refuse(statement)

    def function(self, function: ast.FunctionDef) -> None:
        arguments = function.args
        plain = not (arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.posonlyargs or function.decorator_list)
        self.require(plain, function)
        self.require(not function.name.startswith("__") or function.name in _MAGIC, function)
        self.identifier(function.name)
        for argument in arguments.args:
            self.identifier(argument.arg)
            self.require(argument.arg not in _NAMES - _FUNCTIONS, argument)
            self.type(argument.annotation)
        for default in arguments.defaults:
            self.literal(default)
        self.type(function.returns)
        self.names = _NUMBERS | {argument.arg for argument in arguments.args} | set(_stored(function.body))
        self.block(function.body)

    def block(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            self.statement(statement)

    def statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=[target], value=value):
                self.target(target)
                self.expression(value)
            case ast.AnnAssign(target=ast.Name() as target, annotation=kind, value=value) if value is not None:
                self.target(target)
                self.type(kind)
                self.expression(value)
            case ast.Expr(value=ast.Call() as value):
                self.expression(value)
            case ast.If(test=test, body=body, orelse=orelse) | ast.While(test=test, body=body, orelse=orelse):
                self.expression(test)
                self.block([*body, *orelse])
            case ast.For(target=ast.Name() as target, iter=ast.Call(func=ast.Name(id="range")) as values, body=body, orelse=[]):
                self.target(target)
                self.expression(values)
                self.block(body)
            case ast.With(items=[ast.withitem(context_expr=context, optional_vars=None)], body=body):
                self.expression(context)
                self.block(body)
            case ast.Return(value=value):
                if value is not None:
                    self.expression(value)
            case ast.Pass():
                pass
            case _:
                self.refuse(statement)

    def target(self, target: ast.expr) -> None:
        match target:
            case ast.Name(id=name):
                self.require(name not in _NAMES, target)
                self.identifier(name)
            case ast.Tuple(elts=parts) if parts:
                for part in parts:
                    self.require(isinstance(part, ast.Name), target)
                    self.target(part)
            case ast.Attribute(value=owner, attr=name):
                self.member(name, target)
                self.expression(owner)
            case _:
                self.refuse(target)

    def expression(self, node: ast.expr) -> None:
        match node:
            case ast.Constant():
                self.constant(node)
            case ast.Name(id=name):
                # What has a meaning of its own may only be called: under another name its calls would go unrecognized.
                self.require(name in self.names, node)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                self.each(parts)
            case ast.Dict(keys=keys, values=values):
                self.each([*(key for key in keys if key is not None), *values])
                self.require(None not in keys, node)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() | ast.Name() as operand):
                self.expression(operand)
            case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper, step=step)):
                self.each([value, *(bound for bound in (lower, upper, step) if bound is not None)])
            case ast.Subscript(value=value, slice=index):
                self.each([value, index])
            case ast.Call():
                self.call(node)
            case ast.Attribute():
                self.attribute(node)
            case _:
                self.refuse(node)

    def each(self, nodes: Iterable[ast.expr]) -> None:
        for node in nodes:
            self.expression(node)

    def call(self, node: ast.Call) -> None:
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        self.require(all(keyword.arg is not None for keyword in node.keywords), node)
        match node.func:
            case ast.Name(id=name) if name in _TAKES_TYPE:
                self.require(bool(node.args), node)
                self.type(node.args[0])
                # A cast between classes is not checked by PyTorch: it would read one object's memory as another's.
                self.require(name != "unchecked_cast" or "__torch__" not in ast.dump(node.args[0]), node)
                arguments = arguments[1:]
            case ast.Name(id="isinstance"):
                self.require(len(arguments) == 2, node)
                kinds = arguments.pop()
                for kind in kinds.elts if isinstance(kinds, ast.Tuple) else [kinds]:
                    self.type(kind)
            case ast.Name(id="getattr"):
                self.require(len(arguments) == 2, node)
                match arguments.pop():
                    case ast.Constant(value=str(attribute)):
                        self.require(self.is_member(attribute), node)
                    case _:
                        self.refuse(node)
            case ast.Name(id=name) if name in _FUNCTIONS:
                pass
            case ast.Attribute(value=ast.Name(id="torch"), attr=name):
                self.require(is_allowed(name), node)
            case ast.Attribute(value=ast.Attribute(value=ast.Name(id="ops"), attr="prim"), attr=name):
                self.require(name in PRIM_OPS, node)
            case ast.Attribute(value=owner, attr="__new__"):
                self.require(dotted(owner) in self.code.classes, node)
            case function:
                self.expression(function)
        self.each(arguments)

    def attribute(self, node: ast.Attribute) -> None:
        name = dotted(node)
        if name.startswith("__torch__."):
            self.require(name in self.code.functions or name in self.code.types, node)
        elif name.startswith("CONSTANTS."):
            self.require(re.fullmatch(r"c\d{1,9}", node.attr, re.ASCII) is not None and isinstance(node.value, ast.Name), node)
        else:
            self.require(name.partition(".")[0] not in {"torch", "ops"}, node)
            self.member(node.attr, node)
            self.expression(node.value)

    def member(self, name: str, node: ast.AST) -> None:
        self.identifier(name)
        self.require(self.is_member(name), node)

    def is_member(self, name: str) -> bool:
        """Whether a class declares it, and it is no forbidden operator as well: of a tensor, `x.save(...)` calls `aten::save`."""
        declared = name in self.code.members or name in _READ_ONLY
        return declared and (is_allowed(name) or not is_operator(name))

    def type(self, node: ast.expr | None) -> None:
        match node:
            case None:
                pass
            case ast.Name(id=name):
                self.require(name in _TYPES, node)
            case ast.Attribute():
                self.require(dotted(node) in self.code.types, node)
            case ast.Subscript(value=ast.Name(id=name), slice=inner):
                self.require(name in _GENERICS, node)
                for part in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
                    self.type(part)
            case _:
                self.refuse(node)

    def literal(self, node: ast.expr | None) -> None:
        match node:
            case ast.Constant():
                self.constant(node)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as operand):
                self.constant(operand)
            case ast.Name(id="inf" | "nan") | ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf")):
                pass
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                for part in parts:
                    self.literal(part)
            case ast.Attribute(value=ast.Name(id="CONSTANTS")):
                self.attribute(node)
            case _:
                self.refuse(node)

    def constant(self, node: ast.Constant) -> None:
        value = node.value
        whole = isinstance(value, int) and -(2**63) <= value < 2**63
        self.require(value is None or whole or isinstance(value, float | str), node)

    def identifier(self, name: str) -> None:
        if _IDENTIFIER.fullmatch(name) is None:
            raise UntrustedError(self.where, f"holds a name that is no plain name ({name[:40]!r})", fix=_FIX)

    def require(self, condition: bool, node: ast.AST | None) -> None:
        if not condition:
            self.refuse(node)

    def refuse(self, node: ast.AST | None) -> None:
        text = ast.unparse(node).strip().splitlines()[0][:80] if node is not None else "nothing"
        line = getattr(node, "lineno", 0)
        raise UntrustedError(f"{self.where}:{line}", f"holds code that is not plain tensor code: {text}", fix=_FIX)


def _stored(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Names the statements assign."""
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
