"""End-to-end target attention (Chen et al. 2021, "End-to-end user behavior retrieval in click-through rate prediction
model", Sec. 4): a candidate attends to those entries of a history that are most like it, found by hashing.

    # R feeds, N candidates, G x S grid of candidates, L history length, M width of an entry's matched part, B bits, D width

An entry and a candidate are hashed to the sides of B random planes on which their vectors lie (SimHash, Charikar 2002):
sign(x H). The share of bits in which two hashes differ is their angle over pi, up to chance. Each candidate keeps the
`keep` real entries at the smallest Hamming distance, of equal ones the more recent, and multi-head attention over these
gives its interest. No gradient flows through the choice; H is never learnt.

With hashes of +1 and -1 the distance is (B - product) / 2, so one matrix product a feed serves all its candidates. The
choice then enters attention as a mask: up to some hundred entries, all scores in one product cost less than copying the
chosen entries out per candidate, as the paper does for histories of thousands.

What is hashed are the attributes that entry and candidate share, straight from the tables: the paper's embedding of an
item. So a vector is the same bit by bit whatever else is in the batch, and with its sums in float64, where a sign that
depends on their order is as good as impossible, so is its hash: grouped or flat, one worker or two, bfloat16 or not.

The paper attends to the newest entries beside the retrieved ones. The eLiveRec paper, whose histories end at 50, takes one
attention per history; with `keep` None it reads all entries.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import config
from models.layers import histories
from models.layers.attention import TargetAttention, check_heads
from models.layers.domain import Domain
from models.layers.embedding import Embedded, InterestInputs
from models.layers.grid import Grid, grid
from models.layers.named import Named
from models.layers.tables import Gathered
from models.schema import Schema
from models.slots import Interests, Together, Training, Widths

SEED = 20210810  # of the planes, the same in every process


@config
class EtaConfig:
    """Attention to the entries that hashing finds most like the candidate.

    Attributes:
        histories: which histories are read (`layers.histories.chosen`); None reads all. Each has an attention of its own.
        width: of the attention.
        heads: of the attention.
        bits: of a hash.
        keep: entries that a candidate attends to; None for all.
    """

    kind: Literal["eta"] = "eta"
    histories: tuple[str, ...] | None = None
    width: int = 128
    heads: int = 8
    bits: int = 64
    keep: int | None = 16

    def __post_init__(self) -> None:
        check_heads("eta", self.width, self.heads)
        if self.bits < 1:
            raise ValueError(f"eta needs bits >= 1, got {self.bits}. To attend to all entries, set keep to null.")
        if self.keep is not None and self.keep < 1:
            raise ValueError(f"eta needs keep >= 1, got {self.keep}. To attend to all entries, set keep to null.")


class Retrieval(nn.Module):
    """The entries that each candidate keeps.

    Args:
        matched: width M of the vectors that are hashed.
    """

    planes_MB: Tensor

    def __init__(self, matched: int, bits: int, keep: int) -> None:
        super().__init__()
        self.keep = keep
        planes_MB = torch.randn(matched, bits, generator=torch.Generator().manual_seed(SEED), dtype=torch.float32)
        self.register_buffer("planes_MB", planes_MB)

    @torch.no_grad()
    def forward(self, entries_RLM: Tensor, is_real_RL: Tensor, query_NM: Tensor, places: Grid) -> Tensor | None:
        """kept [G, S, L], bool, real entries only; None where no history is longer than `keep`, so all are kept."""
        length = entries_RLM.shape[1]
        if length <= self.keep:
            return None
        with torch.autocast(query_NM.device.type, enabled=False):  # products of +1 and -1 are exact in float32
            query_GSB, entry_RLB = places.lay(self.hashes(query_NM)), self.hashes(entries_RLM)
            alike_GSL = query_GSB @ places.of_feed(entry_RLB).transpose(1, 2)
        # no two entries rank the same, so what is chosen does not depend on how a device sorts
        rank_GSL = alike_GSL.long() * length + torch.arange(length, device=alike_GSL.device)
        is_real_G1L = places.of_feed(is_real_RL).unsqueeze(1)
        chosen = rank_GSL.masked_fill(~is_real_G1L, torch.iinfo(torch.int64).min).topk(self.keep, dim=2).indices
        return torch.zeros_like(rank_GSL, dtype=torch.bool).scatter_(2, chosen, True) & is_real_G1L

    def hashes(self, x: Tensor) -> Tensor:
        """[..., M] -> [..., B], +1 or -1."""
        return torch.where(x.double() @ self.planes_MB.double() > 0, 1.0, -1.0)


class Eta(nn.Module):
    """Gives `interest.<history>` [N, D] per candidate."""

    penalties: tuple[str, ...] = ()
    together: Together | None = None

    def __init__(self, config: EtaConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        self.histories = histories.chosen(schema, config.histories)
        self.matched = {name: [field.name for _, field in schema.matches(name)] for name in self.histories}
        self.domains = Named({name: Domain(schema, name, inputs, config.width) for name in self.histories})
        self.attention = Named({name: TargetAttention(config.width, config.heads) for name in self.histories})
        self.retrieval = Named(
            {name: Retrieval(inputs.histories[name].matched, config.bits, config.keep) for name in self.histories}
            if config.keep is not None
            else {}
        )
        self.widths = Widths(candidate={f"interest.{name}": config.width for name in self.histories})

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
            domain, history = self.domains[name], embedded.histories[name]
            kept_GSL = None
            if name in self.retrieval:
                query_NM = torch.cat([embedded.candidate[field] for field in self.matched[name]], dim=1)
                entries_RLM = history.entries_RLE[:, :, : query_NM.shape[1]]
                kept_GSL = self.retrieval[name](entries_RLM, history.is_real_RL, query_NM, places)
            candidate[f"interest.{name}"] = self.attention[name](
                domain.candidates(embedded), domain.entries(embedded), history.is_real_RL, places, kept_GSL
            )
        return Interests(candidate=candidate)
