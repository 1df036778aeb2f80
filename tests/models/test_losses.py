"""Losses and the fused score."""

import math

import pytest
import torch
from torch.testing import assert_close

from models.losses import candidate_losses, in_label_unit, sum_count, transformed
from models.schema import Target
from models.score import fused_score
from tests.samples import tiny_schema

STAY = Target(name="stay", action="enter", kind="value", transform="log1p")
SECONDS = Target(name="seconds", action="enter", kind="value")


def test_losses_by_hand():
    """Binary: p = 1/2 for a 1, p = 3/4 for a 0. Value: e - 1 seconds are 1 in the transformed space, predicted 3."""
    zeros = torch.zeros(2)
    outputs = {
        "click": torch.tensor([0.0, math.log(3)]),
        "goods_bag": zeros,
        "order": zeros,
        "stay": torch.tensor([3.0, 0.5]),
    }
    labels = {"click": torch.tensor([1.0, 0.0]), "goods_bag": zeros, "order": zeros, "stay": torch.tensor([math.e - 1, 0.0])}
    losses = candidate_losses(outputs, labels, tiny_schema())
    assert_close(losses["click"], torch.tensor([math.log(2), math.log(4)]))
    assert_close(losses["stay"], torch.tensor([4.0, 0.25]))
    total, count = sum_count(losses["stay"])
    assert (total.item(), count.item()) == (pytest.approx(4.25), 2.0)


def test_a_far_off_logit_has_a_finite_loss():
    outputs = dict.fromkeys(("click", "goods_bag", "order", "stay"), torch.tensor([-200.0]))
    labels = dict.fromkeys(outputs, torch.ones(1))
    assert candidate_losses(outputs, labels, tiny_schema())["click"].item() == 200.0


def test_missing_labels_are_named():
    with pytest.raises(ValueError, match="the batch has no labels for: goods_bag, stay"):
        candidate_losses({}, {"click": torch.ones(1), "order": torch.ones(1)}, tiny_schema())


def test_predictions_come_back_in_the_labels_unit():
    assert in_label_unit(STAY, torch.tensor([math.log(31), -2.0])).tolist() == pytest.approx([30.0, 0.0])
    assert in_label_unit(SECONDS, torch.tensor([30.0, -2.0])).tolist() == [30.0, 0.0]
    assert transformed(STAY, torch.tensor([30.0])).item() == pytest.approx(math.log(31))
    assert transformed(SECONDS, torch.tensor([30.0])).item() == 30.0


def test_the_fused_score_is_the_weighted_sum():
    """Schema's weights: click .5, goods bag .2, order 1, stay .1 of log(1 + seconds)."""
    predictions = {
        "click": torch.tensor([0.4, 1.0]),
        "goods_bag": torch.tensor([0.5, 0.0]),
        "order": torch.tensor([0.1, 0.0]),
        "stay": torch.tensor([math.e - 1, 0.0]),
    }
    assert fused_score(predictions, tiny_schema()).tolist() == pytest.approx([0.2 + 0.1 + 0.1 + 0.1, 0.5])
    assert fused_score(predictions, tiny_schema(), {"order": 2.0}).tolist() == pytest.approx([0.2, 0.0])


def test_wrong_fusion_weights_are_refused():
    with pytest.raises(ValueError, match="fusion weights name gift; the targets are: click, goods_bag, order, stay"):
        fused_score({}, tiny_schema(), {"gift": 1.0})
    with pytest.raises(ValueError, match="all fusion weights are 0"):
        fused_score({}, tiny_schema(), {"click": 0.0})
