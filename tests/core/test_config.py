from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest
from liftgate.core.config import parse_toml
from liftgate.core.errors import InputError


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1)]
    kind: Literal["small", "large"] = "small"


class Whole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parts: tuple[Part, ...] = ()
    named: dict[str, Part] = {}
    words: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[parts]]\nsize = 1\n[[parts]]\nsize = 0", r"^f\.toml: parts 2: size: expected int >= 1, found 0$"),
        ("[[parts]]\nsize = 'two'", r"^f\.toml: parts 1: size: expected int, found 'two'$"),
        ("words = ['a', 3]", r"^f\.toml: words 2: expected str, found 3$"),
        ("[[parts]]\nsize = 1\nkind = 'big'", r"^f\.toml: parts 1: kind: expected 'large' or 'small', found 'big'$"),
        ("[[parts]]\nkind = 'small'", r"^f\.toml: parts 1: expected the key 'size', found none$"),
        ("[[parts]]\nsize = 1\nknd = 'small'", r"^f\.toml: parts 1: unknown key 'knd'; did you mean 'kind'"),
        ("parts = 3", r"^f\.toml: parts: expected array, found 3$"),
    ],
)
def test_a_wrong_value_is_shown_with_its_place_and_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_toml(text, Whole, where="f.toml")


def test_a_wrong_value_in_a_free_table_is_still_an_error_that_names_the_file() -> None:
    with pytest.raises(InputError, match=r"^f\.toml: .*int.*>= 1"):
        parse_toml("[named.x]\nsize = 0", Whole, where="f.toml")
