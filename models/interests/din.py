"""Deep interest network: a history weighed by each candidate (Zhou et al. 2018, "Deep interest network for
click-through rate prediction", Sec. 4.3).

    # R feeds, N candidates, G x S grid of candidates (rows of one feed), L history length
    # E width of an entry, M width of its matched part

An entry's weight is an MLP over [q, k, q - k, q * k], q the candidate's and k the entry's attributes; no softmax, as
published. `layers.pair_scores` has the MLP, how it is computed without a copy of a history per candidate, and where it
differs. Beside the weighted sum the published code hands on its product with the candidate, place by place, and so does
this where `products` is true; of an entry the attributes that it shares with the candidate take part.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import config
from models.layers import histories
from models.layers.embedding import Embedded, EmbeddedHistory, HistoryWidths, InterestInputs
from models.layers.grid import Grid, grid
from models.layers.masked import masked_softmax
from models.layers.mlp import check_layers
from models.layers.named import Named
from models.layers.pair_scores import Activation, PairScores
from models.layers.tables import Gathered
from models.schema import Schema
from models.slots import Interests, Together, Training, Widths


@config
class DinConfig:
    """An attention MLP that weighs each history by the candidate.

    Attributes:
        histories: which histories are read (`layers.histories.chosen`); None reads all. Each has attention weights of its own.
        hidden: hidden layers of the attention MLP.
        activation: of the attention MLP.
        softmax: let a history's weights sum to 1.
        products: also hand on the interest's products with the candidate, as the published code does; so do `dien` and `hgn`.
        matches: also count, per candidate, the entries that share its attributes (`layers.histories.matches`).
    """

    kind: Literal["din"] = "din"
    histories: tuple[str, ...] | None = None
    hidden: tuple[int, ...] = (80, 40)
    activation: Activation = "dice"
    softmax: bool = False
    products: bool = True
    matches: bool = False

    def __post_init__(self) -> None:
        check_layers("din", hidden=self.hidden)


class TargetAttention(nn.Module):
    """One history, weighed by each candidate."""

    def __init__(self, config: DinConfig, widths: HistoryWidths) -> None:
        super().__init__()
        self.softmax = config.softmax
        self.scores = PairScores(widths.matched, widths.entry, config.hidden, config.activation, bias=not config.softmax)

    def forward(self, history: EmbeddedHistory, query_NM: Tensor, places: Grid) -> Tensor:
        """interest [N, E]; zeros where the history has no real entry."""
        entries_GLE = places.of_feed(history.entries_RLE)
        is_real_G1L = places.of_feed(history.is_real_RL).unsqueeze(1)
        score_GSL = self.scores(entries_GLE, places.lay(query_NM))
        weight_GSL = masked_softmax(score_GSL, is_real_G1L) if self.softmax else score_GSL.masked_fill(~is_real_G1L, 0)
        return places.pick(weight_GSL @ entries_GLE)


class Din(nn.Module):
    """Gives `interest.<history>` [N, E] per candidate, with `products` also `product.<history>` [N, M], and with `matches` also
    `matches.<history>`."""

    penalties: tuple[str, ...] = ()
    together: Together | None = None

    def __init__(self, config: DinConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        self.schema = schema
        self.histories = histories.chosen(schema, config.histories)
        self.products, self.matches = config.products, config.matches
        self.attention = Named({name: TargetAttention(config, inputs.histories[name]) for name in self.histories})
        self.widths = Widths(
            candidate={f"interest.{name}": inputs.histories[name].entry for name in self.histories}
            | {f"product.{name}": inputs.histories[name].matched for name in self.histories if config.products}
            | {f"matches.{name}": histories.width(schema, name) for name in self.histories if config.matches}
        )

    def forward(
        self,
        embedded: Embedded,
        batch: FeedBatch,
        training: Training | None = None,
        gathered: Mapping[nn.Module, Gathered] | None = None,
    ) -> Interests:
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        candidate = {}
        for name in self.histories:
            query_NM = torch.cat([embedded.candidate[field.name] for _, field in self.schema.matches(name)], dim=1)
            interest_NE = self.attention[name](embedded.histories[name], query_NM, places)
            candidate[f"interest.{name}"] = interest_NE
            if self.products:
                candidate[f"product.{name}"] = interest_NE[:, : query_NM.shape[1]] * query_NM
            if self.matches:
                candidate[f"matches.{name}"] = histories.matches(batch, self.schema, name, query_NM.dtype)
        return Interests(candidate=candidate)
