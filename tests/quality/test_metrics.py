from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from liftgate.core.errors import InputError, UnknownName
from liftgate.quality.metrics import AUC, NDCG, Ranking, parse_metric


def ranking(scores: list[list[float]], labels: list[list[float]], users: list[str]) -> Ranking:
    return Ranking.of([np.array(s) for s in scores], [np.array(v) for v in labels], users)


def test_ndcg_of_three_candidates_by_hand() -> None:
    # Sorted by score the labels are 0, 1, 1: DCG = 1/log2(3) + 1/log2(4); ideal = 1 + 1/log2(3).
    found = NDCG(10).per_request(ranking([[3.0, 2.0, 1.0]], [[0, 1, 1]], ["u"]))
    assert found == pytest.approx([(1 / math.log2(3) + 0.5) / (1 + 1 / math.log2(3))])


def test_ndcg_cuts_both_the_list_and_the_ideal_at_k() -> None:
    assert NDCG(1).per_request(ranking([[3, 2, 1]], [[0, 1, 1]], ["u"])) == pytest.approx([0.0])
    assert NDCG(1).per_request(ranking([[1, 2, 3]], [[0, 1, 1]], ["u"])) == pytest.approx([1.0])


def test_ndcg_uses_exponential_gains_for_grades() -> None:
    # Grades 1, 2 in that order: (1 + 3/log2(3)) / (3 + 1/log2(3)).
    found = NDCG(10).per_request(ranking([[2.0, 1.0]], [[1, 2]], ["u"]))
    assert found == pytest.approx([(1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3))])


def test_ndcg_under_ties_is_the_mean_over_all_orders() -> None:
    scores, labels = [0.5, 0.9, 0.5, 0.5, 0.1], [2.0, 0.0, 1.0, 0.0, 1.0]
    tied = [0, 2, 3]
    by_order = []
    for order in itertools.permutations(tied):
        broken = list(scores)
        for place, index in enumerate(order):
            broken[index] -= place * 1e-6
        by_order.append(NDCG(3).per_request(ranking([broken], [labels], ["u"]))[0])
    assert NDCG(3).per_request(ranking([scores], [labels], ["u"])) == pytest.approx([np.mean(by_order)])


def test_ndcg_is_a_mean_within_users_before_it_is_a_mean_over_users() -> None:
    many = NDCG(1).per_user(ranking([[2, 1]] * 4, [[1, 0], [1, 0], [0, 1], [0, 1]], ["a", "a", "a", "b"]))
    assert many.users == ("a", "b")
    assert many.values == pytest.approx([2 / 3, 0.0])


def test_a_request_without_a_relevant_candidate_is_left_out_and_counted() -> None:
    found = NDCG(10).per_user(ranking([[2, 1], [2, 1], [2, 1]], [[1, 0], [0, 0], [0, 0]], ["a", "a", "b"]))
    assert (found.users, found.values.tolist()) == (("a",), [1.0])
    assert (found.requests, found.undefined_requests) == (1, 2)


def test_auc_pools_a_users_candidates_over_requests() -> None:
    # Pooled: positives 3 and 1, negatives 2 and 0: pairs won (3>2, 3>0, 1>0) = 3 of 4; each request alone would be perfect.
    found = AUC().per_user(ranking([[3, 2], [1, 0]], [[1, 0], [1, 0]], ["a", "a"]))
    assert found.values == pytest.approx([0.75])


def test_auc_counts_ties_half() -> None:
    assert AUC().per_user(ranking([[1, 1, 0]], [[1, 0, 0]], ["a"])).values == pytest.approx([0.75])


def test_auc_equals_counting_pairs_on_random_data() -> None:
    rng = np.random.default_rng(5)
    scores = [rng.integers(0, 4, size=7).astype(float) for _ in range(12)]
    labels = [(rng.random(7) < 0.4).astype(float) for _ in range(12)]
    users = [f"u{i % 4}" for i in range(12)]
    found = AUC().per_user(ranking([s.tolist() for s in scores], [v.tolist() for v in labels], users))
    for user, value in zip(found.users, found.values, strict=True):
        s = np.concatenate([x for x, u in zip(scores, users, strict=True) if u == user])
        y = np.concatenate([x for x, u in zip(labels, users, strict=True) if u == user])
        gaps = s[y > 0][:, None] - s[y == 0][None, :]
        assert value == pytest.approx(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


def test_a_user_with_only_relevant_candidates_has_no_auc() -> None:
    found = AUC().per_user(ranking([[2, 1], [2, 1]], [[1, 1], [1, 0]], ["a", "b"]))
    assert (found.users, found.undefined_requests) == (("b",), 1)


def test_only_keeps_the_requests_of_a_segment() -> None:
    everyone = ranking([[2, 1], [1, 2, 3], [2, 1]], [[0, 1], [0, 0, 1], [1, 0]], ["a", "b", "a"])
    some = everyone.only(np.array([False, True, True]))
    assert some.users == ("a", "b")
    assert NDCG(10).per_user(some).values == pytest.approx([1.0, 1.0])


def test_negative_labels_are_refused() -> None:
    with pytest.raises(InputError, match="relevance from 0 to 50, found -1"):
        ranking([[1, 2]], [[-1, 1]], ["u"])


@pytest.mark.parametrize(("text", "expected"), [("ndcg@10", NDCG(10)), ("ndcg@3", NDCG(3)), ("auc", AUC())])
def test_a_metric_is_read_from_its_name(text: str, expected: NDCG | AUC) -> None:
    assert parse_metric(text) == expected
    assert parse_metric(text).name == text


def test_a_mistyped_metric_gets_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="unknown metric 'ndgc@10'; did you mean 'ndcg@10'"):
        parse_metric("ndgc@10")
