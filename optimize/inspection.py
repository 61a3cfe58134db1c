"""Everything `optimize inspect` says about a model, as a value."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from ..core.artifact import Manifest, ModelArtifact
from ..core.progress import Progress, silent
from ..core.requests import Requests
from ..core.signature import Signature
from ..core.store import Store
from ..runtime.kinds import kind_of
from .cost.cost import Cost, Split, cost_of
from .cost.dependence import inlined
from .cost.lazy_onnx import read_lazily
from .cost.operands import op_name
from .cost.sizes import CANDIDATES, sizes_of
from .naming import names_a_source
from .roles import with_roles

if TYPE_CHECKING:
    import onnx_ir as ir


class Inspection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model's signature, size, operators (those of subgraphs and functions included), cost, and where it comes from.

    `roles_from` says who gave the inputs their roles. `flops` and `bytes` are the sums of `cost`. `manifest` is that of the artifact, or
    of the export that was made only to be looked at (`stored` tells which); None for an ONNX file, which is looked at as it lies.
    `lineage` leads from a stored artifact back to its export, as far as the store has it.
    """

    schema_version: Literal[1] = 1
    name: str
    source: str
    signature: Signature
    roles_from: str
    opset: int
    parameters: int
    size_bytes: int
    operators: dict[str, int]
    flops: Split
    bytes: Split
    cost: Cost
    stored: bool = False
    manifest: Manifest | None = None
    lineage: tuple[Manifest, ...] = ()


def inspect(
    model: ModelArtifact | str | Path,
    *,
    requests: Requests | Path | str | None = None,
    request_inputs: Sequence[str] | None = None,
    candidates: int = CANDIDATES,
    dims: Mapping[str, int] | None = None,
    store: Store | Path | str | None = None,
    progress: Progress = silent,
) -> Inspection:
    """Look at a model without storing anything: an artifact, a name or digest in the store, a path, or what `export` takes.

    Its cost is that of a request of `candidates` candidates; `dims` gives other dimensions that vary a size (50 without). Roles come from
    `request_inputs` or from the columns of `requests`, else from the artifact. Raises InputError as `export` and `Store.resolve` do.
    """
    place = Store.of(store)
    real = None if requests is None else Requests.load(requests)
    seen = _Look(real, request_inputs, candidates, dims)
    if isinstance(model, ModelArtifact):
        return seen.artifact(model, place)
    path = Path(model)
    if path.is_file() and kind_of(path) == "ONNX model":
        return seen.onnx_file(path)
    if not names_a_source(str(model), place):
        return seen.artifact(place.resolve(model), place)
    from .export import export  # noqa: PLC0415 - torch takes seconds

    with tempfile.TemporaryDirectory(prefix="liftgate-") as scratch:
        made = export(str(model), name="model", store=scratch, requests=real, request_inputs=request_inputs, progress=progress)
        return msgspec.structs.replace(seen.artifact(made, None), name=made.manifest.source)


class _Look(msgspec.Struct, frozen=True):
    """How to look: whose roles, at which sizes."""

    requests: Requests | None
    request_inputs: Sequence[str] | None
    candidates: int
    dims: Mapping[str, int] | None

    def artifact(self, artifact: ModelArtifact, store: Store | None) -> Inspection:
        manifest = artifact.manifest
        graph = read_lazily(artifact.model_path)
        known = any(spec.role == "request" for spec in manifest.signature.inputs)
        found = self._look(graph, manifest.signature, manifest.name, known=known)
        return msgspec.structs.replace(
            found,
            source=manifest.source,
            size_bytes=artifact.size_bytes,
            parameters=manifest.parameters,
            stored=store is not None,
            manifest=manifest,
            lineage=tuple(store.lineage(artifact)) if store is not None else (),
        )

    def onnx_file(self, path: Path) -> Inspection:
        from ..runtime.onnx_file import check_onnx  # noqa: PLC0415 - onnx takes a second
        from ..runtime.onnx_signature import signature_from_graph  # noqa: PLC0415
        from .convert.tables import with_tables  # noqa: PLC0415

        check_onnx(path)
        graph = read_lazily(path)
        found = self._look(graph, with_tables(signature_from_graph(graph, str(path)), graph), path.name, known=False)
        return msgspec.structs.replace(found, size_bytes=sum(file.stat().st_size for file in _files(graph, path)))

    def _look(self, graph: ir.Model, signature: Signature, name: str, *, known: bool) -> Inspection:
        from .convert.onnx_graph import opset_of, parameters_of  # noqa: PLC0415 - onnx takes a second

        saved = {spec.name: spec.role for spec in signature.inputs} if known else {}
        roles = with_roles(signature, self.requests, self.request_inputs, saved, name)
        cost = cost_of(graph, roles.signature, sizes_of(roles.signature, candidates=self.candidates, dims=self.dims))
        return Inspection(
            name=name,
            source=name,
            signature=roles.signature,
            roles_from=roles.origin,
            opset=opset_of(graph),
            parameters=parameters_of(graph),
            size_bytes=0,
            operators=operators_of(graph),
            flops=cost.flops,
            bytes=cost.bytes,
            cost=cost,
        )


def operators_of(model: ir.Model) -> dict[str, int]:
    """How often each operator occurs, in subgraphs and functions too, most frequent first."""
    import onnx_ir as ir  # noqa: PLC0415 - takes a moment

    counts = Counter(op_name(node) for node in ir.traversal.RecursiveGraphIterator(inlined(model).graph))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _files(model: ir.Model, path: Path) -> set[Path]:
    """The model's file and those its weights lie in."""
    import onnx_ir as ir  # noqa: PLC0415 - takes a moment

    contents = (value.const_value for value in model.graph.initializers.values())
    return {path, *(path.parent / content.location for content in contents if isinstance(content, ir.ExternalTensor))}
