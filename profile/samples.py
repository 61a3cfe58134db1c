"""Raw service times, kept as they were taken: every statistic is derived from these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.files import new_file

Nanoseconds = npt.NDArray[np.int64]


class SampleBlock(msgspec.Struct, frozen=True, kw_only=True):
    """One model's turn in one round: `ns` int64 `[requests]` and which request each was.

    `round` counts over the whole run, `turn` says whether the model was first or later in the round.
    """

    model: int
    launch: int
    round: int
    turn: int
    requests: npt.NDArray[np.int64]
    ns: Nanoseconds


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """All blocks of one instance in time order; `models[0]` is the control."""

    instance: str
    models: tuple[str, ...]
    request_ids: tuple[str, ...]
    blocks: tuple[SampleBlock, ...]

    def of(self, model: int) -> tuple[tuple[Nanoseconds, ...], ...]:
        """A model's blocks, by launch and then by round."""
        launches: dict[int, list[Nanoseconds]] = {}
        for block in self.blocks:
            if block.model == model:
                launches.setdefault(block.launch, []).append(block.ns)
        return tuple(tuple(rounds) for rounds in launches.values())

    def table(self) -> pa.Table:
        """One row per timed request."""
        sizes = [len(b.ns) for b in self.blocks]

        def spread(values: Sequence[int]) -> npt.NDArray[np.int32]:
            return np.repeat(np.asarray(values, dtype=np.int32), sizes)

        columns = {
            "instance": pa.array(np.full(sum(sizes), self.instance)),
            "model": pa.array(np.asarray(self.models)[spread([b.model for b in self.blocks])]),
            "launch": pa.array(spread([b.launch for b in self.blocks])),
            "round": pa.array(spread([b.round for b in self.blocks])),
            "turn": pa.array(spread([b.turn for b in self.blocks])),
            "request_id": pa.array(np.asarray(self.request_ids)[np.concatenate([b.requests for b in self.blocks])]),
            "ns": pa.array(np.concatenate([b.ns for b in self.blocks])),
        }
        return pa.table(columns)


def write_samples(runs: Sequence[Samples], path: Path) -> None:
    """All instances' samples in one Parquet file, all or nothing."""
    with new_file(path) as temporary:
        pq.write_table(pa.concat_tables([run.table() for run in runs]), temporary, compression="zstd")
