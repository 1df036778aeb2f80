"""Metrics of a prediction against what a simulated world knows of a label: the true probability of a positive, the moments of a
value. No label is drawn, so none of their noise is in the result.

With labels that are independent given the probabilities p, the AUC is

    sum over pairs of candidates i, j of p_i (1 - p_j) [s_i > s_j]  /  sum over the same pairs of p_i (1 - p_j)

(ties half): the expected number of pairs of a positive and a negative that are placed right, over the expected number of such
pairs. The log loss is its expectation. Metrics of a list are expectations over what its labels may be, and lists count by how
probable it is that they have a metric at all (a positive for NDCG, both classes for AUC); means over lists are again a ratio of
two expectations. The squared error of a value is its expectation, (f - E[y])^2 + Var[y]. As the number of candidates grows,
each is what the metric with drawn labels tends to.

    # N rows, G lists, K ties (equal predictions), M number of positives
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.metrics.binary import SMALLEST, Groups, gini
from models.metrics.names import CUTOFFS
from models.metrics.ordering import SortedRows, codes_in_order, runs
from models.metrics.sums import Mean, exact_sum
from models.metrics.value import mean_by


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a simulated world knows of candidates.

    Attributes:
        chances: by binary target, the true probability of a positive, in [0, 1], float [N].
        moments: by value, the expectation of the label after the target's transform, and of its square, float [N] each.
    """

    chances: Mapping[str, NDArray] = field(default_factory=dict)
    moments: Mapping[str, tuple[NDArray, NDArray]] = field(default_factory=dict)

    def column(self, name: str) -> dict[str, NDArray]:
        """What is known of a target, by what it is; nothing where nothing is.

        Raises:
            ValueError: a chance that is no probability.
        """
        if name in self.chances:
            chance_N = np.asarray(self.chances[name])
            if not ((chance_N >= 0) & (chance_N <= 1)).all():
                raise ValueError(f"chances of `{name}` must lie in [0, 1].")
            return {f"chance.{name}": chance_N}
        if name in self.moments:
            return dict(zip((f"mean.{name}", f"square.{name}"), map(np.asarray, self.moments[name]), strict=True))
        return {}


_BITS = 36  # a probability is a whole number of 2 ** -36, so that sums over 130 million rows are exact in 64 bits
_ONE = 1 << _BITS
MOST = max(CUTOFFS)


