"""Intentions that a user has in both domains, told apart from those of one domain (eLiveRec: Zhang et al. 2023, "Cross-domain
disentangled learning for e-commerce live streaming recommendation", Sec. IV-B).

    # R feeds, N candidates, G x S grid of candidates (rows of one feed), L history length, D width
    # K rows of an encoded history: R, or N where the encoding depends on the candidate
    # M compared rows of width W, J histories

Entries e_i and candidates v are layer-normalised, each by itself. A sequence encoder turns a history's entries into h_i (Eq. 3
and 4). Two prototypes, the mean o_c and the maximum o_s of the real e_i, split every h_i into a consistent and a specific part
(Eq. 5, elementwise),

    p_i = exp(h_i * o_c) / (exp(h_i * o_c) + exp(h_i * o_s)) = sigmoid(h_i * (o_c - o_s)),   c_i = p_i * h_i,   s_i = h_i - c_i,

and each candidate v retrieves from either part by itself (Eq. 6 and 7; the dot product is not scaled, as printed):

    z_c = sum_i softmax_i(v . c_i) c_i,     z_s likewise.

All up to the parts is computed once per feed; a retrieval is two matrix products of a feed's part with its candidates side by
side. Only with encoder `din` (Figure 5) does the encoding depend on the candidate: h_i = a(v, e_i) e_i.

Losses over rows of all workers (Eq. 8 to 10; weights multiplied in): `correlation`, the distance correlation of z_c and z_s,
summed over histories; squared, without bias and invariant, since the paper's is lowest where all rows lie in one direction
(`layers.regularisers`). `alignment`, InfoNCE between the z_c of two histories, or one of Table III's substitutes. `specific`,
InfoNCE between the z_s. A row has no part in a loss on a history that is empty for it.

Scale decides whether any of this does anything. Rows of embedding tables start small, prototypes pooled from them are smaller
still, and h_i leaves the Transformer normalised: then every p_i is 1/2, z_c and z_s are the same mean of the history, and no
candidate retrieves anything. The paper's model began with embeddings that had been trained for two years. Here what enters is
brought to one scale, 1 a place of the width; learnt prototypes start at it. `probe` tells whether it still holds.

What the paper leaves open. Rows: one candidate a feed, drawn by hash (`layers.draws`), since the candidates of a feed are one
user at one moment, and the losses cost the square of the rows. InfoNCE: the positive stands in the denominator, as by van
den Oord et al. 2018; the z_c of rooms asks, and negatives are the z_c of products in rows of other users. Of more than two
histories each pair has a loss. Without disentangling (Table III's w/o D), Eq. 6 and 7 are taken over h_i.

Where we differ: entries and candidates come into one space by `layers.domain`, the Transformer knows places and scales by the
root of a head's width (`layers.attention`), and HGN's gates take the feed's fields for the user (`layers.gating`). DIN's
weight a(v, e_i) passes a sigmoid: without a bound, of which DIN itself has no need, the exponents of Eq. 5 and 6 run away.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from models.layers.named import Named
from models.layers.pair_scores import PairScores
from models.layers.regularisers import (
    cosine_distance,
    distance_correlation,
    effective_rank,
    euclidean_distance,
    infonce,
)
from models.layers.tables import Gathered
from models.schema import Schema
from models.slots import Compared, Interests, Probe, Together, Training, Widths

DIN_HIDDEN = (80, 40)  # of the attention MLP, as in the zoo's `din`
SALT = 4  # of the draw of compared rows
FEWEST = 8  # rows that a probe of how they lie to each other wants


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
        normalise: entries and candidates are layer-normalised first. False is the paper as printed, in which Eq. 5 and 6 do
            nothing with tables that start small.
        prototypes: pooled from the entries, or parameters that start normal (Table III's w/o P).
        disentangle: False gives one vector a history, and no losses.
        correlation: weight of the distance correlation (lambda_1); 0 for none.
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
    normalise: bool = True
    prototypes: Literal["pooling", "learnt"] = "pooling"
    disentangle: bool = True
    correlation: float = 1.0
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


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One history as candidates retrieve from it; where the encoding depends on the candidate, each has a row G of its own.

    Attributes:
        query_GSD: candidates.
        parts: of the encoded entries, [G, L, D]: consistent and specific, or the entries whole.
        consistent_KLD: p of Eq. 5; None where nothing is disentangled.
        is_real_KL, is_real_GL: of its rows and of the grid's.
        pick: takes values of the grid to those of candidates, [G, S, ...] -> [N, ...].
    """

    query_GSD: Tensor
    parts: tuple[Tensor, ...]
    consistent_KLD: Tensor | None
    is_real_KL: Tensor
    is_real_GL: Tensor
    pick: Callable[[Tensor], Tensor]

    def weights(self) -> list[Tensor]:
        """Eq. 6 by part: [G, S, L]."""
        return [
            masked_softmax(self.query_GSD @ part_GLD.transpose(1, 2), self.is_real_GL.unsqueeze(1)) for part_GLD in self.parts
        ]

    def retrieved(self) -> list[Tensor]:
        """Eq. 7 by part: [N, D]; zeros for an empty history."""
        pairs = zip(self.weights(), self.parts, strict=True)
        return [self.pick(weight_GSL @ part_GLD) for weight_GSL, part_GLD in pairs]


