import dataclasses
import math
import threading
from collections.abc import Mapping

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from models.batch import FeedBatch
from models.config import ConfigError, from_dict
from models.fusions.entry_gate import EntryGateConfig
from models.interests.disentangled import DisentangledConfig
from models.interests.pooling import PoolingConfig
from models.layers.draws import uniform_R
from models.learners.adaptive import SALT, Adaptive, AdaptiveConfig
from models.learners.joint import Joint, JointConfig
from models.learners.workers import SingleWorker
from models.optim import AdagradConfig, AdamConfig, OptimiserConfig
from models.ranker import Outcome, Ranker
from models.schema import Schema
from models.slots import SumCount, Weights
from models.system import SystemConfig
from models.weightings.fixed import FixedConfig
from models.weightings.stage import StageConfig
from tests.models.helpers import Threads, double, replaced, take
from tests.samples import TABLE_SIZES, full_schema, random_batch, tiny_schema

TARGETS = {"click": (), "order": ("click",), "stay": ("click",)}


def users_of_halves() -> list[int]:
    """Two users, of the first and of the second half at progress 0."""
    numbers = torch.arange(50)
    batch = of_users(numbers)
    is_first_R = uniform_R(batch, 0.0, SALT) < 0.5
    return [int(numbers[is_first_R][0]), int(numbers[~is_first_R][0])]


def of_users(user_R: torch.Tensor, **labels: torch.Tensor) -> FeedBatch:
    """A feed of one candidate for each user, and nothing else."""
    return FeedBatch(
        feed={},
        candidate={},
        histories={},
        feed_of_candidate_N=torch.arange(len(user_R)),
        level_N=torch.zeros(len(user_R), dtype=torch.int64),
        user_R=user_R,
        labels=labels,
    )


NOTHING = of_users(torch.tensor(users_of_halves()))


class Weighting:
    varying: tuple[str, ...] = ()
    counts_in_batch = False
    trained = tuple(TARGETS)


class Toy(nn.Module):
    """Two shared numbers x = (0, 0), and one number of each target's own, side by side in one tensor y = (0, 0, 0).

    Losses of every candidate, all linear, so that a gradient is the coefficients:

        click   1   + 3 x0 + 4 x1   + 12 y0
        order   0.5 + 2 x0          +  7 y1
        stay    4   - 4 x0 - 3 x1   +  5 y2
    """

    penalties: tuple[str, ...] = ()
    contrasted: tuple[str, ...] = ()
    together = None
    curriculum_epochs = 0

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.y = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        self.weighting = Weighting()
        self.trained = Weighting.trained

    def table_sets(self) -> dict:
        return {}

    def for_training(self, batch: FeedBatch, progress: float) -> FeedBatch:
        return batch

    def gather(self, batch: FeedBatch) -> dict:
        return {}

    def outcome(self, batch: FeedBatch, gathered: Mapping, *, progress: float, of_user_R: None) -> Outcome:
        self.candidates = batch.candidates
        return Outcome(outputs={}, weights=Weights(targets=dict.fromkeys(TARGETS, 0.1)), penalties=self.own(), compared=None)

    def own(self) -> dict[str, SumCount]:
        return {}

    def losses(self, outputs: Mapping, labels: Mapping, early=None) -> dict[str, torch.Tensor]:
        (x0, x1), (y0, y1, y2) = self.x, self.y
        one = {
            "click": 1 + 3 * x0 + 4 * x1 + 12 * y0,
            "order": 0.5 + 2 * x0 + 7 * y1,
            "stay": 4 - 4 * x0 - 3 * x1 + 5 * y2,
        }
        return {name: torch.stack([loss] * self.candidates) for name, loss in one.items()}


class Calmed(Toy):
    """With a penalty of 5 x1 over a count of 1 for every candidate."""

    penalties = ("calm",)

    def own(self) -> dict[str, SumCount]:
        return {"calm": (5 * self.candidates * self.x[1], torch.tensor(float(self.candidates)))}


SCHEMA = Schema.from_dict(
    {
        **tiny_schema().to_dict(),
        "targets": [{"name": name, "action": name, "parents": parents} for name, parents in TARGETS.items()],
    }
)
STILL = OptimiserConfig(dense=AdagradConfig(rate=1e-300))  # leaves the toy where it is


