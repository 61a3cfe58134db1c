"""Every model of deepctr-torch; each takes one float32 matrix whose columns are ids, dense values, padded histories and their lengths."""

# The package is not in the environment that types are checked in, and has none.
# mypy: disable-error-code="import-not-found, no-any-return"

from __future__ import annotations

from collections.abc import Callable

import torch
from deepctr_torch import models
from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat

from .case import Args, Case
from .draw import CATEGORIES, HISTORY, ITEMS, USERS, Draw

PACKAGE = "deepctr-torch"
WIDTH = 8
HIDDEN = (32, 16)
EXPERTS = {"expert_dnn_hidden_units": HIDDEN, "gate_dnn_hidden_units": (8,), "tower_dnn_hidden_units": (8,)}


def _sparse() -> list[object]:
    return [SparseFeat("user", USERS, WIDTH), SparseFeat("item", ITEMS, WIDTH), SparseFeat("category", CATEGORIES, WIDTH)]


def _dense() -> list[object]:
    return [DenseFeat("price", 1), DenseFeat("context", 3)]


def _pooled() -> list[object]:
    """A history pooled by its length and one pooled by what is not 0, with tables of their own: some models count tables as fields."""
    seen = VarLenSparseFeat(SparseFeat("seen", ITEMS, WIDTH), HISTORY, "mean", length_name="seen_length")
    return [seen, VarLenSparseFeat(SparseFeat("tags", CATEGORIES, WIDTH), HISTORY, "sum")]


def _attended() -> list[object]:
    """Histories of the target's own features, as DIN and DIEN want them."""
    items = SparseFeat("hist_item", ITEMS, WIDTH, embedding_name="item")
    categories = SparseFeat("hist_category", CATEGORIES, WIDTH, embedding_name="category")
    return [VarLenSparseFeat(feature, HISTORY, length_name="seen_length") for feature in (items, categories)]


def _columns(draw: Draw, *, dense: bool = True) -> Args:
    """Columns in the order of _sparse, _dense and _pooled."""
    ids = [draw.ids(size)[:, None] for size in (USERS, ITEMS, CATEGORIES)]
    values = [draw.dense(4)] if dense else []
    histories = [draw.history(ITEMS), draw.lengths[:, None], draw.history(CATEGORIES)]
    return (torch.cat([column.float() for column in (*ids, *values, *histories)], dim=1),)


def _without_dense(draw: Draw) -> Args:
    return _columns(draw, dense=False)


def _attended_columns(draw: Draw) -> Args:
    """Columns in the order of _sparse, _dense and _attended."""
    ids = [draw.ids(size)[:, None] for size in (USERS, ITEMS, CATEGORIES)]
    histories = [draw.history(ITEMS), draw.lengths[:, None], draw.history(CATEGORIES)]
    return (torch.cat([column.float() for column in (*ids, draw.dense(4), *histories)], dim=1),)


def _all() -> list[object]:
    return [*_sparse(), *_dense(), *_pooled()]


def _ids() -> list[object]:
    return [*_sparse(), *_pooled()]


def _ranking(name: str, build: Callable[[], torch.nn.Module], inputs: Callable[[Draw], Args] = _columns) -> Case:
    return Case(name=name, package=PACKAGE, kind="ranking", build=build, inputs=inputs)


def _attention(name: str, build: Callable[[], torch.nn.Module]) -> Case:
    return _ranking(name, build, _attended_columns)


def _multitask(name: str, build: Callable[[], torch.nn.Module]) -> Case:
    return Case(name=name, package=PACKAGE, kind="multi-task", build=build, inputs=_columns)


def _din() -> torch.nn.Module:
    return models.DIN([*_sparse(), *_dense(), *_attended()], ["item", "category"], dnn_hidden_units=HIDDEN, att_hidden_size=(16, 8))


def _dien(gru: str) -> torch.nn.Module:
    columns = [*_sparse(), *_dense(), *_attended()]
    return models.DIEN(columns, ["item", "category"], gru_type=gru, dnn_hidden_units=HIDDEN, att_hidden_units=(16, 8))


