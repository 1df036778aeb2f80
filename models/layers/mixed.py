"""Linear maps of feed-level and candidate-level vectors side by side.

    # R feeds, N candidates, F/C summed width of the feed/candidate vectors, B members, H output width

`[feed, candidate] W = feed W_feed + candidate W_candidate`: the first product is taken once per feed and widened
afterwards. Feeds hold 7.7 candidates on average in the papers, so the larger part of the first layer, the widest of a
ranker, is computed a fraction as often.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.config import ConfigError
from models.layers.dropout import Dropout
from models.layers.mlp import MlpBank, he_uniform, plain_uniform
from models.slots import Vectors, Widths


class MixedLinear(nn.Module):
    """`Vectors` -> [N, outputs], each output linear in all vectors of both levels.

    Args:
        before_relu: which initial weights to draw, see `layers.mlp`.
    """

    def __init__(self, widths: Widths, outputs: int, *, before_relu: bool) -> None:
        super().__init__()
        feed, candidate = sum(widths.feed.values()), sum(widths.candidate.values())
        if feed + candidate == 0:
            raise ConfigError("there is nothing to read: the schema has no field and no history that this part takes in.")
        draw = he_uniform if before_relu else plain_uniform
        self.feed = draw(feed, outputs, inputs=feed + candidate) if feed else None
        self.candidate = draw(candidate, outputs, inputs=feed + candidate) if candidate else None
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, vectors: Vectors) -> Tensor:
        if self.feed is None or vectors.feed_RF is None:
            return torch.addmm(self.bias, _present(vectors.candidate_NC), _present(self.candidate))
        outputs = torch.addmm(self.bias, vectors.feed_RF, self.feed).index_select(0, vectors.feed_of_candidate_N)
        if self.candidate is None:
            return outputs
        # in place, since it is the widest tensor of a ranker; autocast leaves that to us
        dtype = outputs.dtype
        return outputs.addmm_(_present(vectors.candidate_NC).to(dtype), self.candidate.to(dtype))


def _present(tensor: Tensor | None) -> Tensor:
    assert tensor is not None  # the widths given at the start and the vectors given now are of the same parts
    return tensor


class MixedBank(nn.Module):
    """B MLPs of the same shape over the same `Vectors`: -> [B, N, H]. The first layer is one product for all of them."""

    def __init__(self, members: int, widths: Widths, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.members = members
        self.drop = Dropout(dropout)
        self.first = MixedLinear(widths, members * hidden[0], before_relu=True)
        self.rest = MlpBank(members, hidden[0], hidden[1:], dropout)
        self.width = self.rest.width

    def forward(self, vectors: Vectors) -> Tensor:
        first = self.drop(self.first(vectors).relu_(), vectors.rows_N)
        return self.rest(first.unflatten(1, (self.members, -1)).transpose(0, 1), vectors.rows_N)
