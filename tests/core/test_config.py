from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from liftgate.core.config import parse_toml
from liftgate.core.errors import InputError


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1)]


class Whole(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parts: tuple[Part, ...] = ()
    named: dict[str, Part] = {}
    words: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[parts]]\nsize = 1\n[[parts]]\nsize = 0", r"^f\.toml: parts\[1\]\.size: expected int >= 1, found 0$"),
        ("[[parts]]\nsize = 'two'", r"^f\.toml: parts\[0\]\.size: expected int, found 'two'$"),
        ("words = ['a', 3]", r"^f\.toml: words\[1\]: expected str, found 3$"),
        ("parts = 3", r"^f\.toml: parts: expected array, found 3$"),
    ],
)
def test_a_wrong_value_is_shown_with_its_place_and_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_toml(text, Whole, where="f.toml")


def test_a_wrong_value_in_a_free_table_is_still_an_error_that_names_the_file() -> None:
    with pytest.raises(InputError, match=r"^f\.toml: .*int.*>= 1"):
        parse_toml("[named.x]\nsize = 0", Whole, where="f.toml")
