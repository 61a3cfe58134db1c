"""ONNX models with single fields changed."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import onnx

from .chance import FLOATS, INTS, WORDS, Chance

# protobuf's messages and the descriptors of their fields, which have no types of their own.
Message = Any
Field = Any


def damage_onnx(content: bytes, chance: Chance, others: Sequence[bytes]) -> bytes | None:
    """A damaged model; None where the content is none, or a value was not one that its field takes."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
        fields = list(_fields(model))
        for _ in range(chance.pick([1, 1, 1, 2, 3])):
            name = chance.pick(sorted({field.name for _, field in fields}))
            # What occurs once is damaged as often as what occurs a thousand times.
            likely = [pair for pair in fields if pair[1].name == name] if chance.happens(0.5) else fields
            _change(*chance.pick(likely), fields, chance, others)
        return bytes(model.SerializeToString())
    except Exception:  # protobuf raises types of its own
        return None


def _change(message: Message, field: Field, fields: Sequence[tuple[Message, Field]], chance: Chance, others: Sequence[bytes]) -> None:
    value = getattr(message, field.name)
    if field.type == field.TYPE_MESSAGE and not field.is_repeated:
        message.ClearField(field.name)
    elif not field.is_repeated:
        setattr(message, field.name, _other(value, field, fields, chance, others))
    elif len(value):
        at = chance.below(len(value))
        if chance.happens(0.2):
            del value[at]
        elif field.type == field.TYPE_MESSAGE:
            value.add().CopyFrom(value[at])
        elif chance.happens(0.2):
            value.append(value[at])
        else:
            value[at] = _other(value[at], field, fields, chance, others)


def _other(
    value: Any,  # noqa: ANN401 - of the type of its field
    field: Field,
    fields: Sequence[tuple[Message, Field]],
    chance: Chance,
    others: Sequence[bytes],
) -> object:
    """Another value of the field's type."""
    if field.name == "raw_data":
        data = bytearray(value)
        if len(data) < 8 or chance.happens(0.4):
            return chance.damaged(value, others)
        at = 8 * chance.below(len(data) // 8)
        data[at : at + 8] = struct.pack("<q", chance.pick(INTS))
        return bytes(data)
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        same = [getattr(m, f.name) for m, f in fields if f.name == field.name and f.type == field.type and not f.is_repeated]
        text = chance.pick(same) if same and chance.happens(0.7) else chance.pick(WORDS)
        return text.encode() if field.type == field.TYPE_BYTES and isinstance(text, str) else text
    return chance.pick(FLOATS) if field.type == field.TYPE_FLOAT else chance.whole(int(value))


def _fields(message: Message) -> Iterator[tuple[Message, Field]]:
    """Every field that is set, with the message that holds it."""
    for field, value in message.ListFields():
        yield message, field
        if field.type == field.TYPE_MESSAGE:
            for inner in value if field.is_repeated else [value]:
                yield from _fields(inner)
