import dataclasses

import pytest
import torch
from torch.testing import assert_close

from models.batch import joined
from models.config import ConfigError, from_dict
from models.interests.pooling import PoolingConfig
from models.learners.finetune import FinetuneConfig
from models.learners.joint import Joint, JointConfig
from models.learners.schedule import Schedule
from models.learners.workers import SingleWorker
from models.leveled import Leveled
from models.optim import OptimiserConfig
from models.system import SystemConfig, build_learner
from tests.models.helpers import Threads, double, replaced, take
from tests.samples import TABLE_SIZES, full_schema, random_batch, tiny_schema

SMALL = SystemConfig(embedding_width=4, interest=PoolingConfig())


def leveled(schema, learner: FinetuneConfig) -> Leveled:
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, learner=learner)
    return Leveled(schema, config, TABLE_SIZES, tied=learner.specific == "dense").double()


def made(config: FinetuneConfig, schema, group=None, *, ranker=None, counts=(10, 30, 90), steps=10):
    ranker = ranker or leveled(schema, config)
    schedule = Schedule(epochs=1, steps=steps, candidates_of_level=counts)
    return ranker, build_learner(ranker, schema, config, OptimiserConfig(), group or SingleWorker(), schedule)


def joint_of(ranker, schema) -> Joint:
    return Joint(ranker, schema, JointConfig(), OptimiserConfig(), SingleWorker())


def some_batch(schema, seed: int, feeds: int = 8):
    return double(random_batch(schema, TABLE_SIZES, feeds=feeds, seed=seed))


def with_levels(schema, seed: int, counts):
    """Feeds of one candidate each."""
    batch = double(random_batch(schema, TABLE_SIZES, feeds=sum(counts), seed=seed, most_candidates=1))
    return replaced(batch, level_N=torch.repeat_interleave(torch.arange(3), torch.tensor(counts)))


def assert_equal(found, expected) -> None:
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_pretraining_is_joint_training_and_then_every_level_goes_its_own_way():
    """Ten joint batches in five rounds: six of joint training, bit for bit, then four of a training on each level's candidates
    that starts anew. Levels of 4, 2 and 1 candidates a batch: the first takes a step a batch, the second one in two, and the
    last one at the end of each round, when all that wait are taken.
    """
    schema, config = tiny_schema(), FinetuneConfig()
    ranker, learner = made(config, schema)
    plain = leveled(schema, config).first
    joint = joint_of(plain, schema)
    batches = [with_levels(schema, seed, (4, 2, 1)) for seed in range(10)]
    for place in range(6):
        assert learner.step(batches[place], place / 10) == joint.step(batches[place], place / 10)
        assert learner.at_rest == (place % 2 == 1) and not learner.is_selectable
        if learner.at_rest:
            for each in ranker.rankers:
                assert_equal(each.state_dict(), plain.state_dict())
    assert learner.switch == 6
    copies = leveled(schema, config).rankers
    for each in copies:
        each.load_state_dict(plain.state_dict())
    joints = [joint_of(each, schema) for each in copies]
    for begin in (6, 8):
        for place in (begin, begin + 1):
            learner.step(batches[place], place / 10)
            joints[0].step(batches[place].of_candidates(batches[place].level_N == 0), place / 10)
        assert learner.at_rest and learner.is_selectable
        for level in (1, 2):  # half and a quarter of a step's worth in each batch; both wait until the round's end
            pooled = [each.of_candidates(each.level_N == level) for each in batches[begin : begin + 2]]
            joints[level].step(_both(*pooled), (begin + 1) / 10)
    for mine, theirs in zip(ranker.rankers, copies, strict=True):
        for name, value in theirs.state_dict().items():
            assert_close(mine.state_dict()[name], value, rtol=1e-12, atol=1e-13, msg=lambda text, name=name: f"{name}: {text}")
    away = [mine - before for mine, before in zip(ranker.rankers[2].parameters(), plain.parameters(), strict=True)]
    dense = [
        each for each, (name, _) in zip(away, plain.named_parameters(), strict=True) if not name.startswith("embedding.sets")
    ]
    expected = sum(float(each.square().sum()) for each in dense) ** 0.5
    assert learner.diagnostics()["norm.head"] == pytest.approx(expected) and expected > 0
    with pytest.raises(ValueError, match="finetune was to train for 10 joint batches, and has had all of them"):
        learner.step(batches[0])


def _both(first, second):
    """Feeds of one candidate each, one batch after the other; all histories padded to one length beforehand."""
    whole = joined([first, second])
    assert whole.candidates == first.candidates + second.candidates
    return whole


def test_balanced_pretraining_takes_as_many_of_each_level_as_the_smallest_has(monkeypatch):
    schema = tiny_schema()
    _, learner = made(FinetuneConfig(sampling="balanced", rounds_per_epoch=1, pretraining=0.9), schema, counts=(10, 30, 90))
    assert learner.kept == pytest.approx([1, 1 / 3, 1 / 9])
    ranker, learner = made(FinetuneConfig(sampling="balanced"), schema, counts=(10, 30, 90))
    seen, steps = torch.zeros(3), []
    plain = learner.common_rebatcher.take

    def watched(pool):
        batch = plain(pool)
        if batch is not None:
            steps.append(batch.candidates)
            seen.add_(torch.bincount(batch.level_N, minlength=3))
        return batch

    monkeypatch.setattr(learner.common_rebatcher, "take", watched)
    for place in range(6):
        learner.step(with_levels(schema, place, (20, 60, 180)), place / 10)
    assert seen[0] == 120  # all of the smallest level
    for level, share in ((1, 1 / 3), (2, 1 / 9)):
        shown = 6 * (60, 180)[level - 1]
        assert seen[level] == pytest.approx(120, abs=4.5 * (shown * share * (1 - share)) ** 0.5)
    assert len(steps) == 3  # a round's two batches are worth 6 / 13 of a step, which its end takes
    assert all(torch.equal(a, b) for a, b in zip(ranker.rankers[0].parameters(), ranker.rankers[2].parameters(), strict=True))


