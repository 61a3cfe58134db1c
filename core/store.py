"""The model store: resolves names like `v1.1-int8` to artifacts and walks their lineage."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from .artifact import MANIFEST_FILE, MODEL_FILE, Check, Manifest, ModelArtifact, StepRecord, content_digest, read_artifact
from .errors import InputError, UnknownName
from .files import new_folder, sha256_of, write_atomically
from .machine import tool_versions
from .session_defaults import SessionDefaults
from .signature import Signature

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


class Draft(msgspec.Struct, kw_only=True):
    """An artifact in the making: write `model.onnx` (and its external data) into `folder`; everything else is said here."""

    folder: Path
    name: str
    signature: Signature | None = None
    source: str = ""
    parent: str | None = None
    recipe: str | None = None
    steps: tuple[StepRecord, ...] = ()
    opset: int = 0
    parameters: int = 0
    checks: tuple[Check, ...] = ()
    warnings: tuple[str, ...] = ()
    session: SessionDefaults | None = None

    @property
    def model_path(self) -> Path:
        return self.folder / MODEL_FILE


class Store:
    """A folder of immutable artifacts (`objects/<digest>`) and of names that point at them (`models/<name>`, links).

    The same content is kept once; giving a name to another artifact moves the name and leaves both artifacts as they were.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def default(cls) -> Store:
        """The store at `LIFTGATE_STORE`, else `.liftgate/` in the current folder."""
        return cls(Path(os.environ.get("LIFTGATE_STORE") or ".liftgate"))

    @classmethod
    def of(cls, store: Store | Path | str | None) -> Store:
        """The store itself, the one at a path, or the default one for None: what every public function takes as `store`."""
        if isinstance(store, Store):
            return store
        return cls(Path(store)) if store is not None else cls.default()

    def names(self) -> list[str]:
        """All names, sorted."""
        folder = self.root / "models"
        return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []

    def resolve(self, name_or_path: str | Path) -> ModelArtifact:
        """The artifact with this name, digest (8 or more characters) or path; raises UnknownName when nothing answers."""
        text = str(name_or_path)
        if _NAME.fullmatch(text) and (self.root / "models" / text).exists():
            found = read_artifact((self.root / "models" / text).resolve())
            return msgspec.structs.replace(found, manifest=msgspec.structs.replace(found.manifest, name=text))
        if re.fullmatch(r"[0-9a-f]{8,64}", text):
            matches = sorted((self.root / "objects").glob(f"{text}*"))
            if len(matches) == 1:
                return read_artifact(matches[0])
        if Path(text).exists():
            return read_artifact(Path(text))
        raise UnknownName(f"store {self.root}", "model", text, self.names(), fix="export it first: optimize export MODEL --name NAME")

    def lineage(self, artifact: ModelArtifact) -> list[Manifest]:
        """Manifests from `artifact` back to its export, as far as the store still has them."""
        chain = [artifact.manifest]
        while chain[-1].parent is not None and (self.root / "objects" / chain[-1].parent / MANIFEST_FILE).exists():
            chain.append(read_artifact(self.root / "objects" / chain[-1].parent).manifest)
        return chain

    @contextmanager
    def draft(self, name: str) -> Iterator[Draft]:
        """A folder to build a new artifact in; finish it with `commit` inside the block, or nothing remains of it."""
        check_name(name)
        with new_folder(self.root / "objects") as folder:
            yield Draft(folder=folder, name=name)

    def commit(self, draft: Draft) -> ModelArtifact:
        """Seal `draft`: write its manifest, rename it to its digest and point its name at it."""
        if draft.signature is None or not draft.model_path.is_file():
            raise AssertionError("a draft needs a signature and a model file before it is committed")
        files = {p.name: sha256_of(p) for p in sorted(draft.folder.iterdir())}
        digest = content_digest(draft.signature, files, parent=draft.parent, recipe=draft.recipe, steps=draft.steps, session=draft.session)
        manifest = Manifest(
            name=draft.name,
            digest=digest,
            parent=draft.parent,
            source=draft.source,
            recipe=draft.recipe,
            steps=draft.steps,
            signature=draft.signature,
            opset=draft.opset,
            parameters=draft.parameters,
            files=files,
            tools=tool_versions(),
            checks=draft.checks,
            warnings=draft.warnings,
            session=draft.session,
        )
        write_atomically(draft.folder / MANIFEST_FILE, msgspec.json.format(msgspec.json.encode(manifest), indent=2))
        target = self.root / "objects" / digest
        if _is_damaged(target):
            shutil.rmtree(target)
        if not target.exists():
            draft.folder.rename(target)
        self._point(draft.name, target)
        return self.resolve(draft.name)

    def adopt(self, artifact: ModelArtifact, name: str) -> ModelArtifact:
        """Write an artifact from elsewhere into this store as it is, under `name`; its digest stays."""
        manifest = artifact.manifest
        with self.draft(name) as draft:
            for file in manifest.files:
                shutil.copyfile(artifact.path / file, draft.folder / file)
            draft.signature, draft.source, draft.session = manifest.signature, manifest.source, manifest.session
            draft.parent, draft.recipe, draft.steps = manifest.parent, manifest.recipe, manifest.steps
            draft.checks, draft.warnings = manifest.checks, manifest.warnings
            draft.opset, draft.parameters = manifest.opset, manifest.parameters
            return self.commit(draft)

    def _point(self, name: str, target: Path) -> None:
        folder = self.root / "models"
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / f".{name}.{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(Path("..") / "objects" / target.name, target_is_directory=True)
        link.replace(folder / name)


def _is_damaged(folder: Path) -> bool:
    """Whether an object is there but can no longer be read; writing the same content again then repairs it."""
    if not folder.exists():
        return False
    try:
        read_artifact(folder)
    except InputError:
        return True
    return False


def check_name(name: str) -> str:
    """Return `name` if it may name a model; raises InputError."""
    if not _NAME.fullmatch(name):
        raise InputError.mismatch("--name", expected="letters, digits and . _ + - (at most 100)", found=repr(name))
    return name
