"""Every model of torch-rechub, by its plain forward unless `kind` says otherwise; most take one dict of tensors."""

# The package is not in the environment that types are checked in, and has none.
# mypy: disable-error-code="import-not-found, no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
from torch_rechub.models import generative, matching, multi_task, ranking
from torch_rechub.models.generative.tiger import TIGERModel
from torch_rechub.models.matching import dssm_senet
from transformers.models.t5.configuration_t5 import T5Config

from . import rechub_inputs as draws
from .case import Args, Case
from .draw import CATEGORIES, HISTORY, ITEMS, USERS, Draw

PACKAGE = "torch-rechub"
WIDTH = 8
TASKS = ["classification", "classification"]


def _mlp() -> dict[str, Any]:
    # A new dict per model: some models write into it.
    return {"dims": [32, 16]}


def _tower() -> dict[str, Any]:
    # PReLU as in the package's own examples; with ReLU whole towers can be 0.
    return {**_mlp(), "activation": "prelu"}


def _sparse(width: int = WIDTH, times: int = 1) -> list[object]:
    """User, item and category; tables `times` as long for field-aware models."""
    sizes = {"user": USERS, "item": ITEMS, "category": CATEGORIES}
    return [SparseFeature(name, size * times, width, padding_idx=0) for name, size in sizes.items()]


def _user() -> list[object]:
    return [SparseFeature("user", USERS, WIDTH), SparseFeature("segment", CATEGORIES, WIDTH)]


def _item() -> list[object]:
    return [SparseFeature("item", ITEMS, WIDTH, padding_idx=0), SparseFeature("category", CATEGORIES, WIDTH, padding_idx=0)]


def _target() -> list[object]:
    return [SparseFeature("item", ITEMS, WIDTH, padding_idx=0)]


def _history(pooling: str = "concat", name: str = "history") -> list[object]:
    return [SequenceFeature(name, ITEMS, WIDTH, pooling=pooling, shared_with="item", padding_idx=0)]


def _negatives() -> list[object]:
    return [SequenceFeature("negatives", ITEMS, WIDTH, pooling="concat", shared_with="item", padding_idx=0)]


def _dense() -> list[object]:
    return [DenseFeature("price"), DenseFeature("age")]


def _all() -> list[object]:
    return [*_sparse(), *_dense()]


def _case(name: str, kind: str, build: Callable[[], torch.nn.Module], inputs: Callable[[Draw], Args], scale: float = 1.0) -> Case:
    return Case(name=name, package=PACKAGE, kind=kind, build=build, inputs=inputs, scale=scale)


def _bst() -> torch.nn.Module:
    return ranking.BST([*_user()[:1], *_dense()], _history(), _target(), {"dims": [32, 16]}, nhead=2, num_layers=1, max_seq_len=HISTORY + 1)


def _din() -> torch.nn.Module:
    return ranking.DIN(_user()[:1], _history(), _target(), _mlp(), {"dims": [16], "use_softmax": False})


def _dien() -> torch.nn.Module:
    return ranking.DIEN([*_user()[:1], *_dense()], _history(), _history(name="unseen"), _target(), _mlp())


def _field_aware(fat: bool) -> torch.nn.Module:
    linear, cross = _sparse(1), _sparse(times=3)
    if fat:
        return ranking.FatDeepFFM(linear, cross, embed_dim=WIDTH, reduction_ratio=1, mlp_params=_mlp())
    return ranking.DeepFFM(linear, cross, embed_dim=WIDTH, mlp_params=_mlp())


def _facebook() -> torch.nn.Module:
    negative = [
        SparseFeature("negative", ITEMS, WIDTH, shared_with="item"),
        SparseFeature("negative_category", CATEGORIES, WIDTH, shared_with="category"),
    ]
    return matching.FaceBookDSSM([*_user(), *_history("mean")], _item(), negative, _tower(), _tower())


def _sampling_corrected() -> torch.nn.Module:
    users = [*_user(), *_history("mean")]
    return matching.YoutubeSBC(users, _item(), [DenseFeature("weight")], _tower(), _tower(), batch_size=4096, n_neg=0)


