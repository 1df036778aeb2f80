"""Behavior sequence transformer (Chen et al. 2019, "Behavior sequence transformer for e-commerce recommendation in Alibaba",
Sec. 2.2).

    # R feeds, N candidates, L history length, D width

The paper runs a Transformer over the entries of a history and the candidate behind them, and gives the outputs of all
places side by side to its MLP. Entries that attend to the candidate must be encoded anew for each candidate. Here they do
not: a history is encoded once per feed (`blocks` blocks among its entries), and one more block lets the candidate attend
to the encoded entries and to itself. That block is the paper's, of which only the candidate's place is computed:

    c' = norm(c + attention(c; entries, c)),    interest = norm(c' + feed-forward(c')).

The outputs of the entries' places, which are as many as the history is long, enter as their mean.

Other differences: places are learnt numbers from the newest entry back, added to the entry, where the paper appends an
embedding of the time between entry and request (give a history an attribute `age` for that); the candidate's own place
is in its bias (`layers.domain`). The feed-forward layer has a ReLU, the paper's a leaky one.
"""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import config
from models.layers import histories
from models.layers.attention import Encoder, FeedForward, TargetAttention, check_heads
from models.layers.domain import Domain
from models.layers.dropout import Dropout, rows_N, rows_RL
from models.layers.embedding import Embedded, InterestInputs
from models.layers.grid import Grid, grid
from models.layers.masked import masked_mean
from models.layers.mlp import check_layers
from models.layers.named import Named
from models.layers.tables import Gathered
from models.schema import Schema
from models.slots import Interests, Together, Training, Widths


@config
class BstConfig:
    """A Transformer for each history, whose last block is the candidate's.

    Attributes:
        histories: which histories are read (`layers.histories.chosen`); None reads all. Each has a Transformer of its own.
        width: of a token.
        heads: of each attention.
        blocks: among the entries of a history; the candidate's comes on top.
        dropout: share of the outputs of attention and feed-forward layers set to 0 in training.
    """

    kind: Literal["bst"] = "bst"
    histories: tuple[str, ...] | None = None
    width: int = 128
    heads: int = 8
    blocks: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_heads("bst", self.width, self.heads)
        check_layers("bst", self.dropout, hidden=(self.width,))
        if self.blocks < 1:
            raise ValueError(
                f"bst needs blocks >= 1, got {self.blocks}. For attention of the candidate alone, take interest `eta`."
            )


class CandidateBlock(nn.Module):
    """The candidate's place in a Transformer block over a history and the candidate: -> [N, D]."""

    def __init__(self, config: BstConfig) -> None:
        super().__init__()
        self.attention = TargetAttention(config.width, config.heads, itself=True)
        self.feed_forward = FeedForward(config.width, 4 * config.width)
        self.norms = nn.ModuleList([nn.LayerNorm(config.width), nn.LayerNorm(config.width)])
        self.dropouts = nn.ModuleList([Dropout(config.dropout), Dropout(config.dropout)])

    def forward(
        self, candidate_ND: Tensor, encoded_RLD: Tensor, is_real_RL: Tensor, places: Grid, rows_N: Tensor | None
    ) -> Tensor:
        """Args: `rows_N` as in `layers.dropout`."""
        found_ND = self.attention(candidate_ND, encoded_RLD, is_real_RL, places)
        candidate_ND = self.norms[0](candidate_ND + self.dropouts[0](found_ND, rows_N))
        return self.norms[1](candidate_ND + self.dropouts[1](self.feed_forward(candidate_ND), rows_N))


class Bst(nn.Module):
    """Gives `interest.<history>` [N, D] per candidate and `encoded.<history>` [R, D] per feed."""

    penalties: tuple[str, ...] = ()
    together: Together | None = None

    def __init__(self, config: BstConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        self.histories = histories.chosen(schema, config.histories)
        self.has_dropout = config.dropout > 0
        self.domains = Named({name: Domain(schema, name, inputs, config.width) for name in self.histories})
        self.encoders = Named(
            {
                name: Encoder(config.width, config.heads, config.blocks, schema.history(name).length, config.dropout)
                for name in self.histories
            }
        )
        self.blocks = Named({name: CandidateBlock(config) for name in self.histories})
        self.widths = Widths(
            feed={f"encoded.{name}": config.width for name in self.histories},
            candidate={f"interest.{name}": config.width for name in self.histories},
        )

    def forward(
        self,
        embedded: Embedded,
        batch: FeedBatch,
        training: Training | None = None,
        gathered: Mapping[nn.Module, Gathered] | None = None,
    ) -> Interests:
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        dropping = training if self.has_dropout else None
        feed, candidate = {}, {}
        for name in self.histories:
            domain = self.domains[name]
            is_real_RL = embedded.histories[name].is_real_RL
            places_RL = rows_RL(dropping, is_real_RL.shape[1])
            encoded_RLD = self.encoders[name](domain.entries(embedded), is_real_RL, places_RL)
            feed[f"encoded.{name}"] = masked_mean(encoded_RLD, is_real_RL)
            candidate[f"interest.{name}"] = self.blocks[name](
                domain.candidates(embedded), encoded_RLD, is_real_RL, places, rows_N(dropping)
            )
        return Interests(feed=feed, candidate=candidate)
