"""Dropout whose draws belong to rows (`layers.draws`), so that workers that share a batch drop what one worker would.

# N candidates, R feeds, L history length, H width, Q words of 64 bits: one for each 4 of the width
"""

import torch
from torch import Tensor, nn

from models.layers.draws import hash_N, hash_RL, mixed_in_place
from models.slots import Training

SALT = 3000  # of the hashes of rows, see `layers.draws`
PLACES = 1 << 32  # counters of one module: more than it has numbers in a row
GOLDEN = -0x61C8864680B583EB  # 2 ** 64 over the golden ratio, so that counters that follow each other lie far apart
LANE = 1 << 16  # a word of 64 bits holds four draws of 16


class Dropout(nn.Module):
    """Sets a share of the numbers to 0 in training, and scales the others so that sums stay as large in the mean.

    See Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".

    A number's draw is 16 bits of a hash of its row and of a counter, so the share is a multiple of 2 ** -16. That is
    cheaper than torch's dropout on a CPU, whose generator makes a draw at a time. A row is a place of a user's feed at a step,
    so two feeds of one user in one batch drop alike at the same places.

    Attributes:
        place: tells the dropouts of one ranker apart; `number_dropouts` sets it.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropped = min(round(share * LANE), LANE - 1)  # of LANE draws; never all of them
        self.place = 0

    def forward(self, x: Tensor, rows: Tensor | None) -> Tensor:
        """Drops from x in training.

        Args:
            x: [..., *rows.shape, H].
            rows: a hash of every row, int64, as `rows_N` and `rows_RL` give them; None when predicting: nothing is dropped.
        """
        if rows is None or not self.dropped or not self.training:
            return x
        lead, width = x.shape[: x.dim() - rows.dim() - 1], x.shape[-1]
        words = -(-width // 4)
        counter = torch.arange(lead.numel() * words, device=x.device).view(*lead, *[1] * rows.dim(), words)
        # in place, since these are as large as what is dropped from
        hashes = mixed_in_place(rows.unsqueeze(-1) + (counter + self.place * PLACES) * GOLDEN)
        draws = hashes.view(torch.int16)[..., :width]  # from -LANE / 2 on
        is_kept = draws >= self.dropped - LANE // 2
        return x * is_kept * (LANE / (LANE - self.dropped))


def rows_N(training: Training | None) -> Tensor | None:
    """A hash of every candidate and of the moment of training; None when predicting."""
    return None if training is None else hash_N(training.batch, training.progress, SALT)


def rows_RL(training: Training | None, places: int) -> Tensor | None:
    """As `rows_N`, of every place of the feeds' histories."""
    return None if training is None else hash_RL(training.batch, places, training.progress, SALT)


def number_dropouts(module: nn.Module) -> None:
    """Lets every dropout within a module draw on its own."""
    for place, each in enumerate(each for each in module.modules() if isinstance(each, Dropout)):
        each.place = place
