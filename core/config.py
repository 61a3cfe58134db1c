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
_WRONG_CHOICE = re.compile(r"Invalid enum value (?P<found>.+?)(?: - at `(?P<at>[^`]*)`)?")
_MISSING_FIELD = re.compile(r"Object missing required field `(?P<key>[^`]*)`(?: - at `(?P<at>[^`]*)`)?")
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
    return InputError.mismatch(_place(where, match["at"]), expected=match["expected"].replace("`", ""), found=repr(value)[:100])


def explain(message: str, kind: type, where: str) -> InputError:
    """Turn msgspec's words into one of our errors, with a suggestion for an unknown key, and the choices for a wrong one."""
    if (match := _UNKNOWN_FIELD.fullmatch(message)) is not None:
        return UnknownName(_place(where, match["at"]), "key", match["key"], set(_all_keys(kind)))
    if (match := _MISSING_FIELD.fullmatch(message)) is not None:
        return InputError.mismatch(_place(where, match["at"]), expected=f"the key '{match['key']}'", found="none")
    if (match := _WRONG_CHOICE.fullmatch(message)) is not None:
        choices = _all_keys(kind).get((match["at"] or "").rpartition(".")[2], [])
        expected = " or ".join(sorted(map(repr, choices))) or "one of its choices"
        return InputError.mismatch(_place(where, match["at"]), expected=expected, found=match["found"])
    return InputError(where, message)


def _place(where: str, at: str | None) -> str:
    """`budget.toml: gate 1: level` for `$.gate[0].level`: people count from 1."""
    path = re.sub(r"\[(\d+)\]\.?", lambda m: f" {int(m[1]) + 1}: ", (at or "").removeprefix("$").lstrip("."))
    return f"{where}: {path}".rstrip(": ")


def _all_keys(kind: object) -> dict[str, list[object]]:
    """Every key that may appear anywhere in `kind`, with the values it may have where these are listed: close enough to suggest from."""
    keys: dict[str, list[object]] = {}
    seen: set[object] = set()

    def walk(info: msgspec.inspect.Type) -> None:
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in seen:
                return
            seen.add(info.cls)
            if info.tag_field:
                keys[info.tag_field] = []
            for field in info.fields:
                inner = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
                keys[field.encode_name] = [v for t in inner if isinstance(t, msgspec.inspect.LiteralType) for v in t.values]
                walk(field.type)
        for name in ("types", "item_types"):
            for part in getattr(info, name, ()):
                walk(part)
        for name in ("item_type", "value_type"):
            part = getattr(info, name, None)
            if part is not None:
                walk(part)

    walk(msgspec.inspect.type_info(kind))
    return keys
