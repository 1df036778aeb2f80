"""Targets with parents learnt over the candidates whose parents happened (`children: entered`), on rankers."""

import dataclasses
import threading

import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from models.couplings.aitm import AitmConfig
from models.couplings.dbmtl import DbmtlConfig
from models.couplings.esmm import EsmmConfig
from models.fusions.single import SingleConfig
from models.learners.adaptive import AdaptiveConfig
from models.learners.joint import JointConfig
from models.learners.workers import SingleWorker
from models.optim import AdamConfig, OptimiserConfig
from models.ranker import Ranker
from models.schema import Schema
from models.system import SystemConfig, build_learner
from models.weightings.fixed import FixedConfig
from tests.models.helpers import Threads, double, replaced, take
from tests.samples import TABLE_SIZES, full_schema, random_batch, tiny_schema

ENTERED = SystemConfig(
    embedding_width=4, fusion=SingleConfig(hidden=(8,)), coupling=DbmtlConfig(hidden=(4,)), children="entered"
)


def built(config: SystemConfig, schema: Schema, group=None):
    torch.manual_seed(0)
    ranker = Ranker(schema, config, TABLE_SIZES).double()
    return ranker, build_learner(ranker, schema, config.learner, OptimiserConfig(), group or SingleWorker())


@pytest.mark.parametrize("learner", [JointConfig(), AdaptiveConfig(every=2)], ids=["joint", "adaptive"])
def test_two_workers_equal_one(learner):
    """Float64, 4 steps; workers have entered candidates in unlike numbers, the second one none at the third step."""
    schema, config = full_schema(), dataclasses.replace(ENTERED, learner=learner)
    batches = [double(random_batch(schema, TABLE_SIZES, feeds=9, seed=seed)) for seed in range(4)]
    batches[2] = replaced(
        batches[2], labels={name: label_N * (batches[2].feed_of_candidate_N < 5) for name, label_N in batches[2].labels.items()}
    )
    shares = [(take(batch, [0, 1, 2, 3, 4]), take(batch, [5, 6, 7, 8])) for batch in batches]
    lock = threading.Lock()

    def train(group, mine):
        with lock:
            ranker, learner = built(config, schema, group)
        return ranker.state_dict(), [learner.step(batch, place / 4) for place, batch in enumerate(mine)]

    alone, losses = train(SingleWorker(), batches)
    (first, theirs), (second, _) = Threads(2).run(lambda group: train(group, [share[group.rank] for share in shares]))
    for name, value in alone.items():
        assert_close(first[name], value, rtol=1e-9, atol=1e-9, msg=name)
        assert torch.equal(first[name], second[name])
    for whole, parts, batch in zip(losses, theirs, batches, strict=True):
        assert all(parts[name] == pytest.approx(whole[name], rel=1e-9) for name in whole)
        assert whole["order"][1] == (batch.labels["goods_bag"] > 0).sum() and whole["click"][1] == batch.candidates


def test_a_label_of_what_was_not_entered_teaches_nothing():
    """Whatever stands there, as where a platform notes an order without the click before it."""
    schema = tiny_schema()
    batch = double(random_batch(schema, TABLE_SIZES, feeds=20, seed=0))
    odd = batch.labels["order"].where(batch.labels["goods_bag"] > 0, 1 - batch.labels["order"])
    weights = []
    for labels in (batch.labels, {**batch.labels, "order": odd}):
        ranker, learner = built(ENTERED, schema)
        learner.step(replaced(batch, labels=labels))
        weights.append(ranker.state_dict())
    assert (odd != batch.labels["order"]).any()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_child_is_predicted_as_a_product_and_learnt_as_a_chance():
    """A target that happens just where its parent does: its own chance goes to 1, its prediction to the parent's."""
    schema = tiny_schema()
    batch = double(random_batch(schema, TABLE_SIZES, feeds=30, seed=0))
    batch = replaced(batch, labels={**batch.labels, "goods_bag": batch.labels["click"]})
    torch.manual_seed(0)
    ranker = Ranker(schema, ENTERED, TABLE_SIZES).double()
    learner = build_learner(ranker, schema, JointConfig(), OptimiserConfig(dense=AdamConfig(rate=0.01)), SingleWorker())
    for _ in range(150):
        learner.step(batch)
    with torch.no_grad():
        outputs, predicted = ranker(batch), ranker.predict(batch)
    assert outputs["goods_bag"].sigmoid().min() > 0.9
    assert_close(predicted["goods_bag"], outputs["goods_bag"].sigmoid() * outputs["click"].sigmoid())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coupling": EsmmConfig()}, "but coupling esmm speaks of chances over all candidates"),
        ({"coupling": AitmConfig(calibrator=0.6)}, "but coupling aitm's calibrator speaks of chances over all candidates"),
    ],
)
def test_couplings_that_speak_of_all_candidates_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Ranker(tiny_schema(), dataclasses.replace(ENTERED, **changes), TABLE_SIZES)
    assert Ranker(tiny_schema(), dataclasses.replace(ENTERED, coupling=AitmConfig(calibrator=0.0)), TABLE_SIZES).trained


def test_a_product_wants_all_its_factors():
    spelling = tiny_schema().to_dict()
    spelling["targets"][1]["loss_weight"] = 0.0
    with pytest.raises(ConfigError, match="predicts `order` as a product with the chance of `goods_bag`, which is not trained"):
        Ranker(Schema.from_dict(spelling), ENTERED, TABLE_SIZES)
    assert Ranker(tiny_schema(), dataclasses.replace(ENTERED, weighting=FixedConfig(targets="roots")), TABLE_SIZES).trained
