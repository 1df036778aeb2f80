"""Feeds as tensors.

# R feeds, N candidates of all feeds together, L longest history of the batch
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class HistoryBatch:
    """One domain's histories of R feeds.

    Attributes:
        rows: table row of every entry by history field, int64 [R, L]; 0 where padded.
        is_real_RL: False where padded, bool. Padding stands behind the entries; L may be 0.
    """

    rows: dict[str, Tensor]
    is_real_RL: Tensor


@dataclass(frozen=True, kw_only=True)
class FeedBatch:
    """R feeds with N candidates, tensors addressed by the names of a `Schema`.

    Attributes:
        feed: feed-level fields; int64 [R] table rows, float32 [R] numbers.
        candidate: candidate-level fields; int64 [N] table rows, float32 [N] numbers.
        histories: by history name.
        feed_of_candidate_N: row of the feed that a candidate belongs to, int64, not decreasing.
        labels: by target, float32 [N], in the label's own unit; empty when predicting.
        level_N: index into the schema's level names, int64.
        user_R: raw user ids (never embedded; gAUC and in-batch negatives need them), int64.
    """

    feed: dict[str, Tensor]
    candidate: dict[str, Tensor]
    histories: dict[str, HistoryBatch]
    feed_of_candidate_N: Tensor
    level_N: Tensor
    user_R: Tensor
    labels: dict[str, Tensor] = field(default_factory=dict)

    @property
    def feeds(self) -> int:
        return len(self.user_R)

    @property
    def candidates(self) -> int:
        return len(self.feed_of_candidate_N)

    def map(self, change: Callable[[Tensor], Tensor]) -> "FeedBatch":
        """The same batch with `change` applied to every tensor."""
        each = lambda tensors: {name: change(tensor) for name, tensor in tensors.items()}
        return FeedBatch(
            feed=each(self.feed),
            candidate=each(self.candidate),
            histories={
                name: HistoryBatch(rows=each(history.rows), is_real_RL=change(history.is_real_RL))
                for name, history in self.histories.items()
            },
            feed_of_candidate_N=change(self.feed_of_candidate_N),
            level_N=change(self.level_N),
            user_R=change(self.user_R),
            labels=each(self.labels),
        )

    def to(self, device: torch.device | str) -> "FeedBatch":
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))
