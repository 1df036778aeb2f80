"""Intentions that a user has in both domains, told apart from those of one domain (eLiveRec: Zhang et al. 2023, "Cross-domain
disentangled learning for e-commerce live streaming recommendation", Sec. IV-B).

    # R feeds, N candidates, G x S grid of candidates (rows of one feed), L history length, D width
    # K rows of an encoded history: R, or N where the encoding depends on the candidate
    # M compared rows of width W, J histories

A sequence encoder turns a history's entries e_i into h_i (Eq. 3 and 4). Two prototypes, the mean o_c and the maximum o_s of
the real e_i, split every h_i into a consistent and a specific part (Eq. 5, elementwise),

    p_i = exp(h_i * o_c) / (exp(h_i * o_c) + exp(h_i * o_s)) = sigmoid(h_i * (o_c - o_s)),   c_i = p_i * h_i,   s_i = h_i - c_i,

and each candidate v retrieves from either part by itself (Eq. 6 and 7; the dot product is not scaled, as printed):

    z_c = sum_i softmax_i(v . c_i) c_i,     z_s likewise.

All up to the parts is computed once per feed; a retrieval is two matrix products of a feed's part with its candidates side by
side. Only with encoder `din` (Figure 5) does the encoding depend on the candidate: h_i = a(v, e_i) e_i.

Losses over rows of all workers (Eq. 8 to 10; weights multiplied in): `correlation`, the distance correlation of z_c and z_s,
summed over histories; in the root form, since that is what dCov and dVar are by their definition, so a history adds between
0 and 1. `alignment`, InfoNCE between the z_c of two histories, or one of Table III's substitutes. `specific`, InfoNCE
between the z_s. A row has no part in a loss on a history that is empty for it.

What the paper leaves open. Rows: one candidate a feed, drawn by hash (`layers.draws`), since the candidates of a feed are one
user at one moment, and the losses cost the square of the rows. InfoNCE: the positive stands in the denominator, as by van
den Oord et al. 2018; the z_c of rooms asks, and negatives are the z_c of products in rows of other users. Of more than two
histories each pair has a loss. Without disentangling (Table III's w/o D), Eq. 6 and 7 are taken over h_i.

Where we differ: entries and candidates come into one space by `layers.domain`, the Transformer knows places and scales by the
root of a head's width (`layers.attention`), and HGN's gates take the feed's fields for the user (`layers.gating`). DIN's
weight a(v, e_i) passes a sigmoid: without a bound, of which DIN itself has no need, the exponents of Eq. 5 and 6 run away.
"""

import itertools
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import ConfigError, config
from models.layers import histories
from models.layers.attention import Encoder, check_heads
from models.layers.domain import Domain
from models.layers.draws import uniform_R
from models.layers.dropout import rows_RL
from models.layers.embedding import Embedded, InterestInputs
from models.layers.gating import HierarchicalGating
from models.layers.grid import Grid, grid
from models.layers.masked import masked_max, masked_mean, masked_softmax
from models.layers.pair_scores import PairScores
from models.layers.regularisers import cosine_distance, distance_correlation, euclidean_distance, infonce
from models.layers.tables import Gathered
from models.schema import Schema
from models.slots import Compared, Interests, Together, Training, Widths

DIN_HIDDEN = (80, 40)  # of the attention MLP, as in the zoo's `din`
SALT = 4  # of the draw of compared rows


