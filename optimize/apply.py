"""Applying a recipe: each step writes a new model, is run, and is compared with the one before it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..core.artifact import MODEL_FILE, ModelArtifact, ModelRef, StepRecord
from ..core.errors import InputError, RefusedStep
from ..core.progress import Progress, silent
from ..core.requests import Requests
from ..core.signature import Signature
from ..core.store import Store, check_name
from ..recipes.recipe import Recipe, read_recipe
from ..recipes.steps import Step
from ..runtime.session import SessionSettings
from .context import StepContext
from .export import export
from .loading import Source, load_source
from .naming import default_name, names_a_source
from .samples import from_requests, from_signature
from .steps import run_step

if TYPE_CHECKING:
    from ..runtime.onnx_session import OnnxSession


def apply(
    recipe: Recipe | str | Path,
    model: ModelArtifact | str | Path,
    *,
    name: str | None = None,
    requests: Requests | Path | str | None = None,
    base: ModelArtifact | str | Path | None = None,
    store: Store | Path | str | None = None,
    progress: Progress = silent,
) -> ModelArtifact:
    """Apply a recipe (a value, a shipped name, or a .toml path) and write the result as a new artifact called `<model>-<recipe>` or `name`.

    `model` is an artifact, a name or digest in the store, or the path of an artifact; anything `export` takes (a model.pt,
    `train.py:make_model`) is exported first, under its own name. `base` is the version before (v1.0), for steps that need both.
    Raises RefusedStep, and writes nothing, when a step cannot be applied or changes nothing; InputError when that name already means
    another artifact (other weights, or other roles).
    """
    target = Store.of(store)
    chosen = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    real = None if requests is None else Requests.load(requests)
    before = base if base is None or isinstance(base, ModelArtifact) else target.resolve(str(base))
    if name is not None:
        check_name(name)
    with tempfile.TemporaryDirectory(prefix="liftgate-") as scratch:
        parent, original = _parent(model, target, Path(scratch) / "exported", real, progress)
        final_name = check_name(name or f"{parent.manifest.name}-{chosen.name}")
        with target.draft(final_name) as draft:
            draft.source = parent.manifest.source
            draft.parent, draft.recipe = parent.manifest.digest, chosen.label
            done = _run(chosen, parent, draft.folder, original=original, requests=real, base=before, progress=progress)
            draft.signature, draft.steps = done.signature, (*parent.manifest.steps, *done.records)
            draft.warnings = (*parent.manifest.warnings, *(f"left out: {refusal}" for refusal in done.refused))
            draft.session = chosen.session or parent.manifest.session
            draft.opset, draft.parameters = _facts(draft.model_path)
            if original is not None:
                _keep(parent, target)
            return target.commit(draft)


class _Done(msgspec.Struct, frozen=True):
    """What the steps of a recipe did, the signature of what they left, and the refusals of those that were left out."""

    records: tuple[StepRecord, ...]
    signature: Signature
    refused: tuple[str, ...]


def _run(
    recipe: Recipe,
    parent: ModelArtifact,
    folder: Path,
    *,
    original: Source | None,
    requests: Requests | None,
    base: ModelArtifact | None,
    progress: Progress,
) -> _Done:
    """Apply the steps to `parent` one after the other, and leave the last one's files in `folder`."""
    name, signature = parent.manifest.name, parent.manifest.signature
    if requests is not None:
        requests.check(signature)
    samples = from_requests(requests, signature) if requests is not None else from_signature(signature)
    current, records, refused = parent.path, list[StepRecord](), list[RefusedStep]()
    with tempfile.TemporaryDirectory(prefix="liftgate-") as scratch:
        for number, step in enumerate(recipe.steps, start=1):
            progress(f"applying {recipe.label}", number - 1, len(recipe.steps))
            target = Path(scratch) / str(number)
            target.mkdir()
            context = StepContext(
                where=name if len(recipe.steps) == 1 else f"{name}: {recipe.name}: step {number}",
                source=current / MODEL_FILE,
                target=target / MODEL_FILE,
                signature=signature,
                samples=samples,
                calibrated=requests is not None,
                original=original if not records else None,
                requests=requests,
                base=base,
                progress=progress,
            )
            try:
                record, signature = _checked(step, context)
            except RefusedStep as refusal:
                if recipe.on_refusal == "stop" or step.__struct_config__.tag in recipe.required:
                    raise
                refused.append(refusal)
                continue
            records.append(record)
            current = target
        progress(f"applying {recipe.label}", len(recipe.steps), len(recipe.steps))
        if refused and not records:
            raise refused[0]
        if not records:  # only a [session]: the parent keeps its files
            for file_name in parent.manifest.files:
                shutil.copyfile(current / file_name, folder / file_name)
        for file in current.iterdir() if records else ():
            shutil.move(file, folder / file.name)
    return _Done(tuple(records), signature, tuple(str(refusal) for refusal in refused))


