"""Stage-adaptive weights against the paper's equations written as loops, and against Algorithm 1 over a list of samples."""

import math
import threading

import pytest
import torch
from scipy.special import betainc
from scipy.stats import beta as beta_distribution
from torch.testing import assert_close

from models.batch import FeedBatch
from models.config import ConfigError, from_dict
from models.layers.beta import LARGE, beta_quantile
from models.layers.draws import uniform_R
from models.layers.embedding import Embedded
from models.learners.workers import SingleWorker
from models.optim import OptimiserConfig
from models.ranker import Ranker
from models.schema import Field, Number, Schema
from models.slots import Training, Widths
from models.system import SystemConfig, build_learner
from models.weightings.stage import Stage, StageConfig
from tests.models.helpers import Threads, double, flat, replaced, take
from tests.samples import TABLE_SIZES, full_schema, random_batch

SCHEMA = full_schema()  # targets click, goods_bag, order, stay, follow, visit; windows of 7 and 30 days
WIDTHS = Widths(feed={"user": 4, "age": 1, "hour": 4, "city": 2}, candidate={"room": 4})
TARGETS = SCHEMA.target_names
LOGIT_3_10 = math.log(3 / 7)  # of .3


def weighted(schema: Schema = SCHEMA, **weights: float) -> Schema:
    spelling = schema.to_dict()
    for target in spelling["targets"]:
        target["loss_weight"] = weights.get(target["name"], 1.0)
    return Schema.from_dict(spelling)


def stage(schema: Schema = SCHEMA, widths: Widths = WIDTHS, **config) -> Stage:
    """Every weight random, biases too, so that a forgotten one is seen."""
    torch.manual_seed(0)
    module = Stage(StageConfig(**config), schema, widths).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


def constant(module: Stage, logit: float) -> Stage:
    """Everyone's preference of every target is the sigmoid of `logit`."""
    torch.nn.init.zeros_(module.net.output.weight_BIH)
    torch.nn.init.constant_(module.net.output.bias_B1H, logit)
    return module


def fields_of(feeds: int, widths: Widths = WIDTHS, seed: int = 1) -> Embedded:
    torch.manual_seed(seed)
    vectors = {name: torch.randn(feeds, width, dtype=torch.float64) for name, width in widths.feed.items()}
    return Embedded(feed=vectors, candidate={}, histories={})


def rows(embedded: Embedded, chosen: list[int]) -> Embedded:
    return Embedded(feed={name: values[chosen] for name, values in embedded.feed.items()}, candidate={}, histories={})


def feeds_of(
    users: list[int],
    candidates: list[int],
    *,
    earlier: list[int] | None = None,
    preference: float = 0.5,
    schema: Schema = SCHEMA,
) -> FeedBatch:
    """Feeds of users with counts of earlier impressions, and the same preference of every target wherever there are any."""
    feed_of_candidate_N = torch.arange(len(users)).repeat_interleave(torch.tensor(candidates))
    earlier_RW = torch.tensor(earlier or [1] * len(users)).unsqueeze(1).expand(-1, len(schema.preference_days))
    label_RW = torch.where(earlier_RW > 0, preference, torch.nan).float()
    return FeedBatch(
        feed={},
        candidate={},
        histories={},
        feed_of_candidate_N=feed_of_candidate_N,
        level_N=torch.zeros_like(feed_of_candidate_N),
        user_R=torch.tensor(users),
        preferences={name: label_RW for name in schema.target_names},
        earlier_RW=earlier_RW,
    )


def training(batch: FeedBatch, progress: float = 0.5) -> Training:
    return Training(progress=progress, batch=batch, beliefs={})


# -- the preference net ------------------------------------------------------------------------------------------------


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in values)
    return [math.exp(value) / total for value in values]


def times(matrix, other) -> list[list[float]]:
    return [[sum(row[k] * other[k][j] for k in range(len(other))) for j in range(len(other[0]))] for row in matrix]


