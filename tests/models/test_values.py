"""Heads of values: what they learn, what they answer, and what validation mends."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from models.layers.values import HEADS, KNOTS, Binned, Linear, Log1p, Smearing, ZeroInflated
from models.metrics.smearing import FEWEST, Seen
from models.schema import Target


def target(head: str, **more) -> Target:
    return Target(name="stay", action="enter", kind="value", head=head, **more)


EVEN = torch.linspace(0, 300, 257, dtype=torch.float64)  # positive labels, even on 0 .. 300 s


def test_a_binned_value_by_hand():
    """Three bins of 100 s, and class 0 for 0; of even values the mean of a bin is its middle."""
    binned = Binned(target("bins", bins=3))
    binned.fit(EVEN)
    assert_close(binned.edges_E, torch.tensor([100.0, 200.0]))
    assert binned.classes(torch.tensor([0.0, 1.0, 99.0, 101.0, 250.0, 1e6])).tolist() == [0, 1, 1, 2, 3, 3]
    assert_close(binned.means_K, torch.tensor([0.0, 50.0, 150.0, 250.0]))
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    assert binned.expected(logits).item() == pytest.approx(0.2 * 50 + 0.3 * 150 + 0.4 * 250)
    assert binned.loss(logits, torch.tensor([150.0])).item() == pytest.approx(-math.log(0.3))


def test_the_mean_logarithm_of_a_bin_is_not_the_logarithm_of_its_mean():
    """Logarithms even on 0 .. 4: the two bins' are 1 and 3."""
    binned = Binned(target("bins", bins=2))
    binned.fit(torch.linspace(0, 4, 257, dtype=torch.float64).expm1())
    assert_close(binned.edges_E, torch.tensor([math.exp(2) - 1]).float())
    assert_close(binned.logs_K, torch.tensor([0.0, 1.0, 3.0]), rtol=1e-3, atol=1e-3)
    assert binned.means_K[2] > math.exp(3) - 1


def test_a_linear_value_is_its_own_expectation():
    linear = Linear(target("linear"))
    assert linear.expected(torch.tensor([30.0, -2.0])).tolist() == [30.0, 0.0]
    assert linear.loss(torch.tensor([30.0]), torch.tensor([27.0])).item() == 9.0


def test_a_logarithm_by_hand():
    """e - 1 seconds are 1, predicted 3. Beyond the largest label, 300 s, nothing is answered."""
    log = Log1p(target("log1p"))
    log.fit(EVEN)
    assert log.loss(torch.tensor([3.0]), torch.tensor([math.e - 1])).item() == pytest.approx(4.0)
    assert_close(log.expected(torch.tensor([math.log(31), -2.0, 50.0])), torch.tensor([30.0, 0.0, 300.0]))
    assert_close(log.expected_log(torch.tensor([math.log(31), -2.0])), torch.tensor([math.log(31), 0.0]))


def test_a_zero_inflated_value_by_hand():
    """A chance of 1/4, and a logarithm of mean 2 and deviation 1/2: E[y] = (e^(2 + 1/8) - 1) / 4, E[log] = 2/4."""
    head = ZeroInflated(target("zero_inflated"))  # not fitted: units of 1
    raw = math.log(math.expm1(0.5 - 0.1))  # softplus of it is .4
    output = torch.tensor([[-math.log(3), 1.0, raw]])
    assert_close(head.expected(output), torch.tensor([(math.exp(2.125) - 1) / 4]))
    assert_close(head.expected_log(output), torch.tensor([0.5]))
    label = math.exp(2.5) - 1
    normal = torch.distributions.Normal(2.0, 0.5).log_prob(torch.tensor(2.5)).item()
    assert_close(head.loss(output, torch.tensor([label])), torch.tensor([-math.log(1 / 4) - normal]), rtol=1e-5, atol=1e-5)
    assert_close(head.loss(output, torch.tensor([0.0])), torch.tensor([-math.log(3 / 4)]))