def _sine() -> torch.nn.Module:
    sizes = {"num_items": ITEMS, "embedding_dim": WIDTH, "hidden_dim": 16, "num_concept": 10, "num_intention": 4, "seq_max_len": HISTORY}
    return matching.SINE(["history"], ["item"], ["negatives"], **sizes)


def _sasrec() -> torch.nn.Module:
    features = [SequenceFeature("seq", ITEMS, WIDTH, pooling="concat")]
    features += [SequenceFeature(name, ITEMS, WIDTH, pooling="concat", shared_with="seq") for name in ("pos", "neg")]
    return matching.SASRec(features, max_len=HISTORY)


def _session_history() -> object:
    return SequenceFeature("history", ITEMS, WIDTH, pooling="concat", padding_idx=0)


def _hstu() -> torch.nn.Module:
    return generative.HSTUModel(ITEMS, d_model=16, n_heads=2, n_layers=2, dqk=8, dv=8, max_seq_len=HISTORY, num_time_buckets=32)


def _hllm() -> torch.nn.Module:
    table = torch.randn(ITEMS, 16)
    return generative.HLLMModel(table, ITEMS, d_model=16, n_heads=2, n_layers=2, max_seq_len=HISTORY, num_time_buckets=64)


class NextCode(torch.nn.Module):
    """TIGER as beam search drives it: the history's codes and the codes found so far give logits for the next one."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
        self.model = TIGERModel(T5Config(vocab_size=ITEMS, decoder_start_token_id=0, use_cache=False, **sizes))

    def forward(self, codes: torch.Tensor, mask: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=codes, attention_mask=mask, decoder_input_ids=found).logits
        return logits[:, -1]


class SemanticIds(torch.nn.Module):
    """RQ-VAE as it is used after training: an item's embedding gives its codes."""

    def __init__(self) -> None:
        super().__init__()
        self.model = generative.RQVAEModel(in_dim=24, num_emb_list=[16, 16, 16], e_dim=8, layers=[16], sk_epsilons=[0.0, 0.0, 0.003])

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        codes: torch.Tensor = self.model.get_indices(embedding)
        return codes


def _towers() -> tuple[list[object], list[object]]:
    return [*_user(), *_history("mean")], _item()


def _task_towers() -> list[dict[str, Any]]:
    return [{"dims": [8]}, {"dims": [8]}]


def _shared_bottom() -> torch.nn.Module:
    return multi_task.SharedBottom(_all(), TASKS, _mlp(), _task_towers())


def _mmoe() -> torch.nn.Module:
    return multi_task.MMOE(_all(), TASKS, 3, _mlp(), _task_towers())


def _ple() -> torch.nn.Module:
    return multi_task.PLE(_all(), TASKS, 2, 2, 1, _mlp(), _task_towers())


def _esmm() -> torch.nn.Module:
    return multi_task.ESMM(_sparse()[:1], _sparse()[1:], _mlp(), _mlp())


