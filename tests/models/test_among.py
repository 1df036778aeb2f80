"""Ranking one among many, by hand and against a loop."""

import numpy as np
import pytest

from models.metrics.entered import TOP, among


def test_two_lists_by_hand():
    """Second of its list, and tenth: MRR (1/2 + 1/10) / 2; the second is within 10 alone of the cutoffs above 1."""
    found = among(np.array([1, 9]), np.array([0, 0]))
    assert found["mrr"] == pytest.approx(0.3)
    assert (found["recall@1"], found["recall@10"]) == (0.0, 1.0)
    assert found["ndcg@10"] == pytest.approx((1 / np.log2(3) + 1 / np.log2(11)) / 2)


def test_equal_scores_share_their_places():
    """A constant ranks as chance does: of 20 each place is as likely as another."""
    found = among(np.array([0]), np.array([19]))
    assert found["recall@10"] == pytest.approx(0.5) and found["recall@1"] == pytest.approx(1 / 20)
    assert found["mrr"] == pytest.approx(sum(1 / place for place in range(1, 21)) / 20)


def test_many_lists_against_a_loop():
    rng = np.random.default_rng(0)
    better, equal = rng.integers(0, 80, 200), rng.integers(0, 5, 200)
    found = among(better, equal)
    for k in TOP:
        places = [np.arange(b + 1, b + e + 2) for b, e in zip(better, equal, strict=True)]
        assert found[f"recall@{k}"] == pytest.approx(np.mean([np.mean(place <= k) for place in places]))
        gain = [np.mean(np.where(place <= k, 1 / np.log2(1 + place), 0)) for place in places]
        assert found[f"ndcg@{k}"] == pytest.approx(np.mean(gain))
    assert found["mrr"] == pytest.approx(np.mean([np.mean(1 / place) for place in places]))


def test_nothing_has_no_metrics():
    assert set(among(np.zeros(0, np.int64), np.zeros(0, np.int64)).values()) == {None}