def test_a_zero_inflated_value_starts_at_what_training_days_hold():
    head = ZeroInflated(target("zero_inflated"))
    head.fit(EVEN)
    _, mean_N, _ = head.of(torch.zeros(1, 3))
    assert_close(mean_N, EVEN.log1p().mean().float()[None])
    assert head.expected(torch.tensor([[50.0, 100.0, 100.0]])).item() == pytest.approx(300, rel=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_without_a_positive_label_answers_are_finite(head):
    made = HEADS[head](target(head))
    made.fit(torch.zeros(257, dtype=torch.float64))
    size = target(head).outputs
    output = torch.full((1, size) if size > 1 else (1,), 100.0)
    assert all(each.isfinite().all() for each in (made.loss(output, torch.zeros(1)), made.expected_log(output)))
    assert made.expected(output).isfinite().all()


# -- smearing ------------------------------------------------------------------------------------------------------


def test_a_smearing_changes_nothing_until_it_is_set():
    values = torch.tensor([0.0, 0.3, 12.0, 1e6, 1e15])
    assert_close(Smearing()(values), values, rtol=1e-4, atol=1e-6)


def test_one_knot_is_duans_factor():
    """Where e - 1 is predicted on average 2 e - 1 is seen: 1 + y is twice as large, everywhere."""
    smearing = Smearing()
    smearing.set(torch.tensor([1.0], dtype=torch.float64), torch.tensor([2 * math.e - 1], dtype=torch.float64))
    assert_close(smearing(torch.tensor([0.0, 9.0, 1e30])), torch.tensor([1.0, 19.0, 2e30]), rtol=1e-3, atol=1e-5)


def test_lines_between_knots():
    """At logarithms 1 and 2, values with logarithms 2 and 5: halfway 3.5, a half below 1.5, a half beyond 5.5."""
    smearing = Smearing()
    smearing.set(*(torch.tensor(each, dtype=torch.float64) for each in ([1.0, 2.0], [math.expm1(2), math.expm1(5)])))
    found = smearing(torch.tensor([0.5, 1.0, 1.5, 2.0, 2.5]).expm1()).log1p()
    assert_close(found, torch.tensor([1.5, 2.0, 3.5, 5.0, 5.5]))


def test_a_mended_prediction_adds_up_everywhere_and_keeps_its_order():
    """Log-normal values, mostly 0: exp(E[z]) - 1 is a small part of E[y], and so is Duan's one factor wrong in every decile."""
    rng = np.random.default_rng(0)
    chance_N, mean_N = rng.beta(1, 9, 200_000), rng.normal(3, 0.7, 200_000)
    label_N = np.where(rng.random(200_000) < chance_N, np.exp(rng.normal(mean_N, 0.5)), 0.0)
    predicted_N = np.expm1(chance_N * mean_N).clip(0)
    half = len(label_N) // 2
    smearing = Smearing()
    smearing.set(*map(torch.from_numpy, Seen.of(predicted_N[:half], label_N[:half]).knots()))
    found_N = smearing(torch.from_numpy(predicted_N[half:])).numpy()
    rest_N = (chance_N * np.exp(mean_N + 0.5**2 / 2))[half:]  # the expectations
    assert predicted_N[half:].mean() < rest_N.mean() / 2
    assert found_N.mean() == pytest.approx(rest_N.mean(), rel=0.05)
    order_N = np.argsort(predicted_N[half:])
    assert (np.diff(found_N[order_N]) >= 0).all()
    for tenth in np.array_split(order_N, 10)[3:]:
        assert found_N[tenth].mean() == pytest.approx(rest_N[tenth].mean(), rel=0.2)


def test_bins_that_do_not_ascend_are_pooled_and_answers_sum_up_to_the_labels():
    """Predictions 1, 10, 100, each often; labels 4, 2, 9: the first two become one, a third of the last."""
    each = FEWEST * 3
    predicted_N, label_N = np.repeat([1.0, 10.0, 100.0], each), np.repeat([4.0, 2.0, 9.0], each)
    at, observed = Seen.of(predicted_N, label_N).knots()
    assert at.tolist() == pytest.approx([(math.log(2) + math.log(11)) / 2, math.log(101)])
    assert observed[1] / observed[0] == pytest.approx(3)
    smearing = Smearing()
    smearing.set(torch.from_numpy(at), torch.from_numpy(observed))
    answers = smearing(torch.tensor([1.0, 10.0, 100.0]))
    assert answers.mean().item() == pytest.approx(5, rel=0.02) and (answers.diff() > 0).all()


def test_what_workers_have_seen_has_the_bits_of_one():
    rng = np.random.default_rng(1)
    predicted_N, label_N = rng.exponential(10, 5_000).astype(np.float32), rng.exponential(20, 5_000) * (rng.random(5_000) < 0.2)
    whole = Seen.of(predicted_N, label_N).knots()
    parts = [Seen.of(predicted_N[rank::3], label_N[rank::3]) for rank in (2, 0, 1)]
    assert all(np.array_equal(*pair) for pair in zip(whole, Seen.together(parts).knots(), strict=True))
    assert 1 < len(whole[0]) <= KNOTS


def test_nothing_seen_changes_nothing():
    at, observed = Seen.of(np.ones(100), np.zeros(100)).knots()
    assert len(at) == len(observed) == 0
    smearing = Smearing()
    smearing.set(torch.from_numpy(at), torch.from_numpy(observed))
    assert_close(smearing(torch.tensor([5.0])), torch.tensor([5.0]))
