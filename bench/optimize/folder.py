"""Where the benchmark keeps what takes long to make: `.bench/optimize`, outside version control."""

from __future__ import annotations

from pathlib import Path

import msgspec

CANDIDATES = (256, 32)


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of a trained case, and how it ranks 500 validation requests beside films ranked by their number of ratings.

    `key` is a digest of what it was trained with, `judged_on` that of the validation requests.
    """

    key: str
    judged_on: str
    users: int
    items: int
    seconds: float
    ndcg: float
    popularity_ndcg: float


class CaseFolder:
    """The files of one case."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self.path = root / name
        self.weights = self.path / "weights.pt"
        self.trained_path = self.path / "trained.json"
        self.asked_path = self.path / "asked"
        self.store = root / "store"

    @property
    def trained(self) -> Trained | None:
        """None before training."""
        return msgspec.json.decode(self.trained_path.read_bytes(), type=Trained) if self.trained_path.is_file() else None

    def requests(self, part: str) -> Path:
        return self.path / f"{part}.parquet"

    def timing(self, candidates: int) -> Path:
        return self.path / f"timing-{candidates}.parquet"

    def variant(self, name: str) -> Path:
        """The folder of a variant of this case."""
        return self.path / "variants" / name
