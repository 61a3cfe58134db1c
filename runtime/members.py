"""The members of a zip as PyTorch writes it: in one root folder, each name once, uncompressed but for TorchScript's code."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import InputError

_COPY_AGAIN = "copy or save the file again"
_PIECE_BYTES = 2**20


def names_of(path: Path) -> set[str]:
    """Names of all members below the root folder."""
    with _open(path, str(path)) as archive:
        return {name.partition("/")[2] for name in archive.namelist()}


@contextmanager
def read_zip(source: Path | bytes, where: str = "", *, code_bytes: int = 0) -> Iterator[zipfile.ZipFile]:
    """Open a zip in which nothing claims to be larger than the file itself, but for up to `code_bytes` of compressed code.

    Raises InputError, also for damage found while reading.
    """
    where = where or str(source)
    with _open(source, where) as archive:
        members = archive.infolist()
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        stored = [m for m in members if m.compress_type == zipfile.ZIP_STORED]
        code = [m for m in members if m.compress_type == zipfile.ZIP_DEFLATED and "/code/" in m.filename]
        too_large = sum(m.file_size for m in stored) > size or sum(m.file_size for m in code) > code_bytes
        if too_large or len(stored) + len(code) < len(members):
            problem = "declares contents larger than the file, or compressed ones that PyTorch does not compress"
            raise InputError(where, problem, fix="save the model again")
        if len({m.filename for m in members}) != len(members):
            raise InputError(where, "holds two members of one name; PyTorch never writes that", fix="save the model again")
        yield archive


def read_member(archive: zipfile.ZipFile, name: str, where: str) -> bytearray:
    """Content of one member, checked against its checksum."""
    size = archive.getinfo(name).file_size
    content, at = bytearray(size), 0
    try:
        with archive.open(name) as member:
            while piece := member.read(_PIECE_BYTES):
                content[at : at + len(piece)] = piece
                at += len(piece)
    except Exception as error:  # a damaged entry raises anything from BadZipFile to struct.error
        raise InputError(where, f"is damaged ({error})", fix=_COPY_AGAIN) from None
    if at != size:
        raise InputError(where, f"is damaged (member '{name}' ends early)", fix=_COPY_AGAIN)
    return content


def members_of(source: Path | bytes, where: str, *, code_bytes: int = 0) -> dict[str, bytearray]:
    """Content by name below the archive's one root folder."""
    with read_zip(source, where, code_bytes=code_bytes) as archive:
        return {name: read_member(archive, full, where) for name, full in below_root(archive, where).items()}


def below_root(archive: zipfile.ZipFile, where: str) -> dict[str, str]:
    """Full member name by the name below the archive's one root folder."""
    names = archive.namelist()
    if len({name.partition("/")[0] for name in names}) != 1:
        raise InputError(where, "is not laid out as PyTorch writes archives", fix="save the model again")
    return {name.partition("/")[2]: name for name in names}


def write_zip(members: Mapping[str, bytes | bytearray]) -> io.BytesIO:
    """A fresh archive with these members below one root folder, as PyTorch reads it."""
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", bytes(content))
    copy.seek(0)
    return copy


def _open(source: Path | bytes, where: str) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        offsets = [member.header_offset for member in archive.infolist()]
    except Exception as error:  # a damaged directory raises anything from BadZipFile to struct.error
        raise InputError(where, f"is a truncated or damaged archive ({error})", fix=_COPY_AGAIN) from None
    if not offsets or min(offsets) != 0:
        # What was found is the directory of an archive stored inside this one, whose own end is cut off.
        archive.close()
        raise InputError(where, "is a truncated or damaged archive (it does not start where its directory says)", fix=_COPY_AGAIN)
    return archive
