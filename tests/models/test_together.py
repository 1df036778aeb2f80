"""Losses that compare the rows of all workers, as the joint learner trains on them."""

import threading

import pytest
import torch
from torch.testing import assert_close

from models.fusions.single import SingleConfig
from models.interests.disentangled import DisentangledConfig
from models.learners.joint import JointConfig
from models.learners.workers import SingleWorker
from models.optim import AdamConfig, LazyAdamConfig, OptimiserConfig
from models.ranker import Ranker
from models.schema import Schema
from models.system import SystemConfig, build_learner
from tests.models.helpers import Threads, double, replaced, take
from tests.samples import TABLE_SIZES, random_batch, tiny_schema

INTERESTS = {
    "infonce": DisentangledConfig(width=8, heads=2, specific="apart", compare="all"),
    "euclidean, hgn": DisentangledConfig(width=8, encoder="hgn", alignment="euclidean"),
    "cosine, din": DisentangledConfig(width=8, encoder="din", alignment="cosine"),
}
OPTIMISER = OptimiserConfig(dense=AdamConfig(rate=3e-3), tables=LazyAdamConfig(rate=3e-3))
FAINT = 1e-12  # of a target's weight: a training for nothing at all is refused


def learner_of(interest: DisentangledConfig, group=None, schema: Schema | None = None):
    schema = schema or tiny_schema()
    config = SystemConfig(embedding_width=4, interest=interest, fusion=SingleConfig(hidden=(8,)))
    torch.manual_seed(0)
    ranker = Ranker(schema, config, TABLE_SIZES)
    with torch.no_grad():
        for tables in ranker.table_sets().values():
            tables.weight.normal_()
    ranker.double()
    return ranker, build_learner(ranker, schema, JointConfig(), OPTIMISER, group or SingleWorker())


def batch_of(feeds: int, seed: int):
    """Some users have several feeds."""
    batch = double(random_batch(tiny_schema(), TABLE_SIZES, feeds=feeds, seed=seed))
    return replaced(batch, user_R=torch.arange(feeds) % (2 * feeds // 3))


def for_comparisons_only() -> Schema:
    spelling = tiny_schema().to_dict()
    for target in spelling["targets"]:
        target["loss_weight"] = FAINT if target["name"] == "click" else 0.0
    return Schema.from_dict(spelling)


@pytest.mark.parametrize("interest", INTERESTS.values(), ids=INTERESTS)
def test_a_step_descends_targets_and_comparisons(interest):
    """Against plain autograd over whole tables and torch's Adam; on a first step both Adams agree row for row."""
    batch = batch_of(9, seed=0)
    ranker, learner = learner_of(interest)
    plain, _ = learner_of(interest)
    optimiser = torch.optim.Adam(plain.parameters(), lr=3e-3)
    outcome = plain.outcome(batch, progress=0.5)
    parts = {name: loss_N.mean() for name, loss_N in plain.losses(outcome.outputs, batch.labels).items()}
    comparisons = plain.together(outcome.compared)
    sum([*parts.values(), *comparisons.values()]).backward()
    optimiser.step()
    reported = learner.step(batch, progress=0.5)
    for name, part in parts.items():
        assert reported[name] == (pytest.approx(part.item() * batch.candidates, rel=1e-10), batch.candidates)
    for name, part in comparisons.items():
        assert reported[name] == (pytest.approx(part.item(), rel=1e-10), 1)
    for (name, one), (_, other) in zip(ranker.named_parameters(), plain.named_parameters(), strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("interest", INTERESTS.values(), ids=INTERESTS)
def test_workers_compare_what_one_would(interest):
    """Float64, 4 steps; at the second the first worker is idle, at the third the second; feeds of one user are apart."""
    batches = [batch_of(9, seed) for seed in range(4)]
    shares = [[take(batch, [0, 1, 2, 3, 4]), take(batch, [5, 6, 7, 8])] for batch in batches]
    batches[1], shares[1] = shares[1][1], [None, shares[1][1]]
    batches[2], shares[2] = shares[2][0], [shares[2][0], None]
    lock = threading.Lock()

    def train(group, mine):
        with lock:  # the seed belongs to the process
            ranker, learner = learner_of(interest, group)
        return ranker.state_dict(), [learner.step(batch, progress=step / 4) for step, batch in enumerate(mine)]

    alone, losses = train(SingleWorker(), batches)
    (first, first_losses), (second, second_losses) = Threads(2).run(
        lambda group: train(group, [share[group.rank] for share in shares])
    )
    assert first_losses == second_losses
    for whole, parts in zip(losses, first_losses, strict=True):
        assert whole.keys() == parts.keys() >= {"disentangled.correlation", "disentangled.alignment"}
        for name in whole:
            assert parts[name] == pytest.approx(whole[name], rel=1e-9)
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert_close(first[name], value, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("loss", ["correlation", "alignment", "specific"])
@pytest.mark.parametrize("alignment", ["infonce", "cosine", "euclidean"])
def test_a_comparison_goes_down_when_trained_on_alone(loss, alignment):
    chosen = DisentangledConfig(
        width=8,
        heads=2,
        correlation=1.0 if loss == "correlation" else 0.0,
        alignment=alignment if loss == "alignment" else "none",
        alignment_weight=1.0,
        specific="apart" if loss == "specific" else "free",
    )
    batch = batch_of(30, seed=0)
    _, learner = learner_of(chosen, schema=for_comparisons_only())
    reported = [learner.step(batch) for _ in range(40)]
    name = f"disentangled.{loss}"
    assert set(reported[0]) == {*tiny_schema().target_names, name}
    before, after = reported[0][name][0], reported[-1][name][0]
    assert after < before - 0.1 * abs(before)


def test_a_step_without_any_batch_compares_nothing():
    ranker, learner = learner_of(INTERESTS["infonce"])
    before = {name: value.clone() for name, value in ranker.state_dict().items()}
    assert learner.step(None) == dict.fromkeys([*tiny_schema().target_names, *ranker.together.names], (0.0, 0.0))
    assert all(torch.equal(value, before[name]) for name, value in ranker.state_dict().items())
