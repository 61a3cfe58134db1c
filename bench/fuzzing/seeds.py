"""One small valid file of every kind a model may be, as bytes; whoever mutates them starts here."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save
from torch import nn

from ...optimize.save import save as save_archive
from ...runtime.archive import quiet


@dataclass(frozen=True)
class Seed:
    """Files by name; `main` is the one the user would name, empty for their folder, and `as_weights` says that it goes to --weights."""

    name: str
    files: dict[str, bytes]
    main: str
    as_weights: bool = False


class Ranker(nn.Module):
    """Embeddings, attention over a history, a GRU and branches: what the kinds of code in an archive come from."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(20, 4)
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.heads = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 1)])
        self.names = ["click", "zoé"]
        self.offsets = {"click": 2**40}
        self.scale = nn.Buffer(torch.tensor([1.0, 2.0]))

    def forward(self, item: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        past, _ = self.gru(self.items(history))
        past, _ = self.attention(past, past, past, need_weights=False)
        mixed = past.mean(1) * self.items(item)
        for head in self.heads:
            mixed = torch.relu(head(mixed))
        if self.offsets[self.names[0]] > 3:
            mixed = mixed + 0.5
        score: torch.Tensor = mixed.squeeze(-1) * self.scale[0]
        return score


class Flat(nn.Module):
    """The ranker without a GRU, which torch.export would unroll."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(20, 4)
        self.top = nn.Sequential(nn.Linear(8, 4), nn.SiLU(), nn.Linear(4, 1))
        self.scale = nn.Buffer(torch.tensor([1.0, 2.0]))

    def forward(self, item: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        past = self.items(history)
        weights = (past @ self.items(item).unsqueeze(-1)).squeeze(-1).softmax(-1)
        score: torch.Tensor = self.top(torch.cat([self.items(item), (weights.unsqueeze(1) @ past).squeeze(1)], -1))
        return score.squeeze(-1) * self.scale[0] + torch.arange(3)[history.shape[1] % 3]


def make_seeds() -> list[Seed]:
    """All seeds; the same bytes in every fresh process that fixes PYTHONHASHSEED."""
    torch.manual_seed(0)
    ranker, flat = Ranker().eval(), Flat().eval()
    example = (torch.tensor([1, 2, 3]), torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [1, 1, 1, 1]]))
    rows = torch.export.Dim("rows", min=1)
    state = dict(flat.state_dict())
    with quiet():
        program = torch.export.export(flat, example, dynamic_shapes=({0: rows}, {0: rows, 1: torch.export.Dim("history", min=2)}))
        scripted = torch.jit.script(ranker)
        traced = torch.jit.trace(flat, example)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        graph = torch.onnx.export(program, (), dynamo=True, verbose=False)
    if graph is None:
        raise AssertionError("this model exports")
    checkpoint = {"epoch": 3, "state_dict": {f"model.{name}": tensor for name, tensor in state.items()}, "lr": [0.1]}
    singles = {
        "torch.export archive": _written(lambda file: torch.export.save(program, file)),
        "liftgate.save archive": _saved(flat, example),
        "TorchScript, scripted": _written(lambda file: torch.jit.save(scripted, file)),
        "TorchScript, traced": _written(lambda file: torch.jit.save(traced, file)),
        "pickled module": _written(lambda file: torch.save(nn.Sequential(nn.Linear(2, 1)), file)),
        "pickle": pickle.dumps({"a": [1, 2.5, "x"]}, protocol=2),
        "ONNX, exported": graph.model_proto.SerializeToString(),
        "ONNX, many operators": _operators().SerializeToString(),
    }
    weights = {
        "state_dict, zip": _written(lambda file: torch.save(state, file)),
        "state_dict, legacy": _legacy(state),
        "checkpoint": _written(lambda file: torch.save(checkpoint, file)),
        "safetensors": save({name: tensor.contiguous() for name, tensor in state.items()}),
    }
    config = {"architectures": ["BertForSequenceClassification"], "model_type": "bert", "num_hidden_layers": 2, "vocab_size": 50}
    return [
        *(Seed(name=name, files={"model": content}, main="model") for name, content in singles.items()),
        *(Seed(name=name, files={"model": content}, main="model", as_weights=True) for name, content in weights.items()),
        Seed(name="ONNX with weights beside it", files=_with_weights_beside(graph.model_proto), main="model.onnx"),
        Seed(
            name="Hugging Face folder",
            files={"config.json": json.dumps(config).encode(), "model.safetensors": weights["safetensors"]},
            main="",
        ),
    ]


def _legacy(state: dict[str, torch.Tensor]) -> bytes:
    """What torch.save wrote before zips, with storages numbered in order: torch.save itself names them by their addresses."""
    storages: list[torch.UntypedStorage] = []
    file = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            if not isinstance(value, torch.storage.TypedStorage):
                return None
            storages.append(value._untyped_storage)
            return ("storage", torch.FloatStorage, str(len(storages) - 1), "cpu", len(storages[-1]) // 4, None)

    for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(part, file, protocol=2)
    Pickler(file, protocol=2).dump(state)
    pickle.dump([str(key) for key in range(len(storages))], file, protocol=2)
    for storage in storages:
        file.write((len(storage) // 4).to_bytes(8, "little") + bytes(storage))
    return file.getvalue()


def _saved(model: nn.Module, example: tuple[torch.Tensor, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        return save_archive(model, example, Path(name) / "model.pt2", request_inputs=["history"]).read_bytes()


def _written(write: object) -> bytes:
    file = io.BytesIO()
    with quiet():
        write(file)  # type: ignore[operator]  # a lambda above
    return file.getvalue()


def _with_weights_beside(model: onnx.ModelProto) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.onnx"
        onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=100)
        return {file.name: file.read_bytes() for file in path.parent.iterdir()}


def _operators() -> onnx.ModelProto:
    """A graph of operators with constants that say how large a result is, a branch and a loop."""
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    ranker (int64[rows] item) => (float[rows] score, float total)
    <int64[1] one = {1}, int64 zero = {0}, int64 three = {3}, int64 step = {1}, int64[2] size = {2, 3}, int64[1] repeats = {3},
     int64[2] pads = {1, 2}, int64[1] two = {2}, int64[1] begin = {0}, int64[2] grid = {3, 4}, float[2] ends = {0, 1}, bool yes = {1},
     float unit = {1}, int64[1, 1] place = {1}, float[1] update = {5}, float[3] scales = {1, 1, 2}>
    {
        picked = Gather(table, item)
        normal = LayerNormalization<axis=-1>(picked, weight)
        soft = Softmax(normal)
        x = ReduceSum<keepdims=0>(soft, one)
        filled = ConstantOfShape(size)
        wide = Expand(weight, grid)
        tiled = Tile(weight, repeats)
        counted = Range(zero, three, step)
        padded = Pad(weight, pads)
        hot = OneHot(counted, three, ends)
        cut = Slice(weight, begin, two)
        turned = Transpose<perm=[1, 0]>(wide)
        left, right = Split<axis=0, num_outputs=2>(weight)
        joined = Concat<axis=0>(left, right, cut)
        best, where = TopK(weight, two)
        summed = CumSum(weight, zero)
        placed = ScatterND(weight, place, update)
        crossed = Einsum<equation="i,i->">(weight, weight)
        sequence = Unsqueeze(picked, one)
        steps, last = GRU<hidden_size=2>(sequence, gates, recurrent)
        image = Reshape(wide, image_shape)
        larger = Resize(image, , scales)
        convolved = Conv<kernel_shape=[3], pads=[1, 1]>(image, kernel)
        branched = If(yes)
            <then_branch = then () => (float[rows] t) { t = Add(x, unit) }, else_branch = other () => (float[rows] e) { e = Sub(x, unit) }>
        score, looped = Loop(three, yes, branched)
            <body = body (int64 i, bool c, float[rows] v) => (bool d, float[rows] w, float[rows] s)
                { d = Identity(c)  w = Add(v, unit)  s = Identity(w) }>
        a = ReduceSum<keepdims=0>(filled)
        b = ReduceSum<keepdims=0>(tiled)
        c2 = ReduceSum<keepdims=0>(padded)
        d2 = ReduceSum<keepdims=0>(hot)
        e2 = ReduceSum<keepdims=0>(turned)
        f = ReduceSum<keepdims=0>(joined)
        g = ReduceSum<keepdims=0>(best)
        h = ReduceSum<keepdims=0>(summed)
        k = ReduceSum<keepdims=0>(placed)
        l = ReduceSum<keepdims=0>(steps)
        m = ReduceSum<keepdims=0>(larger)
        n = ReduceSum<keepdims=0>(convolved)
        total = Sum(a, b, c2, d2, e2, f, g, h, k, l, m, n, crossed)
    }
    """
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    shapes = {"table": (20, 4), "weight": (4,), "gates": (1, 6, 4), "recurrent": (1, 6, 2), "kernel": (3, 3, 3)}
    for name, shape in shapes.items():
        model.graph.initializer.append(numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    model.graph.initializer.append(helper.make_tensor("image_shape", TensorProto.INT64, [3], [1, 3, 4]))
    onnx.checker.check_model(model, full_check=True)
    return model
