"""JSON with values, keys and structure changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from .chance import FLOATS, WORDS, Chance

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
Place = tuple[dict[str, Json], str] | tuple[list[Json], int]
_EXPRESSIONS = ("Pow(Integer(64), Pow(Integer(64), Integer(64)))", "Max(" * 50 + "s0" + ")" * 50, "Mod(s0, 0)", "s99", "1/0")
_MOST_VALUES = 200_000
_DEEPEST = 700


def damage_json(content: bytes, chance: Chance, marker: Path) -> bytes | None:
    """Damaged JSON, with code that would write `marker` among the texts; None where the content is no JSON, or would be none any more."""
    try:
        value: Json = json.loads(content)
        for _ in range(chance.pick([1, 1, 2, 4])):
            places = list(_places(value))
            if not places:
                return None
            _change(_rare(places, chance), places, chance, marker)
            if _is_endless(value):
                return None
        return json.dumps(value).encode()
    except (ValueError, RecursionError):
        return None


def _change(place: Place, places: list[Place], chance: Chance, marker: Path) -> None:
    value = _get(place)
    match chance.below(8):
        case 0:
            del place[0][place[1]]  # type: ignore[arg-type]  # the key belongs to the holder
        case 1:
            _set(place, _get(chance.pick(places)))
        case 2:
            _set(place, chance.pick([f"__import__('pathlib').Path({str(marker)!r}).write_text('ran')", *WORDS]))
        case 3 if isinstance(place[0], dict):
            place[0][chance.pick(WORDS)] = place[0].pop(str(place[1]))
        case 4:
            for _ in range(chance.pick([3, 200])):
                value = [value]
            _set(place, value)
        case _:
            _set(place, _other(value, chance))


def _rare(places: list[Place], chance: Chance) -> Place:
    """Any place, or one of a key chosen first: what occurs once is then damaged as often as what occurs a thousand times."""
    if chance.happens(0.5):
        return chance.pick(places)
    key = chance.pick(sorted({str(key) for _, key in places}))
    return chance.pick([place for place in places if str(place[1]) == key])


def _other(value: Json, chance: Chance) -> Json:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.whole(value)
    if isinstance(value, float):
        return chance.pick(FLOATS)
    if isinstance(value, str):
        texts = [value[:-1], value * 3, value.replace("Symbol", "Pow"), value.replace("1", str(chance.whole(1)))]
        return chance.pick([*WORDS, *texts, *_EXPRESSIONS])
    return chance.pick([None, [], {}, 0, ""])


def _get(place: Place) -> Json:
    return place[0][place[1]]  # type: ignore[index]  # the key belongs to the holder


def _set(place: Place, value: Json) -> None:
    place[0][place[1]] = value  # type: ignore[index]  # as above


def _places(value: Json) -> Iterator[Place]:
    """Every place in a JSON value, as its holder and key."""
    pending = [value]
    while pending:
        holder = pending.pop()
        if isinstance(holder, dict):
            yield from ((holder, key) for key in holder)
            pending.extend(holder.values())
        elif isinstance(holder, list):
            yield from ((holder, at) for at in range(len(holder)))
            pending.extend(holder)


def _is_endless(value: Json) -> bool:
    """Whether it holds itself, or more than is worth writing."""
    pending, seen = [(value, 0)], 0
    while pending:
        inner, depth = pending.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST_VALUES:
            return True
        below = inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ()
        pending.extend((each, depth + 1) for each in below)
    return False
