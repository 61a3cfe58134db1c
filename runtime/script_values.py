"""The attribute values of a TorchScript archive, checked against the types its code declares and written out afresh.

PyTorch's reader of these pickles (torch/csrc/jit/serialization/unpickler.cpp) believes them: sizes that reach outside a storage and
objects of another class than declared become reads of other memory. So every value is compared with its declaration first.
"""

from __future__ import annotations

import ast
import re
import struct
from collections.abc import Mapping

from ..core.errors import InputError, UntrustedError
from .plain_pickle import Made, Named, describe
from .script_code import ScriptCode, dotted
from .stored_tensor import StoredTensor, stored_tensor

_FIX = "save it as a torch.export archive; --trust-pickle is only for a file you made yourself"
_STORAGE_OF = {
    **{"float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage"},
    **{"int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage", "uint8": "ByteStorage"},
    **{"bool": "BoolStorage", "complex64": "ComplexFloatStorage", "complex128": "ComplexDoubleStorage"},
}
_TYPED_LISTS = {"int": "build_intlist", "float": "build_doublelist", "bool": "build_boollist", "Tensor": "build_tensorlist"}
_DEVICE = re.compile(r"(cpu|cuda|xpu|mps)(:\d{1,2})?", re.ASCII)
_KEY = re.compile(r"\d{1,9}", re.ASCII)
_DEEPEST = 100


