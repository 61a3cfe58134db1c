"""The weights and constants of a torch.export archive: raw numbers in members of their own, described by JSON beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from ..core.errors import InputError, UntrustedError
from .archive_graph import clean_json
from .stored_tensor import ITEM_BYTES, StoredTensor, check_bounds, whole

FOLDERS = {"weights": re.compile(r"weight_\d+", re.ASCII), "constants": re.compile(r"tensor_\d+", re.ASCII)}
_SAVE_AGAIN = "save it again with torch.export.save"
_PLAIN = "export a model of plain tensors; use --trust-pickle only for a file you made yourself"
# ScalarType of torch/_export/serde/schema.py.
_DTYPES = {
    **{1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 10: "complex64"},
    **{11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz"},
    **{32: "float8_e5m2fnuz", 33: "float8_e8m0fnu", 34: "uint32", 35: "uint64"},
}


def clean_tensors(members: Mapping[str, bytearray], folder: str, where: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of the members to copy for `weights` or `constants`.

    Raises UntrustedError for whatever would be unpickled, InputError where a tensor does not fit the bytes it is stored in.
    """
    name = f"data/{folder}/model_{folder}_config.json"
    files = set()
    try:
        for label, entry in json.loads(members[name])["config"].items():
            file = entry["path_name"]
            if entry["use_pickle"] is not False or not FOLDERS[folder].fullmatch(file):
                raise UntrustedError(where, f"holds a pickled object among its {folder} ({str(file)[:60]!r})", fix=_PLAIN)
            check_bounds(_described(entry, len(members[f"data/{folder}/{file}"])), f"{where}: '{label[:80]}'")
            files.add(file)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        problem = f"its {folder} are not as torch.export.save writes them (damaged, or from PyTorch 2.8 or older)"
        raise InputError(where, problem, fix=_SAVE_AGAIN) from None
    yield name, clean_json(bytes(members[name]), where)
    for file in sorted(files):
        yield f"data/{folder}/{file}", bytes(members[f"data/{folder}/{file}"])


def _described(entry: Mapping[str, Mapping[str, object]], size: int) -> StoredTensor:
    """The tensor an entry describes, over a member of `size` bytes."""
    meta = entry["tensor_meta"]
    dtype = _DTYPES[whole(meta["dtype"])]
    if size % ITEM_BYTES[dtype]:
        raise ValueError(f"{size} bytes are no whole number of {dtype}")
    return StoredTensor(
        key=str(entry["path_name"]),
        dtype=dtype,
        count=size // ITEM_BYTES[dtype],
        offset=_number(meta["storage_offset"]),
        size=_numbers(meta["sizes"]),
        stride=_numbers(meta["strides"]),
        requires_grad=False,
    )


def _numbers(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise TypeError("a shape that is no list")
    return tuple(_number(inner) for inner in value)


def _number(value: object) -> int:
    if not isinstance(value, dict):
        raise TypeError("a size that is no number")
    return whole(value["as_int"])
