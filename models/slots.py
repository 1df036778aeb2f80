"""What the slots of a ranker hand to each other.

    Embedding -> interest -> fusion -> coupling, with a weighting beside them in training.

Vectors are addressed by name and live on one of two levels: `feed` (one row a feed) or `candidate` (one row a
candidate). A part is given the widths of its inputs and has those of its outputs as `widths`, so that any filling of
a slot can follow any filling of the slot before. What is the same for a whole feed stays on R rows until a linear map
has been applied to it (`layers.mixed`), and is widened to N rows as late as possible.

Interests, couplings and weightings may add losses of their own in training. They list the names in `penalties`, since
workers exchange sums of equal length even when one of them has no batch. Losses of targets stand beside them, so a name
is `part.what`, with a dot, which no target's name has. A loss that compares the rows of a whole batch with each other,
such as a contrast between users, is no sum over workers: an interest hands those rows over as `Compared` and tells with
its `together` what becomes of them, so that several workers compare what one would.

Names of tensors end with their shape. These letters mean the same in every file of `models`, but where a parameter is
named otherwise, since saved weights go by its name:

    # R feeds, N candidates, L history length, T targets, D width of a vector, H width of a hidden layer or of a target's
    # vector, U different rows of a table set; in interests and layers also G x S grid of candidates (`layers.grid`)

All others belong to the file that declares them at its head. Here F/C is the summed width of the feed/candidate vectors, K
the classes of a binned value.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

from models.batch import FeedBatch

STAGE = "stage of the user"  # among the feed's vectors, where a ranker reads it; no field can have this name

PseudoLabel = Literal["impression", "click"]
"""What a running preference is a rate of: the sum of a user's earlier labels by impressions, or by clicks (`schema.stages`)."""

SumCount = tuple[Tensor, Tensor]
"""A loss as a differentiable sum and the count to divide it by once all workers' sums are added."""


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Names and widths of the vectors of both levels."""

    feed: Mapping[str, int] = field(default_factory=dict)
    candidate: Mapping[str, int] = field(default_factory=dict)

    def __or__(self, other: "Widths") -> "Widths":
        return Widths(feed={**self.feed, **other.feed}, candidate={**self.candidate, **other.candidate})


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """What a fusion reads.

    Attributes:
        feed: float [R, width] by name.
        candidate: float [N, width] by name.
        feed_of_candidate_N: row of the feed that a candidate belongs to, int64, not decreasing.
        level_N: index of the candidate's level, int64.
        rows_N: by which dropout draws (`layers.dropout.rows_N`); None when predicting.
    """

    feed: Mapping[str, Tensor]
    candidate: Mapping[str, Tensor]
    feed_of_candidate_N: Tensor
    level_N: Tensor
    rows_N: Tensor | None = None

    @cached_property
    def feed_RF(self) -> Tensor | None:
        """All feed vectors side by side; None if there are none."""
        return torch.cat(list(self.feed.values()), dim=1) if self.feed else None

    @cached_property
    def candidate_NC(self) -> Tensor | None:
        """All candidate vectors side by side; None if there are none."""
        return torch.cat(list(self.candidate.values()), dim=1) if self.candidate else None


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Rows of a batch for the losses that compare them with each other.

    Attributes:
        users_M: raw id of the row's user, int64.
        rows_MW: float [M, W]; W is `Together.width`.
    """

    users_M: Tensor
    rows_MW: Tensor


class Together(Protocol):
    """Losses over rows of all workers together; without parameters.

    Attributes:
        width: of a row.
        names: of the losses.
    """

    width: int
    names: tuple[str, ...]

    def __call__(self, compared: Compared) -> Mapping[str, Tensor]:
        """A scalar by name, differentiable in the rows; 0 where there is nothing to compare, also for M = 0."""


