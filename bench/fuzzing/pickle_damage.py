"""Pickles with single instructions changed, and ones that would do something."""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Sequence
from pathlib import Path

from .chance import WORDS, Chance

_GLOBALS = (b"cposix\nsystem\n", b"cbuiltins\nbytearray\n", b"cbuiltins\neval\n", b"ctorch\nQInt8Storage\n", b"ctorch\nFloatStorage\n")
_CONSTANTS = (b"\x88", b"\x89", b"N", b")", b"]", b"}")


def damage_pickle(content: bytes, chance: Chance, marker: Path, others: Sequence[bytes]) -> bytes | None:
    """Damaged pickles one behind the other; what follows them (storages, in the older format) stays. None where there is no pickle."""
    stream, parts = io.BytesIO(content), list[bytes]()
    try:
        while content[stream.tell() : stream.tell() + 1] == b"\x80":
            starts = [position or 0 for _, _, position in pickletools.genops(stream)]
            parts += [content[a:b] for a, b in zip(starts, [*starts[1:], stream.tell()], strict=True)]
    except Exception:  # what an earlier mutation left is no pickle any more, in any way there is
        return None
    if not parts:
        return None
    rest = content[stream.tell() :]
    for _ in range(chance.pick([1, 1, 2, 4])):
        at = chance.below(len(parts))
        match chance.below(9):
            case 0:
                parts[at] = b""
            case 1:
                parts.insert(at, chance.pick(parts))
            case 2:
                parts[at] = chance.pick(parts)
            case 3:
                parts.insert(at, payload(marker)[2:-1])
            case 4:
                parts[at] = chance.pick(_GLOBALS)
            case 5:
                parts[at] = chance.damaged(parts[at], others)
            case _:
                parts[at] = _other(parts[at], chance)
    return b"".join(parts) + rest


def payload(marker: Path) -> bytes:
    """A pickle that would write `marker`: `getattr(Path, "write_text")(Path(marker), "ran")`."""
    getter = b"cbuiltins\ngetattr\ncpathlib\nPath\n" + _text("write_text") + b"\x86R"
    return b"\x80\x02" + getter + b"cpathlib\nPath\n" + _text(str(marker)) + b"\x85R" + _text("ran") + b"\x86R."


def _other(part: bytes, chance: Chance) -> bytes:
    """The instruction with another argument."""
    match part[:1]:
        case b"K" | b"M" | b"J":
            number = chance.whole(int.from_bytes(part[1:], "little"))
            return b"\x8a\x08" + struct.pack("<q", max(min(number, 2**63 - 1), -(2**63)))
        case b"X":
            return _text(chance.pick(WORDS)) if chance.happens(0.9) else b"X\xff\xff\xff\xff" + part[5:]
        case b"\x88" | b"\x89" | b"N":
            return chance.pick(_CONSTANTS)
        case _:
            return part


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded
