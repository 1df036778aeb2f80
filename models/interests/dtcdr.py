"""Dual-target cross-domain recommendation (Zhu et al. 2019, "DTCDR: a framework for dual-target cross-domain
recommendation"), with the user's sequences as content (DTCDR+ of the eLiveRec paper).

    # R feeds, N candidates, D width, P width of the combined user, O units of a network's last layer
    # Q products that are asked (`layers.source`), I = P + D

Each domain has an embedding of the common user, and an operator combines the two; the combined embedding stands in for the
user in the networks of both domains (embedding sharing). Operators as published: concatenation, the larger in each place
of the width (max-pooling), the mean (average-pooling). A domain's network is an MLP over [combined user, item of the domain],
the MLP branch of the networks that the paper builds on.

Where we differ:
- The paper's embeddings are made beforehand, from ratings and from the words of reviews and profiles. Here a user's embedding
  in a domain is a linear map of all fields of the feed plus the content of the domain's sequence (`layers.user_side`), and
  learns with the rest. Operators see the sum, and content is per candidate, so the combined user is, too.
- The item of the products' network is the candidate in the products' space; the two items are not combined, since a room is
  not a product.
- Networks end with their last hidden layer, `interest.<history>`, and the fusion reads both.
- The loss of the products' domain, weight `source`, asks for the product that was clicked next (`layers.source`); the user's
  embedding among rooms is then that of the fields alone. The paper has ratings of both domains.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from models.batch import FeedBatch
from models.config import config
from models.layers import histories
from models.layers.attention import check_heads
from models.layers.embedding import Embedded, InterestInputs
from models.layers.grid import grid
from models.layers.mlp import MlpBank, check_layers
from models.layers.named import Named
from models.layers.source import Head, asked, check_source
from models.layers.tables import Gathered
from models.layers.user_side import UserSide
from models.schema import Schema
from models.slots import Interests, Together, Training, Widths

OPERATORS = {
    "concatenate": lambda rooms_ND, products_ND: torch.cat([rooms_ND, products_ND], dim=1),
    "max": torch.maximum,
    "mean": lambda rooms_ND, products_ND: (rooms_ND + products_ND) / 2,
}


@config
class DtcdrConfig:
    """Sizes of the two domains' networks, and how a user's two embeddings become one.

    Attributes:
        width: of users and items in a domain.
        heads: of the attention over a history.
        hidden: layers of each domain's network.
        combine: the operator on the user's two embeddings.
        source: weight of the loss of the products' domain; 0 for none.
    """

    kind: Literal["dtcdr"] = "dtcdr"
    width: int = 128
    heads: int = 8
    hidden: tuple[int, ...] = (128, 64)
    combine: Literal["concatenate", "max", "mean"] = "max"
    source: float = 1.0

    def __post_init__(self) -> None:
        check_source("dtcdr", self.source)
        check_heads("dtcdr", self.width, self.heads)
        check_layers("dtcdr", hidden=self.hidden)


class Dtcdr(nn.Module):
    """Gives `interest.<history>` [N, hidden[-1]] per candidate, of the rooms' network and of the products'."""

    together: Together | None = None

    def __init__(self, config: DtcdrConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        self.combine, self.source = OPERATORS[config.combine], config.source
        self.histories = histories.domains(schema, "dtcdr")
        self.sides = Named({name: UserSide(schema, name, inputs, config.width, config.heads) for name in self.histories})
        user = 2 * config.width if config.combine == "concatenate" else config.width
        self.networks = MlpBank(2, user + config.width, config.hidden, 0.0)
        self.widths = Widths(candidate={f"interest.{name}": config.hidden[-1] for name in self.histories})
        self.contrasted = (self.histories[1],) if config.source else ()
        self.source_head = Head(config.hidden[-1]) if config.source else None
        self.penalties: tuple[str, ...] = ("dtcdr.source",) if config.source else ()

    def forward(
        self,
        embedded: Embedded,
        batch: FeedBatch,
        training: Training | None = None,
        gathered: Mapping[nn.Module, Gathered] | None = None,
    ) -> Interests:
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        sides = [self.sides[name](embedded, places, batch.feed_of_candidate_N) for name in self.histories]
        user_NP = self.combine(*[user_ND for user_ND, _ in sides])
        found_2NO = self.networks(torch.stack([torch.cat([user_NP, item_ND], dim=1) for _, item_ND in sides]))
        vectors = zip(self.histories, found_2NO.unbind(0), strict=True)
        penalties = {}
        rooms, products = self.histories
        question = None if training is None else asked(embedded.histories[products], batch, products)
        if question is not None and self.source_head is not None:
            user_QD, item_QD = self.sides[products].of_items(embedded, question)
            user_QP = self.combine(self.sides[rooms].unasked(embedded, question), user_QD)
            read_QI = torch.cat([user_QP, item_QD], dim=1)
            hidden_QO = self.networks(read_QI.expand(2, -1, -1))[1]
            penalties["dtcdr.source"] = question.loss(self.source_head(hidden_QO), self.source)
        return Interests(candidate={f"interest.{name}": vector_NO for name, vector_NO in vectors}, penalties=penalties)
