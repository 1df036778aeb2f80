"""What one domain knows of a user and of the candidates, for models in which two domains meet.

    # R feeds, N candidates, G x S grid of candidates (rows of one feed), L history length, F summed width of feed fields,
    # D width, Q items of the domain that are asked (`layers.source`)

The eLiveRec paper gives the cross-domain models of its comparison the user's sequences as content and encodes these by
multi-head attention (its CoNet+, DTCDR+ and DDTCDR+), without saying more. Taken here: a candidate attends to the history
(`layers.attention.TargetAttention`) in the space in which both have their embedding (`layers.domain`). Keys and values are
made once per feed; only the attention itself is per candidate.
"""

import torch
from torch import Tensor, nn

from models.layers.attention import TargetAttention
from models.layers.domain import Domain
from models.layers.embedding import Embedded, InterestInputs
from models.layers.grid import Grid
from models.layers.mlp import plain_uniform
from models.layers.source import Asked
from models.schema import Schema


class Content(nn.Module):
    """The user's sequence of one domain as the candidate sees it, and the candidate as an item of the domain."""

    def __init__(self, schema: Schema, history: str, inputs: InterestInputs, width: int, heads: int) -> None:
        super().__init__()
        self.domain = Domain(schema, history, inputs, width)
        self.attention = TargetAttention(width, heads)

    def forward(self, embedded: Embedded, places: Grid) -> tuple[Tensor, Tensor]:
        """content_ND and item_ND. Without a real entry the content is the same for all candidates."""
        item_ND = self.domain.candidates(embedded)
        is_real_RL = embedded.histories[self.domain.history].is_real_RL
        return self.attention(item_ND, self.domain.entries(embedded), is_real_RL, places), item_ND

    def of_items(self, embedded: Embedded, asked: Asked) -> tuple[Tensor, Tensor]:
        """content_QD and item_QD of entries of this domain, asked of what came before them."""
        item_QD = self.domain.in_space(asked.items_QE)
        return self.attention(item_QD, self.domain.entries(embedded), asked.earlier_RL, asked.places), item_QD


class UserSide(nn.Module):
    """A user's embedding in one domain: a linear map of all feed fields, plus the content; and the item's."""

    def __init__(self, schema: Schema, history: str, inputs: InterestInputs, width: int, heads: int) -> None:
        super().__init__()
        self.content = Content(schema, history, inputs, width, heads)
        fields = sum(inputs.fields.feed.values())
        self.profile_FD = plain_uniform(fields, width, inputs=fields) if fields else None

    def forward(self, embedded: Embedded, places: Grid, feed_of_candidate_N: Tensor) -> tuple[Tensor, Tensor]:
        """user_ND and item_ND."""
        content_ND, item_ND = self.content(embedded, places)
        return self._with_profile(content_ND, embedded, feed_of_candidate_N), item_ND

    def of_items(self, embedded: Embedded, asked: Asked) -> tuple[Tensor, Tensor]:
        """user_QD and item_QD, as `Content.of_items`."""
        content_QD, item_QD = self.content.of_items(embedded, asked)
        return self._with_profile(content_QD, embedded, asked.feed_of_item_Q), item_QD

    def unasked(self, embedded: Embedded, asked: Asked) -> Tensor:
        """user_QD where nothing of this domain asks, and there is no content: the profile alone."""
        nothing_QD = asked.items_QE.new_zeros(len(asked.items_QE), self.content.domain.width)
        return self._with_profile(nothing_QD, embedded, asked.feed_of_item_Q)

    def _with_profile(self, content_ND: Tensor, embedded: Embedded, feed_of_N: Tensor) -> Tensor:
        if self.profile_FD is None:
            return content_ND
        profile_RD = torch.cat(list(embedded.feed.values()), dim=1) @ self.profile_FD
        return profile_RD.index_select(0, feed_of_N) + content_ND