CASES = (
    _case("WideDeep", "ranking", lambda: ranking.WideDeep(_sparse(), _all(), {**_mlp(), "dropout": 0.2}), draws.features),
    _case("DeepFM", "ranking", lambda: ranking.DeepFM(_all(), _sparse(), {**_mlp(), "dropout": 0.2}), draws.features),
    _case("DCN", "ranking", lambda: ranking.DCN(_all(), 2, _mlp()), draws.features),
    _case("DCNv2 (low rank, parallel)", "ranking", lambda: ranking.DCNv2(_all(), 2, _mlp(), low_rank=4, num_experts=3), draws.features),
    _case(
        "DCNv2 (full rank, stacked)",
        "ranking",
        lambda: ranking.DCNv2(_all(), 2, _mlp(), model_structure="stacked", use_low_rank_mixture=False),
        draws.features,
    ),
    _case("EDCN", "ranking", lambda: ranking.EDCN(_all(), 2, _mlp(), bridge_type="attention_pooling"), draws.features),
    _case("AFM", "ranking", lambda: ranking.AFM(_sparse(), WIDTH, t=16), draws.sparse_only),
    _case("FiBiNet", "ranking", lambda: ranking.FiBiNet(_sparse(), _mlp()), draws.sparse_only),
    _case("DeepFFM", "ranking", lambda: _field_aware(False), draws.sparse_only),
    _case("FatDeepFFM", "ranking", lambda: _field_aware(True), draws.sparse_only),
    _case("AutoInt", "ranking", lambda: ranking.AutoInt(_sparse(), _dense(), num_layers=2, mlp_params=_mlp()), draws.features),
    _case("BST", "ranking", _bst, draws.with_history),
    _case("DIN", "ranking", _din, draws.with_history),
    _case("DIEN", "ranking, gives its auxiliary loss too", _dien, draws.with_histories),
    _case("DSSM", "matching", lambda: matching.DSSM(*_towers(), _tower(), _tower()), draws.pair),
    _case("DSSM (SENet)", "matching", lambda: dssm_senet.DSSM(_user(), _item(), _tower(), _tower()), draws.pair, scale=2.0),
    _case("FaceBookDSSM", "matching, an item and a negative", _facebook, draws.pair_and_negative),
    _case(
        "YoutubeDNN",
        "matching, an item and negatives",
        lambda: matching.YoutubeDNN([*_user(), *_history("mean")], _target(), _negatives(), {"dims": [32, WIDTH], "activation": "prelu"}),
        draws.pair_and_negatives,
    ),
    _case("YoutubeSBC", "matching, own item only (n_neg=0)", _sampling_corrected, draws.pair_and_weight),
    _case(
        "MIND",
        "matching, an item and negatives",
        lambda: matching.MIND(_user(), _history(), _target(), _negatives(), HISTORY),
        draws.pair_and_negatives,
    ),
    _case(
        "MIND (dynamic interests)",
        "matching, an item and negatives",
        lambda: matching.MIND(_user(), _history(), _target(), _negatives(), HISTORY, dynamic_interest=True),
        draws.pair_and_negatives,
    ),
    _case(
        "ComirecDR",
        "matching, an item and negatives",
        lambda: matching.ComirecDR(_user(), _history(), _target(), _negatives(), HISTORY),
        draws.pair_and_negatives,
    ),
    _case(
        "ComirecSA",
        "matching, an item and negatives",
        lambda: matching.ComirecSA(_user(), _history(), _target(), _negatives()),
        draws.pair_and_negatives,
    ),
    _case(
        "GRU4Rec",
        "matching, an item and negatives",
        lambda: matching.GRU4Rec(_user(), _history(), _target(), _negatives(), {"dims": [32, WIDTH], "activation": "prelu"}),
        draws.pair_and_negatives,
    ),
    _case("SINE", "matching, an item and negatives", _sine, draws.pair_and_negatives),
    _case("NARM", "matching, history and item", lambda: matching.NARM(_session_history(), 16, 0.2, 0.2, _target()[0]), draws.session),
    _case("STAMP", "matching, history and item", lambda: matching.STAMP(_session_history(), 0.3, 0.3, _target()[0]), draws.session),
    _case("SASRec", "matching, next items and negatives", _sasrec, draws.next_items),
    _case("SharedBottom", "multi-task", _shared_bottom, draws.features),
    _case("ESMM", "multi-task", _esmm, draws.sparse_only),
    _case("MMOE", "multi-task", _mmoe, draws.features),
    _case("PLE", "multi-task", _ple, draws.features),
    _case("AITM", "multi-task", lambda: multi_task.AITM(_all(), 2, _mlp(), _task_towers()), draws.features),
    _case("HSTU", "generative, logits of every item at every position", _hstu, draws.timed),
    _case("HLLM", "generative, logits of every item at every position", _hllm, draws.timed),
    _case("TIGER", "generative, one step of beam search", NextCode, draws.codes),
    _case("RQVAE", "generative, get_indices", SemanticIds, lambda draw: (draw.dense(24),)),
)
