"""Blend: weights between those of the version before and of this one (WiSE-FT, Wortsman et al. 2022, arXiv:2109.01903)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from ...core import columns
from ...core.artifact import MODEL_FILE, ModelArtifact, ModelRef, StepRecord
from ...core.errors import RefusedStep
from ...core.requests import Requests
from ...quality.evaluate import evaluation_of, pair, scores_of_requests
from ...quality.metrics import Floats
from ...recipes.steps import Blend
from ...runtime.onnx_file import load
from ...runtime.onnx_session import OnnxSession, load_onnx
from ...runtime.session import SessionSettings
from ..blend.weights import Pair, match, mix
from ..context import StepContext
from ..convert.onnx_graph import save

_METRIC = "ndcg@10"
_ALPHAS = tuple(round(0.1 * i, 1) for i in range(11))
# Steps after which equal places of two models may hold different units.
_PLAIN_STEPS = {"export", "blend", "fuse", "precompute", "hoist_request"}


class _Point(msgspec.Struct, frozen=True, kw_only=True):
    """One alpha: NDCG@10 over the base's for everyone and in the worst segment, and the share of requests whose first item became wrong."""

    alpha: float
    overall: float
    worst: float
    segment: str
    negative_flips: float


def blend(step: Blend, context: StepContext) -> StepRecord:
    """Write (1 - alpha) base + alpha model; with alpha `auto`, the one with the best NDCG@10 whose worst segment keeps `floor`.

    Raises RefusedStep without a base, without labelled requests for `auto`, when the structures differ (the first difference is named),
    when a side is quantized or pruned, and when `auto` finds that no blend is better than one of the two models themselves.
    """
    where = f"blend {context.where}"
    base = context.base
    if base is None:
        raise RefusedStep(where, "needs the version before to blend with", fix="name it: --base v1.0")
    changed = next((s.kind for s in base.manifest.steps if s.kind not in _PLAIN_STEPS), None)
    if changed is not None:
        problem = f"the base {base.manifest.name} went through {changed}, after which its units are others"
        raise RefusedStep(where, problem, fix="blend the plain exports, and apply other steps to the result")
    model = load(context.source, where)
    pairs = match(load(base.model_path, where), model, where)
    judge = _Judge.of(base, context, where)
    chosen: _Point | None
    if step.alpha == "auto":
        if judge is None:
            fix = "give --requests FILE with a column 'label', or --alpha"
            raise RefusedStep(where, "needs labelled requests to choose alpha by", fix=fix)
        points = tuple(judge.point(model, pairs, alpha) for alpha in _ALPHAS)
        chosen = _choose(points, step.floor, base.manifest.name, where)
    else:
        points = () if judge is None else (judge.point(model, pairs, step.alpha),)
        chosen = points[0] if points else None
    alpha = step.alpha if chosen is None else chosen.alpha
    if isinstance(alpha, str):
        raise AssertionError("auto was resolved above")
    mix(pairs, alpha)
    save(model, context.target)
    return StepRecord(
        kind="blend",
        settings={"alpha": step.alpha, "floor": step.floor, "base": base.manifest.digest},
        summary=_summary(pairs, alpha, chosen, base.manifest.name),
        numbers={"alpha": alpha, "weights_blended": float(len(pairs)), **_numbers(points, chosen)},
    )


def _choose(points: tuple[_Point, ...], floor: float, base: str, where: str) -> _Point:
    holding = [point for point in points if point.worst >= floor]
    # Of equals the one nearest to the newer model.
    best = max(holding, key=lambda p: (p.overall, p.alpha))
    told = ", ".join(f"{p.alpha:g}: {p.overall:.4f} / {p.worst:.4f}" for p in points)
    if best.alpha == 0:
        problem = f"no blend that keeps {floor:g} in the worst segment is better than {base} itself"
        raise RefusedStep(where, f"{problem} (alpha: NDCG@10 overall / worst segment: {told})", fix=f"keep {base}, or lower the floor")
    if best.alpha == 1:
        problem = f"no blend is better than the model itself, which keeps {best.worst:.4f} in its worst segment"
        raise RefusedStep(where, f"{problem} (alpha: overall / worst: {told})", fix="nothing has to be repaired")
    return best


