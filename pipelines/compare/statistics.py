"""The arithmetic of a comparison. A merit is a metric turned so that larger is better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.metrics.names import direction
from pipelines.report.comparison.compared import SIGNIFICANT, Paired, Verdict
from pipelines.report.papers.result import OverWorlds

POWER = 0.8  # with which the smallest effect is to be found
COVERED = 0.95  # by intervals
ROUNDING = 1e-12  # of the values: differences that vary by no more do not vary


def merit(value: float, path: str) -> float:
    """Larger is better, whatever the metric's direction."""
    return {"max": value, "min": -value, "one": -abs(value - 1)}[direction(path)]


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample deviation (n - 1), None for one value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def relative_improvement(value: float, base: float, path: str) -> float | None:
    """RelaImpr (STAN, Eq. 15, 16): (v - .5) / (base - .5) - 1 of areas under a curve, which guess at .5; v / base - 1 of other
    metrics that are to be large; 1 - v / base of errors. None for metrics that are best at one, for Gini, which is near 0 for
    all that is good, and for a base no better than a guess.
    """
    way, metric = direction(path), path.split(".")[1]
    guess = 0.5 if metric.removeprefix("expected_").startswith(("auc", "gauc")) else 0.0
    if way == "one" or metric.endswith("gini") or not base > guess:
        return None
    return (value - guess) / (base - guess) - 1 if way == "max" else 1 - value / base


def gap_closed(better: float, worse: float, ceiling: float, path: str) -> float | None:
    """(better - worse) / (ceiling - worse): share of what `worse` leaves to the ceiling that `better` gains.

    None where `worse` leaves nothing.
    """
    left = merit(ceiling, path) - merit(worse, path)
    return (merit(better, path) - merit(worse, path)) / left if left > 0 else None


def paired(first: Mapping[int, float], second: Mapping[int, float], path: str) -> Paired | None:
    """Compares two systems' values by seed; None without a seed that both have."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    ours, theirs = ([merit(values[seed], path) for seed in seeds] for values in (first, second))
    gains = np.subtract(ours, theirs)
    mean, std = spread(gains.tolist())
    if std is None:
        return Paired(seeds=1, mean=mean, std=None, p=None)
    if np.ptp(gains) <= ROUNDING * np.abs([ours, theirs]).max():
        # t is 0/0 for twins, and beyond all bounds for a difference that never varies
        return Paired(seeds=len(seeds), mean=mean, std=0.0, p=0.0 if mean else 1.0)
    from scipy.stats import ttest_rel

    return Paired(seeds=len(seeds), mean=mean, std=std, p=float(ttest_rel(ours, theirs).pvalue))


def verdict(result: Paired | None, *, or_equal: bool) -> Verdict:
    """What seeds say about `first > second` (or >=)."""
    if result is None or result.p is None:
        return "not tested"
    if result.is_significant:
        return "holds" if result.mean > 0 else "reversed"
    return "no difference shows" if or_equal else "does not show"


# -- worlds --------------------------------------------------------------------------------------------------------


def over_worlds(gains: Mapping[int, float]) -> OverWorlds | None:
    """Worlds as the units of a paired t-test; None without one."""
    if not gains:
        return None
    mean, std = spread(list(gains.values()))
    if std is None:
        return OverWorlds(by_world=dict(gains), mean=mean, low=None, high=None, p=None)
    if std <= ROUNDING * max(map(abs, gains.values())):  # twins, or a gain that never varies: t is 0/0 or beyond all bounds
        return OverWorlds(by_world=dict(gains), mean=mean, low=mean, high=mean, p=0.0 if mean else 1.0)
    from scipy.stats import t

    error, free = std / len(gains) ** 0.5, len(gains) - 1
    reach = float(t.ppf(0.5 + COVERED / 2, free)) * error
    p = 2 * float(t.sf(abs(mean) / error, free))
    return OverWorlds(by_world=dict(gains), mean=mean, low=mean - reach, high=mean + reach, p=p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for how many there are (Holm 1979): the smallest times their number, the next times one less, and so
    on, never descending; None stays None and does not count.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[place] = largest
    return corrected


@dataclass(frozen=True, kw_only=True)
class Variance:
    """How a gain varies: from world to world, and from seed to seed within one (a pilot's estimates)."""

    worlds: float
    seeds: float

    def of_a_world(self, seeds: int) -> float:
        """Of a world's mean over so many seeds."""
        return self.worlds + self.seeds / seeds


def variance(gains: Mapping[int, Mapping[int, float]]) -> Variance | None:
    """The two parts of a gain's variance, by the analysis of variance of a balanced pilot.

    Args:
        gains: by world and seed.

    Returns:
        None for fewer than two worlds with two seeds each, or unequal numbers of seeds.
    """
    tables = [list(own.values()) for own in gains.values()]
    if len(tables) < 2 or len(tables[0]) < 2 or len({len(own) for own in tables}) > 1:
        return None
    values_WS = np.array(tables)
    within = float(values_WS.var(axis=1, ddof=1).mean())
    between = float(values_WS.mean(axis=1).var(ddof=1))
    return Variance(worlds=max(0.0, between - within / values_WS.shape[1]), seeds=within)


def smallest_effect(known: Variance, worlds: int, seeds: int, *, tests: int = 1) -> float | None:
    """The gain that a two-sided t-test over worlds finds with a probability of `POWER`.

    Args:
        tests: among how many claims, each of which is then tested at the level of the first of Holm's steps.

    Returns:
        None for one world; 0 where the pilot shows no variance.
    """
    if worlds < 2:
        return None
    from scipy.optimize import brentq
    from scipy.special import ndtr
    from scipy.stats import chi2, t

    deviation = known.of_a_world(seeds) ** 0.5
    if deviation == 0:
        return 0.0
    free = worlds - 1
    critical = float(t.isf(SIGNIFICANT / tests / 2, free))
    # The deviation that a test finds, relative to the true one, at evenly spaced quantiles: a noncentral t by quadrature, which
    # SciPy's own does not give for few degrees of freedom and large shifts.
    found = np.sqrt(chi2.ppf((np.arange(4000) + 0.5) / 4000, free) / free)

    def lacks(effect: float) -> float:
        shift = effect * worlds**0.5  # in deviations of a world's mean
        return float((ndtr(shift - critical * found) + ndtr(-shift - critical * found)).mean()) - POWER

    most = 1.0
    while lacks(most) < 0:
        most *= 2
    return deviation * float(brentq(lacks, 0.0, most))
