"""Rows of a table in fewer bits, each with a scale of its own."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

Format = Literal["fp16", "int8", "int4"]

# An offset per row costs a lookup and an addition: taken only where it makes the error that much smaller.
_OFFSET_PAYS = 0.7
_SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)
_LARGEST_HALF = 65504.0


class Half(msgspec.Struct, frozen=True, kw_only=True):
    """float16 [rows, width]."""

    numbers: np.ndarray

    def rows(self) -> np.ndarray:
        """The table as it will be read, float32."""
        return self.numbers.astype(np.float32)

    @property
    def nbytes(self) -> int:
        return int(self.numbers.nbytes)


class Scaled(msgspec.Struct, frozen=True, kw_only=True):
    """`codes * scale + offset`: codes are int8 or uint8 [rows, width], scale float32 [rows, 1], offset the same or None.

    With `packed`, codes are 4 bits, two in a byte of uint8 [rows, ceil(width / 2)]: the first half of a row in the lower ones, the second
    half in the upper ones.
    """

    codes: np.ndarray
    scale: np.ndarray
    offset: np.ndarray | None
    width: int
    packed: bool

    def rows(self) -> np.ndarray:
        """The table as it will be read, float32."""
        codes = np.concatenate([self.codes & 15, self.codes >> 4], axis=1)[:, : self.width] if self.packed else self.codes
        scaled = codes.astype(np.float32) * self.scale
        return np.asarray(scaled if self.offset is None else scaled + self.offset)

    @property
    def nbytes(self) -> int:
        return int(self.codes.nbytes + self.scale.nbytes + (0 if self.offset is None else self.offset.nbytes))


Stored = Half | Scaled


def stored(table: np.ndarray, kind: Format) -> Stored | None:
    """`table`, float32 [rows, width], in another format; None when its numbers are infinite, NaN, or too large for it."""
    if not np.isfinite(table).all() or (kind == "fp16" and np.abs(table).max(initial=0.0) > _LARGEST_HALF):
        return None
    match kind:
        case "fp16":
            return Half(numbers=table.astype(np.float16))
        case "int8":
            symmetric, asymmetric = _symmetric(table), _asymmetric(table, 255)
            better = _squared(asymmetric, table).sum() < _OFFSET_PAYS**2 * _squared(symmetric, table).sum()
            return asymmetric if better else symmetric
        case "int4":
            return _packed(_asymmetric(table, 15))


def row_errors(table: np.ndarray, kept: Stored) -> np.ndarray:
    """|stored - original| / |original| per row (Euclidean norms), float64 [rows]; 0 for rows of zeros that stay zeros."""
    gap, size = np.sqrt(_squared(kept, table)), np.linalg.norm(table.astype(np.float64), axis=1)
    return np.asarray(np.divide(gap, size, out=np.where(gap > 0, np.inf, 0.0), where=size > 0))


def _symmetric(table: np.ndarray) -> Scaled:
    scale = np.abs(table).max(axis=1, keepdims=True).astype(np.float32) / 127
    codes = np.rint(np.divide(table, scale, out=np.zeros_like(table), where=scale > 0)).clip(-127, 127).astype(np.int8)
    return Scaled(codes=codes, scale=scale, offset=None, width=table.shape[1], packed=False)


def _asymmetric(table: np.ndarray, levels: int) -> Scaled:
    """Of some ranges around the middle of a row, the one with the smallest squared error.

    Greedy range search for rows of few bits: Guan et al. 2019, arXiv:1911.02079.
    """
    low, high = table.min(axis=1, keepdims=True), table.max(axis=1, keepdims=True)
    best, errors = _in_range(table, low, high, levels), np.full(len(table), np.inf)
    for share in _SHRINK if levels < 255 else (1.0,):
        middle, half = (low + high) / 2, (high - low) / 2 * np.float32(share)
        candidate = _in_range(table, middle - half, middle + half, levels)
        found = _squared(candidate, table)
        closer = (found < errors)[:, None]
        errors = np.minimum(errors, found)
        chosen = [np.where(closer, new, old) for new, old in zip(candidate, best, strict=True)]
        best = (chosen[0], chosen[1], chosen[2])
    codes, scale, offset = best
    return Scaled(codes=codes, scale=scale, offset=offset, width=table.shape[1], packed=False)


def _in_range(table: np.ndarray, low: np.ndarray, high: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scale = ((high - low) / levels).astype(np.float32)
    codes = np.rint(np.divide(table - low, scale, out=np.zeros_like(table), where=scale > 0)).clip(0, levels).astype(np.uint8)
    return codes, scale, low.astype(np.float32)


def _packed(wide: Scaled) -> Scaled:
    half = (wide.width + 1) // 2
    upper = np.zeros_like(wide.codes[:, :half])
    upper[:, : wide.width - half] = wide.codes[:, half:]
    return msgspec.structs.replace(wide, codes=wide.codes[:, :half] | (upper << 4), packed=True)


def _squared(kept: Stored | tuple[np.ndarray, np.ndarray, np.ndarray], table: np.ndarray) -> np.ndarray:
    """Squared error per row, float64 [rows]."""
    rows = kept[0].astype(np.float32) * kept[1] + kept[2] if isinstance(kept, tuple) else kept.rows()
    return np.asarray(((rows.astype(np.float64) - table) ** 2).sum(axis=1))
