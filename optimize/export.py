"""From a PyTorch ranker to an artifact that is known to say the same."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..core.artifact import ModelArtifact, ModelRef, StepRecord
from ..core.errors import InputError
from ..core.progress import Progress, silent
from ..core.requests import Requests
from ..core.store import Draft, Store, check_name
from ..runtime.session import SessionSettings
from .loading import Graph, Module, Pretrained, Program, load_source
from .samples import Samples, from_requests, from_signature

if TYPE_CHECKING:
    from ..runtime.onnx_session import OnnxSession
    from .convert.conversion import Conversion, Fallback
    from .loading import Script

_TRY_TORCHSCRIPT = "PyTorch's exporter wrote a graph that does not hold together; try --fallback torchscript"
_STAGES = ("reading the model", "exporting", "comparing with PyTorch", "writing")


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the user says about a model that its source does not."""

    requests: Requests | None = None
    request_inputs: tuple[str, ...] | None = None
    example_inputs: object = None
    score: str | None = None
    fallback: Fallback | None = None


def export(
    model: object,
    *,
    name: str,
    store: Store | Path | str | None = None,
    requests: Requests | Path | str | None = None,
    weights: Path | str | None = None,
    request_inputs: Sequence[str] | None = None,
    example_inputs: object = None,
    score: str | None = None,
    fallback: Fallback | None = None,
    trust_pickle: bool = False,
    progress: Progress = silent,
) -> ModelArtifact:
    """Export `model` and check ONNX Runtime against PyTorch at 1, 2, 7 and 256 rows; the artifact is written only when they agree.

    `model` is a torch.nn.Module, the path of a model file of any kind, `module:factory` (with `weights`, a state_dict), or a Source.
    `example_inputs` (needed for a module without requests) are positional arguments, a mapping by name, or the path of an .npz file; nested
    containers become inputs named by their path. Inputs named in `request_inputs`, or whose column in `requests` has one value per request,
    get the role `request`; without either every input is a candidate input. `score` chooses what candidates are ranked by, as `ctr` or
    `output[1]`, where the first output is not one number per row. `fallback="torchscript"` converts through TorchScript what torch.export
    cannot, where that is sound. Raises InputError (UntrustedError for files that would run code) with what to do.
    """
    check_name(name)
    target = Store.of(store)
    wishes = Wishes(
        requests=None if requests is None else Requests.load(requests),
        request_inputs=None if request_inputs is None else tuple(request_inputs),
        example_inputs=example_inputs,
        score=score,
        fallback=fallback,
    )
    progress(_STAGES[0], 0, len(_STAGES))
    source = load_source(model, weights=None if weights is None else Path(weights), trust_pickle=trust_pickle)
    with target.draft(name) as draft:
        draft.source = source.source
        if isinstance(source, Graph):
            _adopt(draft, source, wishes, progress)
        else:
            where = str(model) if isinstance(model, str | Path) else source.source
            with _kept_modes(source):
                _convert(draft, source, wishes, where=where, progress=progress)
            if isinstance(source, Module) and ":" in source.source and weights is None:
                draft.warnings = (*draft.warnings, f"no --weights: the model has the weights that {source.source} gives it")
        progress(_STAGES[3], 3, len(_STAGES))
        artifact = target.commit(draft)
        progress(_STAGES[3], len(_STAGES), len(_STAGES))
        return _as_exported_now(artifact, draft)


def _as_exported_now(artifact: ModelArtifact, draft: Draft) -> ModelArtifact:
    """The artifact with the record of this export; the store keeps that of the first one that gave the very same model."""
    stored = artifact.manifest
    if (stored.source, stored.steps) == (draft.source, draft.steps):
        return artifact
    kept = f"the store already holds this very model, exported from {stored.source}; `optimize inspect` shows the record of that export"
    record = {"source": draft.source, "steps": draft.steps, "checks": draft.checks, "warnings": (*draft.warnings, kept)}
    return msgspec.structs.replace(artifact, manifest=msgspec.structs.replace(stored, **record))


def _kept_modes(source: Module | Script | Program | Pretrained) -> AbstractContextManager[None]:
    """A module of the caller's is switched to evaluation for the export only."""
    from .convert.tracing import kept_modes  # noqa: PLC0415 - torch takes seconds

    return nullcontext() if isinstance(source, Program | Pretrained) else kept_modes(source.module)


def _convert(draft: Draft, source: Module | Script | Program | Pretrained, wishes: Wishes, *, where: str, progress: Progress) -> None:
    """Write what `source` is as ONNX into `draft`, and check it against the original."""
    progress(_STAGES[1], 1, len(_STAGES))
    conversion = _conversion(source, wishes, where)
    problem = _write(draft, conversion, wishes, where=where, progress=progress)
    if problem is None:
        return
    if isinstance(source, Program | Pretrained):
        raise problem
    # Sizes that were found by trying, not asked for: a graph that is right for one of them is better than none.
    try:
        conversion = _conversion(source, wishes, where, resizable=False)
        _write(draft, conversion, wishes, where=where, progress=progress)
    except InputError:
        raise problem from None  # the requests do vary in that size
    draft.warnings = (*draft.warnings, f"sizes besides rows are fixed as in the example inputs: {problem.problem}")