class ValueWriter:
    """Writes checked values as one pickle in the instructions that PyTorch's reader knows; `tensors` collects what they refer to."""

    def __init__(self, code: ScriptCode, where: str, *, limit_bytes: int) -> None:
        self._code = code
        self._where = where
        self._limit_bytes = limit_bytes
        self._out = bytearray(b"\x80\x02")
        self._memo: dict[int, tuple[int, str]] = {}
        self._kept: list[object] = []
        self.tensors: list[StoredTensor] = []

    def module(self, value: object) -> bytes:
        """The pickle of the archive's top object."""
        name = _class_of(value)
        if name not in self._code.classes:
            raise InputError(self._where, f"holds {describe(value)} where its module belongs", fix="save the model again")
        self._object(value, name, 0)
        return bytes(self._out + b".")

    def constants(self, value: object) -> bytes:
        """The pickle of the table of constants: a tuple of tensors and texts."""
        if not isinstance(value, tuple):
            raise InputError(self._where, "holds no table of constants (damaged)", fix="save the model again")
        self._out += b"("
        for constant in value:
            if isinstance(constant, str):
                self._text(constant)
            else:
                self._tensor(constant)
        return bytes(self._out + b"t.")

    def _value(self, value: object, kind: ast.expr, depth: int) -> None:  # one case per kind of type TorchScript has
        # A list that holds another one twice, and so on, is short as a pickle and endless when written out.
        if depth > _DEEPEST or len(self._out) > self._limit_bytes:
            raise UntrustedError(self._where, "holds values nested absurdly deep", fix=_FIX)
        match kind:
            case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
                if value is None:
                    self._out += b"N"
                else:
                    self._value(value, inner, depth + 1)
            case ast.Subscript(value=ast.Name(id="List"), slice=inner):
                self._list(value, inner, kind, depth)
            case ast.Subscript(value=ast.Name(id="Dict"), slice=ast.Tuple(elts=[keys, values])):
                self._dict(value, keys, values, kind, depth)
            case ast.Subscript(value=ast.Name(id="Tuple"), slice=inner):
                self._tuple(value, inner.elts if isinstance(inner, ast.Tuple) else [inner], depth)
            case ast.Name(id=name):
                self._plain(value, name)
            case ast.Attribute() if dotted(kind) in self._code.classes:
                self._object(value, dotted(kind), depth)
            case _:
                self._mismatch(value, kind)

    def _plain(self, value: object, kind: str) -> None:
        if kind == "Tensor":
            self._tensor(value)
        elif kind == "NoneType" and value is None:
            self._out += b"N"
        elif kind == "bool" and isinstance(value, bool):
            self._out += b"\x88" if value else b"\x89"
        elif kind == "int" and isinstance(value, int) and not isinstance(value, bool):
            self._int(value)
        elif kind == "float" and isinstance(value, float):
            self._out += b"G" + struct.pack(">d", value)
        elif kind == "str" and isinstance(value, str):
            self._text(value)
        elif kind == "Device" and isinstance(value, Made) and value.is_a("torch.device") and _is_device(value.args):
            self._global("torch", "device")
            self._text("cpu")
            self._out += b"\x85R"
        else:
            self._mismatch(value, ast.Name(id=kind))

    def _object(self, value: object, name: str, depth: int) -> None:
        if _class_of(value) != name or not isinstance(value, Made):
            self._mismatch(value, ast.Name(id=name))
            return
        if self._remembered(value, name):
            return
        state = value.state
        attributes = self._code.classes[name].attributes
        if not isinstance(state, dict) or state.keys() != attributes.keys():
            raise InputError(
                self._where, f"the attributes of '{name}' are not those its code declares (damaged)", fix="save the model again"
            )
        module, _, last = name.rpartition(".")
        self._global(module, last)
        self._out += b")\x81}("
        for attribute, kind in attributes.items():
            self._text(attribute)
            self._value(state[attribute], kind, depth + 1)
        self._out += b"ub"
        self._remember(value, name)

    def _tensor(self, value: object) -> None:
        if self._remembered(value, "Tensor"):
            return
        found = stored_tensor(value, self._where)
        if found.dtype not in _STORAGE_OF or _KEY.fullmatch(found.key) is None:
            raise InputError(self._where, f"holds a tensor of {found.dtype}, which TorchScript does not store", fix="save the model again")
        self.tensors.append(found)
        self._global("torch._utils", "_rebuild_tensor_v2")
        self._out += b"(("
        self._text("storage")
        self._global("torch", _STORAGE_OF[found.dtype])
        self._text(found.key)
        self._text("cpu")
        self._int(found.count)
        self._out += b"tQ"
        self._int(found.offset)
        for sizes in (found.size, found.stride):
            self._out += b"("
            for size in sizes:
                self._int(size)
            self._out += b"t"
        self._out += b"\x88" if found.requires_grad else b"\x89"
        self._global("collections", "OrderedDict")
        self._out += b")RtR"
        self._remember(value, "Tensor")

    def _list(self, value: object, inner: ast.expr, kind: ast.expr, depth: int) -> None:
        name = inner.id if isinstance(inner, ast.Name) else ""
        builder = _TYPED_LISTS.get(name, "")
        if isinstance(value, Made) and value.is_a(f"torch.jit._pickle.{builder or 'restore_type_tag'}") and value.args:
            value = value.args[0]
        if not isinstance(value, list):
            self._mismatch(value, kind)
            return
        self._global("torch.jit._pickle", builder or "restore_type_tag")
        self._out += b"]("
        for item in value:
            self._value(item, inner, depth + 1)
        self._out += b"e"
        self._finish_container(kind, tagged=not builder)

    def _dict(self, value: object, keys: ast.expr, values: ast.expr, kind: ast.expr, depth: int) -> None:
        if isinstance(value, Made) and value.is_a("torch.jit._pickle.restore_type_tag") and value.args:
            value = value.args[0]
        if not isinstance(value, dict):
            self._mismatch(value, kind)
            return
        self._global("torch.jit._pickle", "restore_type_tag")
        self._out += b"}("
        for key, item in value.items():
            self._value(key, keys, depth + 1)
            self._value(item, values, depth + 1)
        self._out += b"u"
        self._finish_container(kind, tagged=True)

    def _finish_container(self, kind: ast.expr, *, tagged: bool) -> None:
        """Call the builder of a typed list, or tag the container with its type."""
        if tagged:
            self._text(ast.unparse(kind))
            self._out += b"\x86R"
        else:
            self._out += b"\x85R"

    def _tuple(self, value: object, kinds: list[ast.expr], depth: int) -> None:
        if not isinstance(value, tuple) or len(value) != len(kinds):
            raise InputError(self._where, "holds a tuple of another length than its code declares (damaged)", fix="save the model again")
        self._out += b"("
        for item, kind in zip(value, kinds, strict=True):
            self._value(item, kind, depth + 1)
        self._out += b"t"

    def _int(self, value: int) -> None:
        if not -(2**63) <= value < 2**63:
            raise InputError(self._where, "holds a whole number of more than 64 bits (damaged)", fix="save the model again")
        self._out += b"J" + struct.pack("<i", value) if -(2**31) <= value < 2**31 else b"\x8a\x08" + struct.pack("<q", value)

    def _text(self, value: str) -> None:
        encoded = value.encode("utf-8", "surrogatepass")
        self._out += b"X" + struct.pack("<I", len(encoded)) + encoded

    def _global(self, module: str, name: str) -> None:
        self._out += b"c" + module.encode() + b"\n" + name.encode() + b"\n"

    def _remember(self, value: object, kind: str) -> None:
        """Number what was just written, so that the next use refers to it: shared modules and weights stay shared."""
        self._memo[id(value)] = (len(self._memo), kind)
        self._kept.append(value)
        self._out += b"r" + struct.pack("<I", len(self._memo) - 1)

    def _remembered(self, value: object, kind: str) -> bool:
        number, known = self._memo.get(id(value), (0, ""))
        if known == kind:
            self._out += b"j" + struct.pack("<I", number)
        return known == kind

    def _mismatch(self, value: object, kind: ast.expr) -> None:
        expected = f"a value of the type {ast.unparse(kind)[:80]}"
        raise InputError.mismatch(self._where, expected=expected, found=describe(value), fix="save the model again")


def used_storages(tensors: list[StoredTensor], members: Mapping[str, bytes | bytearray], folder: str, where: str) -> dict[str, bytearray]:
    """The members that hold the tensors' storages; raises InputError where one holds less or more than declared."""
    found: dict[str, bytearray] = {}
    for tensor in tensors:
        name = f"{folder}/{tensor.key}"
        content = members.get(name)
        if content is None and tensor.count == 0:
            continue
        if content is None or len(content) != tensor.storage_bytes:
            held = "nothing" if content is None else f"{len(content)} bytes"
            raise InputError.mismatch(f"{where}: {name}", expected=f"{tensor.storage_bytes} bytes", found=held, fix="save the model again")
        found[name] = bytearray(content)
    return found


def _class_of(value: object) -> str:
    return str(value.what) if isinstance(value, Made) and isinstance(value.what, Named) and value.args == () else ""


def _is_device(args: tuple[object, ...]) -> bool:
    return len(args) == 1 and isinstance(args[0], str) and _DEVICE.fullmatch(args[0]) is not None
