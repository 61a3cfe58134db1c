"""Models after the first steps of a trial, kept by what made them, so that trials share what they have in common."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ...core.artifact import MODEL_FILE, ModelArtifact, StepRecord
from ...core.errors import LiftgateError
from ...core.files import new_folder, write_atomically
from ...core.machine import tool_versions
from ...core.requests import Requests
from ...core.signature import Signature
from ...recipes.steps import Step
from ..context import StepContext
from ..samples import Samples, from_requests
from ..steps import run_step

_MADE = "step.json"
LARGEST_BYTES = 4 * 2**30


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A model somewhere on the way: its files, what `run` of it takes, and a digest of how it came to be."""

    folder: Path
    signature: Signature
    digest: str
    steps: tuple[Step, ...] = ()
    refusals: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return self.folder / MODEL_FILE

    @property
    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.iterdir() if file.name.startswith(MODEL_FILE))


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside a cached model, or alone where the step was refused."""

    record: StepRecord | None
    signature: Signature | None
    refusal: str = ""


class StepCache:
    """A folder of models, one per (parent, step, requests, base, tools); a refusal is kept as well. Safe to kill at any moment."""

    def __init__(self, root: Path, parent: ModelArtifact, *, base: ModelArtifact, requests: Requests, requests_sha: str) -> None:
        self._root = root
        self._parent = parent
        self._base = base
        self._requests = requests
        self._samples: Samples | None = None
        about = [requests_sha, base.manifest.digest, tool_versions()]
        self._about = hashlib.sha256(msgspec.json.encode(about, order="sorted")).hexdigest()

    @property
    def start(self) -> Made:
        """The parent itself."""
        return Made(folder=self._parent.path, signature=self._parent.manifest.signature, digest=self._parent.manifest.digest)

    def apply(self, steps: Sequence[Step]) -> Made:
        """The parent after `steps`; a step that is refused is left out, its reason kept."""
        made = self.start
        for step in steps:
            made = self._after(made, step)
        return made

    def _after(self, before: Made, step: Step) -> Made:
        body = [before.digest, msgspec.to_builtins(step), self._about]
        digest = hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()
        folder = self._root / digest[:32]
        if not (folder / _MADE).is_file():
            self._make(before, step, folder)
        os.utime(folder)
        kept = msgspec.json.decode((folder / _MADE).read_bytes(), type=_Kept)
        if kept.signature is None:
            return msgspec.structs.replace(before, refusals=(*before.refusals, kept.refusal))
        return Made(folder=folder, signature=kept.signature, digest=digest, steps=(*before.steps, step), refusals=before.refusals)

    def _make(self, before: Made, step: Step, folder: Path) -> None:
        """Run the step beside its place and rename it there."""
        if self._samples is None:
            self._samples = from_requests(self._requests, self._parent.manifest.signature)
        with new_folder(self._root) as beside:
            context = StepContext(
                where=self._parent.manifest.name,
                source=before.path,
                target=beside / MODEL_FILE,
                signature=before.signature,
                samples=self._samples,
                calibrated=True,
                requests=self._requests,
                base=self._base,
            )
            try:
                record, signature = run_step(step, context)
                kept = _Kept(record=record, signature=signature)
            except Exception as error:  # tools below a step raise types of their own, and one step must not end a search
                for file in beside.iterdir():
                    file.unlink()
                reason = str(error) if isinstance(error, LiftgateError) else f"{type(error).__name__}: {error}"
                kept = _Kept(record=None, signature=None, refusal=reason)
            write_atomically(beside / _MADE, msgspec.json.encode(kept))
            beside.rename(folder)

    def tidy(self, needed: Sequence[Made], limit_bytes: int = LARGEST_BYTES) -> None:
        """Remove the models used longest ago while all together are larger than `limit_bytes`, but none of `needed`."""
        spared = {one.folder for one in needed}
        folders = sorted((f for f in self._root.glob("*") if f.is_dir()), key=lambda f: f.stat().st_mtime, reverse=True)
        total = 0
        for folder in folders:
            total += sum(file.stat().st_size for file in folder.iterdir())
            if total > limit_bytes and folder not in spared:
                shutil.rmtree(folder)
