"""Every sequential recommender of RecBole, scoring history and item through `predict` as RecBole's own evaluation calls it.

Settings are RecBole's defaults for each model with smaller sizes; a stand-in replaces its data set, which would have to be files.
"""

# The package is not in the environment that types are checked in, and has none.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch

from .case import Args, Case
from .draw import CATEGORIES, HISTORY, ITEMS, USERS, Draw

# RecBole's Config asks numpy for names that numpy 2 no longer has.
for _old, _new in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
    setattr(np, _old, _new)

from recbole.config import Config  # noqa: E402 - needs those names
from recbole.data.interaction import Interaction  # noqa: E402
from recbole.data.transform import construct_transform  # noqa: E402
from recbole.utils import FeatureType, get_model  # noqa: E402

PACKAGE = "recbole"
WIDTH = 16
TAGS = 3
SIZES: dict[str, object] = {
    "embedding_size": WIDTH,
    "hidden_size": WIDTH,
    "inner_size": 2 * WIDTH,
    "kg_embedding_size": WIDTH,
    "mlp_hidden_size": [32, 16],
    "prototype_size": 20,
}


class Tables:
    """What models ask RecBole's data set for: how many ids each field has, item and user features, and knowledge-graph vectors."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.field2type = {
            "user_id": FeatureType.TOKEN,
            "gender": FeatureType.TOKEN,
            "item_id": FeatureType.TOKEN,
            "brand": FeatureType.TOKEN,
            "class": FeatureType.TOKEN_SEQ,
        }
        self.field2seqlen = {"item_id_list": HISTORY, "class": TAGS}
        self.user_num, self.item_num = USERS, ITEMS
        draw = torch.Generator().manual_seed(0)
        brand = torch.randint(1, CATEGORIES, (ITEMS,), generator=draw)
        tags = torch.randint(0, CATEGORIES, (ITEMS, TAGS), generator=draw)
        self._items = {"item_id": torch.arange(ITEMS), "brand": brand, "class": tags}
        self._users = {"user_id": torch.arange(USERS), "gender": torch.randint(1, 3, (USERS,), generator=draw)}
        self.inter_feat = Interaction({"item_id": torch.arange(ITEMS)})

    def num(self, field: str) -> int:
        sizes = {"user_id": USERS, "gender": 3, "item_id": ITEMS, "brand": CATEGORIES, "class": CATEGORIES}
        return {**sizes, "entity_id": ITEMS, "relation_id": 6}[field]

    def get_item_feature(self) -> Interaction:
        return Interaction(dict(self._items))

    def get_user_feature(self) -> Interaction:
        return Interaction(dict(self._users))

    def get_preload_weight(self, field: str) -> np.ndarray:
        """float32 [entities or relations, width] for `ent_id` or `rel_id`."""
        rows = ITEMS if field == "ent_id" else 5
        return np.random.default_rng(0).normal(0, 0.5, (rows, WIDTH)).astype(np.float32)


class Predict(torch.nn.Module):
    """A RecBole model as a module whose forward scores."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, interaction: dict[str, torch.Tensor]) -> torch.Tensor:
        score: torch.Tensor = self.model.predict(interaction)  # type: ignore[operator] # a method that nn.Module does not know
        return score


class PickFromAll(Predict):
    """For models that refuse `predict`: score every item, then pick one."""

    def forward(self, interaction: dict[str, torch.Tensor]) -> torch.Tensor:
        scores: torch.Tensor = self.model.full_sort_predict(interaction)  # type: ignore[operator] # a method that nn.Module does not know
        return scores.gather(1, interaction["item_id"][:, None]).squeeze(1)


def _build(name: str, adapter: Callable[[torch.nn.Module], torch.nn.Module], settings: dict[str, object]) -> torch.nn.Module:
    arguments, sys.argv = sys.argv, sys.argv[:1]  # Config would read the command line of this process
    try:
        sizes = {"use_gpu": False, "train_neg_sample_args": None, "MAX_ITEM_LIST_LENGTH": HISTORY, **SIZES, **settings}
        config = Config(model=name, dataset="zoo", config_dict=sizes)
    finally:
        sys.argv = arguments
    construct_transform(config)  # names the fields that some models read
    return adapter(get_model(name)(config, Tables(config)))


def _fields(*more: str) -> Callable[[Draw], Args]:
    """Every case has a history, its length and an item; `more` are the other fields that its model reads."""

    def inputs(draw: Draw) -> Args:
        seen, length = draw.history(ITEMS), draw.lengths
        # Padding in front, as RecBole's inverse_itemseq gives it.
        shift = (torch.arange(draw.width) + length[:, None]) % draw.width
        optional = {
            "user_id": draw.ids(USERS),
            "neg_item_id_list": torch.where(seen > 0, draw.ids(ITEMS, draw.width), 0),
            "Inverse_item_id_list": seen.gather(1, shift),
        }
        return ({"item_id_list": seen, "item_length": length, "item_id": draw.ids(ITEMS), **{name: optional[name] for name in more}},)

    return inputs


def _case(
    name: str,
    *more: str,
    label: str = "",
    kind: str = "sequential",
    adapter: Callable[[torch.nn.Module], torch.nn.Module] = Predict,
    scale: float = 1.0,
    settings: dict[str, object] | None = None,
) -> Case:
    return Case(
        name=label or name,
        package=PACKAGE,
        kind=kind,
        build=lambda: _build(name, adapter, settings or {}),
        inputs=_fields(*more),
        scale=scale,
    )


def _picked(name: str, scale: float) -> Case:
    return _case(name, kind="sequential, full_sort_predict at the item", adapter=PickFromAll, scale=scale)


BPR: dict[str, object] = {
    "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1, "alpha": 1.0, "dynamic": False, "candidate_num": 0}
}

# Where scores are probabilities over all items, `scale` decides how far they spread around one over the number of items.
CASES = (
    _case("BERT4Rec"),
    _case("Caser", "user_id"),
    _case("CORE", label="CORE (transformer)"),
    _case("CORE", label="CORE (average)", settings={"dnn_type": "ave"}),
    _case("DIEN", "user_id", "neg_item_id_list", settings=BPR),
    _case("DIN", "user_id", settings=BPR),
    _case("FDSA"),
    _case("FEARec"),
    _case("FOSSIL", "user_id"),
    _case("FPMC", "user_id", settings=BPR),
    _case("GCSAN"),
    _case("GRU4Rec"),
    _picked("GRU4RecCPR", 1.2),
    _case("GRU4RecF"),
    _case("GRU4RecKG"),
    _case("HGN", "user_id"),
    _case("HRM", "user_id"),
    _case("KSR"),
    _case("LightSANs"),
    _case("NARM"),
    _case("NextItNet"),
    _case("NPE", "user_id"),
    _case("RepeatNet", scale=2.0),
    _case("S3Rec"),
    _case("SASRec"),
    _picked("SASRecCPR", 0.6),
    _case("SASRecF"),
    _case("SHAN", "user_id", "Inverse_item_id_list"),
    _case("SINE"),
    _case("SRGNN"),
    _case("STAMP"),
    _case("TransRec", "user_id", settings=BPR),
)