def _write(draft: Draft, conversion: Conversion, wishes: Wishes, *, where: str, progress: Progress) -> InputError | None:
    """Fill `draft` with a conversion that passes the checks; returns the problem of one that is only right for its own sizes."""
    from .convert.onnx_graph import opset_of, parameters_of, save  # noqa: PLC0415 - onnx takes a second
    from .export_checks import sides_of, verify, verify_sizes  # noqa: PLC0415 - scipy takes a moment
    from .roles import with_roles  # noqa: PLC0415

    roles = with_roles(conversion.signature, wishes.requests, wishes.request_inputs, conversion.saved_roles, where)
    score = wishes.score or conversion.saved_score
    draft.signature = roles.signature if score is None else roles.signature.with_score(score, where=where)
    draft.opset, draft.parameters = opset_of(conversion.graph), parameters_of(conversion.graph)
    save(conversion.graph, draft.model_path)
    progress(_STAGES[2], 2, len(_STAGES))
    samples = conversion.samples(wishes.requests, draft.signature)
    resized, rigid = conversion.resized()
    session = conversion.session(draft.signature)
    try:
        sides = sides_of(session, _onnx(draft, where, fix=_TRY_TORCHSCRIPT), draft.signature, samples, where=where)
        found = verify(sides, samples)
    except InputError as error:
        raise _suspected(error, conversion) from error
    sizes, problem = verify_sizes(sides, resized)
    draft.checks = (*found.checks, *sizes)
    tasks = [spec.name for spec in draft.signature.outputs if spec.per_row]
    ranked = (
        (f"ranked by {tasks[0]}, the first of {', '.join(tasks)}; --score chooses another",) if score is None and len(tasks) > 1 else ()
    )
    declared = tuple(f"{dim} is declared to vary, but PyTorch runs in no other size of it" for dim in rigid)
    draft.warnings = (*conversion.notes, *found.warnings, *ranked, *declared, *((roles.suggestion,) if roles.suggestion else ()))
    draft.steps = (_record(draft, samples, roles.origin, conversion.rewritten),)
    return problem


def _conversion(source: Module | Script | Program | Pretrained, wishes: Wishes, where: str, *, resizable: bool = True) -> Conversion:
    from .convert.conversion import convert_module, convert_pretrained, convert_program  # noqa: PLC0415 - torch takes seconds
    from .convert.examples import examples_for  # noqa: PLC0415

    if isinstance(source, Program):
        return convert_program(source, where, wishes.requests)
    if isinstance(source, Pretrained):
        return convert_pretrained(source, where)
    examples = examples_for(
        source.module,
        where=where,
        given=wishes.example_inputs,
        requests=wishes.requests,
        request_inputs=wishes.request_inputs,
    )
    return convert_module(source, examples, where, wishes.fallback, resizable=resizable)


def _adopt(draft: Draft, source: Graph, wishes: Wishes, progress: Progress) -> None:
    """Take a model that is ONNX already."""
    from ..runtime.onnx_file import load  # noqa: PLC0415 - onnx takes a second
    from ..runtime.onnx_signature import signature_from_graph  # noqa: PLC0415
    from .convert.onnx_graph import opset_of, parameters_of, save  # noqa: PLC0415
    from .convert.tables import with_tables  # noqa: PLC0415
    from .export_checks import runs_everywhere  # noqa: PLC0415 - scipy takes a moment
    from .rewrites.bag_loops import rewrite_graph  # noqa: PLC0415
    from .roles import with_roles  # noqa: PLC0415

    where = str(source.path)
    graph = load(source.path)
    bags = rewrite_graph(graph)
    roles = with_roles(signature_from_graph(graph, where), wishes.requests, wishes.request_inputs, {}, where)
    signature = with_tables(roles.signature, graph)
    draft.signature = signature if wishes.score is None else signature.with_score(wishes.score, where=where)
    draft.opset, draft.parameters = opset_of(graph), parameters_of(graph)
    save(graph, draft.model_path)
    progress(_STAGES[2], 2, len(_STAGES))
    samples = from_requests(wishes.requests, draft.signature) if wishes.requests is not None else from_signature(draft.signature)
    draft.checks = runs_everywhere(_onnx(draft, where, fix="export the model again"), samples, draft.signature, where)
    suggested = (roles.suggestion,) if roles.suggestion else ()
    draft.warnings = (*bags.warnings, *suggested)
    record = _record(draft, samples, roles.origin, bags.done)
    # Says that nothing was compared with PyTorch, also where an export gave the very same file.
    draft.steps = (msgspec.structs.replace(record, settings={**record.settings, "adopted": True}),)


def _suspected(error: InputError, conversion: Conversion) -> InputError:
    """`error` with the line of the model that most likely explains it, where there is one."""
    from .explain.suspects import suspects  # noqa: PLC0415 - only when something went wrong

    found = next(iter(suspects(conversion.original.module)), None)
    if found is None:
        return error
    return InputError(error.where, error.problem, fix=f"{found.file}:{found.line} in {found.name} has {found.construct}: {found.change}")


def _onnx(draft: Draft, where: str, *, fix: str) -> OnnxSession:
    from ..runtime.onnx_session import OnnxSession, load_onnx  # noqa: PLC0415 - onnxruntime takes a second

    if draft.signature is None:
        raise InputError(draft.name, "has no signature yet")
    ref = ModelRef(name=draft.name, digest="", runtime="onnxruntime", size_bytes=0)
    try:
        return OnnxSession(load_onnx(draft.model_path, SessionSettings()), draft.signature, ref)
    except InputError as error:
        raise InputError(where, error.problem.replace(str(draft.model_path), "the graph"), fix=fix) from None


def _record(draft: Draft, samples: Samples, roles_from: str, rewritten: tuple[str, ...]) -> StepRecord:
    checked = f"checked on {samples.note} ({len(draft.checks)} checks)"
    summary = "; ".join([f"opset {draft.opset}, {draft.parameters:,} parameters", *rewritten, roles_from, checked])
    return StepRecord(kind="export", settings={"dynamic_rows": True}, summary=summary)
