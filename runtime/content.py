"""What a file that torch.save or pickle wrote holds, read without unpickling.

The pickle is followed (see plain_pickle), and the few shapes that tensors and plain values take in it are rebuilt from their bytes. So
neither classes that only training needs nor tensors saved on a GPU are in the way.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError, UntrustedError
from .kinds import LEGACY_MAGIC
from .members import below_root, read_member, read_zip
from .plain_pickle import Made, Stored, describe, follow
from .stored_tensor import StoredTensor, element_bytes, is_tensor, stored_tensor

if TYPE_CHECKING:
    import torch

_LEGACY_PROTOCOL = 1001
_AGAIN = "save it again with torch.save"
_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict")
_DEEPEST = 50


@dataclass(frozen=True)
class Content:
    """A followed pickle; `fetch` gives the bytes of a storage that a tensor in it views."""

    value: object
    where: str
    fetch: Callable[[StoredTensor], bytearray]
    _storages: dict[str, tuple[bytearray, int]] = field(default_factory=dict)

    @property
    def needs_code(self) -> bool:
        """Whether the whole is an object that only its own class could restore."""
        return isinstance(self.value, Made) and plain(self.value) is self.value and not is_tensor(self.value)

    @property
    def state_dicts(self) -> dict[str, dict[str, object]]:
        """The state_dicts in it, not yet rebuilt, by key; the key is empty where the whole is one."""
        if is_state_dict(self.value):
            return {"": _items(self.value)}
        return {key: _items(inner) for key, inner in _items(self.value).items() if is_state_dict(inner)}

    @property
    def what(self) -> str:
        """In words, for errors."""
        if self.needs_code:
            return describe(self.value)
        if is_tensor(self.value):
            return "a saved tensor"
        inside = self.state_dicts
        if inside:
            names = ", ".join(f"'{name}'" for name in list(inside)[:5])
            return f"a checkpoint with the state_dict{'s' if len(inside) > 1 else ''} {names}" if names != "''" else "a state_dict"
        found = plain(self.value)
        keys = ", ".join(str(key)[:40] for key in list(found)[:5]) if isinstance(found, dict) else ""
        return f"a saved {type(found).__name__}" + (f" ({keys})" if keys else "")

    def tensor(self, value: object, name: str) -> torch.Tensor:
        """Rebuild a tensor on the CPU; tensors that share a storage still do."""
        found = stored_tensor(value, f"{self.where}: {name}")
        if found.key not in self._storages:
            self._storages[found.key] = (self.fetch(found), found.storage_bytes)
        storage, size = self._storages[found.key]
        if size != found.storage_bytes:
            raise InputError(self.where, f"{name} declares another size of its storage than others do (damaged)", fix=_AGAIN)
        return found.view(storage)

    def plain_values(self) -> object:
        """Everything rebuilt: tensors, numbers, texts and containers of them; raises UntrustedError where there is anything else."""
        return self._rebuilt(self.value, _DEEPEST)

    def _rebuilt(self, value: object, depth: int) -> object:
        found = plain(value)
        if is_tensor(found):
            return self.tensor(found, "a tensor")
        if isinstance(found, list | tuple) and depth:
            return type(found)(self._rebuilt(inner, depth - 1) for inner in found)
        if isinstance(found, dict) and depth:
            return {key: self._rebuilt(inner, depth - 1) for key, inner in found.items() if isinstance(key, str | int)}
        if found is not None and not isinstance(found, str | int | float | bool):
            raise UntrustedError(self.where, f"holds {describe(found)}, which only code can restore", fix="keep to plain tensors")
        return found


@contextmanager
def open_content(source: Path | bytes, where: str) -> Iterator[Content]:
    """What a torch.save file or a pickle describes; raises InputError when it is damaged."""
    head = source[:32] if isinstance(source, bytes) else _head(source)
    if not head.startswith(b"PK"):
        everything = source if isinstance(source, bytes) else source.read_bytes()
        yield _legacy(everything, where) if LEGACY_MAGIC in head else Content(follow(everything, where), where, _nothing_stored(where))
        return
    with read_zip(source, where) as archive:
        names = below_root(archive, where)
        if "byteorder" in names and read_member(archive, names["byteorder"], where) != b"little":
            raise InputError.mismatch(where, expected="little-endian tensors", found="another byte order", fix=_AGAIN)
        if "data.pkl" not in names:
            raise InputError(where, "is not laid out as torch.save writes files (damaged)", fix=_AGAIN)

        def fetch(tensor: StoredTensor) -> bytearray:
            name = names.get(f"data/{tensor.key}")
            _require_bytes(archive.getinfo(name).file_size if name else 0, tensor, where)
            return read_member(archive, name, where) if name else bytearray()

        yield Content(follow(read_member(archive, names["data.pkl"], where), where), where, fetch)


def plain(value: object) -> object:
    """The dictionary or tuple of a value that was pickled as a call of its class, or the value itself."""
    if isinstance(value, Made) and value.is_a(*_DICTIONARIES):
        return value.items or {}
    if isinstance(value, Made) and value.is_a("torch.Size") and value.args:
        return value.args[0]
    return value


def is_state_dict(value: object) -> bool:
    """Whether it is a dictionary of names and tensors."""
    found = plain(value)
    return isinstance(found, dict) and bool(found) and all(isinstance(k, str) and is_tensor(v) for k, v in found.items())


def _items(value: object) -> dict[str, object]:
    found = plain(value)
    return {key: inner for key, inner in found.items() if isinstance(key, str)} if isinstance(found, dict) else {}


def _legacy(content: bytes, where: str) -> Content:
    """The format before zips: four pickles, a fifth with the keys of the storages, then each storage behind its number of elements."""
    stream = io.BytesIO(content)
    stored: list[Stored] = []
    _, protocol, _ = follow(stream, where), follow(stream, where), follow(stream, where)
    value, keys = follow(stream, where, stored=stored), follow(stream, where)
    if protocol != _LEGACY_PROTOCOL or not isinstance(keys, list):
        raise InputError(where, "is not laid out as torch.save wrote files (damaged)", fix=_AGAIN)
    sizes = dict(element_bytes(storage) for storage in stored)
    at, places = stream.tell(), dict[str, slice]()
    for key in keys:
        name = key if isinstance(key, str) else ""
        end = at + 8 + int.from_bytes(content[at : at + 8], "little") * sizes.get(name, 0)
        if end > len(content):
            raise InputError(where, "is truncated or damaged (a tensor ends early)", fix=_AGAIN)
        places[name], at = slice(at + 8, end), end

    def fetch(tensor: StoredTensor) -> bytearray:
        place = places.get(tensor.key, slice(0, 0))
        _require_bytes(place.stop - place.start, tensor, where)
        return bytearray(content[place])

    return Content(value, where, fetch)


def _nothing_stored(where: str) -> Callable[[StoredTensor], bytearray]:
    def fetch(_: StoredTensor) -> bytearray:
        raise InputError(where, "is a pickle that refers to tensors it does not hold", fix=_AGAIN)

    return fetch


def _require_bytes(held: int, tensor: StoredTensor, where: str) -> None:
    if held != tensor.storage_bytes:
        raise InputError.mismatch(
            f"{where}: storage '{tensor.key[:40]}'",
            expected=f"{tensor.storage_bytes} bytes",
            found=f"{held}",
            fix="copy or save the file again",
        )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(32)
