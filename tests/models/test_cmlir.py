import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from models.batch import FeedBatch
from models.config import ConfigError, from_dict
from models.interests.pooling import PoolingConfig
from models.learners.cmlir import Cmlir, CmlirConfig
from models.learners.joint import Joint, JointConfig
from models.learners.rebatching import draw_kept
from models.learners.schedule import Schedule
from models.learners.workers import SingleWorker
from models.leveled import Leveled
from models.optim import AdagradConfig, OptimiserConfig
from models.ranker import Outcome
from models.schema import Levels
from models.slots import Weights
from models.system import SystemConfig, build_learner
from tests.models.helpers import Threads, double, points, replaced, take
from tests.samples import TABLE_SIZES, full_schema, random_batch, tiny_schema

# -- Algorithm 1, by hand ----------------------------------------------------------------------------------------------

RATE = 0.1
EPS = 1e-10


class Line(nn.Module):
    """y = slope x + start: two parameters, loss (y - label)^2 / 2, so gradients are (error x, error)."""

    penalties: tuple[str, ...] = ()
    contrasted: tuple[str, ...] = ()
    together = None
    weighting = SimpleNamespace(varying=(), counts_in_batch=False)

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([1.0, 0.5], dtype=torch.float64))

    def table_sets(self):
        return {}

    def for_training(self, batch, progress):
        return batch

    def gather(self, batch):
        return {}

    def outcome(self, batch, gathered, progress, of_user_R):
        outputs = {"y": self.p[0] * batch.candidate["x"] + self.p[1]}
        return Outcome(outputs=outputs, weights=Weights(targets={"y": 1.0}), penalties={}, compared=None)

    def losses(self, outputs, labels, early=None):
        return {"y": (outputs["y"] - labels["y"]) ** 2 / 2}


LINES = SimpleNamespace(target_names=("y",), levels=Levels(names=("small", "large"), shares=(0.5, 0.5)))
POINTS = {0: (1.0, 3.0), 1: (2.0, 1.0)}  # x and label of each level's candidates


def two_points() -> FeedBatch:
    """One feed with a candidate of each level."""
    x, y = zip(*POINTS.values(), strict=True)
    return FeedBatch(
        feed={},
        candidate={"x": torch.tensor(x, dtype=torch.float64)},
        histories={},
        feed_of_candidate_N=torch.zeros(2, dtype=torch.int64),
        level_N=torch.tensor([0, 1]),
        user_R=torch.ones(1, dtype=torch.int64),
        labels={"y": torch.tensor(y, dtype=torch.float64)},
    )


def adagrad(p, g, sums):
    """A step of Adagrad on a list of numbers, written out; `sums` is its state."""
    for place, slope in enumerate(g):
        sums[place] += slope * slope
        p[place] -= RATE * slope / (math.sqrt(sums[place]) + EPS)


def slope_at(level, p):
    x, y = POINTS[level]
    error = p[0] * x + p[1] - y
    return [error * x, error]


