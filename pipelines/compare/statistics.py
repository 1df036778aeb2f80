"""The arithmetic of a comparison. A merit is a metric turned so that larger is better."""

from collections.abc import Mapping, Sequence

import numpy as np

from models.metrics.names import direction
from pipelines.report.comparison.compared import Paired, Verdict

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