def test_with_dense_parts_tables_stay_as_pretrained():
    schema = tiny_schema()
    ranker, learner = made(FinetuneConfig(specific="dense"), schema)
    (tables,) = ranker.first.table_sets().values()
    assert all(each.table_sets()[next(iter(each.table_sets()))] is tables for each in ranker.rankers)
    for place in range(6):
        before = tables.weight.clone()
        learner.step(some_batch(schema, place), place / 10)
        assert not torch.equal(tables.weight, before)
    before, dense = tables.weight.clone(), [each.clone() for each in learner.distributed[1].dense]
    for place in range(6, 10):
        learner.step(some_batch(schema, place), place / 10)
    assert torch.equal(tables.weight, before)
    assert any(not torch.equal(was, now) for was, now in zip(dense, learner.distributed[1].dense, strict=True))


def test_without_pretraining_it_is_one_model_a_level():
    """CMLIR without shared parameters: bit by bit what a training on each level's candidates alone makes, without a rate of its
    own; levels of one size take a step a batch.
    """
    schema, config = tiny_schema(), FinetuneConfig(pretraining=0)
    ranker, learner = made(config, schema, counts=(4, 4, 4))
    apart = leveled(schema, config).rankers
    joints = [joint_of(each, schema) for each in apart]
    assert learner.plan == "finetune: a ranker for each level from the start, over 10 joint batches."
    for place in range(10):
        batch = with_levels(schema, place, (4, 4, 4))
        learner.step(batch, place / 10)
        assert learner.is_selectable
        for level, joint in enumerate(joints):
            joint.step(batch.of_candidates(batch.level_N == level), place / 10)
    for mine, theirs in zip(ranker.rankers, apart, strict=True):
        assert_equal(mine.state_dict(), theirs.state_dict())
    assert all(learner.diagnostics()[f"norm.{name}"] > 0 for name in ("tail", "medium", "head"))


CASES = {
    "natural": FinetuneConfig(),
    "balanced, dense": FinetuneConfig(sampling="balanced", specific="dense"),
    "apart": FinetuneConfig(pretraining=0),
}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_two_workers_train_what_one_would_on_the_joint_batch(config):
    schema = full_schema()
    joint = [some_batch(schema, seed, feeds=7) for seed in range(10)]
    parts = [[take(batch, [0, 2, 3]), take(batch, [1, 4, 5, 6])] for batch in joint]
    parts[2], parts[8] = [None, joint[2]], [joint[8], None]
    rankers = [leveled(schema, config) for _ in range(2)]  # made here, for threads share a generator

    def train(group, mine, ranker=None):
        ranker, learner = made(config, schema, group, ranker=ranker)
        for place, batch in enumerate(mine):
            learner.step(batch, place / 10)
        return ranker.state_dict(), learner.diagnostics()

    weights, told = train(SingleWorker(), joint)
    for found, found_told in Threads(2).run(
        lambda group: train(group, [each[group.rank] for each in parts], rankers[group.rank])
    ):
        assert found_told == pytest.approx(told, rel=1e-8)
        for name, value in weights.items():
            assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
@pytest.mark.parametrize("steps", [2, 6, 8])
def test_a_stopped_training_goes_on_as_if_undisturbed(config, steps, tmp_path):
    schema = tiny_schema()
    batches = [some_batch(schema, seed) for seed in range(10)]
    whole, undisturbed = made(config, schema)
    for place, batch in enumerate(batches):
        undisturbed.step(batch, place / 10)
    first, learner = made(config, schema)
    for place, batch in enumerate(batches[:steps]):
        learner.step(batch, place / 10)
    torch.save({"ranker": first.state_dict(), "learner": learner.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second, learner = made(config, schema)
    second.load_state_dict(state["ranker"])
    learner.load_state_dict(state["learner"])
    for place, batch in enumerate(batches[steps:], steps):
        learner.step(batch, place / 10)
    assert_equal(second.state_dict(), whole.state_dict())
    assert learner.diagnostics() == undisturbed.diagnostics()


def test_it_cannot_be_saved_in_the_middle_of_a_round():
    _, learner = made(FinetuneConfig(), tiny_schema())
    learner.step(some_batch(tiny_schema(), 0))
    with pytest.raises(ValueError, match="finetune can be saved only at rest"):
        learner.state_dict()


def test_what_is_refused():
    with pytest.raises(ConfigError, match=r"0 <= pretraining < 1 and rounds_per_epoch >= 1, got pretraining=1.0, rounds"):
        from_dict(FinetuneConfig, {"pretraining": 1})
    with pytest.raises(
        ConfigError, match=r"pretraining=0 has no common ranker.*specific: all and sampling: natural, got dense"
    ):
        from_dict(FinetuneConfig, {"pretraining": 0, "specific": "dense"})
    with pytest.raises(ConfigError, match="finetune divides candidates by level, but the training data have none"):
        made(FinetuneConfig(), tiny_schema(), counts=(0, 0, 0))
