"""Hierarchical gating network (Ma, Kang, Liu 2019, "Hierarchical gating networks for sequential recommendation", Sec. 4).

    # R feeds, N candidates, G x S grid of candidates, L history length, D width, F width of all feed-level fields, U width
    # of the user (D, or 0 without such fields), P products with a candidate

The user u opens two gates for each entry of a history, one per place of the width and one for the entry as a whole
(`layers.gating`); the interest is the mean of the gated entries. A candidate q is compared with the interest, with the
mean of the entries as they are, and with the user. All but these products is done once per feed.

Where we differ: the paper adds the three products up and has its score; here they stand beside the interest, so that any
fusion can follow. Its histories all have the same few entries, so that their sum, with which it compares q, and their mean
are alike; here it is the mean, since histories are of any length. (The published code pools by the weights of the second
gate; the paper takes the mean, as here.) The user is a linear map of all feed-level fields; without such fields the gates
see the entries alone, and the user's product falls away. Entries and candidates are brought into one space
(`layers.domain`), where the paper has a table for each.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from models.batch import FeedBatch
from models.config import config
from models.layers import histories
from models.layers.domain import Domain
from models.layers.embedding import Embedded, InterestInputs
from models.layers.gating import HierarchicalGating
from models.layers.grid import grid
from models.layers.masked import masked_mean
from models.layers.mlp import check_layers, plain_uniform
from models.layers.named import Named
from models.layers.tables import Gathered
from models.schema import Schema
from models.slots import Interests, Together, Training, Widths


@config
class HgnConfig:
    """Gates over the entries of each history.

    Attributes:
        histories: which histories are read (`layers.histories.chosen`); None reads all. Each has gates of its own.
        width: of entries, candidates and the user in the space where they meet.
        products: hand on the three products, which are the paper's score; `din` and `dien` have those of their published code.
    """

    kind: Literal["hgn"] = "hgn"
    histories: tuple[str, ...] | None = None
    width: int = 128
    products: bool = True

    def __post_init__(self) -> None:
        check_layers("hgn", hidden=(self.width,))


class Hgn(nn.Module):
    """Gives `interest.<history>` [R, D] per feed and, with `products`, `match.<history>` [N, P] per candidate.

    A match is the candidate's products with the interest, with the mean entry, and with the user where the schema has
    feed-level fields.
    """

    penalties: tuple[str, ...] = ()
    together: Together | None = None

    def __init__(self, config: HgnConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        self.histories = histories.chosen(schema, config.histories)
        fields = sum(inputs.fields.feed.values()) if self.histories else 0
        user = config.width if fields else 0
        self.products = config.products
        self.domains = Named(
            {name: Domain(schema, name, inputs, config.width, asks=config.products) for name in self.histories}
        )
        self.user_FD = plain_uniform(fields, config.width, inputs=fields) if fields else None
        self.gates = Named(
            {name: HierarchicalGating(config.width, user, schema.history(name).length) for name in self.histories}
        )
        self.widths = Widths(
            feed={f"interest.{name}": config.width for name in self.histories},
            candidate={f"match.{name}": 3 if user else 2 for name in self.histories if config.products},
        )

    def forward(
        self,
        embedded: Embedded,
        batch: FeedBatch,
        training: Training | None = None,
        gathered: Mapping[nn.Module, Gathered] | None = None,
    ) -> Interests:
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        user_RD = None
        if self.user_FD is not None:
            user_RD = torch.cat(list(embedded.feed.values()), dim=1) @ self.user_FD
        feed, candidate = {}, {}
        for name in self.histories:
            domain, is_real_RL = self.domains[name], embedded.histories[name].is_real_RL
            entries_RLD = domain.entries(embedded)
            user_RU = entries_RLD.new_zeros(batch.feeds, 0) if user_RD is None else user_RD
            interest_RD = masked_mean(self.gates[name](entries_RLD, user_RU, is_real_RL), is_real_RL)
            feed[f"interest.{name}"] = interest_RD
            if not self.products:
                continue
            compared = [interest_RD, masked_mean(entries_RLD, is_real_RL), *([] if user_RD is None else [user_RD])]
            match_GSP = places.lay(domain.candidates(embedded)) @ places.of_feed(torch.stack(compared, dim=2))
            candidate[f"match.{name}"] = places.pick(match_GSP)
        return Interests(feed=feed, candidate=candidate)
