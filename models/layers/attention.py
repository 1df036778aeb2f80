"""Multi-head attention over histories (Vaswani et al. 2017, "Attention is all you need", Sec. 3.2).

    # R feeds, N candidates, L history length, D width, J heads, K width of a head (D = J K)
    # G x S grid of candidates (`layers.grid`)

Projections of keys have no bias: it would add the same to all scores of a query, and softmax does not see that.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.dropout import Dropout
from models.layers.grid import Grid
from models.layers.masked import masked_softmax
from models.layers.mlp import he_uniform, plain_uniform


def check_heads(owner: str, width: int, heads: int) -> None:
    if width < 1 or heads < 1 or width % heads:
        raise ValueError(f"{owner} needs a width that its heads divide, got width={width}, heads={heads}.")


class SelfAttention(nn.Module):
    """Each entry attends to all real entries of its history: [R, L, D] -> [R, L, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.all_D3D = plain_uniform(width, 3 * width, inputs=width)
        self.out_DD = plain_uniform(width, width, inputs=width)
        self.out_bias_D = nn.Parameter(torch.zeros(width))

    def forward(self, values_RLD: Tensor, is_real_RL: Tensor) -> Tensor:
        query_RJLK, key_RJLK, value_RJLK = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (values_RLD @ self.all_D3D).chunk(3, dim=2)
        )
        # fused: the weights [R, J, L, L] are not written down; an all-padding history finds zeros
        found_RJLK = F.scaled_dot_product_attention(query_RJLK, key_RJLK, value_RJLK, attn_mask=is_real_RL[:, None, None, :])
        return found_RJLK.transpose(1, 2).flatten(2) @ self.out_DD + self.out_bias_D


class TargetAttention(nn.Module):
    """Each candidate attends to the real entries of its feed's history: -> [N, D].

    No history is copied per candidate: scores and sums are products of a feed's matrix with all its candidates'.

    Args:
        itself: a candidate attends also to itself, as to one more entry.
    """

    def __init__(self, width: int, heads: int, itself: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.itself = itself
        self.query_DD = plain_uniform(width, width, inputs=width)
        self.query_bias_D = nn.Parameter(torch.zeros(width))
        self.both_D2D = plain_uniform(width, 2 * width, inputs=width)
        self.out_DD = plain_uniform(width, width, inputs=width)
        self.out_bias_D = nn.Parameter(torch.zeros(width))

    def forward(
        self, query_ND: Tensor, values_RLD: Tensor, is_real_RL: Tensor, places: Grid, kept_GSL: Tensor | None = None
    ) -> Tensor:
        """Args: `kept_GSL` names entries that a candidate may attend to, bool; None is all."""
        key_RJLK, value_RJLK = (self._by_head(part) for part in (values_RLD @ self.both_D2D).chunk(2, dim=2))
        query_GJSK = self._by_head(places.lay(torch.addmm(self.query_bias_D, query_ND, self.query_DD)))
        score_GJSL = query_GJSK @ places.of_feed(key_RJLK).transpose(2, 3) / math.sqrt(query_GJSK.shape[3])
        seen_G1SL = places.of_feed(is_real_RL)[:, None, None, :]
        if kept_GSL is not None:
            seen_G1SL = seen_G1SL & kept_GSL.unsqueeze(1)
        if not self.itself:
            found_GJSK = masked_softmax(score_GJSL, seen_G1SL) @ places.of_feed(value_RJLK)
        else:
            own_key_GJSK, own_value_GJSK = (
                self._by_head(part) for part in places.lay(query_ND @ self.both_D2D).chunk(2, dim=2)
            )
            own_score_GJS1 = (query_GJSK * own_key_GJSK).sum(3, keepdim=True) / math.sqrt(query_GJSK.shape[3])
            score_GJSM = torch.cat([score_GJSL, own_score_GJS1], dim=3)  # M = L + 1
            weight_GJSM = masked_softmax(score_GJSM, F.pad(seen_G1SL, (0, 1), value=True))
            found_GJSK = weight_GJSM[..., :-1] @ places.of_feed(value_RJLK) + weight_GJSM[..., -1:] * own_value_GJSK
        return torch.addmm(self.out_bias_D, places.pick(found_GJSK.transpose(1, 2).flatten(2)), self.out_DD)

    def _by_head(self, x_RLD: Tensor) -> Tensor:
        return x_RLD.unflatten(2, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two layers with a ReLU between, [..., D] -> [..., D]."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.in_DI = he_uniform(width, inner, inputs=width)
        self.in_bias_I = nn.Parameter(torch.zeros(inner))
        self.out_ID = plain_uniform(inner, width, inputs=inner)
        self.out_bias_D = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.in_DI + self.in_bias_I).relu() @ self.out_ID + self.out_bias_D


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each with a residual and layer normalisation after it."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.feed_forward = SelfAttention(width, heads), FeedForward(width, inner)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.dropouts = nn.ModuleList([Dropout(dropout), Dropout(dropout)])

    def forward(self, values_RLD: Tensor, is_real_RL: Tensor, rows_RL: Tensor | None = None) -> Tensor:
        """Args: `rows_RL` as in `layers.dropout`; None drops nothing."""
        attended_RLD = self.dropouts[0](self.attention(values_RLD, is_real_RL), rows_RL)
        values_RLD = self.norms[0](values_RLD + attended_RLD)
        return self.norms[1](values_RLD + self.dropouts[1](self.feed_forward(values_RLD), rows_RL))


class Encoder(nn.Module):
    """Transformer over a history, once per feed: [R, L, D] -> [R, L, D], zeros for padding.

    Places are learnt and counted from the newest entry, so that a longer past shifts nothing. Without blocks the entries
    are returned as they are.

    Args:
        longest: entries of the longest history; older ones share the last place.
    """

    def __init__(self, width: int, heads: int, blocks: int, longest: int, dropout: float) -> None:
        super().__init__()
        self.places = nn.Embedding(longest, width) if blocks else None
        if self.places is not None:
            nn.init.normal_(self.places.weight, std=0.01)
        self.blocks = nn.ModuleList([Block(width, heads, 4 * width, dropout) for _ in range(blocks)])

    def forward(self, values_RLD: Tensor, is_real_RL: Tensor, rows_RL: Tensor | None = None) -> Tensor:
        """Args: `rows_RL` as in `layers.dropout`; None drops nothing."""
        if self.places is not None:
            longest = self.places.num_embeddings
            ago_RL = is_real_RL.sum(1, keepdim=True) - 1 - torch.arange(is_real_RL.shape[1], device=is_real_RL.device)
            values_RLD = values_RLD + self.places(ago_RL.clamp(0, longest - 1))
        for block in self.blocks:
            values_RLD = block(values_RLD, is_real_RL, rows_RL)
        return values_RLD.masked_fill(~is_real_RL.unsqueeze(2), 0)
