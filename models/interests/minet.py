"""Mixed interest network: what a user likes in the long run, lately in the source domain and lately in the target domain
(Ouyang et al. 2020, "MiNet: mixed interest network for cross-domain click-through rate prediction", CIKM, and its published
code). Target domain: the channels that were watched and are ranked. Source domain: the products that were clicked.

    # R feeds, N candidates, G x S grid of candidates (rows of one feed), L history length
    # Q products that are asked (`layers.source`)
    # D width, K rank of the transfer, A units of the item-level attention, X = K or D, B = S A

With u the user's vector, q the candidate's, c_i a watched channel's and s_j a clicked product's:

    item level:      a_c = sum_i softmax_i(h_c . relu([c_i, q, u, c_i * q] V_c)) c_i
                     a_s = sum_j softmax_j(h_s . relu([s_j, q, u, (s_j M) * q] V_s)) s_j,   M = M_1 M_2 of rank K
    interest level:  w_k = exp(g_k . relu([q, u, a_c, a_s] G_k) + b_k)   for each of u, a_c, a_s

and w_u u, w_c a_c, w_s a_s go on. The w are positive and not normalised. b starts at 1 for u, at 0 for the others.

The layer V is linear, so what it takes of the entry and of the user is computed once per feed, what it takes of the
candidate once per candidate, and the rest is one matrix product a feed, of its history with the brackets of all its candidates:

    (c_i * q) V_p  =  c_i (diag(q) V_p),      ((s_j M_1 M_2) * q) V_p  =  (s_j M_1) (M_2 diag(q) V_p).

Neither a history nor a product of an entry with a candidate is written down per candidate, and of the source domain only K
numbers an entry take part.

Source domain: a network of its own reads [s, u], s a product, and learns which product was clicked next (`layers.source`); s is
embedded as the history's entries are, so that these and u learn from it. The two losses are added with weights 1 and `source`,
1 in the published code.

Where we differ: the paper's source domain has impressions with and without clicks. Entries, candidates and the user's fields
are projected to one width, the target domain's two through `layers.domain`; the paper takes embeddings side by side. Softmax
leaves padding out. The relu of the interest level has a bias. The paper hands on q as well; a fusion here reads
the candidate's own fields anyway. Without fields of the feed there is no u.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import config
from models.layers import histories
from models.layers.domain import Domain
from models.layers.embedding import Embedded, InterestInputs
from models.layers.grid import Grid, grid
from models.layers.masked import masked_softmax
from models.layers.mixed import MixedBank
from models.layers.mlp import LinearBank, MlpBank, check_layers, he_uniform, plain_uniform
from models.layers.source import Asked, Head, asked, check_source
from models.layers.tables import Gathered
from models.schema import Schema
from models.slots import Interests, SumCount, Together, Training, Vectors, Widths


@config
class MinetConfig:
    """Sizes of the mixed interest network.

    Attributes:
        width: of the user's, the candidate's and the entries' vectors.
        item_hidden, interest_hidden: units of the two levels of attention.
        rank: of the matrix that carries products over to where channels are compared.
        source: weight of the loss of the source domain; 0 for none.
        source_hidden: layers of its network.
    """

    kind: Literal["minet"] = "minet"
    width: int = 128
    item_hidden: int = 64
    interest_hidden: int = 64
    rank: int = 10
    source: float = 1.0
    source_hidden: tuple[int, ...] = (256, 128)

    def __post_init__(self) -> None:
        check_layers("minet's source", hidden=self.source_hidden)
        check_source("minet", self.source)
        for name in ("width", "item_hidden", "interest_hidden", "rank"):
            if getattr(self, name) < 1:
                raise ValueError(f"minet needs {name} >= 1, got {getattr(self, name)}.")


class ItemAttention(nn.Module):
    """One history, weighed by each candidate.

    Args:
        user: whether there is a user's vector.
        rank: of the matrix that takes entries to the candidates' space; None where they share one.
    """

    def __init__(self, width: int, hidden: int, *, user: bool, rank: int | None) -> None:
        super().__init__()
        inputs = (4 if user else 3) * width
        self.entry_DA = he_uniform(width, hidden, inputs=inputs)
        self.target_DA = he_uniform(width, hidden, inputs=inputs)
        self.user_DA = he_uniform(width, hidden, inputs=inputs) if user else None
        self.pair_DA = he_uniform(width, hidden, inputs=inputs)
        self.transfer_DK = plain_uniform(width, rank, inputs=width) if rank else None
        self.transfer_KD = plain_uniform(rank, width, inputs=rank) if rank else None
        self.score_A1 = plain_uniform(hidden, 1, inputs=hidden)

    def forward(
        self, entries_RLD: Tensor, is_real_RL: Tensor, target_ND: Tensor, user_RD: Tensor | None, places: Grid
    ) -> Tensor:
        """[N, D]; zeros where the history has no real entry."""
        score_GSL = (self._hidden(entries_RLD, target_ND, user_RD, places).relu() @ self.score_A1).squeeze(3).transpose(1, 2)
        weight_GSL = masked_softmax(score_GSL, places.of_feed(is_real_RL).unsqueeze(1))
        return places.pick(weight_GSL @ places.of_feed(entries_RLD))

    def _hidden(self, entries_RLD: Tensor, target_ND: Tensor, user_RD: Tensor | None, places: Grid) -> Tensor:
        """[G, L, S, A], before the relu; see the head of this file."""
        of_feed_RLA = entries_RLD @ self.entry_DA
        if self.user_DA is not None and user_RD is not None:
            of_feed_RLA = of_feed_RLA + (user_RD @ self.user_DA).unsqueeze(1)
        compared_RLX = entries_RLD if self.transfer_DK is None else entries_RLD @ self.transfer_DK
        of_target_G1B = places.lay(target_ND @ self.target_DA).flatten(1).unsqueeze(1)
        compared_GLX = places.of_feed(compared_RLX)
        pair_GLB = torch.baddbmm(of_target_G1B, compared_GLX, self._brackets(places.lay(target_ND)))
        return pair_GLB.unflatten(2, (places.columns, -1)) + places.of_feed(of_feed_RLA).unsqueeze(2)

    def _brackets(self, target_GSD: Tensor) -> Tensor:
        """[G, X, B]."""
        if self.transfer_KD is None:
            return (target_GSD.transpose(1, 2).unsqueeze(3) * self.pair_DA.unsqueeze(1)).flatten(2)
        both_DKA = self.transfer_KD.t().unsqueeze(2) * self.pair_DA.unsqueeze(1)
        bracket_GSKA = (target_GSD @ both_DKA.flatten(1)).unflatten(2, (len(self.transfer_KD), -1))
        return bracket_GSKA.transpose(1, 2).flatten(2)


class InterestAttention(nn.Module):
    """Weighs whole interests, for each candidate."""

    def __init__(self, width: int, hidden: int, *, user: bool) -> None:
        super().__init__()
        self.user = user
        widths = Widths(feed={"user": width} if user else {}, candidate={"target": width, "channels": width, "products": width})
        members = len(widths.feed) + 2
        self.hidden = MixedBank(members, widths, (hidden,), dropout=0.0)
        self.score = LinearBank(members, hidden, 1, before_relu=False)
        if user:
            with torch.no_grad():
                self.score.bias_B1H[0] = 1

    def forward(self, target_ND: Tensor, user_RD: Tensor | None, recent_ND: tuple[Tensor, Tensor], batch: FeedBatch) -> Tensor:
        """Weights [B, N, 1]; of the user first, if there is one, then of the channels and of the products.

        Args:
            recent_ND: interests of channels and products.
        """
        vectors = Vectors(
            feed={} if user_RD is None else {"user": user_RD},
            candidate={"target": target_ND, "channels": recent_ND[0], "products": recent_ND[1]},
            feed_of_candidate_N=batch.feed_of_candidate_N,
            level_N=batch.level_N,
        )
        return self.score(self.hidden(vectors)).exp()


class Minet(nn.Module):
    """Gives `interest.user`, `interest.<channels>` and `interest.<products>` [N, D] per candidate.

    Raises:
        ConfigError: the schema does not have one history of rooms and one of products.
    """

    together: Together | None = None

    def __init__(self, config: MinetConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        self.channels, self.products = histories.domains(schema, "minet")
        width, of_user = config.width, sum(inputs.fields.feed.values())
        self.user_FD = plain_uniform(of_user, width, inputs=of_user) if of_user else None
        self.target = Domain(schema, self.channels, inputs, width)
        entry = inputs.histories[self.products].entry
        self.source_ED = plain_uniform(entry, width, inputs=entry)
        self.source_bias_D = nn.Parameter(torch.zeros(width))
        user = self.user_FD is not None
        self.of_channels = ItemAttention(width, config.item_hidden, user=user, rank=None)
        self.of_products = ItemAttention(width, config.item_hidden, user=user, rank=config.rank)
        self.of_interests = InterestAttention(width, config.interest_hidden, user=user)
        self.source = config.source
        self.contrasted = (self.products,) if config.source else ()
        self.penalties: tuple[str, ...] = ("minet.source",) if config.source else ()
        self.of_source = MlpBank(1, (2 if user else 1) * width, config.source_hidden, 0.0) if config.source else None
        self.source_head = Head(config.source_hidden[-1]) if config.source else None
        self.names = (*(["interest.user"] if user else []), f"interest.{self.channels}", f"interest.{self.products}")
        self.widths = Widths(candidate=dict.fromkeys(self.names, width))

    def forward(
        self,
        embedded: Embedded,
        batch: FeedBatch,
        training: Training | None = None,
        gathered: Mapping[nn.Module, Gathered] | None = None,
    ) -> Interests:
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        user_RD = None if self.user_FD is None else torch.cat(list(embedded.feed.values()), dim=1) @ self.user_FD
        target_ND = self.target.candidates(embedded)
        channels, products = embedded.histories[self.channels], embedded.histories[self.products]
        source_RLD = products.entries_RLE @ self.source_ED + self.source_bias_D
        recent_ND = (
            self.of_channels(self.target.entries(embedded), channels.is_real_RL, target_ND, user_RD, places),
            self.of_products(source_RLD, products.is_real_RL, target_ND, user_RD, places),
        )
        weight_BN1 = self.of_interests(target_ND, user_RD, recent_ND, batch)
        long_ND = [] if user_RD is None else [user_RD.index_select(0, batch.feed_of_candidate_N)]
        interests = zip(self.names, weight_BN1.unbind(0), [*long_ND, *recent_ND], strict=True)
        question = None if training is None else asked(products, batch, self.products)
        return Interests(
            candidate={name: weight_N1 * interest_ND for name, weight_N1, interest_ND in interests},
            penalties={} if question is None else self._source_loss(question, user_RD),
        )

    def _source_loss(self, question: Asked, user_RD: Tensor | None) -> dict[str, SumCount]:
        if self.of_source is None or self.source_head is None:
            return {}
        item_QD = question.items_QE @ self.source_ED + self.source_bias_D
        user_QD = [] if user_RD is None else [user_RD.index_select(0, question.feed_of_item_Q)]
        (hidden_QH,) = self.of_source(torch.cat([item_QD, *user_QD], dim=1).unsqueeze(0))
        return {"minet.source": question.loss(self.source_head(hidden_QH), self.source)}
