"""A loss of the source domain for interests between rooms and products (`minet`, `dasl`, `conet`, `dtcdr`, `ddtcdr`).

    # R feeds, L history length, E width of an entry

Their papers train on impressions of both domains. Logs here have none of products outside a room, but they have the clicks, so
what is asked of a user's products is which was clicked next: the newest entry of the history, judged with what was clicked
before it, or an entry of another user (`learners.others`, in the proportion in which they are clicked),

    -log sigmoid(r(newest)) - log(1 - sigmoid(r(other's))),   averaged over both and over feeds that have an entry,

r the system's own network of the products' domain, with a head of its own. Where a network of the rooms' domain takes part, the
room that it would read is not there. In training only: predictions know nothing of it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import FeedBatch
from models.layers.embedding import EmbeddedHistory
from models.layers.grid import Grid
from models.slots import SumCount


def check_source(owner: str, weight: float) -> None:
    if not weight >= 0:
        raise ValueError(f"{owner} needs source >= 0 (0 is without), got {weight}.")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of a history: two entries a feed, its own newest and another user's, side by side.

    Attributes:
        items_QE: the entries, those of feed r in rows 2 r and 2 r + 1.
        earlier_RL: which entries came before the newest, bool.
        places: of the items.
        feed_of_item_Q: int64.
        is_asked_R: which feeds count, bool.
    """

    items_QE: Tensor
    earlier_RL: Tensor
    places: Grid
    feed_of_item_Q: Tensor
    is_asked_R: Tensor

    def loss(self, score_Q: Tensor, weight: float) -> SumCount:
        """Times its weight, over the items of feeds that count."""
        newest_R, other_R = score_Q.to(torch.promote_types(score_Q.dtype, torch.float32)).view(-1, 2).unbind(1)
        loss_R = F.softplus(-newest_R) + F.softplus(other_R)
        return weight * loss_R.where(self.is_asked_R, 0).sum(), 2 * self.is_asked_R.sum().to(loss_R.dtype)


def asked(history: EmbeddedHistory, batch: FeedBatch, name: str) -> Asked | None:
    """None where the batch has no entries of other users beside the history of this name."""
    others = batch.histories[name].others
    if others is None or history.other_RE is None:
        return None
    feeds, length = history.is_real_RL.shape
    device = history.is_real_RL.device
    place_L = torch.arange(length, device=device)
    newest_R1 = history.is_real_RL.sum(1, keepdim=True) - 1
    newest_RE = history.other_RE  # of a history without entries, which does not count
    if length:
        at_RLE = newest_R1.clamp(min=0).unsqueeze(2).expand(-1, -1, history.entries_RLE.shape[2])
        newest_RE = history.entries_RLE.gather(1, at_RLE).squeeze(1)
    item_Q = torch.arange(2 * feeds, device=device)
    return Asked(
        items_QE=torch.stack([newest_RE, history.other_RE], dim=1).flatten(0, 1),
        earlier_RL=history.is_real_RL & (place_L < newest_R1),
        places=Grid(rows=feeds, columns=2, cell_N=item_Q, feed_of_G=None),
        feed_of_item_Q=item_Q // 2,
        is_asked_R=others.is_asked_R,
    )


class Head(nn.Module):
    """r of an item: linear in the last layer of the products' network, [Q, H] -> [Q]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)

    def forward(self, hidden_QH: Tensor) -> Tensor:
        return self.linear(hidden_QH).squeeze(1)
