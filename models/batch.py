"""Feeds as tensors.

# R feeds, N candidates of all feeds together, L longest history of the batch, W preference windows
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Others:
    """An entry of another user beside the history of every feed (`learners.others`).

    Attributes:
        rows: its table row by history field, int64 [R].
        is_asked_R: whether the feed has an entry of its own, and this one is another's and is not the same, bool.
    """

    rows: dict[str, Tensor]
    is_asked_R: Tensor


@dataclass(frozen=True, kw_only=True)
class HistoryBatch:
    """One domain's histories of R feeds.

    Attributes:
        rows: table row of every entry by history field, int64 [R, L]; 0 where padded.
        is_real_RL: False where padded, bool. Padding stands behind the entries; L may be 0.
        others: only where a loss wants them, in training.
    """

    rows: dict[str, Tensor]
    is_real_RL: Tensor
    others: Others | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "HistoryBatch":
        """The same histories with `change`, which keeps their number or chooses among them, applied to every tensor."""
        each = lambda tensors: {name: change(tensor) for name, tensor in tensors.items()}
        others = self.others and Others(rows=each(self.others.rows), is_asked_R=change(self.others.is_asked_R))
        return HistoryBatch(rows=each(self.rows), is_real_RL=change(self.is_real_RL), others=others)


@dataclass(frozen=True, kw_only=True)
class Early:
    """Labels that are not final: more may come until their window closes. They are below zero, -1 - what is known so far.

    Attributes:
        targets: that have such labels in the batch; a batch without any has no `Early`.
        arrived: by target that is learnt from them all the same, the share of its positives that is known as early as each
            label is (1 for final ones), float32 [N]. Labels of the others are left out.
    """

    targets: frozenset[str]
    arrived: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FeedBatch:
    """R feeds with N candidates, tensors addressed by the names of a `Schema`.

    Attributes:
        feed: feed-level fields; int64 [R] table rows, float32 [R] numbers.
        candidate: candidate-level fields; int64 [N] table rows, float32 [N] numbers.
        histories: by history name.
        feed_of_candidate_N: row of the feed that a candidate belongs to, int64, not decreasing.
        labels: by target, float32 [N], in the label's own unit; empty when predicting. Below zero where not final (`early`).
        level_N: index into the schema's level names, int64.
        user_R: raw user ids (never embedded; gAUC and in-batch negatives need them), int64.
        stage_R: rule-based stage, index into `schema.STAGES`, int64; None where the schema declares none.
        preferences: by target, mean of the user's labels known before the feed in each window W of the schema's
            `preference_days`, in [0, 1] (a value's mean as its quantile among positive labels), float32 [R, W]; NaN without
            earlier impressions. Empty when predicting.
        earlier_RW: the impressions that they are means over, int64; None when predicting.
        early: what there is of labels that are not final; None where all are.
    """

    feed: dict[str, Tensor]
    candidate: dict[str, Tensor]
    histories: dict[str, HistoryBatch]
    feed_of_candidate_N: Tensor
    level_N: Tensor
    user_R: Tensor
    labels: dict[str, Tensor] = field(default_factory=dict)
    stage_R: Tensor | None = None
    preferences: dict[str, Tensor] = field(default_factory=dict)
    earlier_RW: Tensor | None = None
    early: Early | None = None

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
            histories={name: history.map(change) for name, history in self.histories.items()},
            feed_of_candidate_N=change(self.feed_of_candidate_N),
            level_N=change(self.level_N),
            user_R=change(self.user_R),
            labels=each(self.labels),
            stage_R=None if self.stage_R is None else change(self.stage_R),
            preferences=each(self.preferences),
            earlier_RW=None if self.earlier_RW is None else change(self.earlier_RW),
            early=self.early and Early(targets=self.early.targets, arrived=each(self.early.arrived)),
        )

    def to(self, device: torch.device | str) -> "FeedBatch":
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def of_candidates(self, keep_N: Tensor) -> "FeedBatch":
        """The candidates where `keep_N` (bool) is true and the feeds that have any, in the same order."""
        has_any_R = torch.zeros(self.feeds, dtype=torch.bool, device=keep_N.device)
        has_any_R[self.feed_of_candidate_N[keep_N]] = True
        return self._taken(has_any_R, keep_N)

    def of_feeds(self, keep_R: Tensor) -> "FeedBatch":
        """The feeds where `keep_R` (bool) is true, with their candidates, in the same order."""
        return self._taken(keep_R, keep_R[self.feed_of_candidate_N])

    def _taken(self, keep_R: Tensor, keep_N: Tensor) -> "FeedBatch":
        """Some feeds and some of their candidates."""
        feeds = lambda tensors: {name: tensor[keep_R] for name, tensor in tensors.items()}
        candidates = lambda tensors: {name: tensor[keep_N] for name, tensor in tensors.items()}
        return FeedBatch(
            feed=feeds(self.feed),
            candidate=candidates(self.candidate),
            histories={name: history.map(lambda tensor: tensor[keep_R]) for name, history in self.histories.items()},
            feed_of_candidate_N=(keep_R.cumsum(0) - 1)[self.feed_of_candidate_N[keep_N]],
            level_N=self.level_N[keep_N],
            user_R=self.user_R[keep_R],
            labels=candidates(self.labels),
            stage_R=None if self.stage_R is None else self.stage_R[keep_R],
            preferences=feeds(self.preferences),
            earlier_RW=None if self.earlier_RW is None else self.earlier_RW[keep_R],
            early=self.early and Early(targets=self.early.targets, arrived=candidates(self.early.arrived)),
        )


def joined(batches: Sequence[FeedBatch]) -> FeedBatch:
    """The feeds of several batches of one kind as one, one batch after the other; histories are padded to the longest. Entries
    of others are left behind: they are drawn for one batch.

    Raises:
        ValueError: no batch.
    """
    if not batches:
        raise ValueError("`joined` needs at least one batch, got none.")
    first, *others = batches
    if not others:
        return first
    starts = torch.tensor([0, *(batch.feeds for batch in batches[:-1])]).cumsum(0).tolist()
    each = lambda of: {name: torch.cat([of(batch)[name] for batch in batches]) for name in of(first)}
    either = lambda of: None if of(first) is None else torch.cat([of(batch) for batch in batches])
    return FeedBatch(
        feed=each(lambda batch: batch.feed),
        candidate=each(lambda batch: batch.candidate),
        histories={name: _joined_histories([batch.histories[name] for batch in batches]) for name in first.histories},
        feed_of_candidate_N=torch.cat(
            [batch.feed_of_candidate_N + start for batch, start in zip(batches, starts, strict=True)]
        ),
        level_N=torch.cat([batch.level_N for batch in batches]),
        user_R=torch.cat([batch.user_R for batch in batches]),
        labels=each(lambda batch: batch.labels),
        stage_R=either(lambda batch: batch.stage_R),
        preferences=each(lambda batch: batch.preferences),
        earlier_RW=either(lambda batch: batch.earlier_RW),
        early=_joined_early(batches),
    )


def _joined_early(batches: Sequence[FeedBatch]) -> Early | None:
    found = [batch.early for batch in batches if batch.early is not None]
    if not found:
        return None
    names = {name for early in found for name in early.arrived}
    arrived_of = lambda batch: {} if batch.early is None else batch.early.arrived
    all_known = lambda batch: torch.ones(batch.candidates, device=batch.level_N.device)
    return Early(
        targets=frozenset().union(*(early.targets for early in found)),
        arrived={name: torch.cat([arrived_of(each).get(name, all_known(each)) for each in batches]) for name in sorted(names)},
    )


def _joined_histories(histories: Sequence[HistoryBatch]) -> HistoryBatch:
    longest = max(history.is_real_RL.shape[1] for history in histories)
    padded = lambda tensor: torch.nn.functional.pad(tensor, (0, longest - tensor.shape[1]))
    return HistoryBatch(
        rows={field: torch.cat([padded(history.rows[field]) for history in histories]) for field in histories[0].rows},
        is_real_RL=torch.cat([padded(history.is_real_RL) for history in histories]),
    )