def preference(net, target: int, user: list[list[float]]) -> float:
    """Eq. 6-9 for one sample; `user` is U, a row a field."""
    d1, d2 = len(user), len(user[0])
    query, key, value = (times(weight.tolist(), user) for weight in (net.query_FF, net.key_FF, net.value_FF))
    mixed = []
    for i in range(d1):
        attention = softmax([sum(query[i][k] * key[j][k] for k in range(d2)) / math.sqrt(d1) for j in range(d1)])
        mixed.append([sum(attention[j] * value[j][k] for j in range(d1)) for k in range(d2)])
    scores = times(mixed, net.importance_T1DD[target, 0].tolist())
    important = [softmax([scores[i][k] for i in range(d1)]) for k in range(d2)]  # [d2][d1], over the fields
    vector = [mixed[i][k] * important[k][i] for i in range(d1) for k in range(d2)]
    weight, bias = net.output.weight_BIH[target, :, 0].tolist(), net.output.bias_B1H[target].item()
    return 1 / (1 + math.exp(-bias - sum(w * x for w, x in zip(weight, vector, strict=True))))


def test_preferences_are_the_papers_equations():
    """Fields of widths 4, 1, 4, 2: the common width is 4, the others come through linear maps of their own."""
    module, embedded = stage(), fields_of(3)
    net = module.net
    assert net.width == 4
    found = module.preferences(embedded)
    assert tuple(found) == TARGETS
    for row in range(3):
        user = [embedded.feed["user"][row].tolist()]
        for name in ("age", "hour", "city"):
            x = embedded.feed[name][row]
            if len(x) != 4:
                bank = net.maps[f"width_{len(x)}"]
                x = x @ bank.weight_BIH[0] + bank.bias_B1H[0, 0]
            user.append(x.tolist())
        for target, name in enumerate(TARGETS):
            assert found[name][row].item() == pytest.approx(preference(net, target, user), rel=1e-9)


def test_chosen_fields_and_width():
    module, embedded = stage(fields=("age", "city"), width=3), fields_of(3)
    assert module.net.fields == ("age", "city") and module.net.query_FF.shape == (2, 2)
    other = Embedded(feed={**embedded.feed, "user": embedded.feed["user"] + 1}, candidate={}, histories={})
    changed = Embedded(feed={**embedded.feed, "city": embedded.feed["city"] + 1}, candidate={}, histories={})
    assert_close(module.preferences(embedded), module.preferences(other))
    assert (module.preferences(embedded)["click"] != module.preferences(changed)["click"]).all()
    user = torch.stack(
        [
            embedded.feed[name][0] @ module.net.maps[f"width_{width}"].weight_BIH[0]
            + module.net.maps[f"width_{width}"].bias_B1H[0, 0]
            for name, width in (("age", 1), ("city", 2))
        ]
    )
    assert module.preferences(embedded)["order"][0].item() == pytest.approx(preference(module.net, 2, user.tolist()))


@pytest.mark.parametrize(
    ("feed", "width"),
    [({"a": 1, "b": 1}, 16), ({"a": 1, "b": 1, "c": 1, "d": 8}, 8), ({"a": 4, "b": 8}, 8), ({"a": 4, "b": 8, "c": 4}, 4)],
)
def test_the_width_of_the_matrix_is_the_most_common_above_1(feed, width):
    module = stage(widths=Widths(feed=feed))
    assert module.net.width == width
    assert all(0 < each < 1 for each in module.preferences(fields_of(2, Widths(feed=feed)))["click"])


# -- its loss ----------------------------------------------------------------------------------------------------------


def test_a_preference_learns_the_mean_of_earlier_labels_once_a_candidate():
    """Preference .3, mean .5: .04 a candidate. The first feed is its user's first and teaches nothing."""
    module = constant(stage(), LOGIT_3_10)
    batch = feeds_of([1, 2, 3], [4, 2, 5], earlier=[0, 3, 9], preference=0.5)
    penalties = module(fields_of(3), training(batch)).penalties
    assert tuple(penalties) == module.penalties == tuple(f"preference.{name}" for name in TARGETS)
    for total, count in penalties.values():
        assert total.item() == pytest.approx(7 * 0.04) and count.item() == 7


