"""The arithmetic of a comparison against numbers by hand, and how they are written."""

import math

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from pipelines.compare.statistics import (
    Variance,
    gap_closed,
    holm,
    merit,
    over_worlds,
    paired,
    relative_improvement,
    smallest_effect,
    spread,
    variance,
    verdict,
)
from pipelines.report.words import p_shown, percent, shown, spread_shown


@pytest.mark.parametrize(
    ("path", "value", "base", "expected"),
    [
        ("click.auc", 0.7, 0.6, 1.0),  # .2 above guessing instead of .1
        ("like.auc", 0.8260, 0.8233, 0.00835),  # STAN, Table 2: MMoE against MLP single, printed as 0.83 %
        ("avatar.auc", 0.8530, 0.8230, 0.09288),  # its STAN, printed as 9.30 % (of unrounded values)
        ("click.gauc_feed", 0.55, 0.6, -0.5),
        ("click.auc_by_level.tail", 0.75, 0.6, 1.5),
        ("order.ndcg@5", 0.6, 0.5, 0.2),
        ("order.precision@1", 0.25, 0.5, -0.5),
        ("stay.mse_transformed", 2.0, 2.5, 0.2),  # a fifth less error
        ("stay.mae", 3.0, 2.0, -0.5),
        ("click.calibration", 1.1, 1.2, None),
        ("click.gini", 0.03, 0.05, None),
        ("click.auc", 0.7, 0.5, None),  # the base only guesses
    ],
)
def test_relative_improvement(path, value, base, expected):
    found = relative_improvement(value, base, path)
    assert found is None if expected is None else found == pytest.approx(expected, abs=5e-5)


def test_merit_turns_every_metric_so_that_larger_is_better():
    assert merit(0.7, "click.auc") == 0.7
    assert merit(2.0, "stay.mse") == -2.0
    assert merit(1.25, "click.calibration") == -0.25 == merit(0.75, "click.calibration")


def test_spread_divides_by_one_less():
    assert spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert spread([4.0]) == (4.0, None)


def test_the_paired_test_by_hand():
    """Gains 1, 2, 3: mean 2, deviation 1, t = 2 sqrt(3); with 2 degrees of freedom p = 1 - t / sqrt(t^2 + 2)."""
    first, second = {0: 11.0, 1: 22.0, 2: 33.0}, {2: 30.0, 1: 20.0, 0: 10.0}
    t = 2 * math.sqrt(3)
    found = paired(first, second, "click.auc")
    assert (found.seeds, found.mean, found.std) == (3, 2.0, 1.0)
    assert found.p == pytest.approx(1 - t / math.sqrt(t * t + 2)) == pytest.approx(0.0742, abs=1e-4)
    errors = paired(first, second, "stay.mse")
    assert (errors.mean, errors.p) == (-2.0, pytest.approx(found.p))


def test_only_seeds_that_both_have_are_paired():
    found = paired({0: 1.0, 1: 5.0, 7: 9.0}, {0: 0.5, 1: 4.0, 2: 100.0}, "click.auc")
    assert (found.seeds, found.mean) == (2, 0.75)
    assert paired({0: 1.0}, {1: 1.0}, "click.auc") is None


def test_one_seed_gives_no_p_and_twins_no_difference():
    assert paired({3: 0.7}, {3: 0.6}, "click.auc").p is None
    twins = paired({0: 0.7, 1: 0.8}, {0: 0.7, 1: 0.8}, "click.auc")
    assert (twins.mean, twins.std, twins.p) == (0.0, 0.0, 1.0)
    assert paired({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0}, "click.auc").p == 0.0


def test_gap_closed():
    assert gap_closed(0.8, 0.7, 0.9, "click.auc") == pytest.approx(0.5)
    assert gap_closed(0.65, 0.7, 0.9, "click.auc") == pytest.approx(-0.25)
    assert gap_closed(1.0, 2.0, 0.5, "stay.mse") == pytest.approx(1 / 1.5)
    assert gap_closed(0.95, 0.9, 0.9, "click.auc") is None


