"""Collaborative cross networks (Hu, Zhang, Yang 2018, "CoNet: collaborative cross networks for cross-domain
recommendation", Sec. 4), with the user's sequences as further input (CoNet+ of the eLiveRec paper).

    # R feeds, N candidates, F summed width of feed fields, D width, I inputs of a network at a layer, O its outputs, P = 2 O
    # Q products that are asked (`layers.source`)

Two networks of equal shape, t over rooms and s over products, pass each layer's inputs to each other through one matrix H
for both directions (cross connection unit, Sec. 4.2):

    a_t' = relu(W_t a_t + H a_s + b_t),   a_s' = relu(W_s a_s + H a_t + b_s)

The lasso on H (SCoNet, Sec. 4.3, Eq. 9) is the penalty `sparse`: its weight times the sum of |H| over all layers. Side by
side, both networks are one product with [[W_t, H], [H, W_s]].

As published: a network reads the user, whose embedding both share, and the item; one H a layer, from the inputs on.
Where we differ:
- "+": a network also reads the user's content in its domain (`layers.user_side`). The item of the network over products
  is the candidate in the products' space.
- Both networks read the same user's fields, where W_t + H and W_s + H are one weight each: the same functions with fewer
  parameters, and the same penalty at its lowest. These fields are multiplied once per feed.
- The published code leaves out H at the last layer; here every layer has one.
- Networks end with their last hidden layer, `interest.<history>`, and the fusion reads both.
- The loss of the source domain, weight `source` (1, as the paper adds both up), asks for the product that was clicked next
  (`layers.source`); its network then reads that product, and the network over rooms the user's fields alone. The paper has
  pairs of an item of either domain.
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
from models.layers.mlp import check_layers, he_uniform
from models.layers.named import Named
from models.layers.penalties import of_parameters
from models.layers.source import Head, asked, check_source
from models.layers.tables import Gathered
from models.layers.user_side import Content
from models.schema import Schema
from models.slots import Interests, Together, Training, Widths


@config
class ConetConfig:
    """Sizes of the two cross-connected networks, and the lasso on their connections.

    Attributes:
        width: of items and contents.
        heads: of the attention over a history.
        hidden: layers of each network.
        sparse: weight of the lasso on the cross connections; 0 for none.
        source: weight of the loss of the products' domain; 0 for none.
    """

    kind: Literal["conet"] = "conet"
    width: int = 128
    heads: int = 8
    hidden: tuple[int, ...] = (128, 64)
    sparse: float = 0.0
    source: float = 1.0

    def __post_init__(self) -> None:
        check_source("conet", self.source)
        check_heads("conet", self.width, self.heads)
        check_layers("conet", hidden=self.hidden)
        if not self.sparse >= 0:
            raise ValueError(f"conet needs sparse >= 0, got {self.sparse}.")


class CrossUnit(nn.Module):
    """One layer of both networks, side by side: [N, 2 I] -> [N, 2 O].

    Args:
        fields: width of what it reads of the feed besides; 0 for layers above the first, which then ignore it.
    """

    def __init__(self, inputs: int, outputs: int, fields: int = 0) -> None:
        super().__init__()
        read = fields + 2 * inputs
        self.target_IO = he_uniform(inputs, outputs, inputs=read)
        self.source_IO = he_uniform(inputs, outputs, inputs=read)
        self.cross_IO = he_uniform(inputs, outputs, inputs=read)
        self.fields_FP = he_uniform(fields, 2 * outputs, inputs=read) if fields else None
        self.bias_P = nn.Parameter(torch.zeros(2 * outputs))

    def forward(self, both_N2I: Tensor, fields_RF: Tensor | None, feed_of_candidate_N: Tensor) -> Tensor:
        start: Tensor = self.bias_P
        if self.fields_FP is not None:
            assert fields_RF is not None
            start = torch.addmm(start, fields_RF, self.fields_FP).index_select(0, feed_of_candidate_N)
        upper_IP = torch.cat([self.target_IO, self.cross_IO], dim=1)
        lower_IP = torch.cat([self.cross_IO, self.source_IO], dim=1)
        return torch.addmm(start, both_N2I, torch.cat([upper_IP, lower_IP])).relu_()

    def lasso(self) -> Tensor:
        return self.cross_IO.abs().sum()


class Conet(nn.Module):
    """Gives `interest.<history>` [N, hidden[-1]] per candidate, for the network over rooms and the one over products."""

    together: Together | None = None

    def __init__(self, config: ConetConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        self.sparse, self.source = config.sparse, config.source
        self.histories = histories.domains(schema, "conet")
        self.contents = Named({name: Content(schema, name, inputs, config.width, config.heads) for name in self.histories})
        below = (2 * config.width, *config.hidden)
        fields = (sum(inputs.fields.feed.values()), *[0] * len(config.hidden))
        self.units = nn.ModuleList([CrossUnit(*each) for each in zip(below, config.hidden, fields, strict=False)])
        self.widths = Widths(candidate={f"interest.{name}": config.hidden[-1] for name in self.histories})
        self.contrasted = (self.histories[1],) if config.source else ()
        self.source_head = Head(config.hidden[-1]) if config.source else None
        weights = {"conet.sparse": config.sparse, "conet.source": config.source}
        self.penalties: tuple[str, ...] = tuple(name for name, weight in weights.items() if weight)

    def forward(
        self,
        embedded: Embedded,
        batch: FeedBatch,
        training: Training | None = None,
        gathered: Mapping[nn.Module, Gathered] | None = None,
    ) -> Interests:
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        parts = [part_ND for content in self.contents.values() for part_ND in content(embedded, places)]
        fields_RF = torch.cat(list(embedded.feed.values()), dim=1) if embedded.feed else None
        both = self._through(torch.cat(parts, dim=1), fields_RF, batch.feed_of_candidate_N)
        penalties = {}
        products = self.histories[1]
        question = None if training is None else asked(embedded.histories[products], batch, products)
        if question is not None and self.source_head is not None:
            content_QD, item_QD = self.contents[products].of_items(embedded, question)
            no_room_QD = torch.zeros_like(item_QD)
            parts = [no_room_QD, no_room_QD, content_QD, item_QD]
            hidden_QO = self._through(torch.cat(parts, dim=1), fields_RF, question.feed_of_item_Q).chunk(2, dim=1)[1]
            penalties["conet.source"] = question.loss(self.source_head(hidden_QO), self.source)
        if training is not None and self.sparse:
            lasso = torch.stack([unit.lasso() for unit in self.units if isinstance(unit, CrossUnit)]).sum()
            penalties["conet.sparse"] = of_parameters(self.sparse * lasso, batch.feeds)
        found = zip(self.histories, both.chunk(2, dim=1), strict=True)
        return Interests(candidate={f"interest.{name}": vector_NO for name, vector_NO in found}, penalties=penalties)

    def _through(self, both: Tensor, fields_RF: Tensor | None, feed_of_N: Tensor) -> Tensor:
        """Both networks' last layers side by side."""
        for unit in self.units:
            both = unit(both, fields_RF, feed_of_N)
        return both