def _checked(step: Step, context: StepContext) -> tuple[StepRecord, Signature]:
    """Run a step, load what it wrote, and record how the scores and the size moved."""
    from .agreement import change  # noqa: PLC0415 - scipy takes a moment
    from .slower import refuse_slower  # noqa: PLC0415

    record, signature = run_step(step, context)
    before, after = _session(context.source, context.signature), _session(context.target, signature)
    numbers = change(before, after, context.samples, context.signature, context.where)
    sizes = {"size_bytes_before": _bytes(context.source), "size_bytes_after": _bytes(context.target)}
    times = refuse_slower(step, before, after, context)
    return msgspec.structs.replace(record, numbers={**record.numbers, **numbers, **sizes, **times}), signature


def _parent(
    model: ModelArtifact | str | Path, store: Store, scratch: Path, requests: Requests | None, progress: Progress
) -> tuple[ModelArtifact, Source | None]:
    """The artifact to start from, and what it was just exported from, if so: into a store at `scratch`, not yet into `store`."""
    if isinstance(model, ModelArtifact):
        return model, None
    text = str(model)
    if not names_a_source(text, store):
        return store.resolve(model), None
    # Loaded once: a factory may build other weights the next time.
    source = load_source(text)
    name = default_name(text)
    exported = export(source, name=name, store=scratch, requests=requests, progress=progress)
    if name in store.names() and store.resolve(name).manifest.digest != exported.manifest.digest:
        problem = f"its export would replace '{name}' in the store, which differs from it in weights or roles"
        fix = f"give the name {name} instead of the file, or export the file first: optimize export {text} --name NAME"
        raise InputError(text, problem, fix=fix)
    return exported, source


def _keep(exported: ModelArtifact, store: Store) -> None:
    """Write an export into `store` as it is, so that what was made from it has its lineage."""
    manifest = exported.manifest
    with store.draft(manifest.name) as draft:
        for name in manifest.files:
            shutil.copyfile(exported.path / name, draft.folder / name)
        draft.signature, draft.source, draft.steps = manifest.signature, manifest.source, manifest.steps
        draft.checks, draft.warnings = manifest.checks, manifest.warnings
        draft.opset, draft.parameters = manifest.opset, manifest.parameters
        store.commit(draft)


def _session(path: Path, signature: Signature) -> OnnxSession:
    from ..runtime.onnx_session import OnnxSession, load_onnx  # noqa: PLC0415 - onnxruntime takes a second

    ref = ModelRef(name=path.name, digest="", runtime="onnxruntime", size_bytes=0)
    return OnnxSession(load_onnx(path, SessionSettings()), signature, ref)


def _bytes(path: Path) -> float:
    return float(sum(file.stat().st_size for file in path.parent.iterdir() if file.name.startswith(path.name)))


def _facts(path: Path) -> tuple[int, int]:
    from ..runtime.onnx_file import load  # noqa: PLC0415 - onnx takes a second
    from .convert.onnx_graph import opset_of, parameters_of  # noqa: PLC0415

    model = load(path)
    return opset_of(model), parameters_of(model)
