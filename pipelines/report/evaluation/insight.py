"""What a trained model shows of its inside: gates, target graph, preferences of users, curriculum."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The mean weights of a target's gate on its experts.

    Attributes:
        experts: names, in the order of the weights.
        mean: over all candidates.
        by_level, by_stage: over the candidates of one group; None for a group that is empty.
    """

    experts: tuple[str, ...]
    mean: tuple[float | None, ...]
    by_level: dict[str, tuple[float | None, ...] | None] = field(default_factory=dict)
    by_stage: dict[str, tuple[float | None, ...] | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CarriedEdge:
    """An edge of the target graph with the mean of what it carries; None where that is not finite."""

    parent: str
    child: str
    mean: float | None


@dataclass(frozen=True, kw_only=True)
class UserPoint:
    """A user in the plane, with the life-cycle stage that the rule finds."""

    x: float
    y: float
    stage: str


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """Predicted preferences of users at their last feed, beside their rule-based stages.

    Attributes:
        mean_by_stage: means by target, by stage; None for a stage in which no user is.
        neighbours: of a user's nearest ones, the share in the same stage.
        by_chance: what that share would be at random.
        points: users in the plane, near to those of like preferences.
    """

    users: int
    mean_by_stage: dict[str, dict[str, float | None] | None]
    neighbours: float
    by_chance: float
    points: tuple[UserPoint, ...]


@dataclass(frozen=True, kw_only=True)
class CoursePoint:
    """A number at a moment of training, in epochs; None where it is not defined."""

    progress: float
    value: float | None


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """How likely a coupling showed labels to children while it was trained.

    Attributes:
        target: whose validation AUC stands beside it.
        probability: of a label, several points an epoch.
        auc: a point for each epoch.
    """

    target: str
    probability: tuple[CoursePoint, ...]
    auc: tuple[CoursePoint, ...]


@dataclass(frozen=True, kw_only=True)
class ModelInsight:
    """What a model shows on a sample of whole users; a part is empty or None where there is nothing to show.

    Attributes:
        candidates, feeds, users: of the sample.
        gates: by target that is trained for.
        carries: what the edges' numbers are.
    """

    candidates: int
    feeds: int
    users: int
    gates: dict[str, Gate] = field(default_factory=dict)
    carries: str = ""
    edges: tuple[CarriedEdge, ...] = ()
    preferences: Preferences | None = None
    curriculum: Curriculum | None = None
