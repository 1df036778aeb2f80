"""Deep dual transfer cross-domain recommendation (Li and Tuzhilin 2020, "DDTCDR: deep dual transfer cross domain
recommendation", Sec. 3), with the user's sequences as content (DDTCDR+ of the eLiveRec paper).

    # R feeds, N candidates, D width, I = 2 D inputs of a network, H units of its first layer, O of its last
    # Q products that are asked (`layers.source`)

Each domain has a network f over [user, item]. A matrix X brings a user's embedding from domain A to domain B, and its
transpose brings it back, so that each network also judges the other domain's items for the other domain's user (Sec. 3.2, 3.3):

    r_A = (1 - alpha) f_A([u_A, i_A]) + alpha f_B([X u_A, i_A])
    r_B = (1 - alpha) f_B([u_B, i_B]) + alpha f_A([X' u_B, i_B])

X starts orthogonal and is kept near it by the penalty `orthogonal`: its weight times ||X X' - 1||^2 (Frobenius; the
published code has the sum of absolute values). Networks' first layers are linear, so X is multiplied with their weights,
once per batch, rather than with every user.

Where we differ:
- The paper trains the two domains in turns on their own ratings; here it is one joint step. The loss of the products' domain,
  weight `source`, asks r_B for the product that was clicked next (`layers.source`). (The published code cuts the gradient of
  the second terms; Sec. 3.3 does not.)
- r are the networks' last hidden layers, `interest.<history>`, mixed before the fusion's layers, where the paper mixes ratings.
- Embeddings come from the fields and sequences (`layers.user_side`) and learn with the rest, not from autoencoders made
  beforehand. The item of the products' domain is the candidate in the products' space.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import config
from models.layers import histories
from models.layers.attention import check_heads
from models.layers.embedding import Embedded, InterestInputs
from models.layers.grid import grid
from models.layers.mlp import LinearBank, MlpBank, check_layers
from models.layers.named import Named
from models.layers.penalties import of_parameters
from models.layers.source import Head, asked, check_source
from models.layers.tables import Gathered
from models.layers.user_side import UserSide
from models.schema import Schema
from models.slots import Interests, Together, Training, Widths


@config
class DdtcdrConfig:
    """Sizes of the two domains' networks, and the mapping of users between the domains.

    Attributes:
        width: of users and items in a domain.
        heads: of the attention over a history.
        hidden: layers of each domain's network.
        alpha: share of the other domain's network (.03 in the published code).
        orthogonal: weight of the penalty on the mapping; 0 for none.
        source: weight of the loss of the products' domain; 0 for none.
    """

    kind: Literal["ddtcdr"] = "ddtcdr"
    width: int = 128
    heads: int = 8
    hidden: tuple[int, ...] = (128, 64)
    alpha: float = 0.03
    orthogonal: float = 0.01
    source: float = 1.0

    def __post_init__(self) -> None:
        check_source("ddtcdr", self.source)
        check_heads("ddtcdr", self.width, self.heads)
        check_layers("ddtcdr", hidden=self.hidden)
        if not 0 < self.alpha < 1:
            raise ValueError(f"ddtcdr needs 0 < alpha < 1, got {self.alpha}; without transfer, take an interest such as `eta`.")
        if not self.orthogonal >= 0:
            raise ValueError(f"ddtcdr needs orthogonal >= 0, got {self.orthogonal}.")


class Ddtcdr(nn.Module):
    """Gives `interest.<history>` [N, hidden[-1]] per candidate, r_A of rooms and r_B of products."""

    together: Together | None = None

    def __init__(self, config: DdtcdrConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        self.width, self.alpha, self.orthogonal, self.source = config.width, config.alpha, config.orthogonal, config.source
        self.histories = histories.domains(schema, "ddtcdr")
        self.sides = Named({name: UserSide(schema, name, inputs, config.width, config.heads) for name in self.histories})
        self.mapping_DD = nn.Parameter(nn.init.orthogonal_(torch.empty(config.width, config.width)))
        self.first = LinearBank(2, 2 * config.width, config.hidden[0], before_relu=True)
        self.rest = MlpBank(2, config.hidden[0], config.hidden[1:], 0.0)
        self.widths = Widths(candidate={f"interest.{name}": config.hidden[-1] for name in self.histories})
        self.contrasted = (self.histories[1],) if config.source else ()
        self.source_head = Head(config.hidden[-1]) if config.source else None
        weights = {"ddtcdr.orthogonal": config.orthogonal, "ddtcdr.source": config.source}
        self.penalties: tuple[str, ...] = tuple(name for name, weight in weights.items() if weight)

    def forward(
        self,
        embedded: Embedded,
        batch: FeedBatch,
        training: Training | None = None,
        gathered: Mapping[nn.Module, Gathered] | None = None,
    ) -> Interests:
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        sides = [self.sides[name](embedded, places, batch.feed_of_candidate_N) for name in self.histories]
        own_2NI = torch.stack([torch.cat(side, dim=1) for side in sides])
        mapped_2IH = self._weight_after_mapping()
        within_2NH = self.first(own_2NI)
        across_2NH = torch.baddbmm(self.first.bias_B1H, own_2NI.flip(0), mapped_2IH)
        # both uses of a network side by side: its own domain's rows, then the other's
        found_2MO = self.rest(torch.cat([within_2NH, across_2NH], dim=1).relu_())
        own_2NO, others_2NO = found_2MO.chunk(2, dim=1)
        mixed_2NO = (1 - self.alpha) * own_2NO + self.alpha * others_2NO.flip(0)
        penalties = {}
        products = self.histories[1]
        question = None if training is None else asked(embedded.histories[products], batch, products)
        if question is not None and self.source_head is not None:
            read_QI = torch.cat(self.sides[products].of_items(embedded, question), dim=1)
            weights_2IH = torch.stack([mapped_2IH[0], self.first.weight_BIH[1].to(mapped_2IH.dtype)])  # of f_A and of f_B
            hidden_2QH = torch.baddbmm(self.first.bias_B1H, read_QI.expand(2, -1, -1), weights_2IH)
            others_QO, own_QO = self.rest(hidden_2QH.relu_()).unbind(0)
            score_Q = self.source_head((1 - self.alpha) * own_QO + self.alpha * others_QO)
            penalties["ddtcdr.source"] = question.loss(score_Q, self.source)
        if training is not None and self.orthogonal:
            penalties["ddtcdr.orthogonal"] = of_parameters(self.orthogonal * self._distance(), batch.feeds)
        found = zip(self.histories, mixed_2NO.unbind(0), strict=True)
        return Interests(candidate={f"interest.{name}": vector_NO for name, vector_NO in found}, penalties=penalties)

    def _weight_after_mapping(self) -> Tensor:
        """[2, I, H]: the networks' first weights for users of the other domain; users are rows, so X u reads u X'."""
        user_2DH, item_2DH = self.first.weight_BIH[:, : self.width], self.first.weight_BIH[:, self.width :]
        to_rooms_and_products_2DD = torch.stack([self.mapping_DD, self.mapping_DD.T])
        mapped_2DH = to_rooms_and_products_2DD @ user_2DH
        return torch.cat([mapped_2DH, item_2DH.to(mapped_2DH.dtype)], dim=1)

    def _distance(self) -> Tensor:
        with torch.autocast(self.mapping_DD.device.type, enabled=False):  # a small difference of numbers around 1
            product_DD = self.mapping_DD @ self.mapping_DD.T
            return (product_DD - torch.eye(self.width, dtype=product_DD.dtype, device=product_DD.device)).square().sum()