@dataclass(frozen=True, kw_only=True)
class Interests:
    """What an interest gives: vectors per feed or per candidate, and losses of its own by name.

    Attributes:
        compared: what `together` compares; None when predicting, or without such losses.
    """

    feed: Mapping[str, Tensor] = field(default_factory=dict)
    candidate: Mapping[str, Tensor] = field(default_factory=dict)
    penalties: Mapping[str, SumCount] = field(default_factory=dict)
    compared: Compared | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """What interests, couplings and weightings know in training; when predicting, they get None instead.

    Attributes:
        progress: epochs that training has behind it, fractions included.
        batch: for draws (`layers.draws`) and user ids; its labels are in their own units.
        of_user_R: candidates of the feed's user in the joint batch, of all workers, int64; None where those of `batch` are all,
            or where no part asks (`weightings`).
        beliefs: [N] by target, the label in the form in which a parent hands it to its children: 0 or 1, a value or its
            logarithm, a binned value as the place of its class between the first (0) and the last (1). NaN where the label is
            not final.
    """

    progress: float
    batch: FeedBatch
    beliefs: Mapping[str, Tensor]
    of_user_R: Tensor | None = None


def candidates_of_feeds(batch: FeedBatch) -> Tensor:
    """[R], int64: how many candidates each feed has."""
    return torch.bincount(batch.feed_of_candidate_N, minlength=batch.feeds)


def candidates_of_users(batch: FeedBatch) -> Tensor:
    """[R], int64: how many candidates all feeds of a feed's user have."""
    _, user_R = torch.unique(batch.user_R, return_inverse=True)
    return torch.bincount(user_R, weights=candidates_of_feeds(batch).to(torch.float64))[user_R].to(torch.int64)


@dataclass(frozen=True, kw_only=True)
class Coupled:
    """What a coupling gives: outputs per target, and losses of its own by name.

    An output is a logit [N] for a binary target, and for a value what its head reads (`layers.values`): a number [N], in the
    logarithm for head `log1p`; logits [N, K] of classes, the first of which is 0; or [N, 3] of a zero-inflated one.
    """

    outputs: Mapping[str, Tensor]
    penalties: Mapping[str, SumCount] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a weighting gives: a target's weight in the loss, one number or one [N] per candidate, and losses of its own."""

    targets: Mapping[str, float | Tensor]
    penalties: Mapping[str, SumCount] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """A number that tells whether a part of a ranker does what it is there for, and what it is to stay within.

    Attributes:
        says: what the number is, for a sentence that goes on with `is`.
        least, most: below or above which the part does nothing any more; None for no such bound.
        keeps: share of its value before training that it must keep; None for no such bound.
    """

    value: float
    says: str
    least: float | None = None
    most: float | None = None
    keeps: float | None = None

    def alarm(self, start: float | None) -> str | None:
        """What is wrong, as a sentence; None if nothing is.

        Args:
            start: the value before training; None where it is not known.
        """
        if not math.isfinite(self.value):
            return f"{self.says} is {self.value}."
        if self.least is not None and self.value < self.least:
            return f"{self.says} is {self.value:.3g}, below {self.least:.3g}."
        if self.most is not None and self.value > self.most:
            return f"{self.says} is {self.value:.3g}, above {self.most:.3g}."
        if self.keeps is not None and start is not None and self.value < self.keeps * start:
            return f"{self.says} is {self.value:.3g}, below {self.keeps:.3g} of the {start:.3g} before training."
        return None


@dataclass(frozen=True, kw_only=True)
class Insight:
    """What the parts of a ranker can show of themselves on a batch, for reports; empty where a part has nothing of the kind.

    Attributes:
        gates: weights [N, E] of a target's gate by target; the experts' names are `fusion.expert_names`.
        edges: [N] by (parent, child), what the coupling passes on; what the number means is `coupling.carries`.
        preferences: [R] by target, the weighting's idea of how much a user is inclined to it, in [0, 1].
    """

    gates: Mapping[str, Tensor]
    edges: Mapping[tuple[str, str], Tensor]
    preferences: Mapping[str, Tensor]
