"""Losses and the fused score."""

import math

import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from models.losses import Losses, believed, sum_count
from models.schema import Schema
from models.score import fused_score
from tests.samples import full_schema, tiny_schema


def test_losses_by_hand():
    """Binary: p = 1/2 for a 1, p = 3/4 for a 0. Value: the logarithm of e - 1 seconds is 1, predicted 3."""
    zeros = torch.zeros(2)
    outputs = {
        "click": torch.tensor([0.0, math.log(3)]),
        "goods_bag": zeros,
        "order": zeros,
        "stay": torch.tensor([3.0, 0.5]),
    }
    labels = {"click": torch.tensor([1.0, 0.0]), "goods_bag": zeros, "order": zeros, "stay": torch.tensor([math.e - 1, 0.0])}
    losses = Losses(tiny_schema())(outputs, labels)
    assert_close(losses["click"], torch.tensor([math.log(2), math.log(4)]))
    assert_close(losses["stay"], torch.tensor([4.0, 0.25]))
    total, count = sum_count(losses["stay"])
    assert (total.item(), count.item()) == (pytest.approx(4.25), 2.0)


def test_children_may_be_learnt_over_entered_candidates_alone():
    """Three candidates: not clicked, clicked without the goods bag, both. p = 1/2 throughout; 2 for a stay of e - 1 s."""
    labels = {
        "click": torch.tensor([0.0, 1.0, 1.0]),
        "goods_bag": torch.tensor([0.0, 0.0, 1.0]),
        "order": torch.tensor([0.0, 0.0, 1.0]),
        "stay": torch.tensor([0.0, 0.0, math.e - 1]),
    }
    outputs = dict.fromkeys(("click", "goods_bag", "order"), torch.zeros(3)) | {"stay": torch.full((3,), 2.0)}
    losses, half = Losses(tiny_schema(), entered=True), math.log(2)
    found, over = losses(outputs, labels), losses.over(labels)
    assert {name: over_N.tolist() for name, over_N in over.items()} == {
        "goods_bag": [False, True, True],
        "order": [False, False, True],
        "stay": [False, True, True],
    }
    sums = {name: [part.item() for part in sum_count(found[name], over.get(name))] for name in found}
    expected = {"click": [3 * half, 3], "goods_bag": [2 * half, 2], "order": [half, 1], "stay": [4 + 1, 2]}
    assert sums == {name: pytest.approx(values) for name, values in expected.items()}
    assert Losses(tiny_schema()).over(labels) == {}
    predicted = losses.predictions(outputs)
    assert {name: values[0].item() for name, values in predicted.items()} == pytest.approx(
        {"click": 1 / 2, "goods_bag": 1 / 4, "order": 1 / 8, "stay": (math.exp(2) - 1) / 2}
    )
    judged = losses.predictions(outputs, judged=True)
    assert judged.keys() - predicted.keys() == {"log.stay"} and judged["log.stay"][0].item() == pytest.approx(2 / 2)


def test_a_value_has_no_chance_to_multiply_with():
    spelling = tiny_schema().to_dict()
    spelling["targets"][2]["parents"] = ["stay"]
    with pytest.raises(ConfigError, match="multiplies `order` with the chances of what is above it, but `stay` is a value"):
        Losses(Schema.from_dict(spelling), entered=True)


def test_a_far_off_logit_has_a_finite_loss():
    outputs = dict.fromkeys(("click", "goods_bag", "order", "stay"), torch.tensor([-200.0]))
    labels = dict.fromkeys(outputs, torch.ones(1))
    assert Losses(tiny_schema())(outputs, labels)["click"].item() == 200.0


def test_missing_labels_are_named():
    with pytest.raises(ValueError, match="the batch has no labels for: goods_bag, stay"):
        Losses(tiny_schema())({}, {"click": torch.ones(1), "order": torch.ones(1)})


def test_losses_predictions_and_beliefs_of_a_binned_value():
    """Classes 0 .. 3 with probabilities .1 .2 .3 .4; a label of 150 s is class 2, believed to lie at 2/3."""
    losses = Losses(full_schema())
    losses.fit(dict.fromkeys(("stay", "visit", "price"), torch.linspace(0, 300, 257, dtype=torch.float64)))
    n = torch.zeros(1)
    outputs = {
        **dict.fromkeys(("click", "goods_bag", "order", "stay", "follow"), n),
        "visit": torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log(),
        "price": torch.zeros(1, 3),
    }
    labels = {**dict.fromkeys(outputs, n), "visit": torch.tensor([150.0])}
    assert losses(outputs, labels)["visit"].item() == pytest.approx(-math.log(0.3))
    assert losses.predictions(outputs)["visit"].item() == pytest.approx(0.2 * 50 + 0.3 * 150 + 0.4 * 250)
    assert losses.beliefs(labels)["visit"].item() == pytest.approx(2 / 3)
    assert believed(full_schema().target("visit"), outputs["visit"]).item() == pytest.approx((0.2 + 2 * 0.3 + 3 * 0.4) / 3)


def test_a_zero_inflated_value_hands_on_in_one_scale():
    """Of a label: its logarithm in units of the mean one. Of an output: the chance of any times the mean, in the same units."""
    spelling = tiny_schema().to_dict()
    spelling["targets"][3]["head"] = "zero_inflated"
    schema = Schema.from_dict(spelling)
    losses = Losses(schema)
    losses.fit({"stay": torch.full((257,), math.exp(4) - 1, dtype=torch.float64)})
    labels = {**dict.fromkeys(schema.target_names, torch.zeros(2)), "stay": torch.tensor([0.0, math.exp(2) - 1])}
    assert losses.beliefs(labels)["stay"].tolist() == pytest.approx([0.0, 0.5])
    assert believed(schema.target("stay"), torch.tensor([[0.0, -0.5, 0.0]])).item() == pytest.approx(0.25)


def test_a_value_needs_quantiles():
    with pytest.raises(ValueError, match="target `stay` is a value, but there are no quantiles of its labels"):
        Losses(full_schema()).fit({})


def test_the_fused_score_is_the_weighted_sum():
    """Schema's weights: click .5, goods bag .2, order 1, stay .1 a second."""
    predictions = {
        "click": torch.tensor([0.4, 1.0]),
        "goods_bag": torch.tensor([0.5, 0.0]),
        "order": torch.tensor([0.1, 0.0]),
        "stay": torch.tensor([3.0, 0.0]),
    }
    assert fused_score(predictions, tiny_schema()).tolist() == pytest.approx([0.2 + 0.1 + 0.1 + 0.3, 0.5])
    assert fused_score(predictions, tiny_schema(), {"order": 2.0}).tolist() == pytest.approx([0.2, 0.0])


def test_wrong_fusion_weights_are_refused():
    predictions = {"click": torch.ones(2), "stay": torch.ones(2)}
    for name in ("gift", "order"):  # the latter is a target, but this ranker does not learn it
        with pytest.raises(ValueError, match=f"fusion weights name {name}; predicted are: click, stay"):
            fused_score(predictions, tiny_schema(), {name: 1.0})
    with pytest.raises(ValueError, match=r"all fusion weights of what is predicted \(click, stay\) are 0"):
        fused_score(predictions, tiny_schema(), {"click": 0.0})


def test_what_is_not_predicted_is_left_out_of_the_score():
    predictions = {"order": torch.tensor([0.1, 0.3]), "stay": torch.tensor([2.0, 0.0])}
    assert fused_score(predictions, tiny_schema()).tolist() == pytest.approx([0.1 + 0.2, 0.3])