@dataclass(frozen=True, kw_only=True)
class ExpectedSummary:
    """What the expected metrics of a binary target follow from; summaries of different users can be put together.

    Attributes:
        group_names: by what rows are divided, the names of the groups.
        sorted: every row with its cell (a place among all combinations of groups) and its probability in units, as one number.
        sums: by name, a numerator and its denominator.
    """

    group_names: Mapping[str, tuple[str, ...]]
    sorted: SortedRows
    sums: Mapping[str, tuple[Mean, Mean]]

    @classmethod
    def of(cls, prediction_N: NDArray, chance_N: NDArray, *, groups: Groups, feed_N: NDArray, user_N: NDArray) -> Self | None:
        """Summarises rows; all rows of their feeds and users are among them. None where a prediction is not finite.

        Args:
            chance_N: the true probability of a positive, in [0, 1].
            groups: `level` at least.
            feed_N, user_N: numbered from 0 without gaps, int64.
        """
        if not np.isfinite(prediction_N).all():
            return None
        exact_N = chance_N.astype(np.float64)
        unit_N = np.rint(exact_N * _ONE).astype(np.int64)
        shape = tuple(len(names) for _, names in groups.values())
        cell_N = np.ravel_multi_index(tuple(group_N for group_N, _ in groups.values()), shape)
        order_N = np.argsort(prediction_N)
        code_N = codes_in_order(prediction_N, order_N)
        clipped_N = np.clip(prediction_N.astype(np.float64), SMALLEST, 1 - SMALLEST)
        loss_N = -(exact_N * np.log(clipped_N) + (1 - exact_N) * np.log1p(-clipped_N))
        rows = Mean.share(len(unit_N), 1)
        of_feeds, of_users = Listed(code_N, unit_N, feed_N), Listed(code_N, unit_N, user_N)
        sums = {"log_loss": (Mean.of(loss_N), rows), "gauc_feed": of_feeds.grouped_auc()}
        sums |= {f"ndcg@{k}": each for k, each in of_feeds.ndcg().items()}
        sums |= {f"ndcg_user@{k}": each for k, each in of_users.ndcg().items()}
        return cls(
            group_names={by: tuple(names) for by, (_, names) in groups.items()},
            sorted=SortedRows.of(prediction_N, unit_N * np.prod(shape) + cell_N, order_N),
            sums=sums,
        )

    @classmethod
    def together(cls, parts: Sequence["ExpectedSummary | None"]) -> "ExpectedSummary | None":
        """Of all rows, from parts that have no user in common; None where one of them has no metrics."""
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        first = known[0]
        return cls(
            group_names=first.group_names,
            sorted=SortedRows.together([part.sorted for part in known]),
            sums={
                name: (
                    sum((part.sums[name][0] for part in known), Mean()),
                    sum((part.sums[name][1] for part in known), Mean()),
                )
                for name in first.sums
            },
        )

    def result(self) -> dict[str, Any]:
        """`expected_auc`, `expected_auc_by_` every division, `expected_gini`, `expected_gauc_feed`, `expected_ndcg@k`,
        `expected_ndcg_user@k`, `expected_log_loss`; None where one is not defined."""
        shape = tuple(len(names) for names in self.group_names.values())
        unit_N, cell_N = np.divmod(self.sorted.attached_N, np.prod(shape))
        auc_by = {}
        for axis, (by, names) in enumerate(self.group_names.items()):
            group_N = np.unravel_index(cell_N, shape)[axis]
            auc_by[f"auc_by_{by}"] = {
                name: _auc_in_order(self.sorted.prediction_N[group_N == group], unit_N[group_N == group])
                for group, name in enumerate(names)
            }
        found: dict[str, Any] = {"auc": _auc_in_order(self.sorted.prediction_N, unit_N), **auc_by}
        found["gini"] = gini([each for each in auc_by["auc_by_level"].values() if each is not None])
        found |= {name: _ratio(*each) for name, each in self.sums.items()}
        return {f"expected_{name}": value for name, value in found.items()}


def undefined(group_names: Mapping[str, Iterable[str]], *, is_binary: bool) -> dict[str, Any]:
    """The result where a prediction is not finite."""
    if not is_binary:
        by = {f"expected_mse_by_{by}": dict.fromkeys(names) for by, names in group_names.items()}
        return {"expected_mse_transformed": None, **by}
    overall = ["auc", "gini", "gauc_feed", "log_loss", *(f"{name}@{k}" for name in ("ndcg", "ndcg_user") for k in CUTOFFS)]
    by_group = {f"expected_auc_by_{by}": dict.fromkeys(names) for by, names in group_names.items()}
    return {**{f"expected_{name}": None for name in overall}, **by_group}


@dataclass(frozen=True, kw_only=True)
class ExpectedErrors:
    """The expected squared error of a value after its transform; summaries of different rows can be put together.

    Attributes:
        overall: of all rows.
        by: by what rows are divided, by group.
    """

    overall: Mean
    by: Mapping[str, Mapping[str, Mean]]

    @classmethod
    def of(cls, log_N: NDArray, moments: tuple[NDArray, NDArray], *, groups: Groups) -> "ExpectedErrors | None":
        """Of what is predicted of the logarithm. None where one is not finite."""
        if not np.isfinite(log_N).all():
            return None
        mean_N, square_N = (moment_N.astype(np.float64) for moment_N in moments)
        error_N = np.square(log_N.astype(np.float64) - mean_N) + square_N - np.square(mean_N)
        return cls(
            overall=Mean.of(error_N), by={by: mean_by(error_N, group_N, names) for by, (group_N, names) in groups.items()}
        )

    @classmethod
    def together(cls, parts: Sequence["ExpectedErrors | None"]) -> "ExpectedErrors | None":
        """Of all rows; None where one of the parts has none."""
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        return cls(
            overall=sum((part.overall for part in known), Mean()),
            by={
                by: {name: sum((part.by[by][name] for part in known), Mean()) for name in groups}
                for by, groups in known[0].by.items()
            },
        )

    def result(self) -> dict[str, Any]:
        """`expected_mse_transformed` and `expected_mse_by_` every division."""
        by = {f"expected_mse_by_{by}": {name: mean.value for name, mean in own.items()} for by, own in self.by.items()}
        return {"expected_mse_transformed": self.overall.value, **by}


