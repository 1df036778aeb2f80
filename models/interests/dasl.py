"""Dual attentive sequential learning: two domains' sequences, brought into one space by an orthogonal map, in one attention
(Li et al. 2021, "Dual attentive sequential learning for cross-domain click-through rate prediction", KDD, and its published
code). The own domain is that of the channels, which are ranked; the other is that of the products.

    # R feeds, N candidates, G x S grid of candidates (rows of one feed), L history length (of both: L_c + L_p)
    # D width, E width of an entry, A units of the attention, Q products that are asked (`layers.source`)

    dual embedding   u_c, u_p             one vector of the user per domain, linear in the fields of the feed
                     h_c = GRU_c([c_i, u_c]),   h_p = GRU_p([s_j, u_p])      states over the sequences, oldest entry first
                     penalties            ||W W' - I||^2   and, per feed,   1 - cos(u_p W, u_c)
    dual attention   e_i = v . tanh(h_i O + q Q + b)   for each h_i among the h_c and the h_p W,   q the candidate
                     a = softmax(e)       over the entries of both sequences together
                     channels: sum of a_i h_c,i         products: sum of a_j h_p,j W

Since W is orthogonal it keeps lengths and angles, and W' is the way back. All but q Q and the two sums is computed once per
feed, and so are the linear parts of the attention; per pair of entry and candidate there is a sum, a tanh and A products.

Source domain: the same the other way round, which product was clicked next (`layers.source`),

    e_j = v' . tanh(h_j O' + q Q' + b')   for each h_j among the h_p and the h_c W',   q the product

over the entries before it, and both sums, q and u_p through an MLP of 80-40 as in the published code. Its loss is added with
weight `source`.

Where we differ:
- The published code has no q in its attention, though the paper matches candidates with the sequences; here it is in.
- The code hands on the channels' sum alone, so that products only take weight from channels; here the products' sum goes
  on too.
- Paper and code train the domains in turn, on impressions of each, and feed the user vector of the one that is predicted to
  both GRUs. Here both directions are one step, and each GRU has its own user vector.
- The code states the orthogonality (unsquared, and without adding it to what it minimises) and trains the cosine once an
  epoch; here both are part of every step's loss, weighted.
- User vectors are projections of all fields of the feed rather than an id's embeddings; without such fields there are none,
  nor the cosine. A channel's entry and candidates meet in `layers.domain`. No dropout after the attention. Candidate and user
  also reach the fusion, as there.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import config
from models.layers import histories
from models.layers.domain import Domain
from models.layers.embedding import Embedded, InterestInputs
from models.layers.grid import Grid, grid
from models.layers.masked import masked_softmax
from models.layers.mlp import MlpBank, plain_uniform
from models.layers.penalties import of_parameters
from models.layers.source import Asked, Head, asked, check_source
from models.layers.tables import Gathered
from models.losses import sum_count
from models.schema import Schema
from models.slots import Interests, SumCount, Together, Training, Widths

SOURCE_HIDDEN = (80, 40)


@config
class DaslConfig:
    """Sizes of dual attentive sequential learning, and the weights of its penalties.

    Attributes:
        width: of the candidate's and the user's vectors and of the states.
        attention: units of the attention.
        orthogonal: weight of ||W W' - I||^2 in the loss.
        mapping: weight of 1 - cos(u_p W, u_c) in the loss.
        source: weight of the loss of the products' domain; 0 for none.
    """

    kind: Literal["dasl"] = "dasl"
    width: int = 128
    attention: int = 20
    orthogonal: float = 0.1
    mapping: float = 0.1
    source: float = 1.0

    def __post_init__(self) -> None:
        check_source("dasl", self.source)
        for name in ("width", "attention"):
            if getattr(self, name) < 1:
                raise ValueError(f"dasl needs {name} >= 1, got {getattr(self, name)}.")
        for name in ("orthogonal", "mapping"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"dasl needs {name} >= 0, got {getattr(self, name)}.")


class Sequence(nn.Module):
    """States of a GRU over a history, each step of which also reads the user's vector: -> [R, L, D]."""

    def __init__(self, inputs: int, user: int, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs + user, width, batch_first=True)

    def forward(self, entries_RLE: Tensor, user_RD: Tensor | None) -> Tensor:
        length = entries_RLE.shape[1]
        if user_RD is not None:
            entries_RLE = torch.cat([entries_RLE, user_RD.unsqueeze(1).expand(-1, length, -1).to(entries_RLE.dtype)], dim=2)
        if not length:  # which nn.GRU refuses: one step, whose state is cut off again
            entries_RLE = F.pad(entries_RLE, (0, 0, 0, 1))
        return self.gru(entries_RLE)[0][:, :length]


