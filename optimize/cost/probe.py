"""One run in ONNX Runtime that tells the shapes of values inside a graph, where inference cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from ...core.signature import Signature
from ...runtime.onnx_session import session_options
from ...runtime.program import ROWS
from ...runtime.session import SessionSettings
from ..samples import Samples, from_signature
from .shapes import Tensors, bare, tensor_proto
from .sizes import Sizes

# Smaller weights travel inside the graph, larger ones are handed over as they lie in memory or in their file.
_IN_GRAPH_BYTES = 64 * 1024


class Seen(msgspec.Struct, frozen=True):
    """What a run says of a value: shape and dtype, and its numbers if they were asked for."""

    shape: tuple[int, ...]
    dtype: ir.DataType
    numbers: np.ndarray | None


class Probe:
    """A model in ONNX Runtime that gives shapes and types of its inner values, not the values, which may be large.

    `shapes_of` and `numbers_of` are tensors of the main graph. Raises what ONNX Runtime raises when it cannot load the model.
    """

    def __init__(self, model: ir.Model, shapes_of: Sequence[ir.Value], numbers_of: Sequence[ir.Value]) -> None:
        self._values = [*shapes_of, *numbers_of]
        self._wanted = set(numbers_of)
        proto = onnx.ModelProto(ir_version=model.ir_version)
        proto.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items())
        proto.graph.CopyFrom(bare(model.graph))
        proto.graph.ClearField("input")
        proto.graph.input.extend(ir.to_proto(value) for value in model.graph.inputs)
        options = session_options(SessionSettings())
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        # ONNX Runtime reads the arrays where they lie, without keeping them alive.
        self._arrays = _add_weights(model.graph, proto.graph, options)
        _replace_outputs(proto.graph, self._values, self._wanted)
        self._session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[ir.Value, Seen]:
        """What is seen with these inputs; those the graph does not take are left out."""
        taken = {one.name for one in self._session.get_inputs()}
        names = [one.name for one in self._session.get_outputs()]
        given = self._session.run(names, {name: array for name, array in feeds.items() if name in taken})
        results = dict(zip(names, given, strict=True))
        seen = {}
        for number, value in enumerate(self._values):
            shape = tuple(int(size) for size in results[f"liftgate.shape.{number}"])
            sample = results[f"liftgate.sample.{number}"]
            seen[value] = Seen(shape, ir.DataType.from_numpy(sample.dtype), sample if value in self._wanted else None)
        return seen


def _add_weights(graph: ir.Graph, proto: onnx.GraphProto, options: ort.SessionOptions) -> dict[str, np.ndarray]:
    """Add the initializers that `bare` left out; ONNX Runtime maps those in files by itself, others are arrays that must outlive it."""
    present = {tensor.name for tensor in proto.initializer}
    arrays: dict[str, np.ndarray] = {}
    for value in graph.initializers.values():
        content, name = value.const_value, value.name or ""
        if content is None or name in present:
            continue
        if content.nbytes <= _IN_GRAPH_BYTES or content.dtype.numpy().kind not in "biuf":
            proto.initializer.append(tensor_proto(name, content))
            continue
        stub = onnx.TensorProto(name=name, data_type=int(content.dtype), dims=content.shape.numpy())
        stub.data_location = onnx.TensorProto.EXTERNAL
        if isinstance(content, ir.ExternalTensor) and not (content.offset or 0) % content.dtype.itemsize:
            places = {"location": content.location, "offset": content.offset or 0, "length": content.nbytes}
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(content.base_dir or "."))
        else:
            places = {"location": "memory"}
            arrays[name] = np.require(content.numpy().view(content.dtype.numpy()), requirements=["C", "A"])
        for key, entry in places.items():
            stub.external_data.add(key=key, value=str(entry))
        proto.initializer.append(stub)
    if arrays:
        options.add_external_initializers(list(arrays), [ort.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()])
    return arrays


def _replace_outputs(graph: onnx.GraphProto, values: Sequence[ir.Value], wanted: set[ir.Value]) -> None:
    """Let the graph give the shape of each value and a sample of its type: the value itself if wanted, else none of its elements."""
    graph.ClearField("output")
    graph.initializer.append(onnx.helper.make_tensor("liftgate.flat", onnx.TensorProto.INT64, [1], [-1]))
    graph.initializer.append(onnx.helper.make_tensor("liftgate.none", onnx.TensorProto.INT64, [0], []))
    for number, value in enumerate(values):
        shape, flat, sample = (f"liftgate.{what}.{number}" for what in ("shape", "flat", "sample"))
        graph.node.append(onnx.helper.make_node("Shape", [value.name or ""], [shape]))
        if value in wanted:
            graph.node.append(onnx.helper.make_node("Identity", [value.name or ""], [sample]))
        else:
            graph.node.append(onnx.helper.make_node("Reshape", [value.name or "", "liftgate.flat"], [flat]))
            graph.node.append(onnx.helper.make_node("Gather", [flat, "liftgate.none"], [sample]))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in (shape, sample))


def fill(
    model: ir.Model,
    signature: Signature,
    worlds: Sequence[tuple[Tensors, Sizes]],
    numbers_of: Sequence[ir.Value],
    samples: Samples | None = None,
) -> str | None:
    """Let each world of shapes learn what its inference left open, from one run at its sizes, on `samples` or else on generated inputs.

    `numbers_of` are values whose numbers are wanted too. Gives the reason when ONNX Runtime cannot run the model, None otherwise.
    """
    holes = list(dict.fromkeys(value for tensors, _ in worlds for value in tensors.holes()))
    try:
        probe = Probe(model, holes, numbers_of)
        for tensors, sizes in worlds:
            for value, seen in probe.run(_feeds(signature, sizes, samples)).items():
                tensors.learn(value, seen.shape, seen.dtype, seen.numbers)
    except Exception as error:  # ONNX Runtime's own types; what stays unknown is said to be unknown
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None


def _feeds(signature: Signature, sizes: Sizes, samples: Samples | None) -> dict[str, np.ndarray]:
    """Inputs of these sizes; generated ones have ids inside their tables where those are known."""
    shapes = {spec.name: sizes.shape(spec, signature) for spec in signature.inputs}
    if samples is not None:
        return samples.of_sizes(shapes)
    fixed = [msgspec.structs.replace(spec, shape=(ROWS, *shapes[spec.name][1:])) for spec in signature.inputs]
    generated = from_signature(msgspec.structs.replace(signature, inputs=tuple(fixed), layout="rows"))
    rows = generated.rows(max(shape[0] for shape in shapes.values()))
    return {name: rows[name][: shape[0]] for name, shape in shapes.items()}
