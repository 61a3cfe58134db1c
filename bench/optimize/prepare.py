"""`python -m liftgate.bench.optimize.prepare` (in the zoo's environment): trained rankers, their exports and their requests.

What is there already is kept; weights are trained again when a case's settings or the shapes of its weights change.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import msgspec
import numpy as np
import torch

from ...core.artifact import ModelArtifact
from ...core.files import sha256_of
from ...core.requests import Requests
from ...core.store import Store
from ...demo.movielens import RATINGS_FILE, find_movielens
from ...optimize.export import export
from ...quality.metrics import Ranking, parse_metric
from ...runtime.onnx_session import OnnxSession
from ...runtime.session import SessionSettings, scores_of
from .case import Case
from .catalogue import CASES
from .features import World, read_world
from .folder import CANDIDATES, CaseFolder, Trained
from .requests import Asked
from .training import train

_TIMED_REQUESTS = 64
_JUDGED = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    world, key = read_world(wanted.data), _requests_key(wanted.data)
    places = [CaseFolder(wanted.folder, name) for name in wanted.cases]
    stale = [place for place in places if not place.asked_path.is_file() or place.asked_path.read_text() != key]
    if stale:
        parts = {part: Asked(world, part) for part in ("validation", "holdout")}
        timed = Asked(world, "holdout", candidates=CANDIDATES[0], least=1)
    for place in stale:
        case = CASES[place.name]
        place.path.mkdir(parents=True, exist_ok=True)
        for part, asked in parts.items():
            asked.for_case(case).write(place.requests(part))
        _timing(timed.for_case(case), case, place)
        place.asked_path.write_text(key)
    for place in places:
        _trained(CASES[place.name], place, world)


def _requests_key(data: Path) -> str:
    """Digest of what requests are made from: the ratings, and the code that draws them."""
    here = Path(__file__).parent
    drawn_by = [*(here / f"{name}.py" for name in ("features", "requests", "prepare")), *sorted((here / "rankers").glob("*.py"))]
    digest = hashlib.sha256((find_movielens(data) / RATINGS_FILE).read_bytes())
    for path in drawn_by:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _timing(asked: Requests, case: Case, place: CaseFolder) -> None:
    """Requests to time, spread over the users: the same with each number of candidates."""
    chosen = np.linspace(0, len(asked) - 1, _TIMED_REQUESTS).astype(int).tolist()
    taken = asked.take(chosen)
    for count in CANDIDATES:
        columns = {name: taken.table[name].to_pylist() for name in taken.table.column_names if name != "label"}
        cut = {name: [_first(row, count) for row in rows] if name in case.candidate_inputs else rows for name, rows in columns.items()}
        Requests.of(cut, source=place.timing(count).name).write(place.timing(count))


def _first(candidates: object, count: int) -> object:
    if not isinstance(candidates, list):
        raise AssertionError("a candidate input has a list per request")
    return candidates[:count]


def _trained(case: Case, place: CaseFolder, world: World) -> None:
    """Weights and the exported artifact, unless they are there for these settings; judged unless it was on these requests."""
    fresh = case.build(world.users, world.items)
    shapes = {name: list(value.shape) for name, value in fresh.state_dict().items()}
    key = hashlib.sha256(msgspec.json.encode([case.training, case.inputs, shapes, world.data.sentence])).hexdigest()[:16]
    validation, judged_on = Requests.read(place.requests("validation")), sha256_of(place.requests("validation"))
    store, last = Store(place.store), place.trained
    if last is None or last.key != key or case.name not in store.names():
        module, seconds = train(case, world)
        torch.save(module.state_dict(), place.weights)
        export(module, name=case.name, store=store, requests=validation, request_inputs=case.request_inputs)
    elif last.judged_on == judged_on:
        return
    else:
        seconds = last.seconds
    ndcg, by_count = _judged(store.resolve(case.name), validation, world)
    record = Trained(
        key=key, judged_on=judged_on, users=world.users, items=world.items, seconds=seconds, ndcg=ndcg, popularity_ndcg=by_count
    )
    place.trained_path.write_bytes(msgspec.json.encode(record))
    print(f"{case.name}: NDCG@10 {ndcg:.4f}, by popularity {by_count:.4f} ({_JUDGED} validation requests)", flush=True)


def _judged(artifact: ModelArtifact, validation: Requests, world: World) -> tuple[float, float]:
    """NDCG@10 of the export, and of films ranked by how many ratings they have in training."""
    judged = validation.take(np.linspace(0, len(validation) - 1, _JUDGED).astype(int).tolist())
    session = OnnxSession.open(artifact, SessionSettings())
    asked = zip(judged.feeds(artifact.manifest.signature), judged.request_ids, strict=True)
    counts = np.bincount(world.split.train["item"], minlength=world.items + 1)
    by_count = [counts[np.asarray(items)].astype(float) for items in judged.table["item"].to_pylist()]
    return _ndcg([scores_of(session, feeds, where=request) for feeds, request in asked], judged), _ndcg(by_count, judged)


def _ndcg(scores: list[np.ndarray], judged: Requests) -> float:
    ranking = Ranking.of(scores, judged.labels or [], judged.user_ids)
    return float(parse_metric("ndcg@10", where="bench").per_user(ranking).values.mean())


if __name__ == "__main__":
    main()