class Intentions(nn.Module):
    """One history's intention vectors for each candidate."""

    def __init__(self, config: DisentangledConfig, schema: Schema, history: str, inputs: InterestInputs) -> None:
        super().__init__()
        self.history, self.disentangle, self.has_dropout = history, config.disentangle, config.dropout > 0
        self.domain = Domain(schema, history, inputs, config.width)
        self.norms = nn.ModuleList([nn.LayerNorm(config.width) for _ in range(2)]) if config.normalise else None
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

    def forward(self, embedded: Embedded, feed_of_candidate_N: Tensor, places: Grid, training: Training | None) -> Seen:
        is_real_RL = embedded.histories[self.history].is_real_RL
        entries_RLD, query_ND = self.domain.entries(embedded), self.domain.candidates(embedded)
        if self.norms is not None:
            of_entries, of_candidates = self.norms
            entries_RLD, query_ND = of_entries(entries_RLD), of_candidates(query_ND)
        apart_RD = self._apart(entries_RLD, is_real_RL) if self.disentangle else None
        if isinstance(self.encoder, PairScores):
            score_GSL = self.encoder(places.of_feed(entries_RLD), places.lay(query_ND))
            weight_NL = places.pick(score_GSL).sigmoid()
            encoded_NLD = weight_NL.unsqueeze(2) * entries_RLD.index_select(0, feed_of_candidate_N)
            consistent_NLD = _consistent(
                encoded_NLD, None if apart_RD is None else apart_RD.index_select(0, feed_of_candidate_N)
            )
            is_real_NL = is_real_RL.index_select(0, feed_of_candidate_N)
            return Seen(
                query_GSD=query_ND.unsqueeze(1),
                parts=_parts(encoded_NLD, consistent_NLD),
                consistent_KLD=consistent_NLD,
                is_real_KL=is_real_NL,
                is_real_GL=is_real_NL,
                pick=lambda values_N1D: values_N1D.squeeze(1),
            )
        if isinstance(self.encoder, HierarchicalGating):
            encoded_RLD = self.encoder(entries_RLD, torch.cat(list(embedded.feed.values()), dim=1), is_real_RL)
        else:
            places_RL = rows_RL(training, is_real_RL.shape[1]) if self.has_dropout else None
            encoded_RLD = self.encoder(entries_RLD, is_real_RL, places_RL)
        consistent_RLD = _consistent(encoded_RLD, apart_RD)
        return Seen(
            query_GSD=places.lay(query_ND),
            parts=tuple(places.of_feed(part_RLD) for part_RLD in _parts(encoded_RLD, consistent_RLD)),
            consistent_KLD=consistent_RLD,
            is_real_KL=is_real_RL,
            is_real_GL=places.of_feed(is_real_RL),
            pick=places.pick,
        )

    def _apart(self, entries_RLD: Tensor, is_real_RL: Tensor) -> Tensor:
        """o_c - o_s: [R, D]."""
        if self.prototypes_2D is not None:
            consistent_D, specific_D = self.prototypes_2D
            return (consistent_D - specific_D).expand(len(entries_RLD), -1)
        return masked_mean(entries_RLD, is_real_RL) - masked_max(entries_RLD, is_real_RL)


def _consistent(encoded_KLD: Tensor, apart_KD: Tensor | None) -> Tensor | None:
    """Eq. 5: how far each place of an entry is consistent."""
    return None if apart_KD is None else (encoded_KLD * apart_KD.unsqueeze(1)).sigmoid()