class Listed:
    """Rows of lists, in each list the largest prediction first, with the probability of each.

    Args:
        code_N: predictions as `ordering.codes` gives them.
        unit_N: probabilities in units of 2 ** -36.
        list_N: the list of every row, numbered from 0 without gaps.
    """

    def __init__(self, code_N: NDArray, unit_N: NDArray, list_N: NDArray) -> None:
        # among equal predictions by probability, so that the order of the rows does not matter
        self._order_N = np.lexsort((unit_N, -code_N, list_N))
        self.chance_N = unit_N[self._order_N] / _ONE
        self.starts_G, _ = runs(list_N[self._order_N])
        self.rows_G = np.diff(self.starts_G, append=len(list_N))
        tie_N = (list_N * np.int64(len(code_N) + 1) + code_N)[self._order_N]
        self.tie_starts_K, self.tie_of_N = runs(tie_N)

    def ndcg(self) -> dict[int, tuple[Mean, Mean]]:
        """By k: the sum over lists of E[NDCG@k where there is a positive], and of the probability of one.

        The number of positives is followed row by row, up to `MOST`, together with the expected discounted gain where there are
        so many: 11 numbers a list and cutoff, however long it is.
        """
        by_size_G = np.argsort(-self.rows_G, kind="stable")
        start_G, rows_G = self.starts_G[by_size_G], self.rows_G[by_size_G]
        discount_kN = np.stack([self._discounts(k) for k in CUTOFFS])
        lists = len(start_G)
        chance_GM = np.zeros((lists, MOST + 1))
        chance_GM[:, 0] = 1
        gain_kGM = np.zeros((len(CUTOFFS), lists, MOST + 1))
        for place in range(int(rows_G[0]) if lists else 0):
            there = int(np.searchsorted(-rows_G, -place))  # lists that are longer than that
            row_G = start_G[:there] + place
            p_G1 = self.chance_N[row_G][:, None]
            before_GM = chance_GM[:there]
            gained_kGM = p_G1 * (gain_kGM[:, :there] + discount_kN[:, row_G][:, :, None] * before_GM)
            gain_kGM[:, :there] = (1 - p_G1) * gain_kGM[:, :there] + _one_more(gained_kGM)
            chance_GM[:there] = (1 - p_G1) * before_GM + _one_more(p_G1 * before_GM)
        ranked = Mean.of(1 - chance_GM[:, 0])
        found = {}
        for k, gain_GM in zip(CUTOFFS, gain_kGM, strict=True):
            ideal_M = np.cumsum(1 / np.log2(np.arange(2, MOST + 2)))[np.minimum(np.arange(1, MOST + 1), k) - 1]
            found[k] = Mean.of((gain_GM[:, 1:] / ideal_M).sum(axis=1)), ranked
        return found

    def grouped_auc(self) -> tuple[Mean, Mean]:
        """The sum over lists of rows times E[AUC where there are both classes], and of rows times the probability of both."""
        first, both_G = self._aucs(self._order_of_ties(backwards=False))
        second = self._aucs(self._order_of_ties(backwards=True))[0] if len(self.tie_starts_K) < len(self.chance_N) else first
        return Mean.of(self.rows_G * (first + second) / 2), Mean.of(self.rows_G * both_G)

    def _aucs(self, chance_N: NDArray) -> tuple[NDArray, NDArray]:
        """E[AUC where there are both classes] of every list, if no two rows tie, and the probability of both classes.

        A row that is a negative adds the positives before it to the pairs that are placed right.
        """
        auc_G, both_G = np.zeros(len(self.rows_G)), np.zeros(len(self.rows_G))
        for rows in np.unique(self.rows_G[self.rows_G > 1]):
            lists = np.flatnonzero(self.rows_G == rows)
            p_Gn = chance_N[self.starts_G[lists][:, None] + np.arange(rows)]
            chance_GM = np.zeros((len(lists), rows + 1))
            chance_GM[:, 0] = 1
            right_GM = np.zeros_like(chance_GM)
            positives_M = np.arange(rows + 1)
            for place in range(rows):
                p_G1 = p_Gn[:, place : place + 1]
                right_GM = (1 - p_G1) * (right_GM + positives_M * chance_GM) + _one_more(p_G1 * right_GM)
                chance_GM = (1 - p_G1) * chance_GM + _one_more(p_G1 * chance_GM)
            pairs_M = positives_M[1:-1] * (rows - positives_M[1:-1])
            auc_G[lists] = (right_GM[:, 1:-1] / pairs_M).sum(axis=1)
            both_G[lists] = chance_GM[:, 1:-1].sum(axis=1)
        return auc_G, both_G

    def _order_of_ties(self, *, backwards: bool) -> NDArray:
        """Probabilities with the rows of every tie in one order or the other; the mean of the two counts ties half."""
        if not backwards:
            return self.chance_N
        ends_K = np.append(self.tie_starts_K[1:], len(self.chance_N))
        place_N = np.arange(len(self.chance_N))
        return self.chance_N[(self.tie_starts_K + ends_K - 1)[self.tie_of_N] - place_N]

    def _discounts(self, k: int) -> NDArray:
        """What a positive at every row adds to DCG@k; equal predictions share their places' discounts evenly."""
        list_starts_N = np.repeat(self.starts_G, self.rows_G)
        ends_K = np.append(self.tie_starts_K[1:], len(self.chance_N))
        first_K = self.tie_starts_K - list_starts_N[self.tie_starts_K]
        length_K = ends_K - self.tie_starts_K
        until = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
        total_K = until[np.minimum(first_K + length_K, k)] - until[np.minimum(first_K, k)]
        return (total_K / length_K)[self.tie_of_N]


