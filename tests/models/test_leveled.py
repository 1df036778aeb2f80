import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from models.batch import FeedBatch, joined
from models.config import ConfigError
from models.learners.cmlir import CmlirConfig
from models.learners.joint import JointConfig
from models.learners.schedule import Schedule
from models.learners.workers import SingleWorker
from models.leveled import Leveled
from models.optim import AdamConfig, LazyAdamConfig, OptimiserConfig
from models.ranker import Ranker
from models.schema import Levels, Schema
from models.system import build_learner, build_ranker, is_leveled
from models.zoo import ZOO, resolve
from tests.models.helpers import replaced, take
from tests.samples import TABLE_SIZES, full_schema, random_batch, smaller, tiny_schema


def shaken(system: str = "mmoe", *, tied: bool = False, schema=None) -> Leveled:
    """Every level another ranker."""
    torch.manual_seed(0)
    ranker = Leveled(schema or full_schema(), resolve({"system": system}), TABLE_SIZES, tied=tied).eval()
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return ranker


def naive_part(batch: FeedBatch, keep: list[int]) -> FeedBatch:
    """Candidates by place, with tensors put together feed by feed and candidate by candidate."""
    feeds = list(dict.fromkeys(int(batch.feed_of_candidate_N[n]) for n in keep))
    chosen = take(batch, feeds)
    in_chosen = [n for feed in feeds for n in range(batch.candidates) if batch.feed_of_candidate_N[n] == feed]
    rows = torch.tensor([in_chosen.index(n) for n in keep])
    return replaced(
        chosen,
        candidate={name: values[rows] for name, values in chosen.candidate.items()},
        labels={name: values[rows] for name, values in chosen.labels.items()},
        level_N=chosen.level_N[rows],
        feed_of_candidate_N=torch.tensor([feeds.index(int(batch.feed_of_candidate_N[n])) for n in keep]),
    )


def assert_same(first: FeedBatch, second: FeedBatch) -> None:
    seen: list[torch.Tensor] = []
    second.map(lambda tensor: (seen.append(tensor), tensor)[1])
    expected = iter(seen)

    def compare(tensor):
        assert torch.equal(tensor.nan_to_num(-1.0) if tensor.is_floating_point() else tensor, _plain(next(expected)))
        return tensor

    first.map(compare)
    assert next(expected, None) is None


def _plain(tensor):
    return tensor.nan_to_num(-1.0) if tensor.is_floating_point() else tensor


def test_a_part_of_a_batch_is_its_candidates_and_their_feeds():
    batch = random_batch(full_schema(), TABLE_SIZES, feeds=9, seed=3)
    for level in range(3):
        keep_N = batch.level_N == level
        part = batch.of_candidates(keep_N)
        assert_same(part, naive_part(batch, torch.nonzero(keep_N).flatten().tolist()))
        assert 0 < part.feeds < 9 and part.feed_of_candidate_N.unique().tolist() == list(range(part.feeds))
    nothing = batch.of_candidates(torch.zeros(batch.candidates, dtype=torch.bool))
    assert (nothing.feeds, nothing.candidates) == (0, 0)
    assert_same(batch.of_candidates(torch.ones(batch.candidates, dtype=torch.bool)), batch)


