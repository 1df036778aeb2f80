"""Metrics against scikit-learn, naive loops and numbers worked out by hand."""

import itertools
import json
import pickle
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from models.metrics.binary import BinarySummary, auc, gini
from models.metrics.calibration import calibration_curve
from models.metrics.evaluation import Evaluation, Summary
from models.metrics.expected import ExpectedSummary, Known, expected_auc
from models.metrics.names import DIRECTIONS, direction, value_of
from models.metrics.ordering import codes
from models.metrics.ranking import Lists
from models.metrics.sums import UNIT, Mean, exact_sum, exact_sums
from models.metrics.value import decile_calibration, normalised_gini, value_ndcg

LEVELS = ("tail", "medium", "head")


def some_rows(schema, *, feeds=300, seed=0, ties=True):
    """Predictions (with ties), labels, levels, feeds and users of random feeds."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, feeds)
    feed_N = np.repeat(np.arange(feeds), lengths)
    user_N = rng.integers(0, 60, feeds)[feed_N]
    n = len(feed_N)
    predictions, labels = {}, {}
    for target in schema.targets:
        score_N = rng.random(n)
        if target.is_binary:
            predictions[target.name] = (np.round(score_N, 1) if ties else score_N).astype(np.float32)
            labels[target.name] = (rng.random(n) < 0.2 + 0.5 * score_N).astype(np.float32)
        else:
            predictions[target.name] = (100 * score_N).astype(np.float32)
            labels[target.name] = rng.exponential(50, n).astype(np.float32)
    return predictions, labels, rng.integers(0, 3, n), feed_N, user_N


def result_of(schema, rows):
    evaluation = Evaluation(schema)
    evaluation.add(*rows)
    return evaluation.result()


def part_of(rows, wanted_N):
    predictions, labels, *others = rows
    pick = lambda columns: {name: column[wanted_N] for name, column in columns.items()}
    return pick(predictions), pick(labels), *(column[wanted_N] for column in others)


def at_top(prediction_N, positive_N, list_N):
    lists = Lists(codes(prediction_N), positive_N, list_N)
    return {name: mean.value for name, mean in lists.at_top().items()}


def test_auc_by_hand():
    # pairs (positive, negative): (.8, .1) right, (.8, .8) a tie, (.4, .1) right, (.4, .8) wrong: 2.5 of 4
    assert auc(np.array([0.1, 0.8, 0.8, 0.4]), np.array([False, True, False, True])) == 0.625


@pytest.mark.parametrize("ties", [False, True])
def test_auc_equals_sklearn_overall_and_by_level(tiny_schema, ties):
    rows = some_rows(tiny_schema, ties=ties)
    predictions, labels, level_N, _, _ = rows
    found = result_of(tiny_schema, rows)["targets"]
    for name in ("click", "goods_bag", "order"):
        assert found[name]["auc"] == pytest.approx(roc_auc_score(labels[name], predictions[name]), abs=1e-12)
        for level, level_name in enumerate(LEVELS):
            here_N = level_N == level
            expected = roc_auc_score(labels[name][here_N], predictions[name][here_N])
            assert found[name]["auc_by_level"][level_name] == pytest.approx(expected, abs=1e-12)
            assert found[name]["rows_by_level"][level_name] == here_N.sum()


@pytest.mark.parametrize(("metric", "column"), [("gauc_feed", 3), ("gauc_user", 4)])
def test_grouped_auc_equals_a_loop_over_groups(tiny_schema, metric, column):
    rows = some_rows(tiny_schema)
    predictions, labels, group_N = rows[0]["click"], rows[1]["click"], rows[column]
    total = weight = used = 0
    for group in set(group_N.tolist()):
        here_N = group_N == group
        if len(set(labels[here_N])) == 2:
            total += here_N.sum() * roc_auc_score(labels[here_N], predictions[here_N])
            weight += here_N.sum()
            used += 1
    found = result_of(tiny_schema, rows)["targets"]["click"]
    assert found[metric] == pytest.approx(total / weight, abs=1e-12)
    assert found[f"{metric}_share"] == used / len(set(group_N.tolist()))


@pytest.mark.parametrize("k", [1, 5, 10])
def test_ndcg_and_precision_equal_sklearn_and_a_loop(tiny_schema, k):
    rows = some_rows(tiny_schema, ties=True)
    prediction_N, label_N, feed_N = rows[0]["click"], rows[1]["click"].astype(float), rows[3]
    ndcg, precision = [], []
    for feed in np.unique(feed_N):
        here_N = feed_N == feed
        if label_N[here_N].sum() == 0:
            continue
        # sklearn refuses one document: its only order is the best one
        ndcg.append(ndcg_score([label_N[here_N]], [prediction_N[here_N]], k=k) if here_N.sum() > 1 else 1.0)
        hits = 0.0
        for place, at in enumerate(np.sort(prediction_N[here_N])[::-1]):
            if place < k:
                hits += label_N[here_N][prediction_N[here_N] == at].mean()  # expected label under random ties
        precision.append(hits / k)
    found = at_top(prediction_N, label_N > 0, feed_N)
    assert found[f"ndcg@{k}"] == pytest.approx(np.mean(ndcg), abs=1e-9)
    assert found[f"precision@{k}"] == pytest.approx(np.mean(precision), abs=1e-9)
    assert found["ranked"] == pytest.approx(len(ndcg) / len(np.unique(feed_N)))


def test_ndcg_per_user_takes_all_feeds_of_a_user_for_one_list():
    """One user, two feeds: positives first in theirs, but second and third of the user's four. Another user's is first."""
    prediction_N = np.array([0.8, 0.1, 0.6, 0.9, 0.7])
    label_N = np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    feed_N, user_N = np.array([0, 0, 1, 2, 3]), np.array([0, 0, 0, 0, 1])
    groups = {"level": (np.zeros(5, np.int8), ("all",))}
    found = BinarySummary.of(prediction_N, label_N, groups=groups, feed_N=feed_N, user_N=user_N).result()
    assert found["ndcg@5"] == 1.0
    user = (1 / np.log2(3) + 1 / np.log2(4)) / (1 + 1 / np.log2(3))
    assert found["ndcg_user@5"] == pytest.approx((user + 1) / 2)
    assert found["ndcg_user@1"] == pytest.approx((0 + 1) / 2)


def test_ndcg_by_hand():
    # one positive at the second of three places: 1/log2(3); a feed without positives does not count
    found = at_top(np.array([0.9, 0.5, 0.1, 0.3]), np.array([False, True, False, False]), np.array([0, 0, 0, 1]))
    assert found["ndcg@5"] == pytest.approx(1 / np.log2(3))
    assert (found["ndcg@1"], found["precision@1"], found["precision@5"]) == (0.0, 0.0, 0.2)
    assert found["ranked"] == 0.5


def test_gini_gives_the_papers_rows():
    assert gini([0.8183, 0.8633, 0.7828]) == pytest.approx(0.0436, abs=5e-5)
    assert gini([0.7, 0.7, 0.7]) == 0
    assert gini([0.7]) is None


def test_log_loss_and_calibration(tiny_schema):
    rows = some_rows(tiny_schema, ties=False)
    found = result_of(tiny_schema, rows)["targets"]["click"]
    prediction_N, label_N = rows[0]["click"].astype(float), rows[1]["click"].astype(float)
    assert found["log_loss"] == pytest.approx(log_loss(label_N, prediction_N), abs=1e-9)
    assert found["calibration"] == pytest.approx(prediction_N.sum() / label_N.sum())
    order = np.argsort(prediction_N)
    places = np.arange(len(order)) * 20 // len(order)  # 20 bins of equal frequency
    gaps = [
        abs(prediction_N[order][places == b].mean() - label_N[order][places == b].mean()) * (places == b).mean()
        for b in range(20)
    ]
    assert found["ece"] == pytest.approx(sum(gaps), abs=1e-9)


def test_calibration_curve_by_hand_and_never_divides_ties():
    curve = calibration_curve(np.array([0.1, 0.2, 0.3, 0.8]), np.array([0.0, 0.0, 1.0, 1.0]), bins=2)
    assert curve == [
        {"predicted": pytest.approx(0.15), "observed": 0.0, "rows": 2},
        {"predicted": pytest.approx(0.55), "observed": 1.0, "rows": 2},
    ]
    assert calibration_curve(np.full(4, 0.5), np.array([0.0, 1.0, 0.0, 0.0]), bins=2) == [
        {"predicted": 0.5, "observed": 0.25, "rows": 4}
    ]


def test_value_errors_by_hand(tiny_schema):
    predictions, labels, _, feed_N, user_N = part_of(some_rows(tiny_schema), np.arange(2))
    predictions["stay"], labels["stay"] = np.array([np.e - 1, 3.0]), np.array([0.0, 5.0])
    found = result_of(tiny_schema, (predictions, labels, np.array([0, 2]), feed_N, user_N))["targets"]["stay"]
    in_logs = (np.log(4) - np.log(6)) ** 2
    assert found["mse_transformed"] == pytest.approx((1 + in_logs) / 2)
    assert found["mse_by_level"] == {"tail": pytest.approx(1), "medium": None, "head": pytest.approx(in_logs)}
    assert found["mse"] == pytest.approx(((np.e - 1) ** 2 + 4) / 2)
    assert found["mae"] == pytest.approx((np.e - 1 + 2) / 2)
    assert found["calibration"] == pytest.approx((np.e + 2) / 5)


def test_a_value_is_judged_by_what_is_said_of_its_logarithm(tiny_schema):
    """Of labels 0 and e^2 - 1 half each, 1 is the best guess of the logarithm, and (e^2 - 1) / 2 of the value."""
    predictions, labels, *rest = part_of(some_rows(tiny_schema), np.arange(2))
    labels["stay"], predictions["stay"] = np.array([0.0, np.exp(2) - 1]), np.full(2, (np.exp(2) - 1) / 2)
    found = result_of(tiny_schema, (predictions | {"log.stay": np.ones(2)}, labels, *rest))["targets"]["stay"]
    assert (found["mse_transformed"], found["calibration"]) == pytest.approx((1.0, 1.0))
    assert result_of(tiny_schema, (predictions, labels, *rest))["targets"]["stay"]["mse_transformed"] > 1.1


def test_calibration_by_decile_by_hand():
    """Twenty predictions 1 .. 20; labels as large in the upper half, nothing in the lowest tenth, twice as large between."""
    prediction_N = np.arange(1.0, 21.0)
    label_N = np.where(prediction_N > 10, prediction_N, 2 * prediction_N) * (prediction_N > 2)
    assert decile_calibration(prediction_N, label_N) == {
        "1": None, **{str(place): 0.5 for place in range(2, 6)}, **{str(place): 1.0 for place in range(6, 11)}
    }  # fmt: skip
    same = decile_calibration(np.ones(20), label_N)  # equal predictions are never divided
    assert same.pop("1") == pytest.approx(1 / label_N.mean()) and set(same.values()) == {None}


def test_normalised_gini_by_hand_and_by_a_loop():
    """Values 0, 0, 1, 3 in their own order are 1, the other way round -1, of one prediction 0."""
    label_N = np.array([0.0, 0.0, 1.0, 3.0])
    assert normalised_gini(np.arange(4.0), label_N) == 1
    assert normalised_gini(np.arange(4.0), label_N[::-1]) == -1
    assert normalised_gini(np.ones(4), label_N) == 0
    assert normalised_gini(np.arange(4.0), np.ones(4)) is None
    rng = np.random.default_rng(0)
    prediction_N, label_N = np.sort(rng.integers(0, 40, 500)).astype(float), rng.exponential(5, 500) * (rng.random(500) < 0.3)

    def area(order_N):  # below the Lorenz curve
        return np.cumsum(label_N[order_N]).sum() / label_N.sum()

    middle = (len(label_N) + 1) / 2
    ties = [np.lexsort((sign * label_N, prediction_N)) for sign in (1, -1)]
    expected = np.mean([middle - area(order_N) for order_N in ties]) / (middle - area(np.argsort(label_N)))
    assert normalised_gini(prediction_N, label_N) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_ndcg_by_value_equals_sklearn(tiny_schema, k):
    predictions, labels, _, feed_N, _ = some_rows(tiny_schema, ties=True)
    prediction_N, label_N = predictions["stay"].astype(np.float64).round(-1), labels["stay"].astype(np.float64)
    expected = []
    for feed in np.unique(feed_N):
        here_N = feed_N == feed
        if label_N[here_N].sum() > 0:
            expected.append(ndcg_score([label_N[here_N]], [prediction_N[here_N]], k=k) if here_N.sum() > 1 else 1.0)
    found = value_ndcg(prediction_N, label_N, codes(feed_N))[f"value_ndcg@{k}"]
    assert found.count == len(expected) > 10 and found.value == pytest.approx(np.mean(expected), abs=1e-12)


@pytest.mark.parametrize("limit", [10_000, 400], ids=["all rows", "a part of the users"])
@pytest.mark.parametrize("workers", [2, 5])
def test_workers_find_the_bits_of_one(tiny_schema, workers, limit):
    """Every worker has some feeds of every user, and numbers feeds from 0 in each batch; the last has nothing."""
    rows = some_rows(tiny_schema, feeds=200)
    rows = (*rows, rows[4] % 4)  # a user's stage
    alone = Evaluation(tiny_schema, limit=limit)
    alone.add(*rows)
    own = [Evaluation(tiny_schema, limit=limit) for _ in range(workers)]
    for feed in range(200):
        predictions, labels, level_N, feed_N, user_N, stage_N = part_of(rows, rows[3] == feed)
        own[feed % (workers - 1)].add(predictions, labels, level_N, feed_N * 0, user_N, stage_N)
    rows_by_halvings = sum(each.rows_by_halvings() for each in own)
    for each in own:
        each.keep_within_limit(rows_by_halvings)
    assert sum(each.rows for each in own) == alone.rows <= limit
    parts = [each.by_user(workers) for each in own]
    summaries = []
    for worker in range(workers):
        mine = Evaluation(tiny_schema, limit=limit)
        for sent in parts:
            mine.merge(Evaluation.from_state(tiny_schema, pickle.loads(pickle.dumps(sent[worker].state()))))
        summaries.append(mine.summary())
    assert Summary.together(pickle.loads(pickle.dumps(summaries))).result() == alone.result()


def test_summaries_are_of_the_same_users(tiny_schema):
    rows = some_rows(tiny_schema)
    summaries = []
    for limit in (10_000, 400):
        evaluation = Evaluation(tiny_schema, limit=limit)
        evaluation.add(*rows)
        summaries.append(evaluation.summary())
    with pytest.raises(ValueError, match=r"different shares of their users, halved \[0, 2\] times; call `keep_within_limit`"):
        Summary.together(summaries)


def test_exact_sums_equal_fractions():
    rng = np.random.default_rng(0)
    samples = [
        rng.normal(size=500) * 10.0 ** rng.integers(-300, 300, 500),
        rng.random(200_000).astype(np.float32),  # more than are summed at a time
        np.array([5e-324, -5e-324, 5e-324, 1.7e308, 1.7e308, -1.7e308, 2.2e-308, -0.0]),
        np.zeros(0),
    ]
    fraction = lambda values: sum(map(Fraction, values.tolist()), Fraction())
    for values_N in samples:
        group_N = rng.integers(0, 3, len(values_N))
        assert Fraction(exact_sum(values_N), 2**UNIT) == fraction(values_N)
        expected = [fraction(values_N[group_N == group]) for group in range(3)]
        assert [Fraction(total, 2**UNIT) for total in exact_sums(values_N, group_N, 3)] == expected
    assert Mean.of(np.array([0.1] * 10)).value == 0.1  # of which sums of floats make 0.09999999999999999
    with pytest.raises(ValueError, match="only finite numbers"):
        exact_sum(np.array([1.0, np.inf]))


def test_past_the_limit_whole_users_remain_whatever_the_order(tiny_schema):
    rows = some_rows(tiny_schema, feeds=400)
    results = []
    for order in (range(400), reversed(range(400))):
        evaluation = Evaluation(tiny_schema, limit=600)
        for feed in order:
            evaluation.add(*part_of(rows, rows[3] == feed))
        results.append(evaluation)
    first, second = (evaluation.result() for evaluation in results)
    assert first["user_share"] == second["user_share"] < 1
    assert first["rows"] == second["rows"] <= 600
    assert first["targets"]["click"]["auc"] == second["targets"]["click"]["auc"]
    kept = np.unique(results[0].state()["columns"]["user"])
    assert first["rows"] == np.isin(rows[4], kept).sum()  # all candidates of every kept user


def test_alarms_and_funnel(tiny_schema):
    rows = some_rows(tiny_schema, ties=False)
    assert result_of(tiny_schema, rows)["alarms"] == []
    _, labels, *others = rows
    n = len(others[0])
    labels = {**labels, "click": np.tile([1.0, 0.0], n)[:n]}
    half = np.tile([0.1, 0.1, 0.9, 0.9], n)[:n]
    broken = {"click": half, "goods_bag": half, "order": np.full(n, 0.2), "stay": np.where(np.arange(n) == 3, np.nan, 1.0)}
    if n % 4:  # whole patterns, so that the AUC is exactly .5
        rows = part_of((broken, labels, *others), np.arange(n - n % 4))
    result = result_of(tiny_schema, rows)
    assert [(alarm["kind"], alarm["targets"]) for alarm in result["alarms"]] == [
        ("auc_half", ["click"]),
        ("constant", ["order"]),
        ("non_finite", ["stay"]),
        ("identical", ["click", "goods_bag"]),
    ]
    assert "1 of" in result["alarms"][2]["message"]
    assert result["targets"]["stay"]["mse"] is None
    assert result["funnel"] == {"goods_bag<=click": 0.0, "order<=goods_bag": 0.5}


def test_one_class_gives_none_and_valid_json(tiny_schema):
    predictions, labels, *others = some_rows(tiny_schema)
    result = result_of(tiny_schema, (predictions, {**labels, "order": np.zeros(len(others[0]))}, *others))
    order = result["targets"]["order"]
    undefined = ("auc", "gauc_feed", "gauc_user", "ndcg@5", "precision@5", "calibration", "gini")
    assert [order[name] for name in undefined] == [None] * 7
    assert order["auc_by_level"] == dict.fromkeys(LEVELS)
    aucs = [result["targets"][name]["auc"] for name in ("click", "goods_bag")]
    assert result["mean"]["auc"] == pytest.approx(np.mean(aucs))
    json.dumps(result, allow_nan=False)


def test_paths_lead_to_metrics(tiny_schema):
    result = result_of(tiny_schema, some_rows(tiny_schema))
    assert value_of(result, "click.auc_by_level.head") == result["targets"]["click"]["auc_by_level"]["head"]
    assert value_of(result, "mean.auc") == result["mean"]["auc"]
    assert (direction("click.auc_by_level.head"), direction("stay.mse"), direction("click.calibration")) == (
        "max",
        "min",
        "one",
    )
    with pytest.raises(KeyError, match="`clik` is not one of: click, goods_bag"):
        value_of(result, "clik.auc")
    with pytest.raises(KeyError, match="not one number"):
        value_of(result, "click.auc_by_level")
    with pytest.raises(KeyError, match=r"no metric `click\.uac`"):
        direction("click.uac")
    assert set(DIRECTIONS) >= set(result["mean"])


def test_wrong_input_is_named(tiny_schema):
    predictions, labels, *others = some_rows(tiny_schema)
    with pytest.raises(ValueError, match="predictions lack target `order`"):
        Evaluation(tiny_schema).add({name: predictions[name] for name in ("click", "goods_bag", "stay")}, labels, *others)
    with pytest.raises(ValueError, match=r"`prediction.click` has shape \(3,\)"):
        Evaluation(tiny_schema).add({**predictions, "click": np.ones(3)}, labels, *others)
    with pytest.raises(ValueError, match=r"`label.click` holds 1 labels that are not finite"):
        Evaluation(tiny_schema).add(
            predictions, {**labels, "click": np.where(np.arange(len(others[0])) == 2, np.nan, 1.0)}, *others
        )
    with pytest.raises(ValueError, match="nothing to evaluate"):
        Evaluation(tiny_schema).result()
    with pytest.raises(ValueError, match="different targets"):
        Evaluation(tiny_schema).merge(Evaluation(tiny_schema, ["click"]))


# -- life-cycle stages ---------------------------------------------------------------------------------------------


def eight_rows():
    """Two users: one new (feeds 0, 1), one loyal (feed 2); nobody wanders or sticks."""
    click = [0.9, 0.2, 0.4, 0.3, 0.1, 0.6, 0.5, 0.8]
    clicked = [1, 0, 0, 1, 1, 0, 0, 1]
    stage = [0, 0, 0, 0, 3, 3, 3, 3]
    predictions = {"click": click, "goods_bag": [0.5, 0.1] * 4, "order": [0.2, 0.3] * 4, "stay": [np.e - 1] * 4 + [0.0] * 4}
    labels = {"click": clicked, "goods_bag": clicked, "order": [0] * 8, "stay": [0.0] * 4 + [np.e**2 - 1] * 4}
    arrays = lambda columns: {name: np.array(values, float) for name, values in columns.items()}
    feed_N = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    return arrays(predictions), arrays(labels), np.zeros(8, int), feed_N, np.array(stage), np.array(stage)


def test_metrics_by_stage_of_eight_rows(tiny_schema):
    found = result_of(tiny_schema, eight_rows())["targets"]
    # new: of the pairs (.9, .2) (.9, .4) (.3, .2) (.3, .4) three are right; loyal: (.1, .6) (.1, .5) (.8, .6) (.8, .5), two
    assert found["click"]["auc_by_stage"] == {"new": 0.75, "wander": None, "stick": None, "loyal": 0.5}
    assert found["click"]["rows_by_stage"] == {"new": 4, "wander": 0, "stick": 0, "loyal": 4}
    assert found["click"]["positives_by_stage"] == {"new": 2, "wander": 0, "stick": 0, "loyal": 2}
    assert found["order"]["auc_by_stage"] == dict.fromkeys(("new", "wander", "stick", "loyal"))  # no order at all
    by_stage = found["stay"]["mse_by_stage"]  # in logs: 1 for 0, and 0 for 2
    assert by_stage == {"new": pytest.approx(1), "wander": None, "stick": None, "loyal": pytest.approx(4)}
    result = result_of(tiny_schema, eight_rows())
    assert value_of(result, "click.auc_by_stage.new") == 0.75
    assert (direction("click.auc_by_stage.new"), direction("stay.mse_by_stage.new")) == ("max", "min")
    assert not any("_by_" in name for name in result["mean"])


def test_stages_of_broken_predictions_are_none(tiny_schema):
    predictions, *others = eight_rows()
    predictions["click"][0] = predictions["stay"][0] = np.nan
    found = result_of(tiny_schema, (predictions, *others))["targets"]
    assert found["click"]["auc_by_stage"] == found["stay"]["mse_by_stage"] == dict.fromkeys(("new", "wander", "stick", "loyal"))


def test_stages_survive_sampling(tiny_schema):
    rows = some_rows(tiny_schema, feeds=200)
    rows = (*rows, rows[4] % 4)  # a user's stage
    sampled = Evaluation(tiny_schema, limit=300)
    sampled.add(*rows)
    kept_N = np.isin(rows[4], np.unique(sampled.state()["columns"]["user"]))
    assert kept_N.sum() == sampled.rows <= 300
    expected = result_of(tiny_schema, part_of(rows, kept_N))["targets"]["click"]["auc_by_stage"]
    assert sampled.result()["targets"]["click"]["auc_by_stage"] == expected


def test_stages_for_all_candidates_or_for_none(tiny_schema):
    rows = eight_rows()
    without = result_of(tiny_schema, rows[:5])["targets"]
    assert "auc_by_stage" not in without["click"] and "mse_by_stage" not in without["stay"]
    evaluation = Evaluation(tiny_schema)
    evaluation.add(*rows)
    with pytest.raises(ValueError, match="give `stage_N` in all calls or in none"):
        evaluation.add(*rows[:5])
    with pytest.raises(ValueError, match=r"`stage` has shape \(3,\), but there are 8 user ids"):
        evaluation.add(*rows[:5], np.zeros(3))


def test_funnels_of_predictions_and_labels(tiny_schema):
    predictions, labels, *others = eight_rows()
    labels["order"] = np.array([1, 1, 0, 0, 0, 0, 0, 0], float)  # the second without its goods bag
    result = result_of(tiny_schema, (predictions, labels, *others))
    # goods_bag > click: .5 > .4, .5 > .1; order > goods_bag: .3 > .1 in every second row
    assert result["funnel"] == {"goods_bag<=click": 2 / 8, "order<=goods_bag": 4 / 8}
    assert result["funnel_labels"] == {"goods_bag<=click": 0.0, "order<=goods_bag": 1 / 8}


def test_memory_for_summarising_a_target_is_bounded():
    """Feeds' lists and users' lists are not held at the same time."""
    rng, n = np.random.default_rng(0), 200_000
    feed_N = np.arange(n) // 8
    prediction_N, label_N = rng.random(n, np.float32), (rng.random(n) < 0.1).astype(np.float32)
    groups = {"level": (rng.integers(0, 3, n), LEVELS)}
    tracemalloc.start()
    try:
        BinarySummary.of(prediction_N, label_N, groups=groups, feed_N=feed_N, user_N=feed_N // 6)
        assert tracemalloc.get_traced_memory()[1] < 160 * n
    finally:
        tracemalloc.stop()


# -- under the truth -----------------------------------------------------------------------------------------------


def some_chances(n, *, seed=3):
    return (np.random.default_rng(seed).random(n) ** 2).astype(np.float32)


def test_expected_auc_by_hand():
    # pairs of different candidates, weighted by p_i (1 - p_j): .5 x .8 right, .5 x .5 a tie and again, .2 x .5 wrong, and so on
    score_N, chance_N = np.array([0.9, 0.9, 0.1]), np.array([0.5, 0.5, 0.2])
    right = 0.5 * 0.5 / 2 * 2 + 0.5 * 0.8 * 2  # ties of the first two, either being the positive; both above the third
    pairs = right + 0.5 * 0.5 / 2 * 2 + 0.2 * 0.5 * 2
    assert expected_auc(score_N, chance_N) == pytest.approx(right / pairs, abs=1e-9)
    assert expected_auc(score_N, np.zeros(3)) is None


def test_expected_auc_is_a_sum_over_pairs(tiny_schema):
    score_N = np.round(np.random.default_rng(0).random(80), 1)
    chance_N = some_chances(80).astype(np.float64)
    weight_NN = chance_N[:, None] * (1 - chance_N[None, :])
    np.fill_diagonal(weight_NN, 0)
    right_NN = (score_N[:, None] > score_N[None, :]) + 0.5 * (score_N[:, None] == score_N[None, :])
    assert expected_auc(score_N, chance_N) == pytest.approx((weight_NN * right_NN).sum() / weight_NN.sum(), abs=1e-9)


def test_expected_metrics_of_lists_are_sums_over_all_labels():
    """NDCG and gAUC of a few small lists against every combination of labels, weighted by its probability."""
    rng = np.random.default_rng(1)
    score_N, chance_N = np.round(rng.random(10), 1), some_chances(10).astype(np.float64)
    feed_N, user_N = np.array([0] * 5 + [1] * 3 + [2] + [3]), np.array([0] * 8 + [1, 1])
    one = {"level": (np.zeros(10, np.int8), ("all",))}
    found = ExpectedSummary.of(score_N, chance_N, groups=one, feed_N=feed_N, user_N=user_N).result()

    def over_all_labels(list_N, metric, share):
        total = weight = 0.0
        for each in np.unique(list_N):
            here_N = np.flatnonzero(list_N == each)
            zeros, alone = np.zeros(len(here_N), np.int64), {"level": (np.zeros(len(here_N), np.int8), ("all",))}
            for label_N in itertools.product([0.0, 1.0], repeat=len(here_N)):
                label_N = np.array(label_N)
                p = np.prod(np.where(label_N > 0, chance_N[here_N], 1 - chance_N[here_N]))
                drawn = BinarySummary.of(score_N[here_N], label_N, groups=alone, feed_N=zeros, user_N=zeros).result()
                if drawn[metric] is not None:
                    total, weight = total + p * share(here_N) * drawn[metric], weight + p * share(here_N)
        return total / weight

    for k in (1, 5, 10):
        assert found[f"expected_ndcg@{k}"] == pytest.approx(over_all_labels(feed_N, f"ndcg@{k}", lambda rows: 1), abs=1e-9)
        assert found[f"expected_ndcg_user@{k}"] == pytest.approx(over_all_labels(user_N, f"ndcg@{k}", lambda rows: 1), abs=1e-9)
    assert found["expected_gauc_feed"] == pytest.approx(over_all_labels(feed_N, "gauc_feed", len), abs=1e-9)
    loss = -(chance_N * np.log(np.clip(score_N, 1e-7, 1)) + (1 - chance_N) * np.log(np.clip(1 - score_N, 1e-7, 1)))
    assert found["expected_log_loss"] == pytest.approx(loss.mean(), abs=1e-7)


def test_no_ranking_is_expected_to_beat_the_truths_own(tiny_schema):
    chance_N = some_chances(2000)
    rng = np.random.default_rng(0)
    best = expected_auc(chance_N, chance_N)
    assert best > max(expected_auc(chance_N + rng.normal(0, scale, 2000), chance_N) for scale in (0.01, 0.1, 1.0))


def test_expected_metrics_of_workers_have_the_bits_of_one(tiny_schema):
    """However users are divided and rows are ordered."""
    rows = some_rows(tiny_schema, seed=5)
    chances = {"click": some_chances(len(rows[4])), "order": some_chances(len(rows[4]), seed=4)}
    alone = Evaluation(tiny_schema)
    alone.add(*rows, known=Known(chances=chances))
    expected = alone.result()
    summaries = []
    for worker in range(3):
        own = Evaluation(tiny_schema)
        for part in (1, 0):
            wanted_N = (rows[4] % 3 == worker) & (rows[3] % 2 == part)
            picked = {name: chance_N[wanted_N] for name, chance_N in chances.items()}
            own.add(*part_of(rows, wanted_N), known=Known(chances=picked))
        summaries.append(Evaluation.from_state(tiny_schema, own.state()).summary())
    found = Summary.together(summaries).result()
    names = [name for name in expected["targets"]["click"] if name.startswith("expected_")]
    assert {"expected_auc", "expected_auc_by_level", "expected_gauc_feed", "expected_ndcg@5", "expected_log_loss"} <= set(names)
    for target in ("click", "order"):
        assert {name: found["targets"][target][name] for name in names} == {
            name: expected["targets"][target][name] for name in names
        }
    assert not any(name.startswith("expected_") for name in expected["targets"]["goods_bag"])  # nothing is known of it
    assert found["mean"]["expected_auc"] == pytest.approx(
        np.mean([expected["targets"][target]["expected_auc"] for target in ("click", "order")])
    )
    with pytest.raises(ValueError, match=r"have a chance\.click and some have none; give `known` in all calls or in none"):
        alone.add(*part_of(rows, rows[3] == 0))


def test_expected_errors_are_means_over_what_a_value_may_be(tiny_schema):
    """Labels of 0 or 10, each with a probability: the squared error after the logarithm, by hand and as the metrics have it."""
    rows = some_rows(tiny_schema, seed=6)
    chance_N = some_chances(len(rows[4])).astype(np.float64)
    log_N = np.log1p(10.0)
    known = Known(moments={"stay": (chance_N * log_N, chance_N * log_N**2)})
    alone = Evaluation(tiny_schema)
    alone.add(*rows, known=known)
    found = alone.result()["targets"]["stay"]
    prediction_N = np.log1p(rows[0]["stay"].astype(np.float64))
    error_N = chance_N * (prediction_N - log_N) ** 2 + (1 - chance_N) * prediction_N**2
    assert found["expected_mse_transformed"] == pytest.approx(error_N.mean(), rel=1e-12)
    for level, name in enumerate(LEVELS):
        assert found["expected_mse_by_level"][name] == pytest.approx(error_N[rows[2] == level].mean(), rel=1e-12)
    summaries = []
    for worker in range(2):
        own, wanted_N = Evaluation(tiny_schema), rows[4] % 2 == worker
        first_N, second_N = known.moments["stay"]
        own.add(*part_of(rows, wanted_N), known=Known(moments={"stay": (first_N[wanted_N], second_N[wanted_N])}))
        summaries.append(own.summary())
    assert Summary.together(summaries).result()["targets"]["stay"] == found
    infinite = rows[0] | {"stay": np.full(len(chance_N), np.inf)}
    broken = Evaluation(tiny_schema)
    broken.add(infinite, *rows[1:], known=known)
    assert broken.result()["targets"]["stay"]["expected_mse_transformed"] is None
