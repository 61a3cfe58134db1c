"""From a PyTorch ranker to an artifact that is known to say the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ..core.artifact import Check, ModelArtifact, ModelRef, StepRecord
from ..core.errors import InputError, UnknownName
from ..core.progress import Progress, silent
from ..core.requests import Requests
from ..core.signature import Role, Signature
from ..core.store import Draft, Store, check_name
from ..runtime.archive import quiet
from ..runtime.program import by_position, signature_of
from ..runtime.session import SessionSettings
from .loading import Graph, Module, Program, load_source
from .samples import Samples, from_examples, from_requests, from_signature

if TYPE_CHECKING:
    import torch

    from ..runtime.onnx_session import OnnxSession

_STAGES = ("reading the model", "exporting", "converting to ONNX", "comparing with PyTorch")


def export(
    model: object,
    *,
    name: str,
    store: Store | Path | str | None = None,
    requests: Requests | Path | str | None = None,
    weights: Path | None = None,
    request_inputs: Sequence[str] | None = None,
    example_inputs: object = None,
    trust_pickle: bool = False,
    progress: Progress = silent,
) -> ModelArtifact:
    """Export `model` and check ONNX Runtime against PyTorch at 1, 2 and 256 rows; the artifact is written only when they agree.

    `model` is a torch.nn.Module, the path of a torch.export archive or ONNX file, `module:factory` (with `weights`, a state_dict), or a
    Source. Inputs named in `request_inputs`, or whose column in `requests` has one value per request, get the role `request`; without
    either every input is a candidate input. Raises InputError (UntrustedError for files that would run code) with what to do.
    """
    check_name(name)
    target = Store.of(store)
    real = None if requests is None else Requests.load(requests)
    progress(_STAGES[0], 0, len(_STAGES))
    source = load_source(model, weights=weights, trust_pickle=trust_pickle)
    with target.draft(name) as draft:
        draft.source = source.source
        if isinstance(source, Graph):
            _adopt(draft, source, real, request_inputs)
        else:
            progress(_STAGES[1], 1, len(_STAGES))
            program = _program(source, real, request_inputs, example_inputs)
            where = str(model) if isinstance(model, str | Path) else source.source
            _convert(draft, program, where=where, requests=real, request_inputs=request_inputs, progress=progress)
        progress(_STAGES[3], len(_STAGES), len(_STAGES))
        return target.commit(draft)


def _program(
    source: Program | Module, requests: Requests | None, request_inputs: Sequence[str] | None, example_inputs: object
) -> torch.export.ExportedProgram:
    from .tracing import trace  # noqa: PLC0415 - needs torch

    return source.program if isinstance(source, Program) else trace(source, requests, request_inputs, example_inputs)


def _convert(
    draft: Draft,
    program: torch.export.ExportedProgram,
    *,
    where: str,
    requests: Requests | None,
    request_inputs: Sequence[str] | None,
    progress: Progress,
) -> None:
    """Write `program` into `draft` and check it."""
    from ..runtime.torch_session import TorchSession  # noqa: PLC0415 - torch takes seconds
    from .agreement import agree  # noqa: PLC0415
    from .onnx_graph import opset_of, parameters_of, save, to_onnx, with_tables  # noqa: PLC0415 - onnx takes a second

    bare = signature_of(program, where)
    signature, roles_from = _with_roles(bare, requests, request_inputs, where)
    progress(_STAGES[2], 2, len(_STAGES))
    graph = to_onnx(program, signature, where)
    draft.signature = with_tables(signature, graph)
    draft.opset, draft.parameters = opset_of(graph), parameters_of(graph)
    save(graph, draft.model_path)
    progress(_STAGES[3], 3, len(_STAGES))
    samples = _samples(draft.signature, requests, program)
    ref = ModelRef(name=draft.name, digest="", runtime="pytorch", size_bytes=0)
    with quiet():
        reference = TorchSession.of_module(by_position(program, program.module(check_guards=False)), draft.signature, ref)
    draft.checks = agree(reference, _onnx(draft), samples, draft.signature, where)
    draft.steps = (_record(draft, samples, draft.checks, roles_from),)


def _adopt(draft: Draft, source: Graph, requests: Requests | None, request_inputs: Sequence[str] | None) -> None:
    """Take a model that is ONNX already."""
    from .agreement import runs_everywhere  # noqa: PLC0415
    from .onnx_graph import load, opset_of, parameters_of, save, signature_from_graph, with_tables  # noqa: PLC0415 - onnx takes a second

    where = str(source.path)
    graph = load(source.path)
    signature, roles_from = _with_roles(signature_from_graph(graph, where), requests, request_inputs, where)
    draft.signature = with_tables(signature, graph)
    draft.opset, draft.parameters = opset_of(graph), parameters_of(graph)
    save(graph, draft.model_path)
    samples = from_requests(requests, draft.signature) if requests is not None else from_signature(draft.signature)
    draft.checks = runs_everywhere(_onnx(draft), samples, draft.signature, where)
    record = _record(draft, samples, draft.checks, roles_from)
    # Says that nothing was compared with PyTorch, also where an export gave the very same file.
    draft.steps = (msgspec.structs.replace(record, settings={**record.settings, "adopted": True}),)


def _with_roles(signature: Signature, requests: Requests | None, request_inputs: Sequence[str] | None, where: str) -> tuple[Signature, str]:
    """`signature` with roles, checked against the requests, and where the roles come from."""
    roles: dict[str, Role] = {}
    names = [s.name for s in signature.inputs]
    if request_inputs is not None:
        for name in request_inputs:
            if name not in names:
                raise UnknownName(where, "input", name, names, fix="see --request-inputs")
        roles = {name: "request" if name in request_inputs else "candidate" for name in names}
        origin = "roles as given"
    elif requests is not None:
        roles = requests.roles({s.name: len(s.shape) for s in signature.inputs})
        origin = "roles from the columns of the requests"
    else:
        origin = "roles unknown, every input taken as a candidate input (always right in layout rows)"
    inputs = tuple(msgspec.structs.replace(s, role=roles.get(s.name, "candidate")) for s in signature.inputs)
    known = msgspec.structs.replace(signature, inputs=inputs)
    if requests is not None:
        requests.check(known)
    return known, origin


def _samples(signature: Signature, requests: Requests | None, program: torch.export.ExportedProgram) -> Samples:
    if requests is not None:
        return from_requests(requests, signature)
    if program.example_inputs is None:
        return from_signature(signature)
    args, kwargs = program.example_inputs
    arrays: list[np.ndarray] = [tensor.detach().cpu().numpy() for tensor in (*args, *kwargs.values())]
    feeds = dict(zip([s.name for s in signature.inputs], arrays, strict=True))
    return from_examples(feeds, note="example inputs of the model, rows redrawn")


def _onnx(draft: Draft) -> OnnxSession:
    from ..runtime.onnx_session import OnnxSession, load_onnx  # noqa: PLC0415 - onnxruntime takes a second

    if draft.signature is None:
        raise InputError(draft.name, "has no signature yet")
    ref = ModelRef(name=draft.name, digest="", runtime="onnxruntime", size_bytes=0)
    return OnnxSession(load_onnx(draft.model_path, SessionSettings()), draft.signature, ref)


def _record(draft: Draft, samples: Samples, checks: Sequence[Check], roles_from: str) -> StepRecord:
    summary = f"opset {draft.opset}, {draft.parameters:,} parameters; {roles_from}; checked on {samples.note} ({len(checks)} sizes)"
    return StepRecord(kind="export", settings={"dynamic_rows": True}, summary=summary)