def test_batches_are_joined_one_after_the_other_with_histories_of_one_length():
    made = lambda feeds, length: random_batch(full_schema(), TABLE_SIZES, feeds=feeds, seed=feeds, history=length)
    batches = [made(3, 2), made(2, 0), made(4, 5)]
    whole = joined(batches)
    assert (whole.feeds, whole.candidates) == (9, sum(batch.candidates for batch in batches))
    assert {history.is_real_RL.shape[1] for history in whole.histories.values()} == {5}
    start = 0
    for batch in batches:
        again = take(whole, list(range(start, start + batch.feeds)))
        for name, history in batch.histories.items():
            length = history.is_real_RL.shape[1]
            assert torch.equal(again.histories[name].is_real_RL[:, :length], history.is_real_RL)
            assert not again.histories[name].is_real_RL[:, length:].any()
            assert all(torch.equal(again.histories[name].rows[field][:, :length], rows) for field, rows in history.rows.items())
        without = lambda each: replaced(each, histories={})
        assert_same(without(again), without(batch))
        start += batch.feeds
    assert joined(batches[:1]) is batches[0]
    with pytest.raises(ValueError, match="needs at least one batch, got none"):
        joined([])


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("system", ["mmoe", "din", "eliverec", "pimm", "stan"])
def test_every_candidate_is_predicted_by_the_ranker_of_its_level(system, tied):
    ranker = shaken(system, tied=tied)
    batch = random_batch(full_schema(), TABLE_SIZES, feeds=7, seed=1)
    found = ranker.predict(batch)
    assert found.keys() == set(ranker.trained)
    whole = [each.predict(batch) for each in ranker.rankers]  # every ranker on all candidates
    for name, values in found.items():
        expected = torch.stack([whole[int(level)][name][n] for n, level in enumerate(batch.level_N)])
        assert_close(values, expected, rtol=1e-5, atol=1e-6)
    assert any(not torch.allclose(whole[0][name], whole[1][name]) for name in found)


def test_what_nothing_taught_is_predicted_on_request_alone():
    spelling = full_schema().to_dict()
    spelling["targets"][2]["loss_weight"] = 0.0
    ranker = shaken(schema=Schema.from_dict(spelling))
    batch = random_batch(full_schema(), TABLE_SIZES, feeds=7, seed=1)
    for each in (ranker, ranker.first):
        plain, whole = each.predict(batch), each.predict(batch, untaught=True)
        assert "order" not in plain and whole.keys() == {*plain, "order"}
        assert all(torch.equal(whole[name], values) for name, values in plain.items())


def test_one_level_alone_is_its_ranker_on_the_batch():
    ranker = shaken()
    batch = random_batch(full_schema(), TABLE_SIZES, feeds=4, seed=1)
    batch = replaced(batch, level_N=torch.full_like(batch.level_N, 2))
    for name, values in ranker.rankers[2].predict(batch).items():
        assert torch.equal(ranker.predict(batch)[name], values)


def test_levels_start_alike_and_share_what_is_tied():
    schema, config = full_schema(), resolve({"system": "mmoe"})
    one = Ranker(schema, config, TABLE_SIZES)
    apart, tied = (Leveled(schema, config, TABLE_SIZES, tied=each) for each in (False, True))
    batch = random_batch(schema, TABLE_SIZES, feeds=4, seed=1)
    for ranker in (apart, tied):
        for name, values in ranker.eval().predict(batch).items():
            assert_close(values, ranker.first.predict(batch)[name], rtol=1e-5, atol=1e-6)
    numbers = lambda module: sum(parameter.numel() for parameter in module.parameters())
    tables = sum(each.weight.numel() for each in one.table_sets().values())
    assert numbers(apart) == 3 * numbers(one)
    assert numbers(tied) == 3 * (numbers(one) - tables) + tables
    assert tied.rankers[0].losses is tied.rankers[2].losses and apart.rankers[0].losses is apart.rankers[2].losses


@pytest.mark.parametrize("tied", [False, True])
def test_weights_are_saved_once_and_come_back(tied, tmp_path):
    ranker = shaken(tied=tied)
    state = ranker.state_dict()
    places = [value.data_ptr() for value in state.values() if value.numel()]
    assert len(places) == len(set(places))
    assert any("levels.2.embedding.sets" in name for name in state) != tied
    save_file(state, tmp_path / "weights.safetensors")
    other = Leveled(full_schema(), resolve({"system": "mmoe"}), TABLE_SIZES, tied=tied).eval()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    batch = random_batch(full_schema(), TABLE_SIZES, feeds=4, seed=1)
    for name, values in ranker.predict(batch).items():
        assert torch.equal(other.predict(batch)[name], values)
    if tied:
        assert other.rankers[0].table_sets().keys() == other.rankers[1].table_sets().keys()
        with pytest.raises(RuntimeError, match="Missing key"):
            Leveled(full_schema(), resolve({"system": "mmoe"}), TABLE_SIZES, tied=False).load_state_dict(state)


