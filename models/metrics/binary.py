"""Metrics of a probability against a label of 0 or 1.

# N rows, G groups, K ties (equal predictions)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.metrics.calibration import calibration_curve
from models.metrics.names import CUTOFFS
from models.metrics.ordering import SortedRows, codes_in_order, runs
from models.metrics.ranking import Lists
from models.metrics.sums import UNIT, Mean

SMALLEST = 1e-7  # probabilities are clipped to [SMALLEST, 1 - SMALLEST] in the log loss

Groups = Mapping[str, tuple[NDArray, Sequence[str]]]
"""What rows are divided by (`level`, `stage`): the group of each, int [N], and the groups' names."""


def auc(prediction_N: NDArray, positive_N: NDArray) -> float | None:
    """Probability that a random positive is placed above a random negative, ties counted half; None with one class only."""
    order_N = np.argsort(prediction_N)
    return _auc_in_order(prediction_N[order_N], positive_N[order_N])


def gini(values: Sequence[float]) -> float | None:
    """Unevenness of AUCs over C levels: sum over i, j of |a_i - a_j| / (C * sum a_i), as CMLIR prints it.

    Twice the textbook coefficient. 0 when all are equal; None for fewer than two levels.
    """
    a = np.asarray(values, np.float64)
    if len(a) < 2 or a.sum() == 0:
        return None
    return float(np.abs(a[:, None] - a[None, :]).sum() / (len(a) * a.sum()))


@dataclass(frozen=True, kw_only=True)
class BinarySummary:
    """What the metrics of a binary target follow from; summaries of different users can be put together.

    Attributes:
        rows: how many.
        non_finite: predictions among them that are no finite numbers.
        group_names: by what rows are divided, the names of the groups.
        cells: rows by group and class, int64 [groups of the first division, ..., 2].
        sorted: every row with its cell, a place in `cells`; None where a prediction is not finite or there is no row, as are
            `means` empty then.
        means: by metric; and `predicted`, the mean prediction.
    """

    rows: int
    non_finite: int
    group_names: Mapping[str, tuple[str, ...]]
    cells: NDArray
    sorted: SortedRows | None
    means: Mapping[str, Mean]

    @classmethod
    def of(cls, prediction_N: NDArray, label_N: NDArray, *, groups: Groups, feed_N: NDArray, user_N: NDArray) -> Self:
        """Summarises rows; all rows of their feeds and users are among them.

        Args:
            groups: `level` at least.
            feed_N, user_N: numbered from 0 without gaps, int64.
        """
        positive_N = label_N > 0
        shape = (*(len(names) for _, names in groups.values()), 2)
        cell_N = np.ravel_multi_index((*(group_N for group_N, _ in groups.values()), positive_N), shape)
        non_finite = int((~np.isfinite(prediction_N)).sum())
        in_order, means = None, {}
        if not non_finite and len(label_N):
            order_N = np.argsort(prediction_N)
            cell_dtype = np.min_scalar_type(np.prod(shape) - 1)  # rows are kept and travel, so every byte counts
            in_order = SortedRows.of(prediction_N, cell_N.astype(cell_dtype), order_N)
            means = _means(prediction_N, positive_N, codes_in_order(prediction_N, order_N), feed_N, user_N)
        return cls(
            rows=len(label_N),
            non_finite=non_finite,
            group_names={by: tuple(names) for by, (_, names) in groups.items()},
            cells=np.bincount(cell_N, minlength=np.prod(shape)).reshape(shape),
            sorted=in_order,
            means=means,
        )

    @classmethod
    def together(cls, parts: Sequence[Self]) -> Self:
        """Of all rows, from parts that have no user in common."""
        parts = [part for part in parts if part.rows] or parts[:1]
        in_order = [part.sorted for part in parts if part.sorted is not None]
        is_finite = len(in_order) == len(parts)
        first = parts[0]
        return cls(
            rows=sum(part.rows for part in parts),
            non_finite=sum(part.non_finite for part in parts),
            group_names=first.group_names,
            cells=sum((part.cells for part in parts[1:]), first.cells),
            sorted=SortedRows.together(in_order) if is_finite else None,
            means={name: sum((part.means[name] for part in parts), Mean()) for name in first.means} if is_finite else {},
        )

    @property
    def range(self) -> tuple[float, float] | None:
        """The smallest and the largest prediction; None where one is not finite."""
        return None if self.sorted is None else (self.sorted.prediction_N[0], self.sorted.prediction_N[-1])

    def result(self) -> dict[str, Any]:
        """All metrics as plain values, None where a prediction is not finite or the metric is not defined.

        Returns:
            `auc`; `auc_by_level` and their `gini`; `auc_by_` every other division; `gauc_feed`, `gauc_user` with the `_share`
            of groups that have both classes; `ndcg@k`, `precision@k` over feeds, and `ndcg_user@k` over users, all of whose
            candidates are one list (the STAN paper's NDCG); `log_loss`; `calibration` = predicted / observed positives;
            `ece`, the mean gap of the `calibration_curve` weighted by rows; counts.
        """
        positives = int(self.cells[..., 1].sum())
        result: dict[str, Any] = {
            "kind": "binary",
            "rows": self.rows,
            "positives": positives,
            "positive_rate": positives / self.rows if self.rows else None,
        }
        for axis, (by, names) in enumerate(self.group_names.items()):
            others = tuple(each for each in range(len(self.group_names)) if each != axis)
            classes_G2 = self.cells.sum(axis=others)
            for what, counts in (("rows", classes_G2.sum(1)), ("positives", classes_G2[:, 1])):
                result[f"{what}_by_{by}"] = dict(zip(names, counts.tolist(), strict=True))
        in_lists = [f"{name}@{k}" for k in CUTOFFS for name in ("ndcg", "precision")]
        by_user = [f"ndcg_user@{k}" for k in CUTOFFS]
        if self.sorted is None:
            undefined = ["auc", "gini", "gauc_feed", "gauc_user", *in_lists, *by_user, "log_loss", "calibration", "ece"]
            by_group = {f"auc_by_{by}": dict.fromkeys(names) for by, names in self.group_names.items()}
            return result | dict.fromkeys(undefined) | by_group | {"calibration_curve": []}
        prediction_N, cell_N = self.sorted.prediction_N, self.sorted.attached_N
        positive_N = _is_positive(cell_N)
        auc_by = {f"auc_by_{by}": self._auc_by(by) for by in self.group_names}
        curve = calibration_curve(prediction_N, positive_N)
        gaps = sum(abs(point["predicted"] - point["observed"]) * point["rows"] for point in curve)
        grouped = [f"gauc_{kind}{end}" for kind in ("feed", "user") for end in ("", "_share")]
        value = {name: mean.value for name, mean in self.means.items()}
        return (
            result
            | {"auc": _auc_in_order(prediction_N, positive_N), **auc_by}
            | {"gini": gini([each for each in auc_by["auc_by_level"].values() if each is not None])}
            | {name: value[name] for name in [*grouped, "ranked_feeds", *in_lists, *by_user, "log_loss"]}
            | {
                "calibration": self.means["predicted"].total / (positives << UNIT) if positives else None,
                "ece": gaps / self.rows,
                "calibration_curve": curve,
            }
        )

    def _auc_by(self, by: str) -> dict[str, float | None]:
        assert self.sorted is not None
        axis = list(self.group_names).index(by)
        group_N = self.sorted.attached_N // np.prod(self.cells.shape[axis + 1 :]) % self.cells.shape[axis]
        found = []
        for group in range(self.cells.shape[axis]):
            own_N = group_N == group
            found.append(_auc_in_order(self.sorted.prediction_N[own_N], _is_positive(self.sorted.attached_N[own_N])))
        return dict(zip(self.group_names[by], found, strict=True))