@config
class DisentangledConfig:
    """How intentions are encoded and split, and which losses hold them apart and together.

    Attributes:
        histories: which histories are read (`layers.histories.chosen`); None reads all. One alone is aligned with nothing.
        width: of entries, candidates and intentions.
        encoder: of a history.
        heads: of the Transformer's attention.
        blocks: of the Transformer.
        dropout: share of the outputs of the Transformer's layers set to 0 in training.
        prototypes: pooled from the entries, or parameters that start normal (Table III's w/o P).
        disentangle: False gives one vector a history, and no losses.
        correlation: weight of the distance correlation (lambda_1); 0 for none. At 0.1, with auxiliary targets weighted by 0.5
            and more, as the adaptive learner does, intentions can collapse in the first steps to one direction for all users:
            this loss is small there, and InfoNCE stays at its start.
        alignment: what brings the consistent intentions of two histories together.
        alignment_weight: of `alignment` and `specific` (lambda_2); 0 for none.
        temperature: of InfoNCE.
        specific: whether InfoNCE also holds the specific intentions `apart` (Table III's SR: less mutual information) or
            `alike`.
        compare: one candidate a feed, or all.
    """

    kind: Literal["disentangled"] = "disentangled"
    histories: tuple[str, ...] | None = None
    width: int = 128
    encoder: Literal["transformer", "din", "hgn"] = "transformer"
    heads: int = 8
    blocks: int = 1
    dropout: float = 0.0
    prototypes: Literal["pooling", "learnt"] = "pooling"
    disentangle: bool = True
    correlation: float = 0.01
    alignment: Literal["infonce", "cosine", "euclidean", "none"] = "infonce"
    alignment_weight: float = 0.1
    temperature: float = 0.5
    specific: Literal["free", "apart", "alike"] = "free"
    compare: Literal["one", "all"] = "one"

    def __post_init__(self) -> None:
        check_heads("disentangled", self.width, self.heads if self.encoder == "transformer" else 1)
        if self.blocks < 1:
            raise ValueError(f"disentangled needs blocks >= 1, got {self.blocks}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"disentangled needs 0 <= dropout < 1, got {self.dropout}.")
        for name in ("correlation", "alignment_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"disentangled needs {name} >= 0 (0 is without), got {getattr(self, name)}.")
        if not self.temperature > 0:
            raise ValueError(f"disentangled needs temperature > 0, got {self.temperature}.")


class Intentions(nn.Module):
    """One history's intention vectors for each candidate."""

    def __init__(self, config: DisentangledConfig, schema: Schema, history: str, inputs: InterestInputs) -> None:
        super().__init__()
        self.history, self.disentangle, self.has_dropout = history, config.disentangle, config.dropout > 0
        self.domain = Domain(schema, history, inputs, config.width)
        longest = next(item.length for item in schema.histories if item.name == history)
        self.encoder: nn.Module
        match config.encoder:
            case "transformer":
                self.encoder = Encoder(config.width, config.heads, config.blocks, longest, config.dropout)
            case "din":
                self.encoder = PairScores(config.width, config.width, DIN_HIDDEN, "dice", bias=True)
            case "hgn":
                self.encoder = HierarchicalGating(config.width, sum(inputs.fields.feed.values()), longest)
        is_learnt = config.disentangle and config.prototypes == "learnt"
        self.prototypes_2D = nn.Parameter(torch.randn(2, config.width)) if is_learnt else None

    def forward(self, embedded: Embedded, feed_of_candidate_N: Tensor, places: Grid, training: Training | None) -> list[Tensor]:
        """Consistent and specific [N, D], or the one vector where nothing is disentangled; zeros for an empty history."""
        is_real_RL = embedded.histories[self.history].is_real_RL
        entries_RLD = self.domain.entries(embedded)
        query_ND = self.domain.candidates(embedded)
        apart_RD = self._apart(entries_RLD, is_real_RL) if self.disentangle else None
        if isinstance(self.encoder, PairScores):
            score_GSL = self.encoder(places.of_feed(entries_RLD), places.lay(query_ND))
            weight_NL = places.pick(score_GSL).sigmoid()
            encoded_NLD = weight_NL.unsqueeze(2) * entries_RLD.index_select(0, feed_of_candidate_N)
            parts = _parts(encoded_NLD, None if apart_RD is None else apart_RD.index_select(0, feed_of_candidate_N))
            is_real_NL = is_real_RL.index_select(0, feed_of_candidate_N)
            return [retrieved(query_ND.unsqueeze(1), part_NLD, is_real_NL).squeeze(1) for part_NLD in parts]
        if isinstance(self.encoder, HierarchicalGating):
            encoded_RLD = self.encoder(entries_RLD, torch.cat(list(embedded.feed.values()), dim=1), is_real_RL)
        else:
            places_RL = rows_RL(training, is_real_RL.shape[1]) if self.has_dropout else None
            encoded_RLD = self.encoder(entries_RLD, is_real_RL, places_RL)
        query_GSD, is_real_GL = places.lay(query_ND), places.of_feed(is_real_RL)
        parts = _parts(encoded_RLD, apart_RD)
        return [places.pick(retrieved(query_GSD, places.of_feed(part_RLD), is_real_GL)) for part_RLD in parts]

    def _apart(self, entries_RLD: Tensor, is_real_RL: Tensor) -> Tensor:
        """o_c - o_s: [R, D], or [1, D] for all feeds."""
        if self.prototypes_2D is not None:
            consistent_D, specific_D = self.prototypes_2D
            return (consistent_D - specific_D).expand(len(entries_RLD), -1)
        return masked_mean(entries_RLD, is_real_RL) - masked_max(entries_RLD, is_real_RL)


def _parts(encoded_KLD: Tensor, apart_KD: Tensor | None) -> tuple[Tensor, ...]:
    """Eq. 5: the consistent and the specific part of every entry."""
    if apart_KD is None:
        return (encoded_KLD,)
    consistent_KLD = (encoded_KLD * apart_KD.unsqueeze(1)).sigmoid() * encoded_KLD
    return consistent_KLD, encoded_KLD - consistent_KLD


def retrieved(query_GSD: Tensor, part_GLD: Tensor, is_real_GL: Tensor) -> Tensor:
    """Eq. 6 and 7 for the candidates of a grid's row: [G, S, D]."""
    weight_GSL = masked_softmax(query_GSD @ part_GLD.transpose(1, 2), is_real_GL.unsqueeze(1))
    return weight_GSL @ part_GLD


class IntentLosses:
    """The losses of Eq. 8 to 10 on compared rows.

    A row holds the consistent and the specific vector of each history, and then a flag for each history, which is 1 where it
    has a real entry.

    Args:
        histories: how many there are; of two, the earlier one asks.
    """

    def __init__(self, config: DisentangledConfig, histories: int) -> None:
        self.config, self.histories = config, histories
        self.width = 2 * histories * config.width + histories
        are_aligned = histories > 1 and config.alignment_weight > 0
        used = {
            "correlation": histories > 0 and config.correlation > 0,
            "alignment": are_aligned and config.alignment != "none",
            "specific": are_aligned and config.specific != "free",
        }
        self.names = tuple(name for name, is_used in used.items() if is_used)

    def __call__(self, compared: Compared) -> dict[str, Tensor]:
        with torch.autocast(compared.rows_MW.device.type, enabled=False):  # distances are small differences
            known = {"correlation": self._correlation, "alignment": self._alignment, "specific": self._specific}
            return {name: known[name](compared) for name in self.names}

    def _correlation(self, compared: Compared) -> Tensor:
        vectors_MJ2D, is_real_MJ = self._taken_apart(compared)
        kept_M2D = [vectors_MJ2D[is_real_MJ[:, each], each] for each in range(self.histories)]
        return self.config.correlation * torch.stack([distance_correlation(*kept.unbind(1)) for kept in kept_M2D]).sum()

    def _alignment(self, compared: Compared) -> Tensor:
        return self.config.alignment_weight * self._over_pairs(compared, part=0, kind=self.config.alignment)

    def _specific(self, compared: Compared) -> Tensor:
        sign = -1 if self.config.specific == "apart" else 1
        return sign * self.config.alignment_weight * self._over_pairs(compared, part=1, kind="infonce")

    def _over_pairs(self, compared: Compared, part: int, kind: str) -> Tensor:
        """Sum over pairs of histories, each over the rows that have entries in both."""
        vectors_MJ2D, is_real_MJ = self._taken_apart(compared)
        losses = []
        for one, other in itertools.combinations(range(self.histories), 2):
            is_kept_M = is_real_MJ[:, one] & is_real_MJ[:, other]
            x_MD, y_MD = vectors_MJ2D[is_kept_M, one, part], vectors_MJ2D[is_kept_M, other, part]
            match kind:
                case "cosine":
                    losses.append(cosine_distance(x_MD, y_MD))
                case "euclidean":
                    losses.append(euclidean_distance(x_MD, y_MD))
                case _:
                    losses.append(infonce(x_MD, y_MD, compared.users_M[is_kept_M], self.config.temperature))
        return torch.stack(losses).sum()

    def _taken_apart(self, compared: Compared) -> tuple[Tensor, Tensor]:
        vectors_MV, flags_MJ = compared.rows_MW.split([self.width - self.histories, self.histories], dim=1)
        return vectors_MV.unflatten(1, (self.histories, 2, self.config.width)), flags_MJ > 0.5


class Disentangled(nn.Module):
    """Gives `consistent.<history>` and `specific.<history>` [N, D] per candidate.

    Where nothing is disentangled it gives `interest.<history>` instead.

    Raises:
        ConfigError: encoder `hgn` for a schema without feed fields.
    """

    penalties: tuple[str, ...] = ()

    def __init__(self, config: DisentangledConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        if config.encoder == "hgn" and not inputs.fields.feed:
            raise ConfigError(
                "encoder `hgn` of interest `disentangled` has gates that the user opens, but the schema has no field of the "
                "feed. Take encoder `transformer`."
            )
        chosen = histories.chosen(schema, config.histories)
        are_rooms = {history.name: history.events == "engagements" for history in schema.histories}
        self.histories = tuple(sorted(chosen, key=lambda name: not are_rooms[name]))  # rooms ask
        self.parts = ("consistent", "specific") if config.disentangle else ("interest",)
        self.compare = config.compare
        self.intentions = nn.ModuleDict({name: Intentions(config, schema, name, inputs) for name in self.histories})
        losses = IntentLosses(config, len(self.histories)) if config.disentangle else None
        self.together: Together | None = losses if losses is not None and losses.names else None
        self.widths = Widths(candidate={f"{part}.{name}": config.width for name in self.histories for part in self.parts})

    def forward(
        self,
        embedded: Embedded,
        batch: FeedBatch,
        training: Training | None = None,
        gathered: Mapping[nn.Module, Gathered] | None = None,
    ) -> Interests:
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        vectors: dict[str, Tensor] = {}
        for name in self.histories:
            found = self.intentions[name](embedded, batch.feed_of_candidate_N, places, training)
            vectors.update({f"{part}.{name}": found_ND for part, found_ND in zip(self.parts, found, strict=True)})
        compared = None
        if training is not None and self.together is not None:
            compared = self._compared(embedded, list(vectors.values()), training)
        return Interests(candidate=vectors, compared=compared)

    def _compared(self, embedded: Embedded, vectors: list[Tensor], training: Training) -> Compared:
        batch = training.batch
        feed_M = batch.feed_of_candidate_N
        if self.compare == "one":
            count_R = torch.bincount(feed_M, minlength=batch.feeds)
            drawn_R = count_R.cumsum(0) - count_R + (uniform_R(batch, training.progress, SALT) * count_R).to(torch.int64)
            drawn_M = drawn_R[count_R > 0]
            feed_M, vectors = feed_M[drawn_M], [vector_ND.index_select(0, drawn_M) for vector_ND in vectors]
        has_entries_RJ = torch.stack([embedded.histories[name].is_real_RL.any(1) for name in self.histories], dim=1)
        vectors_MV = torch.cat(vectors, dim=1)
        dtype = torch.promote_types(vectors_MV.dtype, torch.float32)
        rows_MW = torch.cat([vectors_MV.to(dtype), has_entries_RJ[feed_M].to(dtype)], dim=1)
        return Compared(users_M=batch.user_R[feed_M], rows_MW=rows_MW)
