"""Which int8 numbers a weight is stored in, by what CPUs can add up."""

from __future__ import annotations

from collections.abc import Collection
from typing import assert_never

import msgspec

from ...core.machine import this_machine
from ...recipes.steps import NumberFormat

# Instructions that add products of 8-bit numbers in 32 bits; x86 CPUs without any of them add pairs in 16 bits, which saturates.
_EXACT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


class WeightNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """How weights are stored: signed or not, in 7 or 8 bits; `note` says where that is right."""

    signed: bool
    bits: int
    note: str


def weight_numbers(choice: NumberFormat, features: Collection[str] | None = None) -> WeightNumbers:
    """What `choice` means; `features` are the CPU's, this machine's without.

    Activations are unsigned 8-bit. On x86 without VNNI, ONNX Runtime multiplies them with signed weights by VPMADDUBSW, which saturates two
    products of 8 bits (255 * 127 * 2 > 32767) but not of 7 (255 * 64 * 2 = 32640), and with unsigned weights by widening to 16 bits, which
    is exact and slower (ONNX Runtime, docs/performance/model-optimizations/quantization.md).
    """
    found = this_machine().features if features is None else features
    exact = sorted(_EXACT.intersection(found))
    safe = WeightNumbers(signed=True, bits=7, note="7-bit weights, right on every CPU")
    match choice:
        case "auto":
            return safe
        case "s8":
            return WeightNumbers(signed=True, bits=8, note="8-bit weights, only for CPUs with VNNI: on others sums saturate")
        case "u8":
            return WeightNumbers(signed=False, bits=8, note="unsigned 8-bit weights, right on every CPU and slower on those without VNNI")
        case "native":
            if exact:
                return WeightNumbers(signed=True, bits=8, note=f"8-bit weights, chosen for a CPU with {exact[0]}: on others sums saturate")
            return WeightNumbers(signed=True, bits=7, note=f"{safe.note} (this one, without VNNI, too)")
        case _:
            assert_never(choice)
