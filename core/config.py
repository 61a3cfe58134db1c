"""Reading what a person writes: TOML into closed, frozen types, with errors that name the key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

from .errors import InputError, UnknownName

T = TypeVar("T")

_WRONG_VALUE = re.compile(r"Expected (?P<expected>.+?)(?:, got [^,]*)? - at `\$\.?(?P<at>[^`]+)`")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`(?: - at `(?P<at>[^`]*)`)?")


def read_toml(path: Path, kind: type[T]) -> T:
    """Read `path` as `kind`, a frozen msgspec type.

    Raises InputError when the file is missing, is not TOML, or holds a value of the wrong type or range, and
    UnknownName when it holds a key that the format does not have.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError.mismatch(str(path), expected="a TOML file", found="nothing", fix="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"cannot be read ({error})") from None
    return parse_toml(text, kind, where=str(path))


def parse_toml(text: str, kind: type[T], *, where: str) -> T:
    """The same for text already in memory; `where` names it in errors."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(where, f"is not valid TOML: {error}", fix="see https://toml.io for the format") from None
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise _with_value(str(error), raw, where) or explain(str(error), kind, where) from None


def _with_value(message: str, raw: object, where: str) -> InputError | None:
    """An error that shows the value, where msgspec's words say which one it is."""
    match = _WRONG_VALUE.fullmatch(message)
    if match is None:
        return None
    value = raw
    for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", match["at"]):
        try:
            value = value[int(index)] if index and isinstance(value, list) else value[key] if isinstance(value, dict) else None
        except (KeyError, IndexError):  # msgspec does not tell the keys of a free table: the path cannot be followed
            return None
    return InputError.mismatch(f"{where}: {match['at']}", expected=match["expected"].replace("`", ""), found=repr(value)[:100])


def explain(message: str, kind: type, where: str) -> InputError:
    """Turn msgspec's words into one of our errors, with a suggestion for an unknown key."""
    match = _UNKNOWN_FIELD.search(message)
    if match is None:
        return InputError(where, message)
    at = (match["at"] or "").removeprefix("$").lstrip(".")
    return UnknownName(f"{where}: {at}" if at else where, "key", match["key"], _all_keys(kind))


def _all_keys(kind: object) -> set[str]:
    """Every key that may appear anywhere in `kind`: close enough to suggest from."""
    keys: set[str] = set()
    seen: set[object] = set()

    def walk(info: msgspec.inspect.Type) -> None:
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in seen:
                return
            seen.add(info.cls)
            if info.tag_field:
                keys.add(info.tag_field)
            for field in info.fields:
                keys.add(field.encode_name)
                walk(field.type)
        for name in ("types", "item_types"):
            for inner in getattr(info, name, ()):
                walk(inner)
        for name in ("item_type", "value_type"):
            inner = getattr(info, name, None)
            if inner is not None:
                walk(inner)

    walk(msgspec.inspect.type_info(kind))
    return keys
