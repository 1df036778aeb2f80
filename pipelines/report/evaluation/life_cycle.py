"""How users move through the stages of their life cycle, as counts."""

from dataclasses import dataclass

StagePairs = tuple[tuple[int, ...], ...]
"""How often two stages came together, [S][S], in the order of `models.schema.STAGES`."""


@dataclass(frozen=True, kw_only=True)
class StageDay:
    """How many users were in each stage at their last feed of a day."""

    day: str
    split: str
    users: int
    counts: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class StageShift:
    """Users who were seen on two days or more, by the stages of their own first and last day."""

    users: int
    counts: StagePairs


@dataclass(frozen=True, kw_only=True)
class StageAgreement:
    """Whether the rule is right, on users' days of the evaluated split.

    Attributes:
        counts: by true stage, then by that of the rule.
        agreement: the share on the diagonal.
        by_chance: what that share would be if both were independent.
    """

    user_days: int
    counts: StagePairs
    agreement: float
    by_chance: float


@dataclass(frozen=True, kw_only=True)
class LifeCycle:
    """Where users stood at their last feed of each day.

    Attributes:
        user_share: the part of the users that was looked at.
        truth: None where the true stages are not known.
    """

    user_share: float
    days: tuple[StageDay, ...]
    shift: StageShift
    truth: StageAgreement | None
