"""Errors, calibration and ordering of predicted values.

What money and time need is that predictions add up, everywhere on their scale, and that they order: calibration overall and
by decile, and the normalised Gini coefficient, as Wang, Liu & Miao 2019 ("A deep probabilistic model for customer lifetime
value prediction", Sec. 4) judge customers' values; and within a feed, NDCG with the value as gain (Jarvelin & Kekalainen 2002,
"Cumulated gain-based evaluation of IR techniques").

# N rows, G groups, K ties (equal predictions, of one list)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.metrics.binary import Groups
from models.metrics.calibration import calibration_curve
from models.metrics.names import CUTOFFS
from models.metrics.ordering import SortedRows, runs
from models.metrics.sums import Mean, exact_sum, exact_sums
from models.schema import Target

DECILES = 10


def transformed(values_N: NDArray, target: Target) -> NDArray:
    """Values as they are judged beside their own unit: log(1 + value), negative ones as 0, but where the head is linear."""
    return np.log1p(np.maximum(values_N, 0)) if target.is_log else values_N


@dataclass(frozen=True, kw_only=True)
class ValueSummary:
    """What the metrics of a value follow from; summaries of different rows can be put together.

    Attributes:
        rows: how many.
        non_finite: predictions among them that are no finite numbers.
        label: the mean label.
        sorted: every row with its label; None where a prediction is not finite or there is no row, as are `means` and
            `squared_by` empty then.
        means: `mse_transformed`, `mse`, `mae`, `value_ndcg@k`, and `predicted`, the mean prediction.
        squared_by: by what rows are divided, the mean squared error in the logarithm by group.
    """

    rows: int
    non_finite: int
    label: Mean
    sorted: SortedRows | None
    means: Mapping[str, Mean]
    squared_by: Mapping[str, Mapping[str, Mean]]

    @classmethod
    def of(
        cls, prediction_N: NDArray, log_N: NDArray, label_N: NDArray, *, groups: Groups, target: Target, feed_N: NDArray
    ) -> Self:
        """
        Args:
            prediction_N: expectations of the value.
            log_N: what is predicted of `transformed` labels; not that of `prediction_N`, see `models.layers.values`.
            feed_N: numbered from 0 without gaps, int64.
        """
        non_finite = int((~(np.isfinite(prediction_N) & np.isfinite(log_N))).sum())
        in_order, means = None, {}
        squared_by = {by: dict.fromkeys(names, Mean()) for by, (_, names) in groups.items()}
        if not non_finite and len(label_N):
            in_order = SortedRows.of(prediction_N, label_N, np.argsort(prediction_N))
            exact_N, exact_label_N = prediction_N.astype(np.float64), label_N.astype(np.float64)
            squared_N = np.square(log_N.astype(np.float64) - transformed(exact_label_N, target))
            means = {
                "mse_transformed": Mean.of(squared_N),
                "mse": Mean.of(np.square(exact_N - exact_label_N)),
                "mae": Mean.of(np.abs(exact_N - exact_label_N)),
                "predicted": Mean.of(exact_N),
                **value_ndcg(exact_N, exact_label_N, feed_N),
            }
            squared_by = {by: mean_by(squared_N, group_N, names) for by, (group_N, names) in groups.items()}
        return cls(
            rows=len(label_N),
            non_finite=non_finite,
            label=Mean.of(label_N),
            sorted=in_order,
            means=means,
            squared_by=squared_by,
        )

    @classmethod
    def together(cls, parts: Sequence[Self]) -> Self:
        """Of all rows."""
        parts = [part for part in parts if part.rows] or parts[:1]
        in_order = [part.sorted for part in parts if part.sorted is not None]
        is_finite = len(in_order) == len(parts)
        first = parts[0]
        added = lambda of: {name: sum((of(part)[name] for part in parts), Mean()) for name in of(first)}
        return cls(
            rows=sum(part.rows for part in parts),
            non_finite=sum(part.non_finite for part in parts),
            label=sum((part.label for part in parts), Mean()),
            sorted=SortedRows.together(in_order) if is_finite else None,
            means=added(lambda part: part.means) if is_finite else {},
            squared_by={by: added(lambda part, by=by: part.squared_by[by]) for by in first.squared_by},
        )

    @property
    def range(self) -> tuple[float, float] | None:
        """The smallest and the largest prediction; None where one is not finite."""
        return None if self.sorted is None else (self.sorted.prediction_N[0], self.sorted.prediction_N[-1])

    def result(self) -> dict[str, Any]:
        """Errors in the label's unit, and in the logarithm (`mse_transformed`, `mse_by_` every division); `calibration` =
        predicted / observed, `calibration_by_decile` from the smallest predictions (1) to the largest (10), and
        `decile_error`, the mean of its distance from 1; `normalised_gini`; `value_ndcg@k`.

        None where a prediction is not finite or the metric is not defined.
        """
        result: dict[str, Any] = {"kind": "value", "rows": self.rows, "mean": self.label.value}
        if self.sorted is None:
            names = ["mse_transformed", "mse", "mae", "calibration", "decile_error", "normalised_gini"]
            undefined = dict.fromkeys([*names, *(f"value_ndcg@{k}" for k in CUTOFFS)])
            by_group = {f"mse_by_{by}": dict.fromkeys(means) for by, means in self.squared_by.items()}
            by_group["calibration_by_decile"] = dict.fromkeys(_DECILES)
            return result | undefined | by_group | {"calibration_curve": []}
        prediction_N, label_N = self.sorted.prediction_N, self.sorted.attached_N
        by_decile = decile_calibration(prediction_N, label_N)
        distances = [abs(ratio - 1) for ratio in by_decile.values() if ratio is not None]
        return result | {
            "mse_transformed": self.means["mse_transformed"].value,
            **{f"mse_by_{by}": {name: mean.value for name, mean in means.items()} for by, means in self.squared_by.items()},
            "mse": self.means["mse"].value,
            "mae": self.means["mae"].value,
            "calibration": self.means["predicted"].total / self.label.total if self.label.total else None,
            "calibration_by_decile": by_decile,
            "decile_error": float(np.mean(distances)) if distances else None,
            "normalised_gini": normalised_gini(prediction_N, label_N),
            **{f"value_ndcg@{k}": self.means[f"value_ndcg@{k}"].value for k in CUTOFFS},
            "calibration_curve": calibration_curve(prediction_N, label_N),
        }


_DECILES = [str(1 + place) for place in range(DECILES)]


def decile_calibration(prediction_N: NDArray, label_N: NDArray) -> dict[str, float | None]:
    """Mean prediction by mean label in tenths of the rows by prediction, "1" the smallest; None where there is no positive
    label, and for the last ones where equal predictions, which are never divided, leave fewer.

    Args:
        prediction_N: not descending, finite.
    """
    curve = calibration_curve(prediction_N, label_N, DECILES)
    ratios = [point["predicted"] / point["observed"] if point["observed"] > 0 else None for point in curve]
    return dict(zip(_DECILES, ratios + [None] * (DECILES - len(ratios)), strict=True))


def normalised_gini(prediction_N: NDArray, label_N: NDArray) -> float | None:
    """The Gini coefficient of labels in the order of predictions, by that in their own order: 1 orders by value, 0 at random.

    Equal predictions share their places. None where all labels are equal, or one is negative.

    Args:
        prediction_N: not descending, finite.
    """
    own_N = np.sort(label_N)
    if not len(own_N) or own_N[0] < 0:
        return None
    ideal = _gini_area(own_N, own_N)
    return _gini_area(prediction_N, label_N) / ideal if ideal else None


def _gini_area(sorted_N: NDArray, label_N: NDArray) -> int:
    """The Gini coefficient of labels in this order, times the number of rows and their sum, in units of 2 ** -UNIT."""
    rows = len(sorted_N)
    starts_K, tie_of_N = runs(sorted_N)
    twice_place_N = (2 * starts_K + np.diff(starts_K, append=rows) - 1)[tie_of_N]  # the mean of a tie's places, from 0
    return exact_sum(label_N.astype(np.float64) * (twice_place_N - (rows - 1)))


def value_ndcg(prediction_N: NDArray, label_N: NDArray, feed_N: NDArray) -> dict[str, Mean]:
    """By `value_ndcg@k`: over feeds with any value, the value found in the first k places, each by log2(1 + place), divided
    by what the best order finds. Equal predictions share their places' gains evenly."""
    rows, feeds = len(label_N), int(feed_N.max()) + 1
    order_N = np.lexsort((label_N, -prediction_N, feed_N))  # by label as well, so that sums have the same bits everywhere
    best_N = np.lexsort((-label_N, feed_N))
    list_N = feed_N[order_N]
    starts_F = np.searchsorted(list_N, np.arange(feeds))
    place_N = np.arange(rows) - starts_F[list_N]
    is_new_N = np.append(True, (np.diff(list_N) != 0) | (np.diff(prediction_N[order_N]) != 0))
    tie_of_N = np.cumsum(is_new_N) - 1
    gain_N = (np.bincount(tie_of_N, weights=label_N[order_N]) / np.bincount(tie_of_N))[tie_of_N]
    has_any_F = np.bincount(list_N, weights=label_N[order_N], minlength=feeds) > 0
    found = {}
    for k in CUTOFFS:
        top_N = place_N < k
        discount_N = 1 / np.log2(place_N[top_N] + 2)
        reached_F, possible_F = (
            np.bincount(list_N[top_N], weights=each_N[top_N] * discount_N, minlength=feeds)
            for each_N in (gain_N, label_N[best_N])
        )
        found[f"value_ndcg@{k}"] = Mean.of(reached_F[has_any_F] / possible_F[has_any_F]) if has_any_F.any() else Mean()
    return found


def mean_by(values_N: NDArray, group_N: NDArray, names: Sequence[str]) -> dict[str, Mean]:
    """The mean of every group, by its name."""
    rows_G = np.bincount(group_N, minlength=len(names)).tolist()
    return dict(zip(names, map(Mean, exact_sums(values_N, group_N, len(names)), rows_G), strict=True))
