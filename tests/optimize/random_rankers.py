"""Small random rankers as ONNX graphs: layers of every kind, and now and then candidates that see one another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Dimensions by name: R rows, T past items; the rest are sizes.
Shape = tuple[int | str, ...]
WIDTH, USERS, ITEMS = 4, 7, 9


class RandomRanker:
    """Builds a graph by drawing operations; `request` names its request inputs."""

    request = ("user", "history", "context")

    def __init__(self, seed: int, *, mixing: bool = False) -> None:
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._values: list[tuple[str, Shape]] = []
        self._mixing = mixing
        self._inputs()
        for _ in range(int(self._random.integers(6, 16))):
            self._grow()
        self._score()

    def model(self) -> onnx.ModelProto:
        """The graph with inputs user [R], history [R, T], context [R, 4], item [R], price [R, 4], and one score per row."""
        inputs = [
            helper.make_tensor_value_info("user", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("history", TensorProto.INT64, ["rows", "past"]),
            helper.make_tensor_value_info("context", TensorProto.FLOAT, ["rows", WIDTH]),
            helper.make_tensor_value_info("item", TensorProto.INT64, ["rows"]),
            helper.make_tensor_value_info("price", TensorProto.FLOAT, ["rows", WIDTH]),
        ]
        output = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"])
        graph = helper.make_graph(self._nodes, "ranker", inputs, [output], self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        return model

    # -- drawing ---------------------------------------------------------------------------------------------------------------

    def _inputs(self) -> None:
        users, items = (self._weight((count, WIDTH)) for count in (USERS, ITEMS))
        self._op("Gather", [users, "user"], ("R", WIDTH))
        self._op("Gather", [items, "item"], ("R", WIDTH))
        self._op("Gather", [items, "history"], ("R", "T", WIDTH))
        self._values += [("context", ("R", WIDTH)), ("price", ("R", WIDTH))]

    def _grow(self) -> None:
        steps: list[Callable[[], None]] = [
            *(self._unary, self._binary, self._linear, self._concat, self._pool, self._attend, self._crossed, self._norm),
            *(self._encode, self._merge_heads, self._flat_linear, self._last),
        ]
        if self._mixing:
            steps += [self._mix]
        steps[int(self._random.integers(len(steps)))]()

    def _unary(self) -> None:
        name, shape = self._pick()
        self._op(str(self._random.choice(["Relu", "Sigmoid", "Tanh", "Neg"])), [name], shape)

    def _binary(self) -> None:
        a, b = self._pick(2), self._pick(2)
        self._op(str(self._random.choice(["Add", "Sub", "Mul"])), [a[0], b[0]], ("R", WIDTH))

    def _linear(self) -> None:
        name, shape = self._pick()
        if len(shape) == 2 and self._random.random() < 0.5:
            self._op("Gemm", [name, self._weight((WIDTH, WIDTH)), self._weight((WIDTH,))], shape, transB=int(self._random.integers(2)))
        else:
            product = self._op("MatMul", [name, self._weight((WIDTH, WIDTH))], shape)
            self._op("Add", [product, self._weight((WIDTH,))], shape)

    def _concat(self) -> None:
        parts = [self._pick(2)[0] for _ in range(int(self._random.integers(2, 4)))]
        joined = self._op("Concat", parts, None, axis=-1)
        self._op("MatMul", [joined, self._weight((WIDTH * len(parts), WIDTH))], ("R", WIDTH))

    def _pool(self) -> None:
        name, _ = self._pick(3)
        self._op(str(self._random.choice(["ReduceSum", "ReduceMean", "ReduceMax"])), [name, self._ints(1)], ("R", WIDTH), keepdims=0)

    def _attend(self) -> None:
        past, query = self._pick(3)[0], self._pick(2)[0]
        column = self._op("Unsqueeze", [query, self._ints(2)], None)
        weights = self._op("Softmax", [self._op("MatMul", [past, column], None)], None, axis=1)
        if self._random.random() < 0.5:
            self._op("ReduceSum", [self._op("Mul", [weights, past], None), self._ints(1)], ("R", WIDTH), keepdims=0)
        else:
            turned = self._op("Transpose", [weights], None, perm=[0, 2, 1])
            self._op("Squeeze", [self._op("MatMul", [turned, past], None), self._ints(1)], ("R", WIDTH))

    def _crossed(self) -> None:
        """Target attention's input: [q, h, q - h, q * h] through a linear layer."""
        past, query = self._pick(3)[0], self._pick(2)[0]
        q = self._op("Expand", [self._op("Unsqueeze", [query, self._ints(1)], None), self._op("Shape", [past], None)], None)
        parts = [q, past, self._op("Sub", [q, past], None), self._op("Mul", [q, past], None)]
        chosen = [parts[i] for i in sorted(self._random.choice(4, int(self._random.integers(1, 5)), replace=False).tolist())]
        joined = self._op("Concat", chosen, None, axis=-1)
        product = self._op("MatMul", [joined, self._weight((WIDTH * len(chosen), WIDTH))], None)
        self._op("Sigmoid", [self._op("Add", [product, self._weight((WIDTH,))], None)], ("R", "T", WIDTH))

    def _norm(self) -> None:
        name, shape = self._pick()
        self._op("LayerNormalization", [name, self._weight((WIDTH,)), self._weight((WIDTH,))], shape, axis=-1)

    def _encode(self) -> None:
        name, _ = self._pick(3)
        turned = self._op("Transpose", [name], None, perm=[1, 0, 2])
        weights = [self._weight((1, 3 * WIDTH, WIDTH)), self._weight((1, 3 * WIDTH, WIDTH))]
        states = self._op("GRU", [turned, *weights], None, hidden_size=WIDTH)
        self._op("Transpose", [self._op("Squeeze", [states, self._ints(1)], None)], ("R", "T", WIDTH), perm=[1, 0, 2])

    def _merge_heads(self) -> None:
        """Two heads of self-attention, merged with the rows as PyTorch does: [T, R * heads, width / heads]."""
        name, _ = self._pick(3)
        size = self._op("Shape", [name], None, start=1, end=2)
        turned = self._op("Transpose", [name], None, perm=[1, 0, 2])
        shape = self._op("Concat", [size, self._ints(-1, WIDTH // 2)], None, axis=0)
        heads = self._op("Transpose", [self._op("Reshape", [turned, shape], None)], None, perm=[1, 0, 2])
        scores = self._op("MatMul", [heads, self._op("Transpose", [heads], None, perm=[0, 2, 1])], None)
        mixed = self._op("MatMul", [self._op("Softmax", [scores], None, axis=-1), heads], None)
        back = self._op("Concat", [size, self._ints(-1, WIDTH)], None, axis=0)
        whole = self._op("Reshape", [self._op("Transpose", [mixed], None, perm=[1, 0, 2]), back], None)
        self._op("Transpose", [whole], ("R", "T", WIDTH), perm=[1, 0, 2])

    def _flat_linear(self) -> None:
        name, shape = self._pick(3)
        flat = self._op("Reshape", [name, self._ints(-1, WIDTH)], None)
        product = self._op("Gemm", [flat, self._weight((WIDTH, WIDTH)), self._weight((WIDTH,))], None)
        self._op("Reshape", [product, self._op("Shape", [name], None)], shape)

    def _last(self) -> None:
        name, _ = self._pick(3)
        self._op("Gather", [name, self._scalar(-1)], ("R", WIDTH), axis=1)

    def _mix(self) -> None:
        """Candidates that see one another."""
        name, _ = self._pick(2)
        choice = int(self._random.integers(3))
        if choice == 0:
            self._op("Softmax", [name], ("R", WIDTH), axis=0)
        elif choice == 1:
            self._op("Sub", [name, self._op("ReduceMean", [name, self._ints(0)], None, keepdims=1)], ("R", WIDTH))
        else:
            pairs = self._op("MatMul", [name, self._op("Transpose", [name], None, perm=[1, 0])], None)
            self._op("MatMul", [self._op("Softmax", [pairs], None, axis=-1), name], ("R", WIDTH))

    def _score(self) -> None:
        flat = [name for name, shape in self._values if len(shape) == 2][-4:]
        joined = self._op("Concat", [*flat, "price"], None, axis=-1)
        hidden = self._op("Tanh", [self._op("MatMul", [joined, self._weight((WIDTH * (len(flat) + 1), WIDTH))], None)], None)
        column = self._op("MatMul", [hidden, self._weight((WIDTH, 1))], None)
        self._nodes.append(helper.make_node("Squeeze", [column, self._ints(1)], ["score"]))

    # -- pieces ----------------------------------------------------------------------------------------------------------------

    def _pick(self, rank: int | None = None) -> tuple[str, Shape]:
        fitting = [value for value in self._values if rank is None or len(value[1]) == rank]
        return fitting[int(self._random.integers(len(fitting)))]

    def _op(self, op: str, inputs: list[str], shape: Shape | None, **attributes: int | list[int]) -> str:
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], name=f"n{len(self._nodes)}", **attributes))  # type: ignore[arg-type]  # they are attributes
        if shape is not None:
            self._values.append((name, shape))
        return name

    def _weight(self, shape: tuple[int, ...]) -> str:
        return self._constant(self._random.normal(0, 0.5, shape).astype(np.float32))

    def _ints(self, *numbers: int) -> str:
        return self._constant(np.array(numbers, dtype=np.int64))

    def _scalar(self, number: int) -> str:
        return self._constant(np.array(number, dtype=np.int64))

    def _constant(self, array: np.ndarray) -> str:
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(array, name))
        return name


def feeds(random: np.random.Generator, requests: int, candidates: int, past: int) -> dict[str, np.ndarray]:
    """Rows of several requests, request inputs repeated for every candidate."""
    rows = requests * candidates
    repeat = np.repeat(np.arange(requests), candidates)
    return {
        "user": random.integers(0, USERS, requests)[repeat],
        "history": random.integers(0, ITEMS, (requests, past))[repeat],
        "context": random.normal(size=(requests, WIDTH)).astype(np.float32)[repeat],
        "item": random.integers(0, ITEMS, rows),
        "price": random.normal(size=(rows, WIDTH)).astype(np.float32),
    }
