"""What the models of torch-rechub are called with: one dict of tensors for most."""

from __future__ import annotations

import torch

from .case import Args
from .draw import CATEGORIES, ITEMS, USERS, Draw

NEGATIVES = 3


def ids(draw: Draw) -> dict[str, torch.Tensor]:
    sizes = {"user": USERS, "item": ITEMS, "category": CATEGORIES}
    return {name: draw.ids(size) for name, size in sizes.items()}


def values(draw: Draw) -> dict[str, torch.Tensor]:
    return {"price": draw.dense(), "age": draw.dense()}


def sparse_only(draw: Draw) -> Args:
    return (ids(draw),)


def features(draw: Draw) -> Args:
    return ({**ids(draw), **values(draw)},)


def with_history(draw: Draw) -> Args:
    return ({**ids(draw), **values(draw), "history": draw.history(ITEMS)},)


def with_histories(draw: Draw) -> Args:
    seen = torch.where(draw.history(ITEMS) > 0, draw.ids(ITEMS, draw.width), 0)
    return ({**ids(draw), **values(draw), "history": draw.history(ITEMS), "unseen": seen},)


def pair(draw: Draw) -> Args:
    ids = {"user": draw.ids(USERS), "segment": draw.ids(CATEGORIES), "item": draw.ids(ITEMS), "category": draw.ids(CATEGORIES)}
    return ({**ids, "history": draw.history(ITEMS)},)


def pair_and_negative(draw: Draw) -> Args:
    (both,) = pair(draw)
    return ({**both, "negative": draw.ids(ITEMS), "negative_category": draw.ids(CATEGORIES)},)


def pair_and_negatives(draw: Draw) -> Args:
    (both,) = pair(draw)
    return ({**both, "negatives": draw.ids(ITEMS, NEGATIVES)},)


def pair_and_weight(draw: Draw) -> Args:
    (both,) = pair(draw)
    return ({**both, "weight": draw.dense() + 0.5},)


def session(draw: Draw) -> Args:
    return ({"history": draw.history(ITEMS), "item": draw.ids(ITEMS)},)


def next_items(draw: Draw) -> Args:
    following = [torch.where(draw.history(ITEMS) > 0, draw.ids(ITEMS, draw.width), 0) for _ in range(2)]
    return ({"seq": draw.history(ITEMS), "pos": following[0], "neg": following[1]},)


def timed(draw: Draw) -> Args:
    """Item ids and the seconds since each, up to a day."""
    return draw.history(ITEMS), draw.ids(86_400, draw.width)


def codes(draw: Draw) -> Args:
    codes = draw.history(ITEMS)
    return codes, (codes > 0).long(), torch.cat([torch.zeros(draw.rows, 1, dtype=torch.int64), draw.ids(ITEMS, 2)], dim=1)
