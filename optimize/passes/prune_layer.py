"""Which units of one hidden layer stay, judged and made up for at the layers that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import onnx_ir as ir

from .hidden_layers import HiddenLayer, Sink
from .least_squares import Moments, Part, elimination, refit
from .linears import add_to_bias, bias_place, matrix_of, set_matrix
from .observe import Learned

# Fewer rows per fitted weight than this, and least squares learns the rows by heart.
ROWS_PER_WEIGHT = 3


class TooFewRows(Exception):
    """There are too few calibration rows to fit a layer on; `text` says which and how few."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class _Reader(msgspec.Struct, frozen=True):
    """A matrix that reads the units: its old weights `[inputs, outputs]` and what was learned about it."""

    sink: Sink
    learned: Learned
    weights: np.ndarray
    bias: bool


class Units:
    """The units of a layer, with everything needed to choose among them."""

    def __init__(self, layer: HiddenLayer, readers: Sequence[_Reader], *, refitted: bool) -> None:
        self._layer, self._readers, self._refitted = layer, readers, refitted
        self._order: np.ndarray | None = None

    @classmethod
    def of(cls, layer: HiddenLayer, learned: Mapping[str, Sequence[Learned]], *, refitted: bool) -> Units:
        """Of `layer` as it stands in the model, with the sums learned at each sink (by the tensor it gives)."""
        readers = []
        for sink in layer.sinks:
            matrix = matrix_of(sink.node)
            matrices = matrix if matrix.ndim == 3 else matrix[None]
            bias = matrix.ndim == 2 and bias_place(sink.node) is not None
            readers += [_Reader(sink, one, weights, bias) for one, weights in zip(learned[sink.gives], matrices, strict=True)]
        return cls(layer, readers, refitted=refitted)

    def best(self, count: int) -> np.ndarray:
        """The `count` units to keep, sorted; raises TooFewRows when there is not enough to fit the rest on."""
        self._check_rows(count)
        return np.sort(self._removal_order()[self._layer.width - count :])

    def within(self, bound: float, multiple: int) -> np.ndarray:
        """The fewest units, a multiple of `multiple`, with an error of at most `bound`; all of them when nothing less will do."""
        self._check_rows(multiple)
        counts = list(range(multiple, self._layer.width, multiple))
        low, high = 0, len(counts)
        while low < high:
            middle = (low + high) // 2
            if self.error(np.sort(self._removal_order()[self._layer.width - counts[middle] :])) <= bound:
                high = middle
            else:
                low = middle + 1
        if low == len(counts):
            return np.arange(self._layer.width)
        return self.best(counts[low])

    def error(self, chosen: np.ndarray) -> float:
        """The largest relative output error among the layers behind, on rows held out, when only the units `chosen` stay."""
        return max(
            _judged(reader).error(self._weights(reader, chosen, reader.learned.fit), self._kept(reader, chosen)) for reader in self._readers
        )

    def apply(self, model: ir.Model, chosen: np.ndarray) -> None:
        """Remove the other units, and give the layers behind their new weights, fitted on all rows."""
        matrices: dict[Sink, list[np.ndarray]] = {}
        for reader in self._readers:
            weights = self._weights(reader, chosen, reader.learned.both)
            matrices.setdefault(reader.sink, []).append(weights[:-1])
            place = bias_place(reader.sink.node) if reader.bias else None
            if place is not None and weights[-1].any():
                add_to_bias(model, place, weights[-1])
        self._layer.shrink(model, chosen)
        for sink, found in matrices.items():
            set_matrix(model, sink.node, np.stack(found) if matrix_of(sink.node).ndim == 3 else found[0])

    def _weights(self, reader: _Reader, chosen: np.ndarray, moments: Moments) -> np.ndarray:
        """`[kept + 1, outputs]`: fitted anew where that is wanted and helps on rows that were not fitted on, else as they were."""
        columns = self._kept(reader, chosen)
        plain = np.concatenate([reader.weights[columns], np.zeros((1, reader.weights.shape[1]))])
        if not self._refitted:
            return plain
        fitted = refit(reader.learned.fit, columns, reader.weights, bias=reader.bias)
        if _judged(reader).error(fitted, columns) > _judged(reader).error(plain, columns):
            return plain
        return fitted if moments is reader.learned.fit else refit(moments, columns, reader.weights, bias=reader.bias)

    def _kept(self, reader: _Reader, chosen: np.ndarray) -> np.ndarray:
        return self._layer.columns(reader.sink.span, chosen)

    def _removal_order(self) -> np.ndarray:
        if self._order is None:
            self._order = self._by_elimination() if self._refitted else self._by_importance()
        return self._order

    def _by_elimination(self) -> np.ndarray:
        width = np.arange(self._layer.width)[:, None]
        return elimination([Part(r.learned.fit, r.weights, r.sink.span.offset + width, r.bias) for r in self._readers])

    def _by_importance(self) -> np.ndarray:
        """By root mean square of the activation times the norm of the outgoing weights, over all layers behind."""
        total = np.zeros(self._layer.width)
        for reader in self._readers:
            columns = reader.sink.span.offset + np.arange(self._layer.width)
            both = reader.learned.both
            total += np.diag(both.gram)[columns] / both.total * (reader.weights[columns] ** 2).sum(axis=1)
        # Of equal ones the later unit goes first, so that the same input gives the same model.
        return np.argsort(-total, kind="stable")[::-1]

    def _check_rows(self, count: int) -> None:
        for reader in self._readers if self._refitted else ():
            others = reader.sink.span.wide - self._layer.width
            wanted, found = ROWS_PER_WEIGHT * (count + others), reader.learned.fit.distinct
            if found < wanted:
                text = f"'{reader.sink.gives}' has {found} different rows to fit {count + others} weights on, {wanted} are needed"
                raise TooFewRows(text)


def _judged(reader: _Reader) -> Moments:
    """Rows to judge by; with a single request there are no others than those that were fitted on."""
    return reader.learned.held_out if reader.learned.held_out.rows else reader.learned.fit
