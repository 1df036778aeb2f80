"""Errors of predicted values.

# N rows, G groups
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.metrics.binary import Groups
from models.metrics.calibration import calibration_curve
from models.metrics.ordering import SortedRows
from models.metrics.sums import Mean, exact_sums
from models.schema import Target


def transformed(values_N: NDArray, target: Target) -> NDArray:
    """After the target's transform (negative values as 0 before a logarithm)."""
    return np.log1p(np.maximum(values_N, 0)) if target.transform == "log1p" else values_N


def squared_errors(prediction_N: NDArray, label_N: NDArray, target: Target) -> NDArray:
    """[N], after the target's transform (negative values as 0)."""
    return np.square(transformed(prediction_N, target) - transformed(label_N, target))


@dataclass(frozen=True, kw_only=True)
class ValueSummary:
    """What the metrics of a value follow from; summaries of different rows can be put together.

    Attributes:
        rows: how many.
        non_finite: predictions among them that are no finite numbers.
        label: the mean label.
        sorted: every row with its label; None where a prediction is not finite or there is no row, as are `means` and
            `squared_by` empty then.
        means: `mse_transformed`, `mse`, `mae`, and `predicted`, the mean prediction.
        squared_by: by what rows are divided, the mean squared error after the target's transform by group.
    """

    rows: int
    non_finite: int
    label: Mean
    sorted: SortedRows | None
    means: Mapping[str, Mean]
    squared_by: Mapping[str, Mapping[str, Mean]]

    @classmethod
    def of(cls, prediction_N: NDArray, label_N: NDArray, *, groups: Groups, target: Target) -> Self:
        non_finite = int((~np.isfinite(prediction_N)).sum())
        in_order, means = None, {}
        squared_by = {by: dict.fromkeys(names, Mean()) for by, (_, names) in groups.items()}
        if not non_finite and len(label_N):
            in_order = SortedRows.of(prediction_N, label_N, np.argsort(prediction_N))
            exact_N, exact_label_N = prediction_N.astype(np.float64), label_N.astype(np.float64)
            squared_N = squared_errors(exact_N, exact_label_N, target)
            means = {
                "mse_transformed": Mean.of(squared_N),
                "mse": Mean.of(np.square(exact_N - exact_label_N)),
                "mae": Mean.of(np.abs(exact_N - exact_label_N)),
                "predicted": Mean.of(exact_N),
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
        """Errors in the label's unit, and after the target's transform (`mse_transformed`, `mse_by_` every division).

        None where a prediction is not finite or the metric is not defined.
        """
        result: dict[str, Any] = {"kind": "value", "rows": self.rows, "mean": self.label.value}
        if self.sorted is None:
            undefined = dict.fromkeys(["mse_transformed", "mse", "mae", "calibration"])
            by_group = {f"mse_by_{by}": dict.fromkeys(means) for by, means in self.squared_by.items()}
            return result | undefined | by_group | {"calibration_curve": []}
        return result | {
            "mse_transformed": self.means["mse_transformed"].value,
            **{f"mse_by_{by}": {name: mean.value for name, mean in means.items()} for by, means in self.squared_by.items()},
            "mse": self.means["mse"].value,
            "mae": self.means["mae"].value,
            "calibration": self.means["predicted"].total / self.label.total if self.label.total else None,
            "calibration_curve": calibration_curve(self.sorted.prediction_N, self.sorted.attached_N),
        }


def mean_by(values_N: NDArray, group_N: NDArray, names: Sequence[str]) -> dict[str, Mean]:
    """The mean of every group, by its name."""
    rows_G = np.bincount(group_N, minlength=len(names)).tolist()
    return dict(zip(names, map(Mean, exact_sums(values_N, group_N, len(names)), rows_G), strict=True))