def _summary(pairs: list[Pair], alpha: float, chosen: _Point | None, base: str) -> str:
    grown = [pair for pair in pairs if pair.rows is not None]
    parts = [f"{1 - alpha:.2g} x {base} + {alpha:.2g} x this model in {len(pairs)} weights"]
    if grown:
        rows = ", ".join(f"{pair.value.name} {pair.rows} of {len(pair.treatment)} rows" for pair in grown[:5])
        parts.append(f"tables that grew keep their new rows ({rows})")
    if chosen is not None:
        parts.append(f"NDCG@10 {chosen.overall:.4f} of {base}'s, worst segment {chosen.segment} {chosen.worst:.4f}")
        parts.append(f"negative flips {chosen.negative_flips:.2%}")
    return "; ".join(parts)


def _numbers(points: tuple[_Point, ...], chosen: _Point | None) -> dict[str, float]:
    """The sweep: `overall_at_0.3`, `worst_at_0.3`."""
    found = {f"{name}_at_{p.alpha:g}": value for p in points for name, value in (("overall", p.overall), ("worst", p.worst))}
    return found if chosen is None else {**found, "negative_flips": chosen.negative_flips}


class _Judge:
    """Labelled requests and the base's scores on them."""

    def __init__(self, base: OnnxSession, context: StepContext, requests: Requests, labels: list[Floats]) -> None:
        self._context, self._requests, self._labels = context, requests, labels
        self._scores = scores_of_requests(base, requests)
        self._control = evaluation_of(base.ref, requests, self._scores, metrics=[_METRIC])

    @classmethod
    def of(cls, base: ModelArtifact, context: StepContext, where: str) -> _Judge | None:
        """None where there are no labelled requests."""
        requests = context.requests
        if requests is None or requests.labels is None:
            return None
        return cls(OnnxSession.open(base, SessionSettings()), context, requests, requests.labels)

    def point(self, model: ir.Model, pairs: list[Pair], alpha: float) -> _Point:
        """Mix the weights and rank every request with them."""
        mix(pairs, alpha)
        self._context.progress("blending", int(10 * alpha), 10)
        with tempfile.TemporaryDirectory(prefix="liftgate-") as folder:
            save(model, Path(folder) / MODEL_FILE)
            ref = ModelRef(name=f"alpha {alpha:g}", digest="", runtime="onnxruntime", size_bytes=0)
            session = OnnxSession(load_onnx(Path(folder) / MODEL_FILE, SessionSettings()), self._context.signature, ref)
            scores = scores_of_requests(session, self._requests)
        parts = pair(self._control, evaluation_of(ref, self._requests, scores, metrics=[_METRIC]))
        ratios = {part.segment: part.paired.ratio.value for part in parts}
        known = {segment: ratio for segment, ratio in ratios.items() if ratio is not None}
        if columns.ALL_SEGMENTS not in known:
            problem = "NDCG@10 of the base is 0 or undefined on these requests"
            raise RefusedStep(f"blend {self._context.where}", problem, fix="give requests with relevant candidates")
        segment = min(known, key=lambda name: known[name])
        return _Point(
            alpha=alpha,
            overall=known[columns.ALL_SEGMENTS],
            worst=known[segment],
            segment=segment,
            negative_flips=self._negative_flips(scores),
        )

    def _negative_flips(self, scores: list[Floats]) -> float:
        """Share of the requests whose first item was relevant under the base and is not any more (Yan et al. 2021, arXiv:2011.09161)."""
        before, after = (
            [label[int(np.argmax(found))] > 0 for found, label in zip(side, self._labels, strict=True)] for side in (self._scores, scores)
        )
        return float(np.mean([was and not still for was, still in zip(before, after, strict=True)]))
