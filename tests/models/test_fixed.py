"""The schema's loss weights, for all users or those of one stage."""

from dataclasses import replace

import pytest
import torch

from models.config import ConfigError
from models.schema import Stages
from models.slots import Training
from models.weightings.fixed import Fixed, FixedConfig


def test_the_stage_that_is_trained_on_has_the_weights_and_the_others_none(tiny_schema, tiny_batch):
    staged = replace(tiny_schema, stages=Stages(click="click", stay="stay", order="order"))
    stage_R = torch.tensor([0, 1, 2, 3, 3, 0])
    batch = replace(tiny_batch, stage_R=stage_R)
    weights = Fixed(FixedConfig(stage="loyal"), staged, None)(None, Training(batch=batch, progress=0.0, beliefs={})).targets
    loyal_N = torch.isin(batch.feed_of_candidate_N, torch.tensor([3, 4])).float()
    for target in staged.targets:
        assert torch.equal(weights[target.name], target.loss_weight * loyal_N)
    whole = Fixed(FixedConfig(), staged, None)(None, Training(batch=batch, progress=0.0, beliefs={})).targets
    assert whole == {target.name: target.loss_weight for target in staged.targets}


def test_a_stage_needs_a_schema_with_stages(tiny_schema, tiny_batch):
    with pytest.raises(ConfigError, match=r"weighting\.stage is `new`, but the schema sorts users into no stages"):
        Fixed(FixedConfig(stage="new"), replace(tiny_schema, stages=None), None)