def expected_auc(prediction_N: NDArray, chance_N: NDArray) -> float | None:
    """The AUC that predictions have in expectation, see the module's text; None where no pair is possible."""
    order_N = np.argsort(prediction_N)
    return _auc_in_order(prediction_N[order_N], np.rint(chance_N.astype(np.float64) * _ONE).astype(np.int64)[order_N])


def _auc_in_order(prediction_N: NDArray, unit_N: NDArray) -> float | None:
    """Of rows whose predictions do not descend. Sums are of whole numbers up to the last one, which is over ties."""
    if not len(unit_N):
        return None
    starts_K, _ = runs(prediction_N)
    positive_K = np.add.reduceat(unit_N, starts_K)
    negative_K = np.diff(starts_K, append=len(unit_N)) * _ONE - positive_K
    below_K = np.cumsum(negative_K) - negative_K
    chance_N = unit_N / _ONE
    itself = Mean(exact_sum(chance_N * (1 - chance_N)), 1).value or 0.0  # a candidate is no pair with itself
    right = float(((positive_K / _ONE) * (below_K / _ONE + negative_K / (2 * _ONE))).sum()) - itself / 2
    pairs = float(positive_K.sum() / _ONE) * float(negative_K.sum() / _ONE) - itself
    return right / pairs if pairs > 1e-9 else None


def _one_more(values: NDArray) -> NDArray:
    """Moves the last axis on by one; what would leave stays in the last place, which stands for all numbers from it on."""
    moved = np.zeros_like(values)
    moved[..., 1:] = values[..., :-1]
    moved[..., -1] += values[..., -1]
    return moved


def _ratio(numerator: Mean, denominator: Mean) -> float | None:
    """Of two sums; their counts do not matter."""
    return numerator.total / denominator.total if denominator.total else None
