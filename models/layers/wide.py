"""The wide part: outputs linear in the fields themselves, one weight a table row and target (Cheng et al. 2016, "Wide &
deep learning for recommender systems", Sec. 3.1, without its hand-made crosses).

    # R feeds, N candidates, F fields, T targets
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.layers.mixed import MixedLinear
from models.layers.tables import Gathered, Reads, TableSet
from models.schema import Schema
from models.slots import Vectors, Widths


class Wide(nn.Module):
    """[N, T]: the sum of one weight per feed and candidate field, float fields times a weight. Histories are not read."""

    def __init__(self, schema: Schema, table_sizes: Mapping[str, int]) -> None:
        super().__init__()
        reads = Reads(
            feed={field.name: field.table for field in schema.fields_of("feed") if not field.is_number},
            candidate={field.name: field.table for field in schema.fields_of("candidate") if not field.is_number},
            histories={},
        )
        self.tables = TableSet(reads, table_sizes, len(schema.targets)) if reads.tables() else None
        self.numbers = {of: [item.name for item in schema.fields_of(of) if item.is_number] for of in ("feed", "candidate")}
        widths = Widths(feed=dict.fromkeys(self.numbers["feed"], 1), candidate=dict.fromkeys(self.numbers["candidate"], 1))
        self.linear = MixedLinear(widths, len(schema.targets), before_relu=False) if any(self.numbers.values()) else None

    def forward(self, batch: FeedBatch, gathered: Mapping[nn.Module, Gathered] | None = None) -> Tensor:
        parts = []
        if self.tables is not None:
            looked = self.tables(batch, None if gathered is None else gathered[self.tables])
            if looked.feed_RFD is not None:
                parts.append(looked.feed_RFD.sum(1).index_select(0, batch.feed_of_candidate_N))
            if looked.candidate_NFD is not None:
                parts.append(looked.candidate_NFD.sum(1))
        if self.linear is not None:
            dtype = self.linear.bias.dtype
            columns = lambda of: {name: getattr(batch, of)[name].to(dtype).unsqueeze(1) for name in self.numbers[of]}
            parts.append(
                self.linear(
                    Vectors(
                        feed=columns("feed"),
                        candidate=columns("candidate"),
                        feed_of_candidate_N=batch.feed_of_candidate_N,
                        level_N=batch.level_N,
                    )
                )
            )
        return torch.stack(parts).sum(0)