def _afn() -> torch.nn.Module:
    return models.AFN(_ids(), _ids(), ltl_hidden_size=32, afn_dnn_hidden_units=HIDDEN)


CASES = (
    _ranking("WDL", lambda: models.WDL(_all(), _all(), dnn_hidden_units=HIDDEN)),
    _ranking("DeepFM", lambda: models.DeepFM(_all(), _all(), dnn_hidden_units=HIDDEN, dnn_use_bn=True)),
    _ranking("xDeepFM", lambda: models.xDeepFM(_all(), _all(), dnn_hidden_units=HIDDEN, cin_layer_size=(16, 8))),
    _ranking("AFM", lambda: models.AFM(_ids(), _ids()), _without_dense),
    _ranking("DIFM", lambda: models.DIFM(_ids(), _ids(), dnn_hidden_units=HIDDEN), _without_dense),
    _ranking("IFM", lambda: models.IFM(_ids(), _ids(), dnn_hidden_units=HIDDEN), _without_dense),
    _ranking("AutoInt", lambda: models.AutoInt(_all(), _all(), dnn_hidden_units=HIDDEN)),
    _ranking("DCN (vector)", lambda: models.DCN(_all(), _all(), cross_parameterization="vector", dnn_hidden_units=HIDDEN)),
    _ranking("DCN (matrix)", lambda: models.DCN(_all(), _all(), cross_parameterization="matrix", dnn_hidden_units=HIDDEN)),
    _ranking("DCNMix", lambda: models.DCNMix(_all(), _all(), low_rank=8, dnn_hidden_units=HIDDEN)),
    _ranking("FiBiNET (all)", lambda: models.FiBiNET(_all(), _all(), bilinear_type="all", dnn_hidden_units=HIDDEN)),
    _ranking("FiBiNET (each)", lambda: models.FiBiNET(_all(), _all(), bilinear_type="each", dnn_hidden_units=HIDDEN)),
    _ranking("FiBiNET (interaction)", lambda: models.FiBiNET(_all(), _all(), dnn_hidden_units=HIDDEN)),
    _ranking("NFM", lambda: models.NFM(_all(), _all(), dnn_hidden_units=HIDDEN)),
    _ranking("MLR", lambda: models.MLR(_all())),
    _ranking("ONN", lambda: models.ONN(_all(), _all(), dnn_hidden_units=HIDDEN)),
    _ranking("PNN (inner)", lambda: models.PNN(_all(), dnn_hidden_units=HIDDEN)),
    _ranking("PNN (outer)", lambda: models.PNN(_all(), dnn_hidden_units=HIDDEN, use_inner=False, use_outter=True)),
    _ranking("CCPM", lambda: models.CCPM(_ids(), _ids(), conv_kernel_width=(3, 2), dnn_hidden_units=HIDDEN), _without_dense),
    _attention("DIN", _din),
    _attention("DIEN (GRU)", lambda: _dien("GRU")),
    _attention("DIEN (AIGRU)", lambda: _dien("AIGRU")),
    _attention("DIEN (AGRU)", lambda: _dien("AGRU")),
    _attention("DIEN (AUGRU)", lambda: _dien("AUGRU")),
    # It exponentiates sums of logarithms: wide weights would saturate every score.
    Case(name="AFN", package=PACKAGE, kind="ranking", build=_afn, inputs=_without_dense, scale=0.4),
    _multitask("SharedBottom", lambda: models.SharedBottom(_all(), bottom_dnn_hidden_units=HIDDEN, tower_dnn_hidden_units=(8,))),
    _multitask("ESMM", lambda: models.ESMM(_all(), tower_dnn_hidden_units=HIDDEN)),
    _multitask("MMOE", lambda: models.MMOE(_all(), **EXPERTS)),
    _multitask("PLE", lambda: models.PLE(_all(), **EXPERTS)),
)