def test_algorithm_1_step_by_step():
    """Two iterations of two steps of each level from W and one of each level's own; all levels are of one size, so Eq. 3 keeps
    everything. Every intermediate is compared with numbers that a page of arithmetic gives.
    """
    rankers = [Line(), Line()]
    optimiser = OptimiserConfig(dense=AdagradConfig(rate=RATE, eps=EPS))
    learner = Cmlir(
        SimpleNamespace(rankers=rankers),
        LINES,
        CmlirConfig(rounds=2, specific_steps=1),
        optimiser,
        SingleWorker(),
        Schedule(epochs=1, steps=4, candidates_of_level=(4, 4)),
    )
    assert [(each.start, each.end) for each in learner.rounds] == [(0, 2), (2, 4)]
    shared, own = [1.0, 0.5], [[0.0, 0.0], [0.0, 0.0]]
    inner_sums, own_sums = [[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]
    held = lambda: [each.p.tolist() for each in rankers]
    first_slopes = [slope_at(level, shared) for level in (0, 1)]
    assert first_slopes == [[-1.5, -1.5], [3.0, 1.5]]  # y(1) = 1.5 against 3; y(2) = 2.5 against 1
    for i, alpha in ((1, 0.5), (2, 0.0)):  # a = 1 - i / N
        assert learner.alpha(i) == alpha
        level_weights = [list(shared), list(shared)]
        for place in (0, 1):  # Eq. 1
            learner.step(two_points(), learner.steps / 4)
            for level in (0, 1):
                adagrad(level_weights[level], slope_at(level, level_weights[level]), inner_sums[level])
            if place == 0:
                assert held() == [pytest.approx(each, abs=1e-12) for each in level_weights]
                assert not learner.at_rest
        if i == 1:  # the first steps of Adagrad are of length RATE, whatever the slope
            assert level_weights[0][0] > 1.1 and level_weights[1][0] < 0.9
        way = [sum(each[place] - shared[place] for each in level_weights) / 2 for place in (0, 1)]
        shared = [shared[place] + alpha * way[place] for place in (0, 1)]  # Eq. 2
        together = [[shared[place] + own[level][place] for place in (0, 1)] for level in (0, 1)]
        slopes = [slope_at(level, together[level]) for level in (0, 1)]
        norms = [math.hypot(*slope) for slope in slopes]
        for level, name in enumerate(LINES.levels.names):
            hardness = norms[level] / sum(norms)  # Eq. 5
            step = [0.0, 0.0]
            adagrad(step, slopes[level], own_sums[level])
            for place in (0, 1):  # Eq. 7
                own[level][place] += (1 - alpha) * hardness * step[place]
            assert learner.diagnostics()[f"hardness.{name}"] == pytest.approx(hardness, abs=1e-12)
            assert learner.diagnostics()[f"gradient.{name}"] == pytest.approx(norms[level], abs=1e-12)
            assert learner.diagnostics()[f"norm.{name}"] == pytest.approx(math.hypot(*own[level]), abs=1e-12)
        together = [[shared[place] + own[level][place] for place in (0, 1)] for level in (0, 1)]
        assert held() == [pytest.approx(each, abs=1e-12) for each in together]
        assert learner.shared[0].tolist() == pytest.approx(shared, abs=1e-12)
        assert learner.at_rest and learner.diagnostics()["alpha"] == alpha and learner.diagnostics()["equal_batch"] == 1
    # in the first iteration both own steps are RATE long in each place times a half of the hardness: by hand to the end
    assert own_sums[0][0] > 0 and learner.alpha(2) == 0
    with pytest.raises(ValueError, match="cmlir was to train for 4 joint batches, and has had all of them"):
        learner.step(two_points())


# -- step 3 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(50, 50), (50, 950)], ids=["one to one", "one to nineteen"])
def test_hardness_does_not_depend_on_how_many_candidates_a_level_has(counts):
    """Labels are what the line says at the start and noise of deviation 1. Its mean e over 50 candidates makes the gradient
    (e, e), whose norm is sqrt(4 / (50 pi)) = .16 in the mean. Over 950 it would be .037, and the small level's share b_c .81.
    """
    learner = Cmlir(
        SimpleNamespace(rankers=[Line(), Line()]),
        LINES,
        CmlirConfig(rounds=1, specific_steps=40),
        OptimiserConfig(dense=AdagradConfig(rate=1e-12)),
        SingleWorker(),
        Schedule(epochs=1, steps=40, candidates_of_level=tuple(40 * each for each in counts)),
    )
    for seed in range(40):
        learner.step(points(seed, counts), seed / 40)
    told = learner.diagnostics()
    assert told["equal_batch"] == 50
    for name in LINES.levels.names:  # means of 40, whose deviations are .12 / sqrt(40) and .25 / sqrt(40)
        assert told[f"gradient.{name}"] == pytest.approx(0.16, abs=0.06)
        assert told[f"hardness.{name}"] == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(
    ("hardness", "expected"), [("even", {0: 0.5, 1: 0.5}), ("none", {0: 1, 1: 1}), ("norm", {0: 0.25, 1: 0.75})]
)
def test_what_hardness_can_be(hardness, expected):
    schedule = Schedule(epochs=1, steps=1, candidates_of_level=(1, 1))
    rankers = SimpleNamespace(rankers=[Line(), Line()])
    learner = Cmlir(rankers, LINES, CmlirConfig(hardness=hardness), OptimiserConfig(), SingleWorker(), schedule)
    assert learner._hardness({0: 2.0, 1: 6.0}) == expected


def test_what_is_told_of_a_level_is_of_the_steps_that_had_any_of_it():
    """Both candidates of the small level are of one user's feeds, so they have one number and go into one batch of the two. In
    the other the large level is alone, with a hardness of 1.
    """
    batch = FeedBatch(
        feed={},
        candidate={"x": torch.tensor([1.0, 1.0, 2.0, 2.0], dtype=torch.float64)},
        histories={},
        feed_of_candidate_N=torch.arange(4),
        level_N=torch.tensor([0, 0, 1, 1]),
        user_R=torch.tensor([7, 7, 8, 9]),
        labels={"y": torch.tensor([3.0, 3.0, 1.0, 1.0], dtype=torch.float64)},
    )
    learner = Cmlir(
        SimpleNamespace(rankers=[Line(), Line()]),
        LINES,
        CmlirConfig(rounds=1, specific_steps=2),
        OptimiserConfig(dense=AdagradConfig(rate=1e-12)),
        SingleWorker(),
        Schedule(epochs=1, steps=1, candidates_of_level=(2, 2)),
    )
    learner.step(batch)
    told = learner.diagnostics()
    norms = [math.hypot(*slope_at(level, [1.0, 0.5])) for level in (0, 1)]  # the same for all candidates of a level
    assert [told["gradient.small"], told["gradient.large"]] == pytest.approx(norms)
    together = [norm / sum(norms) for norm in norms]
    assert told["hardness.small"] == pytest.approx(together[0])  # of the one step that had any
    assert told["hardness.large"] == pytest.approx((1 + together[1]) / 2)


# -- Eq. 3 -------------------------------------------------------------------------------------------------------------


def some_batch(schema, seed: int, feeds: int = 8) -> FeedBatch:
    return double(random_batch(schema, TABLE_SIZES, feeds=feeds, seed=seed))


SMALL = SystemConfig(embedding_width=4, interest=PoolingConfig())


def leveled(schema, learner: CmlirConfig, *, seed: int = 0) -> Leveled:
    torch.manual_seed(seed)
    config = dataclasses.replace(SMALL, learner=learner)
    ranker = Leveled(schema, config, TABLE_SIZES, tied=learner.specific == "dense").double()
    with torch.no_grad():
        for each in ranker.rankers[0].table_sets().values():
            each.weight.normal_()
        for other in ranker.rankers[1:]:
            other.load_state_dict(ranker.rankers[0].state_dict())
    return ranker


def made(config: CmlirConfig, schema, group=None, *, ranker=None, counts=(10, 30, 90), epochs=1, steps=12, **schedule):
    ranker = ranker or leveled(schema, config)
    found = Schedule(epochs=epochs, steps=steps, candidates_of_level=counts, **schedule)
    return ranker, build_learner(ranker, schema, config, OptimiserConfig(), group or SingleWorker(), found)


def test_sampled_shares_follow_eq_3():
    """|D_min| / |D_c| are 1, 1/3, 1/9: nothing is left out at i = 0, square roots at N / 2, all of it at N."""
    _, learner = made(CmlirConfig(rounds=4), tiny_schema())
    assert len(learner.rounds) == 4
    assert learner.kept_of_level(0) == [1, 1, 1]
    assert learner.kept_of_level(2) == pytest.approx([1, 3**-0.5, 1 / 3])
    assert learner.kept_of_level(4) == pytest.approx([1, 1 / 3, 1 / 9])
    assert made(CmlirConfig(sampling="under"), tiny_schema())[1].kept_of_level(0) == pytest.approx([1, 1 / 3, 1 / 9])
    assert made(CmlirConfig(sampling="natural"), tiny_schema())[1].kept_of_level(4) == [1, 1, 1]
    over = made(CmlirConfig(sampling="over"), tiny_schema())[1]
    assert over.kept_of_level(4) == [1, 1, 1] and over.repeats_of_level() == pytest.approx([9, 3, 1])
    smallest_in_the_middle = made(CmlirConfig(), tiny_schema(), counts=(10, 5, 0))[1]
    assert smallest_in_the_middle.kept_of_level(len(smallest_in_the_middle.rounds)) == pytest.approx([0.5, 1, 1])


def test_draws_keep_the_shares_of_eq_3_and_are_drawn_anew():
    schema = tiny_schema()
    batch = random_batch(schema, TABLE_SIZES, feeds=9000, seed=1)
    batch = replaced(batch, user_R=torch.arange(9000))
    first, second = (draw_kept(batch, [1.0, 3**-0.5, 1 / 9], progress) for progress in (0.25, 0.5))
    for level, share in enumerate([1.0, 3**-0.5, 1 / 9]):
        of_level = batch.level_N == level
        deviation = math.sqrt(share * (1 - share) / int(of_level.sum()))
        assert first[of_level].double().mean().item() == pytest.approx(share, abs=4.5 * deviation)
    assert (first != second).any() and torch.equal(first, draw_kept(batch, [1.0, 3**-0.5, 1 / 9], 0.25))


def with_levels(schema, seed: int, counts=(1, 3, 9)) -> FeedBatch:
    """Thirteen feeds of one candidate each, levels in the ratio of the training data."""
    batch = double(random_batch(schema, TABLE_SIZES, feeds=sum(counts), seed=seed, most_candidates=1))
    return replaced(batch, level_N=torch.repeat_interleave(torch.arange(3), torch.tensor(counts)))


@pytest.mark.parametrize(
    ("sampling", "expected"), [("natural", [1.2, 4, 12]), ("over", [12, 12, 12]), ("under", [1.2, 1.4, 1.4])]
)
def test_levels_take_as_many_steps_as_their_samples_are_worth(sampling, expected, monkeypatch):
    """12 joint batches of 1, 3 and 9 candidates in one round: the largest level takes 12 steps, one with a third takes 4, and
    one with a ninth one and, at the round's end, one for what is left.
    """
    _, learner = made(CmlirConfig(rounds=1, specific="none", sampling=sampling), tiny_schema())
    taken, steps = [0.0, 0.0, 0.0], [0, 0, 0]
    for level, optimisers in enumerate(learner.inner):
        plain = optimisers.step

        def counted(*args, level=level, plain=plain, **kwargs):
            steps[level] += 1
            return plain(*args, **kwargs)

        monkeypatch.setattr(optimisers, "step", counted)
    plain_take = learner.rebatcher.take

    def take(level):
        taken[level] += learner.rebatcher.worth[level]
        return plain_take(level)

    monkeypatch.setattr(learner.rebatcher, "take", take)
    for seed in range(12):
        learner.step(with_levels(tiny_schema(), seed), seed / 12)
    if sampling == "under":  # by chance: each level keeps 12 in the mean, of 108 that are worth 12 steps
        assert taken[0] == pytest.approx(12 / 9)
        assert all(worth == pytest.approx(12 / 9, abs=4.5 * math.sqrt(12) / 9) for worth in taken)
    else:
        assert taken == pytest.approx([12 / 9 if sampling == "natural" else 12, 4 if sampling == "natural" else 12, 12])
        assert steps == [math.ceil(worth - 1e-9) for worth in taken]
    assert all(count <= math.ceil(worth - 1e-9) for count, worth in zip(steps, taken, strict=True))


# -- variants ----------------------------------------------------------------------------------------------------------


def test_alpha_1_and_one_level_is_joint_training():
    schema = dataclasses.replace(tiny_schema(), levels=Levels(names=("all",), shares=(1.0,)))
    config = CmlirConfig(adaptor=False, specific="none")
    ranker, learner = made(config, schema, counts=(100,))
    plain = leveled(schema, config).rankers[0]
    joint = Joint(plain, schema, JointConfig(), OptimiserConfig(), SingleWorker())
    for seed in range(12):
        batch = replaced(some_batch(schema, seed), level_N=torch.zeros(some_batch(schema, seed).candidates, dtype=torch.int64))
        mine, theirs = learner.step(batch, seed / 12), joint.step(batch, seed / 12)
        assert mine.keys() == theirs.keys() and all(mine[name] == pytest.approx(theirs[name], rel=1e-12) for name in mine)
    for name, value in plain.state_dict().items():
        assert_close(
            ranker.rankers[0].state_dict()[name], value, rtol=1e-12, atol=1e-13, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_without_specific_parts_it_is_reptile():
    """Against Reptile in loops: a Joint learner a level, put back to W at the start of a round; every level in every batch is
    as large as the largest, so that it takes a step a batch.
    """
    schema = tiny_schema()
    config = CmlirConfig(rounds=3, specific="none", sampling="over", eta=0.5)
    ranker, learner = made(config, schema, counts=(9, 9, 9))
    copies = leveled(schema, config).rankers
    joints = [Joint(each, schema, JointConfig(), OptimiserConfig(), SingleWorker()) for each in copies]
    shared = {name: value.clone() for name, value in copies[0].state_dict().items()}
    for round in (1, 2, 3):
        for each in copies:
            each.load_state_dict(shared)
        for place in range(4):
            step = 4 * (round - 1) + place
            batch = with_levels(schema, step, counts=(4, 4, 4))
            learner.step(batch, step / 12)
            for level, joint in enumerate(joints):
                joint.step(batch.of_candidates(batch.level_N == level), step / 12)
        alpha = 1 - (round / 3) ** 0.5
        ends = [each.state_dict() for each in copies]
        shared = {
            name: value + alpha / 3 * sum(end[name] - value for end in ends) if value.is_floating_point() else value
            for name, value in shared.items()
        }
    for each in ranker.rankers:
        for name, value in shared.items():
            assert_close(each.state_dict()[name], value, rtol=1e-10, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


def test_without_adaptor_both_step_sizes_are_1():
    _, learner = made(CmlirConfig(adaptor=False, step_size=0.5), tiny_schema())
    assert [learner.alpha(i) for i in (1, 2)] == [1, 1]
    _, annealed = made(CmlirConfig(step_size=0.5, eta=2.0, rounds=2), tiny_schema())
    assert [annealed.alpha(i) for i in (1, 2)] == [0.5 * 0.75, 0.0]


def tables_of(ranker: Leveled) -> list[torch.Tensor]:
    """The weights of each level's one table set; one, where they share it."""
    return [each.weight for each in {id(each): each for one in ranker.rankers for each in one.table_sets().values()}.values()]


@pytest.mark.parametrize(("step", "share"), [("mean", 0.5 / 3), ("sum", 0.5)])
@pytest.mark.parametrize("specific", ["all", "dense"])
def test_a_row_that_one_level_has_met_moves_by_its_share_of_the_way(specific, step, share):
    """One joint batch in the first of two rounds, where a is 1/2: a row moves by a / C of the way that its level takes, or by a
    of it, with one copy of the tables as with one for every level, so that these differ in nothing else.
    """
    schema = tiny_schema()
    config = CmlirConfig(rounds=2, specific=specific, table_step=step, sampling="natural")
    ranker, learner = made(config, schema, steps=2, counts=(4, 4, 4))
    twin = leveled(schema, config)
    joint = Joint(twin.rankers[0], schema, JointConfig(), OptimiserConfig(), SingleWorker())
    batch = with_levels(schema, 0, counts=(4, 4, 4))
    before = tables_of(ranker)[0].detach().clone()
    met = []
    for level in (0, 1, 2):
        met.append(torch.zeros(len(before), dtype=torch.bool))
        for gathered in ranker.rankers[level].gather(batch.of_candidates(batch.level_N == level)).values():
            met[level][gathered.ids_U] = True
    learner.step(batch)
    joint.step(batch.of_candidates(batch.level_N == 0))
    only_first = met[0] & ~met[1] & ~met[2]
    assert only_first.any()
    # W, without what levels have of their own
    now = tables_of(ranker)[0] if specific == "dense" else learner.shared[len(learner.distributed[0].dense)]
    assert_close((now - before)[only_first], share * (tables_of(twin)[0] - before)[only_first], rtol=1e-9, atol=1e-12)


def test_tables_of_one_copy_rest_in_specific_steps(monkeypatch):
    schema = tiny_schema()
    ranker, learner = made(CmlirConfig(rounds=2, specific="dense", specific_steps=2), schema, steps=8, counts=(4, 4, 4))
    (tables,) = tables_of(ranker)
    assert len(learner.parts[0]) == len(learner.distributed[0].dense)  # no tables among what is levels' own
    plain, seen = learner._own_steps, []

    def watched(progress):
        before, own = tables.clone(), [[each.clone() for each in part] for part in learner.parts]
        totals = plain(progress)
        assert torch.equal(tables, before)
        seen.append(
            [any(not torch.equal(*pair) for pair in zip(*parts, strict=True)) for parts in zip(own, learner.parts, strict=True)]
        )
        return totals

    monkeypatch.setattr(learner, "_own_steps", watched)
    for seed in range(8):
        learner.step(with_levels(schema, seed, counts=(4, 4, 4)), seed / 8)
    assert seen == [[True] * 3] * 2


def test_levels_without_candidates_stay_what_the_shared_weights_are():
    schema = tiny_schema()
    _, learner = made(CmlirConfig(rounds=2, specific_steps=2), schema, counts=(0, 30, 60))
    for seed in range(12):
        batch = with_levels(schema, seed, counts=(0, 3, 6))
        learner.step(batch, seed / 12)
    assert learner.diagnostics()["norm.tail"] == 0 < learner.diagnostics()["norm.medium"]
    for mine, shared in zip(learner.parts[0], learner.shared, strict=True):
        assert torch.equal(mine, shared)


def test_what_levels_have_of_their_own_outlives_shared_steps(monkeypatch):
    """Of tables too, where W + V_c is put together from the rows that steps have touched. The second round has no step 3."""
    schema = tiny_schema()
    _, learner = made(CmlirConfig(rounds=3, specific_steps=2), schema)
    away = lambda: [[mine - shared for mine, shared in zip(part, learner.shared, strict=True)] for part in learner.parts]
    steps = iter(range(12))
    for seed in [next(steps) for _ in range(learner.rounds[0].end)]:
        learner.step(some_batch(schema, seed))
    before, shared = away(), [each.clone() for each in learner.shared]
    dense = len(learner.distributed[0].dense)
    assert all(any(each.any() for each in part[dense:]) for part in before)
    monkeypatch.setattr(learner, "_own_steps", lambda progress: {})
    for seed in steps:
        learner.step(some_batch(schema, seed))
        if learner.at_rest:
            break
    assert all(not torch.equal(mine, were) for mine, were in zip(learner.shared[dense:], shared[dense:], strict=True))
    for part, were in zip(away(), before, strict=True):
        for place, (mine, each) in enumerate(zip(part, were, strict=True)):
            assert_close(mine, each, rtol=0, atol=1e-14, msg=lambda text, place=place: f"{place}: {text}")


# -- rounds ------------------------------------------------------------------------------------------------------------


def test_rounds_are_those_of_the_whole_training_and_end_with_its_epochs():
    """Five rounds over two and a half passes of 4 joint batches; as many rounds over half the passes are half as long."""
    rounds = lambda count, **schedule: [
        (each.start, each.end) for each in Schedule(candidates_of_level=(1,), **schedule).rounds(count)
    ]
    assert rounds(5, epochs=3, steps=4, max_steps=10) == [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10)]
    assert rounds(5, epochs=2, steps=4, max_steps=5) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert rounds(25, epochs=2, steps=100) == [(100 * i // 12, 100 * (i + 1) // 12) for i in range(12)] + [
        (100 + 100 * i // 13, 100 + 100 * (i + 1) // 13) for i in range(13)
    ]
    # an epoch has one round at least, and no more than joint batches
    assert rounds(2, epochs=3, steps=4) == [(0, 4), (4, 8), (8, 12)]
    assert rounds(25, epochs=2, steps=2) == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_the_plan_says_rounds_and_what_levels_own_steps_read():
    _, learner = made(CmlirConfig(rounds=3), tiny_schema())
    assert learner.plan == "cmlir: 12 joint batches in 3 rounds; 4 steps of 8 candidates of every level after each."
    _, learner = made(CmlirConfig(specific_batch=5, specific_steps=2), tiny_schema())
    assert learner.plan == (
        "cmlir: 12 joint batches in 12 rounds (25 are asked for); 2 steps of 5 candidates of every level after each."
    )
    _, learner = made(CmlirConfig(rounds=3, specific="none"), tiny_schema())
    assert learner.plan == "cmlir: 12 joint batches in 3 rounds."


# -- workers -----------------------------------------------------------------------------------------------------------

CASES = {
    "all": CmlirConfig(rounds=2, specific_steps=2),
    "dense": CmlirConfig(rounds=2, specific_steps=2, specific="dense", hardness="even"),
    "none": CmlirConfig(rounds=2, specific="none", sampling="over"),
    "sums, own batch": CmlirConfig(rounds=4, specific_batch=2, table_step="sum", hardness="none"),
}


def shares(schema, seed: int, workers: int = 2):
    """A joint batch and what each of the workers has of it: in one batch only the second any, in others not every level."""
    joint = some_batch(schema, seed, feeds=7)
    if seed == 3:
        return joint, [None, joint, None][:workers]
    feeds = {2: [[0, 2, 3], [1, 4, 5, 6]], 3: [[0, 2], [1, 4, 5, 6], [3]]}[workers]
    return joint, [take(joint, each) for each in feeds]


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_workers_train_what_one_would_on_the_joint_batch(config, workers):
    schema = full_schema()
    batches = [shares(schema, seed, workers) for seed in range(12)]

    rankers = [leveled(schema, config) for _ in range(workers)]  # made here, for threads share a generator

    def train(group, mine, ranker=None):
        ranker, learner = made(config, schema, group, ranker=ranker)
        totals = [learner.step(batch, place / 12) for place, batch in enumerate(mine)]
        return ranker.state_dict(), totals, learner.diagnostics()

    weights, totals, told = train(SingleWorker(), [joint for joint, _ in batches])
    found = Threads(workers).run(lambda group: train(group, [parts[group.rank] for _, parts in batches], rankers[group.rank]))
    for found_weights, found_totals, found_told in found:
        for name, value in weights.items():
            assert_close(found_weights[name], value, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")
        assert found_told == pytest.approx(told, rel=1e-8, abs=1e-10)
        for mine, theirs in zip(totals, found_totals, strict=True):
            assert mine.keys() == theirs.keys()
            assert all(theirs[name] == pytest.approx(mine[name], rel=1e-9) for name in mine)


def test_local_loops_go_their_own_way_and_meet_at_the_end_of_the_round():
    """Against two trainings apart that are averaged by hand, each with as much say as it has candidates."""
    schema = tiny_schema()
    config = CmlirConfig(rounds=1, specific="none", sampling="natural", adaptor=False, inner="local")
    batches = [shares(schema, seed)[1] for seed in (0, 1, 2)]

    rankers = [leveled(schema, config) for _ in range(2)]

    def train(group):
        ranker, learner = made(config, schema, group, ranker=rankers[group.rank], steps=3, counts=(9, 9, 9))
        for place, parts in enumerate(batches):
            learner.step(parts[group.rank], place / 3)
        return ranker.state_dict()

    together = Threads(2).run(train)
    alone = []
    for rank in (0, 1):
        ranker, learner = made(config, schema, steps=3, counts=(9, 9, 9))
        for place, parts in enumerate(batches):
            learner.step(parts[rank], place / 3)
        alone.append((ranker.state_dict(), sum(parts[rank].candidates for parts in batches)))
    start = leveled(schema, config).state_dict()
    everyone = sum(count for _, count in alone)
    for name, value in start.items():
        if value.is_floating_point():
            expected = value + sum(count / everyone * (end[name] - value) for end, count in alone)
            for found in together:
                assert_close(found[name], expected, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}")


# -- going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_a_stopped_training_goes_on_as_if_undisturbed(config, tmp_path):
    schema = tiny_schema()
    batches = [some_batch(schema, seed) for seed in range(12)]
    whole, undisturbed = made(config, schema)
    for place, batch in enumerate(batches):
        undisturbed.step(batch, place / 12)
    first, learner = made(config, schema)
    for place, batch in enumerate(batches[:6]):
        learner.step(batch, place / 12)
    assert learner.at_rest
    torch.save({"ranker": first.state_dict(), "learner": learner.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second, learner = made(config, schema)
    second.load_state_dict(state["ranker"])
    learner.load_state_dict(state["learner"])
    for place, batch in enumerate(batches[6:], 6):
        learner.step(batch, place / 12)
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    assert learner.diagnostics() == undisturbed.diagnostics()


def test_it_cannot_be_saved_while_shared_weights_are_trained():
    _, learner = made(CmlirConfig(rounds=1), tiny_schema())
    learner.step(some_batch(tiny_schema(), 0))
    with pytest.raises(ValueError, match="cmlir can be saved only at rest"):
        learner.state_dict()


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"eta": 0}, r"eta > 0 and 0 < step_size <= 1, got rounds=25, specific_steps=4, specific_batch=None, eta=0"),
        ({"step_size": 1.5}, "step_size=1.5"),
        ({"specific_steps": 0}, "specific_steps=0"),
        ({"specific_batch": 0}, "specific_batch=0"),
        ({"inner": "local", "specific": "dense"}, "inner: local needs specific: all or none, got dense"),
    ],
)
def test_settings_that_cannot_be(spelling, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(CmlirConfig, spelling)


def test_training_data_without_candidates_are_refused():
    with pytest.raises(ConfigError, match="cmlir divides candidates by level, but the training data have none"):
        made(CmlirConfig(), tiny_schema(), counts=(0, 0, 0))