def learner_of(toy: Toy, optimiser: OptimiserConfig = STILL, **config) -> Adaptive:
    return Adaptive(toy, SCHEMA, AdaptiveConfig(**config), optimiser, SingleWorker())  # type: ignore[arg-type]


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_weights_cosines_and_the_gradient_that_is_applied():
    """The weights start at 1/2. In x, order has length 2 and meets click (length 5) at 6 / 10, stay (length 5) at -24 / 25; the
    targets' own numbers have no part in that, though they lie in one tensor. Both halves are alike, so all is alike ahead."""
    toy = Toy()
    learner = learner_of(toy)
    assert learner.diagnostics() == {}
    assert learner.step(NOTHING) == {"click": (2.0, 2.0), "order": (1.0, 2.0), "stay": (8.0, 2.0)}
    told = {"weight.order": 0.5, "cosine.order": 0.6, "ahead.order": 0.6}
    told |= {"weight.stay": 0.5, "cosine.stay": -0.96, "ahead.stay": -0.96}
    assert learner.diagnostics() == pytest.approx(told, abs=1e-12)
    assert_close(toy.x.grad, torch.tensor([3 + 0.5 * 2 - 0.5 * 4, 4 - 0.5 * 3], dtype=torch.float64))
    assert_close(toy.y.grad, torch.tensor([12.0, 3.5, 2.5], dtype=torch.float64))


def test_penalties_are_added_and_do_not_bend_the_cosines():
    toy = Calmed()
    learner = learner_of(toy)
    assert learner.step(NOTHING)["calm"] == (0.0, 2.0)
    assert learner.diagnostics()["cosine.order"] == pytest.approx(0.6)
    assert_close(toy.x.grad, torch.tensor([2.0, 2.5 + 5.0], dtype=torch.float64))


def test_another_primary():
    """Of order, click meets in x0 and x1: order's length is 2, click's 5."""
    toy = Toy()
    learner = learner_of(toy, primary="order")
    learner.step(NOTHING)
    told = {"weight.click": 0.5, "cosine.click": 6 / 10, "weight.stay": 0.5, "cosine.stay": -8 / 8}
    # x1 is not reached by order, so it is not shared: click is 3 and stay -4 in what is
    ahead = {"ahead.click": 1.0, "ahead.stay": -1.0}
    assert learner.diagnostics() == pytest.approx({**told, **ahead, "cosine.click": 1.0, "cosine.stay": -1.0})
    assert_close(toy.y.grad, torch.tensor([6.0, 7.0, 2.5], dtype=torch.float64))


def scrambled(learner: Adaptive) -> Adaptive:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in learner.net.parameters():
            parameter.normal_(generator=generator).mul_(0.5)
    return learner


def weight_by_hand(net, index: int, cosine: float, loss: float) -> float:
    """Eq. 14, number by number."""
    signals = [cosine, math.log(1 + loss), *net.types_JE[index].tolist()]
    score = net.second_bias.item()
    for unit in range(len(net.second_H)):
        inside = sum(signal * net.first_IH[place, unit].item() for place, signal in enumerate(signals))
        score += max(0.0, inside + net.first_bias_H[unit].item()) * net.second_H[unit].item()
    return 1 / (1 + math.exp(-score))


