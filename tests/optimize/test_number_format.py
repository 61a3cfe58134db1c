"""Which numbers int8 weights are stored in."""

from __future__ import annotations

import numpy as np
import pytest
from liftgate.optimize.passes.number_format import weight_numbers
from liftgate.recipes.steps import NumberFormat

ZEN3 = ("avx2", "fma", "f16c")
ICE_LAKE = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni")
GRAVITON3 = ("asimddp", "i8mm", "sve", "bf16")


@pytest.mark.parametrize(
    ("choice", "features", "signed", "bits"),
    [
        ("auto", ZEN3, True, 7),
        ("auto", ICE_LAKE, True, 7),
        ("native", ZEN3, True, 7),
        ("native", ICE_LAKE, True, 8),
        ("native", GRAVITON3, True, 8),
        ("s8", ZEN3, True, 8),
        ("u8", ZEN3, False, 8),
    ],
)
def test_auto_is_the_same_everywhere_and_native_fits_the_cpu(
    choice: NumberFormat,
    features: tuple[str, ...],
    signed: bool,
    bits: int,
) -> None:
    found = weight_numbers(choice, features)
    assert (found.signed, found.bits) == (signed, bits)


def test_the_record_warns_of_what_is_right_on_some_cpus_only() -> None:
    assert "right on every CPU" in weight_numbers("auto", ICE_LAKE).note
    assert weight_numbers("native", ICE_LAKE).note == "8-bit weights, chosen for a CPU with avx512_vnni: on others sums saturate"
    assert "on others sums saturate" in weight_numbers("s8", ZEN3).note


def test_two_products_of_seven_bits_fit_16_and_of_eight_do_not() -> None:
    assert 2 * 255 * 64 <= np.iinfo(np.int16).max < 2 * 255 * 127