def _means(prediction_N: NDArray, positive_N: NDArray, code_N: NDArray, feed_N: NDArray, user_N: NDArray) -> dict[str, Mean]:
    # one kind of lists after the other: each holds some 50 bytes a row while it is asked
    of_feeds = _in_lists(Lists(code_N, positive_N, feed_N))
    of_users = _in_lists(Lists(code_N, positive_N, user_N))
    clipped_N = np.clip(prediction_N.astype(np.float64), SMALLEST, 1 - SMALLEST)
    return {
        "gauc_feed": of_feeds.pop("gauc"),
        "gauc_feed_share": of_feeds.pop("gauc_share"),
        "ranked_feeds": of_feeds.pop("ranked"),
        **of_feeds,
        "gauc_user": of_users["gauc"],
        "gauc_user_share": of_users["gauc_share"],
        **{f"ndcg_user@{k}": of_users[f"ndcg@{k}"] for k in CUTOFFS},
        "log_loss": Mean.of(-np.log(np.where(positive_N, clipped_N, 1 - clipped_N))),
        "predicted": Mean.of(prediction_N),
    }


def _in_lists(lists: Lists) -> dict[str, Mean]:
    gauc, share = lists.grouped_auc()
    return {"gauc": gauc, "gauc_share": share, **lists.at_top()}


def _is_positive(cell_N: NDArray) -> NDArray:
    return (cell_N & 1).astype(bool)


def _auc_in_order(prediction_N: NDArray, positive_N: NDArray) -> float | None:
    """The AUC of rows whose predictions do not descend, by whole numbers up to one division."""
    starts_K, _ = runs(prediction_N)
    positives_K = np.add.reduceat(positive_N, starts_K, dtype=np.int64)
    negatives_K = np.diff(starts_K, append=len(prediction_N)) - positives_K
    positives, negatives = int(positives_K.sum()), int(negatives_K.sum())
    if not positives or not negatives:
        return None
    below_K = np.cumsum(negatives_K) - negatives_K
    return int((positives_K * (2 * below_K + negatives_K)).sum()) / (2 * positives * negatives)
