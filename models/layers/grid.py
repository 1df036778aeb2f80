"""Candidates of a feed laid side by side, so that a matrix product over the feed serves them all.

# R feeds, N candidates, G rows and S columns of the grid, Z = G S
"""

from dataclasses import dataclass

import torch
from torch import Tensor

WASTE = 1.5  # cells per candidate up to which one row a feed is taken


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where each candidate lies on a grid of G x S cells; a row holds candidates of one feed only.

    Attributes:
        rows, columns: G and S.
        cell_N: a candidate's cell, row * S + column, int64.
        feed_of_G: the feed of a row, int64; None if row r is feed r.
    """

    rows: int
    columns: int
    cell_N: Tensor
    feed_of_G: Tensor | None

    def lay(self, values_ND: Tensor) -> Tensor:
        """[G, S, D], zeros in empty cells."""
        cells_ZD = values_ND.new_zeros(self.rows * self.columns, values_ND.shape[1])
        return cells_ZD.index_copy(0, self.cell_N, values_ND).unflatten(0, (self.rows, self.columns))

    def pick(self, values_GSD: Tensor) -> Tensor:
        """[N, D], the inverse of `lay`."""
        return values_GSD.flatten(0, 1).index_select(0, self.cell_N)

    def of_feed(self, values_RD: Tensor) -> Tensor:
        """A feed's values for every row of the grid: [R, ...] -> [G, ...]."""
        return values_RD if self.feed_of_G is None else values_RD.index_select(0, self.feed_of_G)


def grid(feed_of_candidate_N: Tensor, feeds: int) -> Grid:
    """One row a feed where feeds are of similar size; else long feeds are cut into rows of the average size.

    So at most about two cells a candidate are computed and two copies of a history are made per feed, whatever the
    distribution of feed sizes.
    """
    candidates = len(feed_of_candidate_N)
    count_R = torch.bincount(feed_of_candidate_N, minlength=feeds)
    start_R = count_R.cumsum(0) - count_R
    position_N = torch.arange(candidates, device=feed_of_candidate_N.device) - start_R[feed_of_candidate_N]
    largest = int(count_R.max()) if feeds else 0
    if feeds * largest <= WASTE * candidates:
        return Grid(rows=feeds, columns=largest, cell_N=feed_of_candidate_N * largest + position_N, feed_of_G=None)
    columns = -(-candidates // feeds)
    rows_R = (count_R + columns - 1) // columns
    first_R = rows_R.cumsum(0) - rows_R
    feed_of_G = torch.repeat_interleave(torch.arange(feeds, device=rows_R.device), rows_R)
    return Grid(
        rows=len(feed_of_G),
        columns=columns,
        cell_N=first_R[feed_of_candidate_N] * columns + position_N,
        feed_of_G=feed_of_G,
    )