def test_the_weighting_net_reads_cosine_loss_and_type():
    learner = scrambled(learner_of(Toy(), hidden=3, type_width=2, rate=1e-300))
    expected = {
        "weight.order": weight_by_hand(learner.net, 0, 0.6, 0.5),
        "weight.stay": weight_by_hand(learner.net, 1, -0.96, 4.0),
    }
    learner.step(NOTHING)
    assert {name: learner.diagnostics()[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert abs(expected["weight.order"] - 0.5) > 0.01 and abs(expected["weight.order"] - expected["weight.stay"]) > 0.01


class Uneven(Toy):
    """Whose losses differ between the halves by what stands in the label `second` (0 or 1): click's gradient in x is (3, 4) or
    (3, 0), order's (2, 0) or (2, 2), stay's (-4, -3) or (-4, -5); the means are the toy's but for click's (3, 2), order's
    (2, 1) and stay's (-4, -4)."""

    def losses(self, outputs: Mapping, labels: Mapping, early=None) -> dict[str, torch.Tensor]:
        (x0, x1), (y0, y1, y2), second_N = self.x, self.y, labels["second"]
        return {
            "click": 1 + 3 * x0 + (4 - 4 * second_N) * x1 + 12 * y0,
            "order": 0.5 + 2 * x0 + 2 * second_N * x1 + 7 * y1,
            "stay": 4 - 4 * x0 - (3 + 2 * second_N) * x1 + 5 * y2,
        }


@pytest.mark.parametrize("mode", ["look_ahead", "joint"])
def test_the_weighting_net_descends_what_its_mode_says(mode):
    """Its gradients against differences: of click's loss on one half after a step of 0.01 on the other, against its g_click +
    sum w_k g_k, x and y of all targets moved, both ways; or of the weighted losses themselves."""
    learner = scrambled(learner_of(Uneven(), OptimiserConfig(dense=AdamConfig(rate=0.01)), mode=mode, hidden=3, rate=1e-300))
    net = learner.net
    of_order, of_stay = 8 / math.sqrt(13 * 5), -20 / math.sqrt(13 * 32)

    def objective() -> float:
        order, stay = weight_by_hand(net, 0, of_order, 0.5), weight_by_hand(net, 1, of_stay, 4.0)
        if mode == "joint":
            return 1 + 0.5 * order + 4 * stay
        x0, y0 = -0.01 * (3 + 2 * order - 4 * stay), -0.01 * 12
        first, second = -0.01 * (4 - 3 * stay), -0.01 * (2 * order - 5 * stay)  # x1 after a step on that half
        return 1 + 3 * x0 + 12 * y0 + (4 * second + 0 * first) / 2

    differences = {}
    for name, parameter in net.named_parameters():
        flat = parameter.data.view(-1)
        found = []
        for place in range(len(flat)):
            value = flat[place].item()
            flat[place] = value + 1e-5
            above = objective()
            flat[place] = value - 1e-5
            found.append((above - objective()) / 2e-5)
            flat[place] = value
        differences[name] = torch.tensor(found, dtype=torch.float64).view_as(parameter)
    learner.step(of_users(NOTHING.user_R, second=torch.tensor([0.0, 1.0], dtype=torch.float64)))
    assert learner.diagnostics()["cosine.order"] == pytest.approx(of_order)
    if mode == "look_ahead":  # click's (3, 4) with order's (2, 2) and its (3, 0) with (2, 0): 14 / (5 sqrt 8) and 1
        assert learner.diagnostics()["ahead.order"] == pytest.approx((14 / (5 * math.sqrt(8)) + 1) / 2)
    for name, parameter in net.named_parameters():
        assert_close(parameter.grad, differences[name], rtol=1e-5, atol=1e-8, msg=name)
    assert all(parameter.grad.any() for parameter in net.parameters())


def test_looking_ahead_raises_what_agrees_and_lowers_what_does_not_while_joint_lowers_all():
    weights = {}
    for mode in ("look_ahead", "joint"):
        learner = learner_of(Toy(), OptimiserConfig(dense=AdagradConfig(rate=1e-3)), mode=mode, rate=0.02)
        for _ in range(100):
            learner.step(NOTHING)
        weights[mode] = learner.diagnostics()
    assert weights["look_ahead"]["weight.order"] > 0.9 and weights["look_ahead"]["weight.stay"] < 0.1
    assert weights["joint"]["weight.order"] < 0.1 and weights["joint"]["weight.stay"] < 0.1


def test_noise_that_two_targets_share_is_no_agreement():
    """Each of 40 candidates pulls x its own way, and order's with click's: on the same ones they agree, on others not."""

    class Noisy(Toy):
        def losses(self, outputs, labels, early=None):
            pull_N = labels["pull"] @ self.x
            return {"click": 1 + pull_N, "order": 1 + pull_N, "stay": 1 + 0 * pull_N}

    generator = torch.Generator().manual_seed(0)
    learner = learner_of(Noisy(), OptimiserConfig(dense=AdagradConfig(rate=1e-3)), rate=0.02)
    told = []
    for step in range(200):
        pull_N2 = torch.randn(40, 2, generator=generator, dtype=torch.float64)
        learner.step(of_users(torch.arange(40) + 1000 * step, pull=pull_N2))
        told.append(learner.diagnostics())
    assert all(each["cosine.order"] == pytest.approx(1) for each in told)
    assert abs(sum(each["ahead.order"] for each in told)) / 200 < 0.1
    assert 0.2 < told[-1]["weight.order"] < 0.8


def test_a_half_without_anyone_teaches_nothing():
    learner = scrambled(learner_of(Toy(), OptimiserConfig(dense=AdagradConfig(rate=1e-3)), rate=0.02))
    learner.step(of_users(NOTHING.user_R[:1]))
    assert not any(parameter.grad.any() for parameter in learner.net.parameters())
    assert learner.diagnostics()["ahead.order"] == 0 and learner.diagnostics()["cosine.order"] == pytest.approx(0.6)


def test_weights_move_however_small_the_gradients_are():
    """Of 1e-4 of the toy's: the slope of a weight is then some 1e-11."""

    class Faint(Toy):
        def losses(self, outputs, labels, early=None):
            return {name: loss_N * 1e-4 for name, loss_N in super().losses(outputs, labels).items()}

    learner = learner_of(Faint(), OptimiserConfig(dense=AdagradConfig(rate=1e-3)), rate=0.02)
    for _ in range(100):
        learner.step(NOTHING)
    assert learner.diagnostics()["weight.order"] > 0.9 and learner.diagnostics()["weight.stay"] < 0.1


def test_targets_that_share_nothing_have_no_cosine():
    class Apart(Toy):
        def losses(self, outputs, labels, early=None):
            y0, y1, y2 = self.y
            ones_N = torch.ones(self.candidates, dtype=torch.float64)
            return {"click": (1 + y0) * ones_N, "order": (2 + y1) * ones_N, "stay": (3 + y2) * ones_N}

    learner = learner_of(Apart())
    learner.step(NOTHING)
    assert learner.diagnostics() == {
        f"{what}.{name}": value
        for what, value in {"weight": 0.5, "cosine": 0.0, "ahead": 0.0}.items()
        for name in ("order", "stay")
    }


# -- on rankers ------------------------------------------------------------------------------------------------------

SMALL = SystemConfig(
    embedding_width=4,
    interest=PoolingConfig(),
    fusion=EntryGateConfig(entering=(8,), gate_hidden=3, experts=2, hidden=(6,), towers=(4,)),
    learner=AdaptiveConfig(hidden=4),
)
EVERYTHING = dataclasses.replace(  # rows compared over workers, weights per candidate, penalties
    SMALL,
    interest=DisentangledConfig(width=4, heads=2),
    weighting=StageConfig(beta="closed", width=4),
)


def build_ranker(config: SystemConfig, schema: Schema, group=None, optimiser: OptimiserConfig | None = None):
    torch.manual_seed(0)
    ranker = Ranker(schema, config, TABLE_SIZES).double()
    with torch.no_grad():
        for tables in ranker.table_sets().values():
            tables.weight.normal_()
    assert isinstance(config.learner, AdaptiveConfig)
    return ranker, Adaptive(ranker, schema, config.learner, optimiser or OptimiserConfig(), group or SingleWorker())


def some_batch(schema: Schema, seed: int = 1, feeds: int = 9) -> FeedBatch:
    return double(random_batch(schema, TABLE_SIZES, feeds=feeds, seed=seed))


def with_loss_weights(**weights: float) -> Schema:
    spelling = tiny_schema().to_dict()
    for target in spelling["targets"]:
        target["loss_weight"] = weights.get(target["name"], 1.0)
    return Schema.from_dict(spelling)


def test_a_step_against_plain_autograd_over_whole_tables():
    """Cosines number by number over all parameters, tables included; on a first step both Adams agree row for row."""
    schema = tiny_schema()
    batch = some_batch(schema)
    ranker, learner = build_ranker(SMALL, schema)
    plain, _ = build_ranker(SMALL, schema)
    outputs, found, of_half = plain(batch), {}, {}
    first_N = (uniform_R(batch, 0.0, SALT) < 0.5)[batch.feed_of_candidate_N]
    assert 0 < first_N.sum() < batch.candidates
    for target in schema.targets:
        output, label = outputs[target.name], batch.labels[target.name]
        loss_N = torch.nn.functional.binary_cross_entropy_with_logits(output, label, reduction="none")
        if not target.is_binary:
            loss_N = (output - label.log1p()).square()
        for into, loss in (
            (found, loss_N.mean()),
            (of_half, (loss_N * first_N).sum()),
        ):
            gradients = torch.autograd.grad(
                loss, list(plain.parameters()), retain_graph=True, materialize_grads=True, allow_unused=True
            )
            into[target.name] = torch.cat([gradient.flatten() for gradient in gradients])
        of_half[target.name] = [of_half[target.name], found[target.name] * batch.candidates - of_half[target.name]]
    click, others = found["click"].tolist(), {name: found[name].tolist() for name in ("goods_bag", "order", "stay")}
    shared = [place for place in range(len(click)) if click[place] and any(other[place] for other in others.values())]
    assert 0 < len(shared) < len(click)
    applied = found["click"].clone()
    expected = {}
    for name, other in others.items():
        inner = sum(click[place] * other[place] for place in shared)
        length = math.sqrt(sum(click[place] ** 2 for place in shared) * sum(other[place] ** 2 for place in shared))
        halves = zip(of_half["click"], reversed(of_half[name]), strict=True)
        ahead = [torch.cosine_similarity(mine[shared], theirs[shared], dim=0).item() for mine, theirs in halves]
        expected |= {f"weight.{name}": 0.5, f"cosine.{name}": inner / length, f"ahead.{name}": sum(ahead) / 2}
        applied += 0.5 * found[name]
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3)
    for parameter, part in zip(plain.parameters(), applied.split([p.numel() for p in plain.parameters()]), strict=True):
        parameter.grad = part.view_as(parameter)
    optimiser.step()
    learner.step(batch)
    assert learner.diagnostics() == pytest.approx(expected, rel=1e-9)
    assert {name for name, value in expected.items() if abs(value) > 0.001} == set(expected)
    for (name, one), (_, other) in zip(ranker.named_parameters(), plain.named_parameters(), strict=True):
        assert_close(one, other, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(("config", "passes"), [(SMALL, 4), (EVERYTHING, 5)])
def test_one_backward_pass_a_target_and_one_for_the_rest_of_either_half(config, passes, monkeypatch):
    schema = dataclasses.replace(full_schema(), targets=full_schema().targets[:4])
    _, learner = build_ranker(config, schema)
    grad, backward, leaves, ends = torch.autograd.grad, torch.autograd.backward, [], []

    def counted(outputs, inputs, *args, **kwargs):
        leaves.append(list(inputs) if isinstance(inputs, list) else [inputs])
        return grad(outputs, inputs, *args, **kwargs)

    def counted_ends(tensors, *args, **kwargs):
        ends.append(tensors)
        return backward(tensors, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    monkeypatch.setattr(torch.autograd, "backward", counted_ends)
    learner.step(some_batch(schema))
    of_ranker = [each for each in leaves if any(leaf is learner.dense[0] for leaf in each)]
    assert len(of_ranker) == 2 * passes
    assert [end.shape for end in ends] == [(3,)]  # the three weights, through the weighting net


def test_between_two_comparisons_weights_are_kept_in_one_backward_pass(monkeypatch):
    """A weighting net that hardly moves keeps all weights at 1/2, so comparing seldom must train the same ranker."""
    schema = dataclasses.replace(full_schema(), targets=full_schema().targets[:4])
    still = lambda every: dataclasses.replace(EVERYTHING, learner=AdaptiveConfig(rate=1e-30, every=every))
    (often, each), (seldom, third) = build_ranker(still(1), schema), build_ranker(still(3), schema)
    grad, passes, told = torch.autograd.grad, [], []
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **kwargs: passes.append(args[1]) or grad(*args, **kwargs))
    counts = []
    for seed in range(5):
        each.step(some_batch(schema, seed))
        passes.clear()
        third.step(some_batch(schema, seed))
        counts.append(sum(isinstance(leaves, list) for leaves in passes))  # not those in compared rows
        told.append({name: value for name, value in third.diagnostics().items() if not name.startswith("gamma")})
    assert counts == [10, 1, 1, 10, 1]
    assert told[0] == told[1] == told[2] != told[3] == told[4]
    for (name, one), (_, other) in zip(often.named_parameters(), seldom.named_parameters(), strict=True):
        assert_close(one, other, rtol=1e-9, atol=1e-9, msg=name)


SELDOM = dataclasses.replace(EVERYTHING, learner=AdaptiveConfig(every=2))


@pytest.mark.parametrize("config", [SMALL, EVERYTHING, SELDOM], ids=["small", "everything", "seldom"])
def test_two_workers_equal_one(config):
    """Float64; at the first step the second worker has no batch, at the third the first, at the fourth nobody."""
    schema = full_schema()
    batches = [some_batch(schema, seed) for seed in range(5)]
    joint = [take(batches[0], [0, 1, 2, 3, 4]), batches[1], take(batches[2], [5, 6, 7, 8]), None, batches[4]]
    shares = [
        (joint[0], None),
        (take(batches[1], [0, 1, 2, 3, 4]), take(batches[1], [5, 6, 7, 8])),
        (None, joint[2]),
        (None, None),
        (take(batches[4], [0]), take(batches[4], [1, 2, 3, 4, 5, 6, 7, 8])),
    ]
    optimiser = OptimiserConfig(clip_norm=0.5)
    lock = threading.Lock()

    def train(group, mine):
        with lock:
            ranker, learner = build_ranker(config, schema, group, optimiser)
        losses, told = [], []
        for step, batch in enumerate(mine):
            losses.append(learner.step(batch, progress=step / 5))
            told.append(learner.diagnostics())
        return ranker.state_dict(), losses, told, learner.net.state_dict()

    alone = train(SingleWorker(), joint)
    first, second = Threads(2).run(lambda group: train(group, [share[group.rank] for share in shares]))
    for part in (0, 3):
        for name, value in alone[part].items():
            assert_close(first[part][name], value, rtol=1e-9, atol=1e-9, msg=name)
            assert torch.equal(first[part][name], second[part][name])
    assert first[1:3] == second[1:3]
    for mine, theirs in zip([*alone[1], *alone[2]], [*first[1], *first[2]], strict=True):
        assert mine.keys() == theirs.keys()
        assert all(theirs[name] == pytest.approx(mine[name], rel=1e-9, abs=1e-12) for name in mine)
    assert alone[2][4] != alone[2][0] and alone[2][3] == alone[2][2]


@pytest.mark.parametrize("every", [1, 2])
def test_a_stopped_training_goes_on_as_if_undisturbed(every, tmp_path):
    schema = tiny_schema()
    batches = [some_batch(schema, seed) for seed in range(6)]
    config = dataclasses.replace(SMALL, learner=AdaptiveConfig(rate=0.05, every=every))
    whole, undisturbed = build_ranker(config, schema)
    for batch in batches:
        undisturbed.step(batch)
    first, learner = build_ranker(config, schema)
    for batch in batches[:3]:
        learner.step(batch)
    torch.save({"ranker": first.state_dict(), "learner": learner.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second, learner = build_ranker(config, schema)
    second.load_state_dict(state["ranker"])
    learner.load_state_dict(state["learner"])
    for batch in batches[3:]:
        learner.step(batch)
    assert learner.diagnostics() == undisturbed.diagnostics()
    for mine, theirs in ((whole, second), (undisturbed.net, learner.net)):
        for name, value in mine.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name


def test_a_target_of_weight_zero_is_reported_and_not_trained():
    schema = with_loss_weights(stay=0.0, order=0.3)
    ranker, learner = build_ranker(SMALL, schema)
    before = {name: parameter.clone() for name, parameter in ranker.coupling.named_parameters()}
    assert learner.step(some_batch(schema))["stay"][0] > 0
    moved = {name for name, parameter in ranker.coupling.named_parameters() if (parameter != before[name]).any()}
    assert moved == {name for name in before if "stay" not in name}
    told = {f"{what}.{name}" for what in ("weight", "cosine", "ahead") for name in ("goods_bag", "order")}
    assert learner.diagnostics().keys() == told


def test_weights_per_candidate_multiply_inside_a_targets_loss(monkeypatch):
    """A weighting of 1 for the first candidate and 0 for the rest: the mean losses are the first one's over all."""
    schema = tiny_schema()
    batch = some_batch(schema)
    whole = dataclasses.replace(SMALL, learner=AdaptiveConfig(hidden=4, mode="joint"))  # which does not halve the batch
    ranker, learner = build_ranker(whole, schema)
    first_N = torch.zeros(batch.candidates, dtype=torch.float64)
    first_N[0] = 1
    monkeypatch.setattr(
        type(ranker.weighting), "forward", lambda self, *_: Weights(targets=dict.fromkeys(schema.target_names, first_N))
    )
    read = []
    monkeypatch.setattr(
        type(learner.net), "forward", lambda self, cosine_J, loss_J: read.append(loss_J) or (self.types_JE.sum(1) * 0 + 0.5)
    )
    losses = ranker.losses(ranker(batch), batch.labels)
    learner.step(batch)
    expected = [losses[name][0].item() / batch.candidates for name in ("goods_bag", "order", "stay")]
    assert read[0].tolist() == pytest.approx(expected)


def test_one_target_alone_has_nothing_to_weigh():
    schema = tiny_schema()
    config = dataclasses.replace(SMALL, weighting=FixedConfig(targets="roots"))
    _, learner = build_ranker(config, schema)
    batch = some_batch(schema)
    first = learner.step(batch)["click"][0]
    for _ in range(20):
        last = learner.step(batch)["click"][0]
    assert last < first and learner.diagnostics() == {}


def test_without_auxiliary_targets_it_trains_as_joint_does():
    """With penalties, weights per candidate, and losses that compare rows, which move the parameters too."""
    schema = dataclasses.replace(full_schema(), targets=full_schema().targets[:1], stages=None)
    one, learner = build_ranker(EVERYTHING, schema)
    other, _ = build_ranker(EVERYTHING, schema)
    joint = Joint(other, schema, JointConfig(), OptimiserConfig(), SingleWorker())
    for seed in range(3):
        first, second = (each.step(some_batch(schema, seed), progress=seed / 3) for each in (learner, joint))
        assert first.keys() == second.keys()
        assert all(first[name] == pytest.approx(second[name]) for name in first)
        assert first["disentangled.alignment"][0] != 0 and first["preference.click"][0] != 0
    for name, value in one.state_dict().items():
        assert_close(value, other.state_dict()[name], rtol=1e-9, atol=1e-12, msg=name)


def test_a_batch_without_candidates_changes_nothing():
    schema = tiny_schema()
    ranker, learner = build_ranker(SMALL, schema)
    batch = some_batch(schema)
    learner.step(batch)
    before, told = {name: value.clone() for name, value in ranker.state_dict().items()}, learner.diagnostics()
    none = lambda values: {name: each[:0] for name, each in values.items()}
    empty = replaced(
        batch,
        candidate=none(batch.candidate),
        labels=none(batch.labels),
        feed_of_candidate_N=batch.feed_of_candidate_N[:0],
        level_N=batch.level_N[:0],
    )
    for nothing in (empty, None):
        assert learner.step(nothing) == dict.fromkeys(schema.target_names, (0.0, 0.0))
        assert all(torch.equal(value, before[name]) for name, value in ranker.state_dict().items())
        assert learner.diagnostics() == told


def test_the_weighting_net_starts_alike_and_leaves_the_generator_alone():
    schema = tiny_schema()
    ranker, one = build_ranker(SMALL, schema)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    other = Adaptive(ranker, schema, AdaptiveConfig(hidden=4), OptimiserConfig(), SingleWorker())
    assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(one.net.parameters(), other.net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("schema", "primary", "message"),
    [
        (tiny_schema(), "buy", r"`learner.primary` is `buy`, which is no target in training. Those are: click, goods_bag"),
        (with_loss_weights(order=0), "order", r"`learner.primary` is `order`, which is no target in training"),
        (
            with_loss_weights(click=0),
            None,
            r"none of those is trained. Name the target to help in `learner.primary`, one of: goods",
        ),
    ],
)
def test_a_primary_target_that_is_not_trained_is_refused(schema, primary, message):
    with pytest.raises(ConfigError, match=message):
        build_ranker(dataclasses.replace(SMALL, learner=AdaptiveConfig(primary=primary)), schema)


@pytest.mark.parametrize("spelling", [{"hidden": 0}, {"type_width": 0}, {"rate": 0}, {"every": 0}])
def test_impossible_values_are_refused(spelling):
    with pytest.raises(ConfigError, match="adaptive needs hidden >= 1, type_width >= 1, every >= 1 and rate > 0"):
        from_dict(AdaptiveConfig, spelling)
