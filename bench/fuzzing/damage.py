"""Damaging a model file: bluntly, or deep inside its format so that the damage gets past checksums and parsers."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from .chance import WORDS, Chance
from .json_damage import damage_json
from .onnx_damage import damage_onnx
from .pickle_damage import damage_pickle, payload

_PARSED = (".json", ".pkl", ".py", ".pt")
_NUMBERS = (b"9223372036854775807", b"-1", b"0", b"List[Tensor]")


class Damage:
    """Damages files; payloads it adds would write `marker`, splices come from `others`."""

    def __init__(self, chance: Chance, marker: Path, others: Sequence[bytes]) -> None:
        self._chance = chance
        self._marker = marker
        self._others = others

    def file(self, content: bytes) -> bytes:
        """The content of a file, damaged."""
        if self._chance.happens(0.02):
            return self._chance.noise(self._chance.below(4096))
        if self._chance.happens(0.3):
            return self._blunt(content)
        for _ in range(self._chance.pick([1, 1, 1, 2, 3])):
            content = self._inside(content)
        return content

    def _inside(self, content: bytes) -> bytes:
        damaged: bytes | None = None
        if content.startswith(b"PK"):
            damaged = self._zip(content)
        elif content.startswith(b"\x80"):
            damaged = damage_pickle(content, self._chance, self._marker, self._others)
        elif content.startswith(b"{"):
            damaged = damage_json(content, self._chance, self._marker)
        elif content[8:9] == b"{":
            damaged = self._safetensors(content)
        elif content.startswith(b"\x08"):
            damaged = damage_onnx(content, self._chance, self._others)
        return self._blunt(content) if damaged is None else damaged

    def _blunt(self, content: bytes) -> bytes:
        return self._chance.damaged(content, self._others)

    def _zip(self, content: bytes) -> bytes | None:
        """Members changed, and the zip written again, so that its checksums are right."""
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                members = [(name, archive.read(name)) for name in archive.namelist()]
        except Exception:  # what an earlier mutation left is no zip any more, in any way there is
            return None
        if not members:
            return None
        at = self._member_to_damage(members)
        name, old = members[at]
        match self._chance.below(40):
            case 0:
                del members[at]
            case 1:
                members.append((name, old))
            case 2:
                members[at] = (name, self._chance.pick(members)[1])
            case 3:
                members[at] = (self._chance.pick(members)[0], old)
            case 4:
                members.append((f"{name.partition('/')[0]}/{self._chance.pick(WORDS)}", payload(self._marker)))
            case 5:
                members[at] = (name, payload(self._marker))
            case _:
                members[at] = (name, self._code(old) if name.endswith(".py") else self._inside(old))
        return self._zipped(members)

    def _member_to_damage(self, members: Sequence[tuple[str, bytes]]) -> int:
        """Mostly one that is parsed: that gives damage more ways than weights do."""
        parsed = [i for i, (name, _) in enumerate(members) if name.endswith(_PARSED)]
        if not parsed or self._chance.happens(0.2):
            return self._chance.below(len(members))
        return max(parsed, key=lambda i: len(members[i][1])) if self._chance.happens(0.4) else self._chance.pick(parsed)

    def _zipped(self, members: Sequence[tuple[str, bytes]]) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if self._chance.happens(0.02) else zipfile.ZIP_STORED) as archive:
            for name, content in members:
                entry = zipfile.ZipInfo(name or "x", date_time=(1980, 1, 1, 0, 0, 0))
                entry.compress_type = archive.compression
                archive.writestr(entry, content)
        return file.getvalue()

    def _safetensors(self, content: bytes) -> bytes | None:
        length = int.from_bytes(content[:8], "little")
        header = damage_json(content[8 : 8 + length], self._chance, self._marker)
        if header is None:
            return None
        size = len(header) if self._chance.happens(0.8) else self._chance.whole(len(header)) % 2**64
        return size.to_bytes(8, "little") + header + content[8 + length :]

    def _code(self, content: bytes) -> bytes:
        """TorchScript with lines moved, words exchanged, or a call that would write the marker."""
        lines = content.splitlines(keepends=True)
        if not lines:
            return content
        at = self._chance.below(len(lines))
        indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
        match self._chance.below(8):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, self._chance.pick(lines))
            case 2:
                lines[at] = self._chance.pick(lines)
            case 3:
                calls = f"torch.save(torch.ones([1]), {str(self._marker)!r})", f"x = torch.from_file({str(self._marker)!r}, True, 4)"
                lines.insert(at, indent + self._chance.pick(calls).encode() + b"\n")
            case 4:
                lines[at] = self._blunt(lines[at])
            case _:
                words = re.findall(rb"\w+", content)
                old = self._chance.pick(re.findall(rb"\w+", lines[at]) or [b":"])
                lines[at] = lines[at].replace(old, self._chance.pick([*words, *_NUMBERS]))
        return b"".join(lines)