def _parts(encoded_KLD: Tensor, consistent_KLD: Tensor | None) -> tuple[Tensor, ...]:
    """The consistent and the specific part of every entry."""
    if consistent_KLD is None:
        return (encoded_KLD,)
    part_KLD = consistent_KLD * encoded_KLD
    return part_KLD, encoded_KLD - part_KLD


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
            "disentangled.correlation": histories > 0 and config.correlation > 0,
            "disentangled.alignment": are_aligned and config.alignment != "none",
            "disentangled.specific": are_aligned and config.specific != "free",
        }
        self.names = tuple(name for name, is_used in used.items() if is_used)

    def __call__(self, compared: Compared) -> dict[str, Tensor]:
        with torch.autocast(compared.rows_MW.device.type, enabled=False):  # distances are small differences
            known = {
                "disentangled.correlation": self._correlation,
                "disentangled.alignment": self._alignment,
                "disentangled.specific": self._specific,
            }
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
        self.intentions = Named({name: Intentions(config, schema, name, inputs) for name in self.histories})
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
            found = self.intentions[name](embedded, batch.feed_of_candidate_N, places, training).retrieved()
            vectors.update({f"{part}.{name}": found_ND for part, found_ND in zip(self.parts, found, strict=True)})
        compared = None
        if training is not None and self.together is not None:
            compared = self._compared(embedded, list(vectors.values()), training)
        return Interests(candidate=vectors, compared=compared)

    def probe(self, embedded: Embedded, batch: FeedBatch) -> dict[str, Probe]:
        """By history: spread of p, cosine and distance correlation of z_c and z_s; by part besides its effective rank and the
        entropy of what is retrieved. What a batch is too small for is left out."""
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        drawn_M = _one_a_feed(batch, progress=0.0)
        found: dict[str, Probe] = {}
        for name in self.histories:
            is_real_RL = embedded.histories[name].is_real_RL
            seen = self.intentions[name](embedded, batch.feed_of_candidate_N, places, None)
            of_drawn_M = drawn_M[is_real_RL.any(1)[batch.feed_of_candidate_N[drawn_M]]]
            rows_MD = [vector_ND[of_drawn_M].double() for vector_ND in seen.retrieved()]
            if seen.consistent_KLD is not None and seen.is_real_KL.any():
                spread = float(seen.consistent_KLD[seen.is_real_KL].double().std(correction=0))
                found[f"disentangled.spread.{name}"] = Probe(spread, f"the deviation of p (Eq. 5) over {name}", least=0.02)
            if len(rows_MD) == 2 and len(of_drawn_M) >= FEWEST:
                cosine = float(1 - cosine_distance(*rows_MD))
                says = f"the cosine of consistent and specific intentions in {name}"
                found[f"disentangled.cosine.{name}"] = Probe(cosine, says, most=0.95)
                says = f"the distance correlation of consistent and specific intentions in {name}"
                found[f"disentangled.dcor.{name}"] = Probe(float(distance_correlation(*rows_MD)), says)
            length_N = is_real_RL.sum(1)[batch.feed_of_candidate_N]
            for part, part_MD, weight_GSL in zip(self.parts, rows_MD, seen.weights(), strict=True):
                if len(of_drawn_M) >= FEWEST:
                    rank = Probe(effective_rank(part_MD), f"the effective rank of {part} intentions in {name}", keeps=0.25)
                    found[f"disentangled.rank.{part}.{name}"] = rank
                if (length_N > 1).any():
                    entropy_N = torch.special.entr(seen.pick(weight_GSL).double()).sum(1)
                    share = float((entropy_N[length_N > 1] / length_N[length_N > 1].log()).mean())
                    says = f"the entropy of what is retrieved of {part} entries in {name}, as a share of its most,"
                    found[f"disentangled.entropy.{part}.{name}"] = Probe(share, says, most=0.98)
        return found

    def _compared(self, embedded: Embedded, vectors: list[Tensor], training: Training) -> Compared:
        batch = training.batch
        feed_M = batch.feed_of_candidate_N
        if self.compare == "one":
            drawn_M = _one_a_feed(batch, training.progress)
            feed_M, vectors = feed_M[drawn_M], [vector_ND.index_select(0, drawn_M) for vector_ND in vectors]
        has_entries_RJ = torch.stack([embedded.histories[name].is_real_RL.any(1) for name in self.histories], dim=1)
        vectors_MV = torch.cat(vectors, dim=1)
        dtype = torch.promote_types(vectors_MV.dtype, torch.float32)
        rows_MW = torch.cat([vectors_MV.to(dtype), has_entries_RJ[feed_M].to(dtype)], dim=1)
        return Compared(users_M=batch.user_R[feed_M], rows_MW=rows_MW)


def _one_a_feed(batch: FeedBatch, progress: float) -> Tensor:
    """A candidate of every feed that has any, drawn by hash: int64 [M]."""
    count_R = torch.bincount(batch.feed_of_candidate_N, minlength=batch.feeds)
    drawn_R = count_R.cumsum(0) - count_R + (uniform_R(batch, progress, SALT) * count_R).to(torch.int64)
    return drawn_R[count_R > 0]