def test_the_window_that_is_learnt():
    batch = feeds_of([1], [1])
    labels = {name: torch.tensor([[0.3, 0.8]]) for name in TARGETS}
    batch = replaced(batch, preferences=labels, earlier_RW=torch.tensor([[3, 100]]))
    for window, error, mean in ((None, 0.0, 4 / 12), (7.0, 0.0, 4 / 12), (30.0, 0.25, (1 + 0.3 * 5151) / 5153)):
        module = constant(stage(window=window), LOGIT_3_10).eval()
        weights = module(fields_of(1), training(batch))
        assert weights.penalties["preference.click"][0].item() == pytest.approx(error, abs=1e-6)
        assert weights.targets["click"].item() == pytest.approx(mean)


def test_a_first_feed_gives_no_gradient_and_no_nan():
    module, embedded = stage(), fields_of(2)
    for values in embedded.feed.values():
        values.requires_grad_()
    batch = feeds_of([1, 2], [2, 2], earlier=[0, 4])
    sum(total for total, _ in module(embedded, training(batch)).penalties.values()).backward()
    for values in embedded.feed.values():
        assert (values.grad[0] == 0).all() and values.grad[1].abs().sum() > 0
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
    with torch.no_grad():
        nothing = module(embedded, training(feeds_of([1, 2], [2, 2], earlier=[0, 0]))).penalties["preference.order"]
    assert [value.item() for value in nothing] == [0, 0]


def test_every_weight_of_the_net_learns():
    module = stage()
    sum(total for total, _ in module(fields_of(5), training(feeds_of([1] * 5, [1] * 5))).penalties.values()).backward()
    assert [name for name, parameter in module.named_parameters() if not parameter.grad.any()] == []


# -- gamma -------------------------------------------------------------------------------------------------------------


