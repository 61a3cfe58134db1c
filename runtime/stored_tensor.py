"""Tensors as PyTorch's pickles describe them: a view of a storage that is kept beside the pickle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import InputError, UntrustedError
from .plain_pickle import Made, Named, Stored, describe

if TYPE_CHECKING:
    import torch

ITEM_BYTES = {
    **{"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "complex64": 8, "complex128": 16, "bool": 1},
    **{"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8},
    **{f"float8_{kind}": 1 for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz", "e8m0fnu")},
}
_STORAGES = {
    **{"DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16"},
    **{"LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8"},
    **{"BoolStorage": "bool", "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128"},
}
_REBUILT = {"torch._utils._rebuild_tensor_v2": 6, "torch._utils._rebuild_tensor_v3": 7, "torch._utils._rebuild_tensor": 4}
_PARAMETERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
# Expanded views may be larger than what they view; this is where that stops being plausible.
_EXPANDED_ELEMENTS = 2**26
_MOST_DIMENSIONS = 64


@dataclass(frozen=True)
class StoredTensor:
    """A strided view of the storage `key`, all in elements of `dtype`; `count` is what the storage declares to hold."""

    key: str
    dtype: str
    count: int
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    requires_grad: bool

    @property
    def storage_bytes(self) -> int:
        """Bytes the storage must have."""
        return self.count * ITEM_BYTES[self.dtype]

    def view(self, storage: bytearray) -> torch.Tensor:
        """The tensor over the bytes of its storage, which is shared, not copied."""
        import torch  # noqa: PLC0415 - takes seconds

        dtype = getattr(torch, self.dtype)
        flat = torch.frombuffer(storage, dtype=dtype) if self.count else torch.empty(0, dtype=dtype)
        return flat.as_strided(self.size, self.stride, self.offset)


def is_tensor(value: object) -> bool:
    """Whether the pickle would make a plain tensor or parameter of this."""
    if isinstance(value, Made) and str(value.what) in _PARAMETERS and value.args:
        value = value.args[0]  # once: no parameter holds another
    return isinstance(value, Made) and str(value.what) in _REBUILT


def stored_tensor(value: object, where: str) -> StoredTensor:
    """The tensor a pickle describes; raises InputError when it does not fit its storage, UntrustedError when it is no tensor."""
    if isinstance(value, Made) and str(value.what) in _PARAMETERS and value.args:
        value = value.args[0]  # as above
    if not isinstance(value, Made) or str(value.what) not in _REBUILT:
        raise UntrustedError(where, f"holds {describe(value)} where a plain tensor belongs", fix="save plain tensors only")
    try:
        storage, offset, size, stride = value.args[:4]
        requires_grad = value.args[4] is True if len(value.args) > 4 else False
        given = value.args[6] if str(value.what).endswith("_v3") else None
        key, dtype, count = _storage(storage, given)
        found = StoredTensor(key, dtype, count, whole(offset), _sizes(size), _sizes(stride), requires_grad)
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(where, f"holds a damaged tensor ({error})", fix="save it again") from None
    check_bounds(found, where)
    return found


def element_bytes(stored: Stored) -> tuple[str, int]:
    """Key of a stored object and the size of its elements; (`""`, 0) where it is no storage of a known type."""
    try:
        key, dtype, _ = _storage(stored, None)
    except (ValueError, TypeError):
        return "", 0
    return key, ITEM_BYTES[dtype]


def _storage(value: object, dtype: object) -> tuple[str, str, int]:
    """Key, dtype and number of elements of a persistent id ("storage", type, key, location, count)."""
    if not isinstance(value, Stored) or not isinstance(value.key, tuple) or len(value.key) < 5 or value.key[0] != "storage":
        raise ValueError("its storage is not as PyTorch writes it")
    kind, key, count = value.key[1], value.key[2], whole(value.key[4])
    if not isinstance(key, str) or not isinstance(kind, Named) or kind.module not in {"torch", "torch.storage"}:
        raise ValueError(f"its storage is of the unknown type {kind}")
    if len(value.key) > 5 and value.key[5] is not None:
        raise ValueError("its storage is a view of another one")
    if kind.name == "UntypedStorage":
        name = dtype.name if isinstance(dtype, Named) and dtype.module == "torch" else ""
        if name not in ITEM_BYTES or count % ITEM_BYTES[name]:
            raise ValueError(f"its elements are of the unknown type {dtype}")
        return key, name, count // ITEM_BYTES[name]
    if kind.name not in _STORAGES:
        raise ValueError(f"its storage is of the unknown type {kind}")
    return key, _STORAGES[kind.name], count


def check_bounds(tensor: StoredTensor, where: str) -> None:
    """Raise InputError where a tensor reaches outside its storage, or is expanded beyond all reason."""
    if len(tensor.size) != len(tensor.stride) or len(tensor.size) > _MOST_DIMENSIONS:
        raise InputError(where, "holds a damaged tensor (sizes and strides do not match)", fix="save it again")
    elements = math.prod(tensor.size)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.size, tensor.stride, strict=True)) if elements else 0
    if (elements and last >= tensor.count) or tensor.offset > tensor.count or max((*tensor.size, *tensor.stride), default=0) >= 2**62:
        raise InputError(
            where, f"holds a tensor of shape {list(tensor.size)} that reaches outside its {tensor.count} stored values", fix="save it again"
        )
    if elements > max(tensor.count, _EXPANDED_ELEMENTS):
        raise InputError(
            where,
            f"holds a tensor of shape {list(tensor.size)} expanded from {tensor.count} stored values",
            fix="save it with .contiguous(), or check that the file is what you think",
        )


def whole(value: object) -> int:
    """The value as a count; raises ValueError where it is none."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise ValueError(f"{str(value)[:40]} where a count belongs")
    return value


def _sizes(value: object) -> tuple[int, ...]:
    # torch.Size pickles as a call of itself.
    inner = value.args[0] if isinstance(value, Made) and value.is_a("torch.Size") and value.args else value
    if not isinstance(inner, tuple):
        raise ValueError("its shape is no tuple")
    return tuple(whole(size) for size in inner)
