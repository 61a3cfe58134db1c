"""What became of one model."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["equal", "refused", "wrong", "crashed"]
VERDICTS: tuple[Verdict, ...] = ("equal", "refused", "wrong", "crashed")


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One call on which the written graph was compared with eager PyTorch; `against` says how PyTorch was called where not alike.

    `difference` is the largest absolute difference of any output.
    """

    rows: int
    history: int
    difference: float
    against: str = ""

    @property
    def text(self) -> str:
        what = f"{self.rows} rows" if self.rows != 1 else "1 row"
        return f"{what}, history {self.history}"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`equal`: the written graph says what PyTorch says, on rows that liftgate never saw. `refused`: export said why not.

    `wrong`: a graph was written that disagrees or does not run. `crashed`: anything else. `reason` is empty for `equal`.
    `fallback` says that only `fallback="torchscript"` wrote a graph; `other_reason` is why the way not taken was refused.
    """

    package: str
    name: str
    kind: str
    verdict: Verdict
    reason: str = ""
    fallback: bool = False
    other_reason: str = ""
    export_seconds: float = 0.0
    nodes: int = 0
    inputs: tuple[str, ...] = ()
    compared: tuple[Compared, ...] = ()
    warnings: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.package}/{self.name}"