def test_insight_is_that_of_each_candidates_level():
    ranker = shaken("stan")
    batch = random_batch(full_schema(), TABLE_SIZES, feeds=6, seed=2)
    found = ranker.insight(batch)
    whole = [each.insight(batch) for each in ranker.rankers]
    assert found.gates and found.preferences
    for name, gates in found.gates.items():
        expected = torch.stack([whole[int(level)].gates[name][n] for n, level in enumerate(batch.level_N)])
        assert_close(gates, expected, rtol=1e-5, atol=1e-6)
    for name, preferences in found.preferences.items():
        for feed in range(batch.feeds):
            levels = set(batch.level_N[batch.feed_of_candidate_N == feed].tolist())
            mean = sum(whole[level].preferences[name][feed].item() for level in levels) / len(levels)
            assert preferences[feed].item() == pytest.approx(mean, rel=1e-4)


def test_the_learner_decides_whether_levels_have_rankers():
    assert isinstance(build_ranker(tiny_schema(), ZOO["mmoe"], TABLE_SIZES), Ranker)
    for specific, sets in (("all", 3), ("dense", 1), ("none", 3)):
        config = dataclasses.replace(ZOO["mmoe"], learner=CmlirConfig(specific=specific))
        ranker = build_ranker(tiny_schema(), config, TABLE_SIZES)
        assert isinstance(ranker, Leveled)
        assert len({id(tables) for each in ranker.rankers for tables in each.table_sets().values()}) == sets
    one_level = dataclasses.replace(tiny_schema(), levels=Levels(names=("all",), shares=(1.0,)))
    with pytest.raises(ConfigError, match=r"kind: cmlir.* learns weights for each level, but the schema has only `all`"):
        build_ranker(one_level, ZOO["mmoe_cmlir"], TABLE_SIZES)


LEVELED = [name for name, config in ZOO.items() if is_leveled(config.learner)]


def test_leveled_rows_of_the_zoo_are_rankers_that_have_their_contract_tested():
    for name in LEVELED:
        assert dataclasses.replace(ZOO[name], learner=JointConfig()) in (ZOO["mmoe"], ZOO["ple"])


@pytest.mark.parametrize("name", LEVELED)
def test_every_leveled_row_learns_rows_by_heart(name):
    """Each level's rows by the level's ranker, within a training of 60 joint batches."""
    schema, config = full_schema(), smaller(ZOO[name])
    torch.manual_seed(0)
    ranker = build_ranker(schema, config, TABLE_SIZES)
    batch = random_batch(schema, TABLE_SIZES, feeds=12, seed=3, most_candidates=1)
    batch = replaced(batch, level_N=torch.arange(12) % 3)
    optimiser = OptimiserConfig(dense=AdamConfig(rate=0.03), tables=LazyAdamConfig(rate=0.03))
    schedule = Schedule(epochs=2, steps=30, candidates_of_level=(240, 240, 240))
    minutes = -60 * torch.linspace(0.001, 0.999, 257, dtype=torch.float64).log().flip(0)  # as the batch's values are drawn
    ranker.losses.fit({target.name: minutes for target in schema.targets if not target.is_binary})
    learner = build_learner(ranker, schema, config.learner, optimiser, SingleWorker(), schedule)
    first = last = learner.step(batch)
    for step in range(1, 60):
        last = learner.step(batch, step / 30) or last  # nothing is told of batches that only wait
    assert learner.at_rest and learner.is_selectable
    for target in ranker.trained:
        assert last[target][0] / last[target][1] < 0.25 * first[target][0] / first[target][1] + 1e-3, target
