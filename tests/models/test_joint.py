import threading

import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from models.learners.workers import SingleWorker
from models.optim import OptimiserConfig
from models.ranker import Ranker
from models.schema import Schema
from models.slots import Coupled
from models.system import build_learner
from models.zoo import ZOO
from tests.models.helpers import Threads, replaced, take
from tests.samples import TABLE_SIZES, random_batch, tiny_schema


def learner_of(schema: Schema, group=None, system: str = "shared_bottom"):
    torch.manual_seed(0)
    ranker = Ranker(schema, ZOO[system], TABLE_SIZES)
    return ranker, build_learner(ranker, schema, ZOO[system].learner, OptimiserConfig(), group or SingleWorker())


def with_loss_weights(**weights: float) -> Schema:
    spelling = tiny_schema().to_dict()
    for target in spelling["targets"]:
        target["loss_weight"] = weights[target["name"]]
    return Schema.from_dict(spelling)


def test_a_step_descends_the_weighted_sum_of_mean_losses():
    """Against plain autograd over whole tables and torch's Adam; on a first step both Adams agree row for row."""
    schema = with_loss_weights(click=1.0, goods_bag=0.5, order=2.0, stay=0.1)
    batch = random_batch(schema, TABLE_SIZES, feeds=6, seed=0)
    ranker, learner = learner_of(schema)
    plain, _ = learner_of(schema)
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3)
    outputs, labels = plain(batch), batch.labels
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    parts = {name: bce(outputs[name], labels[name]) for name in ("click", "goods_bag", "order")}
    parts["stay"] = ((outputs["stay"] - labels["stay"].log1p()) ** 2).mean()
    sum(schema.target(name).loss_weight * part for name, part in parts.items()).backward()
    optimiser.step()
    reported = learner.step(batch)
    for name, part in parts.items():
        assert reported[name] == (pytest.approx(part.item() * batch.candidates, rel=1e-5), batch.candidates)
    for (name, one), (_, other) in zip(ranker.named_parameters(), plain.named_parameters(), strict=True):
        assert_close(one, other, rtol=1e-4, atol=1e-6, msg=name)


def test_a_target_of_weight_zero_is_reported_and_not_trained():
    schema = with_loss_weights(click=1.0, goods_bag=1.0, order=1.0, stay=0.0)
    ranker, learner = learner_of(schema, system="single")
    before = {name: parameter.clone() for name, parameter in ranker.coupling.named_parameters()}
    reported = learner.step(random_batch(schema, TABLE_SIZES, feeds=6, seed=0))
    assert reported["stay"][0] > 0
    moved = {name for name, parameter in ranker.coupling.named_parameters() if (parameter != before[name]).any()}
    assert moved == {name for name in before if "stay" not in name}


def test_nothing_to_train_for_is_refused():
    with pytest.raises(ConfigError, match="every target has loss_weight 0"):
        learner_of(with_loss_weights(click=0, goods_bag=0, order=0, stay=0))


def test_missing_labels_are_named():
    schema = tiny_schema()
    batch = random_batch(schema, TABLE_SIZES, feeds=6, seed=0)
    _, learner = learner_of(schema)
    with pytest.raises(ValueError, match=r"the batch has no labels for: click\. Training needs one per target"):
        learner.step(replaced(batch, labels={name: values for name, values in batch.labels.items() if name != "click"}))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update(bad):
    schema = tiny_schema()
    batch = random_batch(schema, TABLE_SIZES, feeds=6, seed=0)
    labels = {**batch.labels, "stay": torch.full_like(batch.labels["stay"], bad)}
    ranker, learner = learner_of(schema)
    learner.step(batch)
    before = {name: value.clone() for name, value in ranker.state_dict().items()}
    with pytest.raises(FloatingPointError, match="the loss is not finite for `stay`"):
        learner.step(replaced(batch, labels=labels))
    assert_same(before, ranker.state_dict())


def test_all_workers_stop_for_one_workers_bad_loss():
    schema = tiny_schema()
    batch = random_batch(schema, TABLE_SIZES, feeds=6, seed=0)
    bad = replaced(batch, labels={**batch.labels, "click": batch.labels["click"] * float("nan")})
    caught = []
    lock = threading.Lock()

    def work(group):
        with lock:
            _, learner = learner_of(schema, group)
        try:
            learner.step(bad if group.rank == 1 else batch)
        except FloatingPointError as error:
            caught.append(str(error))

    Threads(2).run(work)
    assert len(caught) == 2 and all("`click`" in message for message in caught)


def test_a_step_that_no_worker_has_a_batch_for_changes_nothing():
    schema = tiny_schema()
    ranker, learner = learner_of(schema)
    learner.step(random_batch(schema, TABLE_SIZES, feeds=6, seed=0))
    before = {name: value.clone() for name, value in ranker.state_dict().items()}
    assert learner.step(None) == dict.fromkeys(schema.target_names, (0.0, 0.0))
    assert_same(before, ranker.state_dict())


def test_a_stopped_training_goes_on_as_if_undisturbed():
    schema = tiny_schema()
    batches = [random_batch(schema, TABLE_SIZES, feeds=6, seed=seed) for seed in range(6)]
    whole, learner = learner_of(schema)
    for batch in batches:
        learner.step(batch)
    first, learner = learner_of(schema)
    for batch in batches[:3]:
        learner.step(batch)
    weights, state = {name: value.clone() for name, value in first.state_dict().items()}, learner.state_dict()
    second, learner = learner_of(schema)
    second.load_state_dict(weights)
    learner.load_state_dict(state)
    for batch in batches[3:]:
        learner.step(batch)
    assert_same(whole.state_dict(), second.state_dict())


def test_penalties_are_divided_by_their_own_count_over_all_workers(monkeypatch):
    """A coupling that adds the sum of squared outputs of `click`: two workers make the step of one."""
    schema = tiny_schema()
    batch = random_batch(schema, TABLE_SIZES, feeds=6, seed=0)

    def coupled(self, vectors, labels):
        outputs = self.heads(vectors)
        count = torch.tensor(float(len(outputs["click"])))
        return Coupled(outputs=outputs, penalties={"calm": (outputs["click"].square().sum(), count)})

    coupling = type(learner_of(schema)[0].coupling)
    monkeypatch.setattr(coupling, "forward", coupled)
    monkeypatch.setattr(coupling, "penalties", ("calm",))
    alone, learner = learner_of(schema)
    reported = learner.step(batch)
    assert reported["calm"] == (pytest.approx(learner_of(schema)[0](batch)["click"].square().sum().item()), batch.candidates)
    lock = threading.Lock()

    def work(group):
        with lock:
            ranker, learner = learner_of(schema, group)
        learner.step(take(batch, [0, 1]) if group.rank == 0 else take(batch, [2, 3, 4, 5]))
        return ranker.state_dict()

    for weights in Threads(2).run(work):
        for name, value in alone.state_dict().items():
            assert_close(weights[name], value, rtol=1e-3, atol=2e-5, msg=name)
    without, _ = learner_of(schema)
    assert any((alone.state_dict()[name] != value).any() for name, value in without.state_dict().items())


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