class DualAttention(nn.Module):
    """The entries of two sequences, weighed together by each candidate."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.state_DA = plain_uniform(width, units, inputs=width)
        self.target_DA = plain_uniform(width, units, inputs=width)
        self.bias_A = nn.Parameter(torch.zeros(units))
        self.score_A1 = plain_uniform(units, 1, inputs=units)

    def forward(self, states_RLD: Tensor, is_real_RL: Tensor, target_ND: Tensor, places: Grid) -> Tensor:
        """Weights [G, S, L], 0 for padding."""
        of_state_GLA = places.of_feed(states_RLD @ self.state_DA + self.bias_A)
        of_target_GSA = places.lay(target_ND @ self.target_DA)
        hidden_GSLA = (of_target_GSA.unsqueeze(2) + of_state_GLA.unsqueeze(1)).tanh()
        return masked_softmax((hidden_GSLA @ self.score_A1).squeeze(3), places.of_feed(is_real_RL).unsqueeze(1))


class OfProducts(nn.Module):
    """r of a product (`layers.source`), with the attention of that direction."""

    def __init__(self, width: int, entry: int, user: int, units: int) -> None:
        super().__init__()
        self.attention = DualAttention(width, units)
        self.item_ED = plain_uniform(entry, width, inputs=entry)
        self.item_bias_D = nn.Parameter(torch.zeros(width))
        self.network = MlpBank(1, 3 * width + user, SOURCE_HIDDEN, 0.0)
        self.head = Head(SOURCE_HIDDEN[-1])

    def forward(self, question: Asked, states: tuple[Tensor, Tensor], is_real_RL: Tensor, user_RD: Tensor | None) -> Tensor:
        """r [Q].

        Args:
            states: of the products and, brought back, of the channels, [R, L, D] each.
            is_real_RL: of the channels.
        """
        item_QD = question.items_QE @ self.item_ED + self.item_bias_D
        seen_RL = torch.cat([question.earlier_RL, is_real_RL], dim=1)
        weights = self.attention(torch.cat(states, dim=1), seen_RL, item_QD, question.places)
        parts = zip(weights.split([state.shape[1] for state in states], dim=2), states, strict=True)
        found = [question.places.pick(weight_GSL @ question.places.of_feed(state_RLD)) for weight_GSL, state_RLD in parts]
        user_QD = [] if user_RD is None else [user_RD.index_select(0, question.feed_of_item_Q)]
        (hidden_QH,) = self.network(torch.cat([*found, item_QD, *user_QD], dim=1).unsqueeze(0))
        return self.head(hidden_QH)


class Dasl(nn.Module):
    """Gives `interest.<channels>` and `interest.<products>` [N, D] per candidate.

    Raises:
        ConfigError: the schema does not have one history of rooms and one of products.
    """

    together: Together | None = None

    def __init__(self, config: DaslConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        self.config = config
        self.channels, self.products = histories.domains(schema, "dasl")
        width, of_user = config.width, sum(inputs.fields.feed.values())
        self.domain = Domain(schema, self.channels, inputs, width)
        self.user_F2D = plain_uniform(of_user, 2 * width, inputs=of_user) if of_user else None
        user = width if of_user else 0
        self.of_channels = Sequence(width, user, width)
        self.of_products = Sequence(inputs.histories[self.products].entry, user, width)
        self.map_DD = nn.Parameter(nn.init.orthogonal_(torch.empty(width, width)))
        self.attention = DualAttention(width, config.attention)
        self.penalties = tuple(
            f"dasl.{name}"
            for name, weight, defined in (
                ("orthogonal", config.orthogonal, True),
                ("mapping", config.mapping, of_user > 0),
                ("source", config.source, True),
            )
            if weight and defined
        )
        entry = inputs.histories[self.products].entry
        self.source = OfProducts(width, entry, user, config.attention) if config.source else None
        self.contrasted = (self.products,) if config.source else ()
        self.widths = Widths(candidate={f"interest.{name}": width for name in (self.channels, self.products)})

    def forward(
        self,
        embedded: Embedded,
        batch: FeedBatch,
        training: Training | None = None,
        gathered: Mapping[nn.Module, Gathered] | None = None,
    ) -> Interests:
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        own_user_RD, other_user_RD = self._users(embedded)
        channels, products = embedded.histories[self.channels], embedded.histories[self.products]
        own_RLD = self.of_channels(self.domain.entries(embedded), own_user_RD)
        before_map_RLD = self.of_products(products.entries_RLE, other_user_RD)
        other_RLD = before_map_RLD @ self.map_DD
        target_ND = self.domain.candidates(embedded)
        is_real_RL = torch.cat([channels.is_real_RL, products.is_real_RL], dim=1)
        weight_GSL = self.attention(torch.cat([own_RLD, other_RLD], dim=1), is_real_RL, target_ND, places)
        own_GSL, other_GSL = weight_GSL.split([own_RLD.shape[1], other_RLD.shape[1]], dim=2)
        penalties = {} if training is None else self._penalties(own_user_RD, other_user_RD, batch.feeds)
        question = None if training is None else asked(products, batch, self.products)
        if question is not None and self.source is not None:
            states = (before_map_RLD, own_RLD @ self.map_DD.t())
            score_Q = self.source(question, states, channels.is_real_RL, other_user_RD)
            penalties["dasl.source"] = question.loss(score_Q, self.config.source)
        return Interests(
            candidate={
                f"interest.{self.channels}": places.pick(own_GSL @ places.of_feed(own_RLD)),
                f"interest.{self.products}": places.pick(other_GSL @ places.of_feed(other_RLD)),
            },
            penalties=penalties,
        )

    def _users(self, embedded: Embedded) -> tuple[Tensor | None, Tensor | None]:
        """u_c and u_p [R, D]."""
        if self.user_F2D is None:
            return None, None
        own_RD, other_RD = (torch.cat(list(embedded.feed.values()), dim=1) @ self.user_F2D).chunk(2, dim=1)
        return own_RD, other_RD

    def _penalties(self, own_user_RD: Tensor | None, other_user_RD: Tensor | None, feeds: int) -> dict[str, SumCount]:
        penalties = {}
        with torch.autocast(self.map_DD.device.type, enabled=False):  # differences from 1 need all digits
            if "dasl.orthogonal" in self.penalties:
                identity_DD = torch.eye(len(self.map_DD), dtype=self.map_DD.dtype, device=self.map_DD.device)
                away = (self.map_DD @ self.map_DD.t() - identity_DD).square().sum()
                penalties["dasl.orthogonal"] = of_parameters(self.config.orthogonal * away, feeds)
            if "dasl.mapping" in self.penalties and own_user_RD is not None and other_user_RD is not None:
                mapped_RD = other_user_RD.to(self.map_DD.dtype) @ self.map_DD
                apart_R = 1 - F.cosine_similarity(mapped_RD, own_user_RD.to(self.map_DD.dtype), dim=1)
                penalties["dasl.mapping"] = sum_count(self.config.mapping * apart_R)
        return penalties