def test_verdicts():
    surely = paired({0: 1.0, 1: 1.1, 2: 1.2}, {0: 0.0, 1: 0.11, 2: 0.19}, "click.auc")
    never = paired({0: 0.0, 1: 0.11, 2: 0.19}, {0: 1.0, 1: 1.1, 2: 1.2}, "click.auc")
    perhaps = paired({0: 1.0, 1: 0.0, 2: 0.7}, {0: 0.0, 1: 0.9, 2: 0.3}, "click.auc")
    assert [verdict(each, or_equal=False) for each in (surely, never, perhaps)] == ["holds", "reversed", "does not show"]
    assert [verdict(each, or_equal=True) for each in (surely, never, perhaps)] == ["holds", "reversed", "no difference shows"]
    assert verdict(None, or_equal=True) == verdict(paired({0: 1.0}, {0: 0.0}, "click.auc"), or_equal=False) == "not tested"


def test_numbers_as_tables_write_them():
    assert [shown(value) for value in (0.71594, -0.5, 1.25, 1234.56, None, 0.0)] == [
        ".7159",
        "−.5000",
        "1.2500",
        "1,234.6",
        "–",
        ".0000",
    ]
    assert (shown(0.0042, sign=True), shown(-1e-17, sign=True)) == ("+.0042", ".0000")
    assert spread_shown(0.7159, 0.0011) == ".7159 ± .0011" and spread_shown(0.7159, None) == ".7159"
    assert [percent(0.0123), percent(-0.5), percent(0.12, sign=False)] == ["+1.2 %", "−50.0 %", "12.0 %"]
    assert [p_shown(p) for p in (0.0004, 0.003, 0.25, 1.0, None)] == [
        "p < .001",
        "p = .003",
        "p = .250",
        "p = 1.000",
        "no p value",
    ]


# -- worlds --------------------------------------------------------------------------------------------------------


def test_worlds_are_the_units_of_the_test():
    gains = {1: 0.010, 2: 0.014, 3: 0.006, 4: 0.012}
    found = over_worlds(gains)
    expected = ttest_1samp(list(gains.values()), 0.0)
    assert (found.mean, found.p) == (pytest.approx(0.0105), pytest.approx(expected.pvalue))
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    alone = over_worlds({7: 0.01})
    assert (alone.mean, alone.low, alone.p) == (0.01, None, None)
    assert over_worlds({}) is None
    twins = over_worlds({1: 0.0, 2: 0.0})
    assert (twins.low, twins.high, twins.p) == (0.0, 0.0, 1.0)


def test_p_values_are_corrected_for_their_number_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # 3 x .01; 2 x .03; 1 x .04, but not below .06
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_variance_between_worlds_and_between_seeds_by_hand():
    # seeds: (.001^2 + .001^2) / 2 each way, so 2e-6 within; means .011 and .005 vary by 1.8e-5, of which 1e-6 is the seeds'
    known = variance({1: {0: 0.010, 1: 0.012}, 2: {0: 0.004, 1: 0.006}})
    assert (known.seeds, known.worlds) == (pytest.approx(2e-6), pytest.approx(1.7e-5))
    assert known.of_a_world(4) == pytest.approx(1.75e-5)
    alike = variance({1: {0: 0.0, 1: 0.1}, 2: {0: 0.1, 1: 0.0}})
    assert alike.worlds == 0.0  # less between worlds than seeds explain
    assert variance({1: {0: 0.1, 1: 0.2}}) is None and variance({1: {0: 0.1}, 2: {0: 0.1}}) is None


@pytest.mark.parametrize(("worlds", "tests"), [(3, 1), (5, 1), (5, 6)])
def test_the_smallest_effect_is_found_four_times_in_five(worlds, tests):
    known = Variance(worlds=1.7e-5, seeds=2e-6)
    effect = smallest_effect(known, worlds, 3, tests=tests)
    drawn = np.random.default_rng(0).normal(effect, known.of_a_world(3) ** 0.5, (40_000, worlds))
    reached = np.abs(drawn.mean(axis=1)) / (drawn.std(axis=1, ddof=1) / worlds**0.5)
    assert (reached > t.isf(0.05 / tests / 2, worlds - 1)).mean() == pytest.approx(0.8, abs=0.01)
    assert smallest_effect(known, worlds + 2, 3, tests=tests) < effect
    assert smallest_effect(known, 1, 3) is None and smallest_effect(Variance(worlds=0.0, seeds=0.0), 3, 3) == 0.0