def algorithm_1(samples: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """The paper's Algorithm 1 for one task: (alpha, beta) of a sample's user once the sample is taken in, per sample
    (user, preference) in order of time."""
    alpha, beta, c = {}, {}, {}
    found = []
    for user, inclination in samples:
        c[user] = c.get(user, 0) + 1
        alpha[user] = alpha.get(user, 1.0) + inclination * c[user]
        beta[user] = beta.get(user, 1.0) + (1 - inclination) * c[user]
        found.append((alpha[user], beta[user]))
    return found


def stream(batches: int = 4, feeds: int = 12) -> list[tuple[FeedBatch, list[int]]]:
    """Feeds of 7 users in order of time, users several times in a batch, with their honest counts of earlier impressions;
    and the place of every feed's first candidate in the whole stream."""
    generator = torch.Generator().manual_seed(3)
    seen, place, found = dict.fromkeys(range(7), 0), 0, []
    for _ in range(batches):
        users = torch.randint(0, 7, (feeds,), generator=generator).tolist()
        candidates = torch.randint(1, 6, (feeds,), generator=generator).tolist()
        earlier, places = [], []
        for user, n in zip(users, candidates, strict=True):
            earlier.append(seen[user])
            places.append(place)
            seen[user] += n
            place += n
        found.append((feeds_of(users, candidates, earlier=earlier), places))
    return found


def firsts(batch: FeedBatch) -> torch.Tensor:
    """[R]: the first candidate of each feed."""
    return torch.searchsorted(batch.feed_of_candidate_N, torch.arange(batch.feeds))


def expected_gammas(module: Stage, name: str, batches, embedded: list[Embedded], *, drawn: bool) -> list[torch.Tensor]:
    """Algorithm 1 over all candidates of the stream; a feed has the Beta of its first one."""
    samples = []
    for (batch, _), fields in zip(batches, embedded, strict=True):
        inclined_R = module.preferences(fields)[name].tolist()
        samples += [(batch.user_R[feed].item(), inclined_R[feed]) for feed in batch.feed_of_candidate_N.tolist()]
    parameters = algorithm_1(samples)
    gammas = []
    for index, (batch, places) in enumerate(batches):
        alpha, beta = (torch.tensor([parameters[place][k] for place in places], dtype=torch.float64) for k in (0, 1))
        share = uniform_R(batch, index / 10, module.trained.index(name))
        gammas.append(torch.from_numpy(beta_distribution.ppf(share, alpha, beta)) if drawn else alpha / (alpha + beta))
    return gammas


def test_gamma_is_algorithm_1_where_preferences_are_constant():
    module, batches = constant(stage(), LOGIT_3_10), stream()
    embedded = [fields_of(batch.feeds, seed=index) for index, (batch, _) in enumerate(batches)]
    expected = expected_gammas(module, "order", batches, embedded, drawn=True)
    for index, (batch, _) in enumerate(batches):
        gamma_N = module(embedded[index], training(batch, index / 10)).targets["order"]
        assert_close(gamma_N, expected[index][batch.feed_of_candidate_N], rtol=1e-7, atol=1e-9)


def test_counted_in_the_batch_it_is_algorithm_1_over_the_batch():
    """One gamma a user, after all its samples of the batch; what came before does not count. User 0 has 4 + 2 candidates, so
    c = 6 and at preference .3 a Beta(1 + .3 * 21, 1 + .7 * 21), of mean 7.3 / 23.
    """
    module = constant(stage(counter="batch"), LOGIT_3_10)
    batch = feeds_of([0, 1, 0], [4, 1, 2], earlier=[500, 0, 504])
    parameters = algorithm_1([(batch.user_R[feed].item(), 0.3) for feed in batch.feed_of_candidate_N.tolist()])
    last = [max(n for n, feed in enumerate(batch.feed_of_candidate_N) if batch.user_R[feed] == user) for user in (0, 1, 0)]
    drawn = module(fields_of(3), training(batch, 0.2)).targets["click"]
    means = module.eval()(fields_of(3), training(replaced(batch, earlier_RW=None))).targets["click"]
    for feed in range(3):
        alpha, beta = parameters[last[feed]]
        of_feed = batch.feed_of_candidate_N == feed
        share = uniform_R(batch, 0.2, 0)[feed].item()
        assert drawn[of_feed].tolist() == pytest.approx([beta_distribution.ppf(share, alpha, beta)] * int(of_feed.sum()))
        assert means[of_feed].tolist() == pytest.approx([(7.3 / 23, 1.3 / 3, 7.3 / 23)[feed]] * int(of_feed.sum()))
    assert drawn[0] == drawn[-1]


def test_the_first_sample_ever_counts_as_the_first():
    """c = 1: Beta(1 + .3, 1 + .7) has mean 1.3 / 3. At c = 4 it is Beta(1 + .3 * 10, 1 + .7 * 10), of mean 4 / 12."""
    weights = constant(stage(), LOGIT_3_10).eval()(fields_of(2), training(feeds_of([1, 2], [1, 3], earlier=[0, 3]))).targets
    assert_close(weights["click"], torch.tensor([1.3 / 3, 4 / 12, 4 / 12, 4 / 12], dtype=torch.float64))


def test_closed_draws_have_the_mean_and_variance_of_their_beta():
    """c = 4, preference .3: Beta(4, 8), of mean 1/3 and variance 32 / (144 * 13)."""
    many = 40_000
    module = constant(stage(), LOGIT_3_10)
    batch = feeds_of(list(range(many)), [1] * many, earlier=[3] * many)
    weights = module(fields_of(many), training(batch)).targets
    variance = 32 / (144 * 13)
    for name in ("click", "visit"):
        assert abs(weights[name].mean().item() - 1 / 3) < 4 * (variance / many) ** 0.5
        assert weights[name].var().item() == pytest.approx(variance, rel=0.03)
    together = torch.corrcoef(torch.stack([weights["click"], weights["visit"]]))[0, 1].item()
    assert abs(together) < 4 / many**0.5  # each target draws for itself


def test_draws_are_anew_every_step_and_the_same_for_the_same_step():
    module, batch = stage(), feeds_of([1, 2, 3], [1, 2, 1])
    one, other, again = (module(fields_of(3), training(batch, progress)).targets["click"] for progress in (0.1, 0.2, 0.1))
    assert (one != other).all() and torch.equal(one, again)


def test_without_beta_the_preference_itself_weighs():
    module, batch, embedded = stage(beta=False), feeds_of([1, 2], [1, 3]), fields_of(2)
    without_counts = replaced(batch, earlier_RW=None)
    for each in (module, module.eval()):
        weights = each(embedded, training(without_counts)).targets
        for name in TARGETS:
            assert torch.equal(weights[name], module.preferences(embedded)[name][[0, 1, 1, 1]])


def test_in_evaluation_gamma_is_the_mean():
    module, batch, embedded = stage().eval(), feeds_of([1, 2], [1, 2], earlier=[0, 9]), fields_of(2)
    first, second = (module(embedded, training(batch, progress)).targets for progress in (0.1, 0.7))
    for name in TARGETS:
        a, b = module.preferences(embedded)[name].tolist()
        expected = [(1 + a) / 3, (1 + 55 * b) / 57, (1 + 55 * b) / 57]
        assert_close(first[name], torch.tensor(expected, dtype=torch.float64))
        assert torch.equal(first[name], second[name])


@pytest.mark.parametrize("config", [{}, {"counter": "batch"}, {"beta": False}], ids=str)
def test_no_gradient_flows_through_gamma(config):
    for module in (stage(**config), stage(**config).eval()):
        weights = module(fields_of(2), training(feeds_of([1, 2], [1, 2])))
        assert not any(weight.requires_grad for weight in weights.targets.values())
        assert all(total.requires_grad for total, _ in weights.penalties.values())


def test_loss_weights_multiply_gamma_and_zero_is_left_out():
    schema = weighted(order=2.0, stay=0.0)
    module, plain = stage(schema, beta=False), feeds_of([1, 2], [1, 2], schema=schema)
    weights, preferences = module(fields_of(2), training(plain)), module.preferences(fields_of(2))
    assert weights.targets["stay"] == 0.0 and "preference.stay" not in weights.penalties
    assert tuple(preferences) == ("click", "goods_bag", "order", "follow", "visit", "price")
    assert_close(weights.targets["order"], 2 * preferences["order"][[0, 1, 1]])
    assert_close(weights.targets["follow"], preferences["follow"][[0, 1, 1]])
    assert list(weights.targets) == list(TARGETS)


@pytest.mark.parametrize("beta", [True, False])
def test_a_feed_does_not_see_the_others_and_a_candidate_none_of_its_feed(beta):
    module, embedded = stage(beta=beta), fields_of(4)
    batch = feeds_of([5, 6, 5, 7], [2, 3, 1, 4], earlier=[0, 2, 2, 50])
    together = module(embedded, training(batch)).targets
    for feed in range(4):
        alone = module(rows(embedded, [feed]), training(take(batch, [feed]))).targets
        for name in TARGETS:
            assert_close(alone[name], together[name][batch.feed_of_candidate_N == feed])
    split = module(rows(embedded, batch.feed_of_candidate_N.tolist()), training(flat(batch)))
    for name in TARGETS:
        assert_close(split.targets[name], together[name])
    for name, (total, count) in module(embedded, training(batch)).penalties.items():
        assert_close(split.penalties[name][0], total)
        assert split.penalties[name][1] == count


# -- quantiles ---------------------------------------------------------------------------------------------------------


def quantile(alpha: float, beta: float, share: float) -> float:
    return beta_quantile(*(torch.tensor([each], dtype=torch.float64) for each in (alpha, beta, share))).item()


def test_quantiles_one_can_check():
    assert quantile(1, 1, 0.25) == pytest.approx(0.25)
    assert quantile(2, 1, 0.25) == pytest.approx(0.5)  # share = x^2
    assert quantile(1, 3, 1 - 0.5**3) == pytest.approx(0.5)  # share = 1 - (1 - x)^3
    assert 0 < quantile(1.5, 2, 0.0) < 1e-9


@pytest.mark.parametrize("alpha", [LARGE, 300.0, 1000.0, 1e5, 1e8])
def test_quantiles_of_large_parameters(alpha):
    """The distribution function there is the share that was asked for; where SciPy's inverse is wrong, too."""
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(2000, generator=generator, dtype=torch.float64)
    beta = alpha * 10 ** (4 * torch.rand(2000, generator=generator, dtype=torch.float64))
    alpha_ = torch.full_like(beta, alpha)
    for a, b in ((alpha_, beta), (beta, alpha_)):
        found = torch.from_numpy(betainc(a.numpy(), b.numpy(), beta_quantile(a, b, share).numpy()))
        assert (found - share).abs().max() < 3e-4
    assert betainc(1000, 351752.79064415017, quantile(1000, 351752.79064415017, 0.5562989356192011)) == pytest.approx(
        0.5562989, abs=1e-5
    )


def test_expansion_and_inverse_meet():
    share = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    for other in (LARGE, 5 * LARGE, 1e5):
        alpha, beta = torch.full_like(share, LARGE), torch.full_like(share, other)
        deviation = (LARGE * other / (LARGE + other + 1)) ** 0.5 / (LARGE + other)
        exact = torch.from_numpy(beta_distribution.ppf(share, alpha, beta))
        assert ((beta_quantile(alpha, beta, share) - exact) / deviation).abs().max() < 1e-3


# -- in a ranker -------------------------------------------------------------------------------------------------------


def build_ranker(schema: Schema = SCHEMA, group=None, sizes=TABLE_SIZES, **config):
    torch.manual_seed(0)
    ranker_config = SystemConfig(weighting=StageConfig(**config))
    ranker = Ranker(schema, ranker_config, sizes).double()
    return ranker, build_learner(ranker, schema, ranker_config.learner, OptimiserConfig(), group or SingleWorker())


def test_a_step_descends_the_papers_loss():
    """Eq. 13 as a loop over samples, by plain autograd and torch's Adam."""
    schema = weighted(order=0.5, stay=0.1, follow=0.0)
    batch = double(random_batch(schema, TABLE_SIZES, feeds=6, seed=0))
    ranker, learner = build_ranker(schema)
    plain, _ = build_ranker(schema)
    optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3)
    loss_N = plain.losses(plain(batch), batch.labels)
    inclined = plain.weighting.preferences(plain.embedding(batch))
    loss = 0
    for salt, (name, inclined_R) in enumerate(inclined.items()):
        share_R = uniform_R(batch, 0.25, salt)
        errors = []
        for sample, feed in enumerate(batch.feed_of_candidate_N.tolist()):
            c = batch.earlier_RW[feed, 0].item() + 1
            total, y = c * (c + 1) / 2, inclined_R[feed]
            gamma = beta_distribution.ppf(share_R[feed].item(), 1 + y.item() * total, 1 + (1 - y.item()) * total)
            loss = loss + schema.target(name).loss_weight * gamma * loss_N[name][sample] / batch.candidates
            if batch.earlier_RW[feed, 0] > 0:
                errors.append((batch.preferences[name][feed, 0] - y) ** 2)
        loss = loss + torch.stack(errors).mean()
    loss.backward()
    optimiser.step()
    reported = learner.step(batch, 0.25)
    assert set(reported) == {*TARGETS, *(f"preference.{name}" for name in TARGETS if name != "follow")}
    assert reported["preference.order"][1] < batch.candidates == reported["order"][1]
    for (name, one), (_, other) in zip(ranker.named_parameters(), plain.named_parameters(), strict=True):
        assert_close(one, other, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("config", [{}, {"counter": "batch"}, {"beta": False}], ids=str)
def test_workers_equal_one(config, workers):
    """The last worker has no user with a history in the third step, no worker has one in the fourth, and in the fifth
    the last worker has no feeds. Users are few, so that most have feeds on several workers.
    """
    batches = [double(random_batch(SCHEMA, TABLE_SIZES, feeds=8, seed=seed)) for seed in range(5)]
    batches = [replaced(batch, user_R=batch.user_R % 3) for batch in batches]
    forgotten = [[4, 5, 6, 7] if step == 2 else list(range(8)) if step == 3 else [] for step in range(5)]
    for step, feeds in enumerate(forgotten):
        preferences = {name: values.clone() for name, values in batches[step].preferences.items()}
        for values in preferences.values():
            values[feeds] = torch.nan
        batches[step] = replaced(batches[step], preferences=preferences)
    alone, learner = build_ranker(**config)
    reported, told = [], []
    for step, batch in enumerate(batches):
        reported.append(learner.step(batch, step / 5))
        told.append(learner.diagnostics())
    assert reported[3]["preference.click"] == (0, 0)
    assert all(value.isfinite().all() for value in alone.state_dict().values())
    lock = threading.Lock()

    def work(group):
        with lock:
            ranker, learner = build_ranker(group=group, **config)
        mine = {2: [[0, 1, 2, 3], [4, 5, 6, 7]], 3: [[0, 2], [1, 3], [4, 5, 6, 7]]}[workers]
        found = []
        for step, batch in enumerate(batches):
            share = mine[group.rank]
            if step == 4:
                share = [*mine[0], *mine[-1]] if group.rank == 0 else [] if group.rank == workers - 1 else share
            totals = learner.step(take(batch, share) if share else None, step / 5)
            found.append((totals, learner.diagnostics()))
        return found, ranker.state_dict()

    for found, weights in Threads(workers).run(work):
        for (totals, own_told), expected, expected_told in zip(found, reported, told, strict=True):
            assert totals == {name: pytest.approx(value) for name, value in expected.items()}
            assert own_told == pytest.approx(expected_told)
        for name, value in alone.state_dict().items():
            assert_close(weights[name], value, rtol=1e-6, atol=1e-8, msg=name)


def test_a_learner_tells_what_the_weights_are():
    """Preferences .3; users with 0 and 9 earlier impressions have Betas of means 1.3 / 3 and (1 + .3 * 55) / 57. The schema's
    own weight of 2 is no part of it.
    """
    schema = weighted(order=2.0, follow=0.0)
    ranker, learner = build_ranker(schema)
    constant(ranker.weighting, LOGIT_3_10)
    ranker.eval()
    batch = double(random_batch(schema, TABLE_SIZES, feeds=2, seed=0))
    counts = torch.bincount(batch.feed_of_candidate_N).tolist()
    learner.step(replaced(batch, earlier_RW=torch.tensor([[0, 0], [9, 9]])), 0.1)
    means = [1.3 / 3, (1 + 0.3 * 55) / 57]
    told = learner.diagnostics()
    for power, what in ((1, "gamma"), (2, "gamma_square")):
        expected = sum(n * mean**power for n, mean in zip(counts, means, strict=True)) / sum(counts)
        assert told[f"{what}.order"] == told[f"{what}.click"] == pytest.approx(expected)
    assert {name.split(".")[1] for name in told} == set(TARGETS) - {"follow"}


def test_preferences_start_at_the_mean_of_what_they_learn():
    """In every window its own; where nothing is known at one half, and never at 0 or 1."""
    means = {name: (0.2, 0.02) for name in TARGETS} | {"order": [0.0, 0.004], "stay": [None, 0.5]}
    for window, click, order, stay in ((None, 0.2, 1e-4, 0.5), (30.0, 0.02, 0.004, 0.5)):
        module = constant(stage(window=window), 0.0)
        module.start(means)
        found = module.preferences(fields_of(2))
        assert found["click"].tolist() == pytest.approx([click] * 2)
        assert found["order"].tolist() == pytest.approx([order] * 2)
        assert found["stay"].tolist() == pytest.approx([stay] * 2)


def test_fields_may_all_be_numbers():
    schema = Schema(
        fields=(
            Field(name="entries", of="feed", encoding=Number()),
            Field(name="age", of="feed", encoding=Number()),
            Field(name="rate", of="candidate", encoding=Number()),
        ),
        targets=SCHEMA.targets,
    )
    ranker, learner = build_ranker(schema, sizes={})
    batch = double(random_batch(schema, {}, feeds=6, seed=0))
    net = ranker.weighting.net
    bank = net.maps["width_1"]
    for feed in range(6):
        x = torch.stack([batch.feed["entries"][feed], batch.feed["age"][feed]])
        user = x[:, None] * bank.weight_BIH[:, 0] + bank.bias_B1H[:, 0]
        found = ranker.insight(batch).preferences["stay"][feed].item()
        assert found == pytest.approx(preference(net, 3, user.tolist()))
    before = net.importance_T1DD.clone()
    learner.step(batch)
    assert (net.importance_T1DD != before).any()


def test_under_bfloat16_autocast():
    torch.manual_seed(0)
    ranker = Ranker(SCHEMA, SystemConfig(weighting=StageConfig()), TABLE_SIZES).eval()
    batch = random_batch(SCHEMA, TABLE_SIZES, feeds=6, seed=0)
    for tables in ranker.table_sets().values():
        torch.nn.init.normal_(tables.weight)
    exact = ranker.outcome(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = ranker.outcome(batch)
    for name in TARGETS:
        assert rough.weights.targets[name].dtype == torch.float32
        assert_close(rough.weights.targets[name], exact.weights.targets[name], rtol=0.05, atol=0.01)
        assert_close(rough.penalties[f"preference.{name}"], exact.penalties[f"preference.{name}"], rtol=0.05, atol=0.02)


# -- errors ------------------------------------------------------------------------------------------------------------


def test_data_without_preferences_is_refused():
    module, batch = stage(), feeds_of([1], [1])
    some = {name: values for name, values in batch.preferences.items() if name != "order"}
    with pytest.raises(ValueError, match=r"no running preferences of `order`, .* prepare the data again"):
        module(fields_of(1), training(replaced(batch, preferences=some)))
    with pytest.raises(ValueError, match=r"no counts of earlier impressions.*prepare the data again"):
        module(fields_of(1), training(replaced(batch, earlier_RW=None)))


def test_impossible_choices_are_refused():
    with pytest.raises(ConfigError, match=r"`weighting.fields` names \['rom'\].*\['user', 'age', 'hour', 'city'\]"):
        stage(fields=("user", "rom"))
    with pytest.raises(ConfigError, match=r"no field `of: feed`"):
        stage(widths=Widths(candidate={"room": 4}))
    with pytest.raises(ConfigError, match=r"`weighting.window` is 14.0 days.*\[7.0, 30.0\]"):
        stage(window=14.0)
    with pytest.raises(ConfigError, match="every target has loss_weight 0"):
        stage(weighted(**dict.fromkeys(TARGETS, 0.0)))
    without = Schema.from_dict({**SCHEMA.to_dict(), "stages": None})
    with pytest.raises(ConfigError, match=r"counts by the click that `schema.stages` names, but the schema declares none"):
        stage(without, pseudo_label="click")


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        ({"fields": []}, "stage needs fields that are named once, at least one; got \\[\\]"),
        ({"fields": ["a", "a"]}, "named once"),
        ({"width": 0}, "stage needs width >= 1, got 0"),
        ({"beta": "closed"}, "beta"),
        ({"counter": "feed"}, "counter"),
        ({"pseudo_label": "parent"}, "pseudo_label"),
    ],
)
def test_impossible_values_are_refused(spelling, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(StageConfig, spelling)
