"""A model as a value: a folder with `model.onnx` and `manifest.json`, never changed after it was written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from .errors import InputError
from .files import sha256_of
from .session_defaults import SessionDefaults
from .signature import Signature, stated

MODEL_FILE = "model.onnx"
MANIFEST_FILE = "manifest.json"


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that was verified when the artifact was made, e.g. agreement with PyTorch at 256 rows."""

    name: str
    passed: bool
    detail: str


class StepRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step that made this artifact from its parent: its kind and settings, and what it changed in words and numbers."""

    kind: str
    settings: dict[str, str | int | float | bool | None]
    summary: str
    numbers: dict[str, float] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `manifest.json` says.

    `digest` is that of `content_digest`, so equal models made in the same way have equal digests whatever they are called. `parent` is
    the digest of the artifact this one was made from, None for an export. `warnings` say what
    a user should know although every check passed. `session` is how the model wants to be run, None where no recipe said anything.
    """

    schema_version: Literal[1] = 1
    name: str
    digest: str
    parent: str | None
    source: str
    recipe: str | None
    steps: tuple[StepRecord, ...]
    signature: Signature
    opset: int
    parameters: int
    files: dict[str, str]
    tools: dict[str, str]
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()
    session: SessionDefaults | None = None

    def expected_digest(self) -> str:
        """The digest that everything else in this manifest amounts to."""
        return content_digest(self.signature, self.files, parent=self.parent, recipe=self.recipe, steps=self.steps, session=self.session)


class ModelRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How results name the model they are about."""

    name: str
    digest: str
    runtime: str
    size_bytes: int
    lineage: tuple[str, ...] = ()


class ModelArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact on disk: where it is and what its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        return self.path / MODEL_FILE

    @property
    def size_bytes(self) -> int:
        """Bytes of all model files together (external tensor data included)."""
        return sum((self.path / name).stat().st_size for name in self.manifest.files)

    def ref(self) -> ModelRef:
        steps = tuple(f"{s.kind}: {s.summary}" for s in self.manifest.steps)
        runtime = "onnxruntime" if self.manifest.session is None else self.manifest.session.runtime
        return ModelRef(name=self.manifest.name, digest=self.manifest.digest, runtime=runtime, size_bytes=self.size_bytes, lineage=steps)


def content_digest(
    signature: Signature,
    files: Mapping[str, str],
    *,
    parent: str | None,
    recipe: str | None,
    steps: tuple[StepRecord, ...],
    session: SessionDefaults | None = None,
) -> str:
    """Hex sha256 over the signature, the sha256 of every file, how to run it, and the lineage (parent, recipe and the steps' settings).

    A session that says nothing is left out, so that digests from before there was one hold.
    """
    settings = [[step.kind, step.settings] for step in steps]
    body: dict[str, object] = {"files": dict(files), "signature": stated(signature), "parent": parent, "recipe": recipe, "steps": settings}
    if session is not None:
        body["session"] = session
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


def read_artifact(path: Path) -> ModelArtifact:
    """Read an artifact folder.

    Raises InputError when the manifest or a file is missing or unreadable, when the manifest names a file outside the folder, or
    when a file's content is not what the manifest says.
    """
    where = str(path / MANIFEST_FILE)
    try:
        body = (path / MANIFEST_FILE).read_bytes()
    except OSError:
        found = "nothing" if not path.exists() else "no manifest in it" if path.is_dir() else "a file"
        raise InputError.mismatch(
            str(path), expected="a model artifact folder", found=found, fix="make one with `optimize export`"
        ) from None
    try:
        manifest = msgspec.json.decode(body, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(where, f"is not a manifest of version 1 ({error})", fix="export the model again") from None
    for name, expected in manifest.files.items():
        file = path / name
        if file.resolve().parent != path.resolve():
            raise InputError.mismatch(where, expected="file names inside the artifact", found=repr(name))
        if not file.is_file():
            raise InputError.mismatch(str(file), expected="a model file", found="nothing", fix="export the model again")
        if sha256_of(file) != expected:
            raise InputError(str(file), "content differs from its manifest (damaged or edited)", fix="export the model again")
    if MODEL_FILE not in manifest.files or manifest.digest != manifest.expected_digest():
        raise InputError(where, "digest does not match the content (damaged or edited)", fix="export the model again")
    return ModelArtifact(path=path, manifest=manifest)
