"""How well the rows of a list (a feed, or all that a user was shown) are ordered among themselves.

# N rows, G lists, K ties (equal predictions of one list)
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.metrics.names import CUTOFFS
from models.metrics.ordering import codes, runs
from models.metrics.sums import Mean


class Lists:
    """Marked rows of lists, in each list the largest prediction first.

    Args:
        code_N: predictions as `ordering.codes` gives them.
        mark_N: what the metrics count, for example the positives; bool.
        list_N: the list of every row, numbered from 0 without gaps.
    """

    def __init__(self, code_N: NDArray, mark_N: NDArray, list_N: NDArray) -> None:
        # list, code and mark travel in one integer, so that a plain sort (many times faster than an indirect one) does it
        rows = max(len(code_N), 1)
        key_N = np.sort((list_N * rows + (rows - 1 - code_N)) * 2 + mark_N)
        self._tie_key_N, self.mark_N = key_N >> 1, key_N & 1
        self.starts_G, self.list_of_N = runs(self._tie_key_N // rows)
        self.tie_starts_K, self.tie_of_N = runs(self._tie_key_N)

    @cached_property
    def rows_G(self) -> NDArray:
        return np.diff(self.starts_G, append=len(self.mark_N))

    @cached_property
    def marks_G(self) -> NDArray:
        """Marked rows of each list, int64."""
        return np.add.reduceat(self.mark_N, self.starts_G)

    @cached_property
    def marks_K(self) -> NDArray:
        """Marked rows of each tie, int64."""
        return np.add.reduceat(self.mark_N, self.tie_starts_K)

    @cached_property
    def place_N(self) -> NDArray:
        """Every row's place in its list, from 0."""
        return np.arange(len(self.mark_N)) - self.starts_G[self.list_of_N]

    @cached_property
    def shared_mark_N(self) -> NDArray:
        """The marks of equal predictions, shared evenly among them."""
        rows_K = np.diff(self.tie_starts_K, append=len(self.mark_N))
        return (self.marks_K / rows_K)[self.tie_of_N]

    def aucs(self) -> tuple[NDArray, NDArray]:
        """AUC of every list that has marked and unmarked rows, and the rows of these lists."""
        rows_K = np.diff(self.tie_starts_K, append=len(self.mark_N))
        list_of_K = self.list_of_N[self.tie_starts_K]
        others_K = rows_K - self.marks_K
        others_G = self.rows_G - self.marks_G
        others_before_G = np.cumsum(others_G) - others_G
        below_K = (others_before_G + others_G)[list_of_K] - np.cumsum(others_K)  # of the same list, behind this tie
        right_G = np.add.reduceat(self.marks_K * (2 * below_K + others_K), np.searchsorted(list_of_K, np.arange(len(others_G))))
        both_G = (self.marks_G > 0) & (others_G > 0)
        return right_G[both_G] / (2 * self.marks_G[both_G] * others_G[both_G]), self.rows_G[both_G]

    def grouped_auc(self) -> tuple[Mean, Mean]:
        """The mean AUC of lists weighted by their rows, and the share of lists that have one."""
        values_G, rows_G = self.aucs()
        return Mean(Mean.of(values_G * rows_G).total, int(rows_G.sum())), Mean.share(len(values_G), len(self.rows_G))

    def at_top(self) -> dict[str, Mean]:
        """NDCG@k and Precision@k over the lists that have a marked row, and `ranked`, the share of such lists.

        Equal predictions share their places' gains evenly. Precision@k divides by k even where a list is shorter, as
        published.
        """
        used_G = self.marks_G > 0
        found = {"ranked": Mean.of(used_G)}
        for k in CUTOFFS:
            discounts = 1 / np.log2(np.arange(2, k + 2))
            ideal = np.concatenate([[0.0], np.cumsum(discounts)])
            at_top_N = self.place_N < k
            top_list_N, top_gain_N = self.list_of_N[at_top_N], self.shared_mark_N[at_top_N]
            dcg_G = np.bincount(top_list_N, weights=top_gain_N * discounts[self.place_N[at_top_N]], minlength=len(used_G))
            hits_G = np.bincount(top_list_N, weights=top_gain_N, minlength=len(used_G))
            found[f"ndcg@{k}"] = Mean.of(dcg_G[used_G] / ideal[np.minimum(self.marks_G[used_G], k)])
            found[f"precision@{k}"] = Mean(Mean.of(hits_G[used_G]).total, k * int(used_G.sum()))
        return found


def share_at_top(prediction_N: NDArray, marked_N: NDArray, list_N: NDArray, k: int) -> float | None:
    """Share of marked rows among the first k places, over the lists that are larger than k.

    Equal predictions share their places evenly, so a constant gives what a random order has on average. Lists are numbered
    from 0 without gaps.

    Returns:
        None where no list has more than k rows.
    """
    lists = Lists(codes(prediction_N), marked_N, list_N)
    counted_N = (lists.place_N < k) & (lists.rows_G > k)[lists.list_of_N]
    return float(lists.shared_mark_N[counted_N].mean()) if counted_N.any() else None
