"""The tables of a paper as plain numbers: what its page and its JSON show."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipelines.report.comparison.compared import SIGNIFICANT, Role

Verdict = Literal["holds", "no difference shows", "does not show", "reversed", "too few positives", "not tested"]


@dataclass(frozen=True, kw_only=True)
class OverWorlds:
    """A gain over worlds: the mean of the worlds' own means over seeds.

    With as many seeds in every world this is what a mixed model with a random effect of the world gives: the test has one
    degree of freedom less than there are worlds, however many seeds there are.

    Attributes:
        by_world: the gain of each, above 0 if the first is better.
        low, high: the interval that covers the mean with 95 %; None for one world.
        p: of the t-test that it is 0, two-sided; None for one world.
    """

    by_world: dict[int, float]
    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A claim on one metric against one system, in the worlds of a variant.

    Attributes:
        better, worse: labels; the claim is that the first is better (with `or_equal`: or no difference shows).
        is_premise: it is no claim of the paper's but what its claims stand on.
        positives: that the metric rests on, in the world that has fewest; None for what rests on none.
        over: None before any world has both.
        corrected: p for the number of claims (Holm).
        smallest: the gain that the design finds with 80 %, by the pilot's variance, tested alone; None without a pilot.
        smallest_of_all: the same at the level that the first of all claims is tested at.
        gap: share of the worse one's distance to the truth that is closed; None without a ceiling.
        published: the paper's gain, for the better above 0; None where it printed none.
    """

    better: str
    worse: str
    path: str
    or_equal: bool = False
    is_premise: bool = False
    positives: int | None = None
    over: OverWorlds | None = None
    corrected: float | None = None
    smallest: float | None = None
    smallest_of_all: float | None = None
    gap: float | None = None
    published: float | None = None
    fewest: int = 100

    @property
    def verdict(self) -> Verdict:
        if self.positives is not None and self.positives < self.fewest:
            return "too few positives"
        if self.over is None or self.corrected is None:
            return "not tested"
        if self.corrected < SIGNIFICANT:
            return "holds" if self.over.mean > 0 else "reversed"
        return "no difference shows" if self.or_equal else "does not show"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class PaperScore:
    """A row's values of one metric.

    Attributes:
        by_world: by world, then by seed; a baseline has seed 0.
        mean, std: over the worlds' means over seeds.
        positives: in the world that has fewest; None for what rests on none.
        published: the paper's figure.
    """

    by_world: dict[int, dict[int, float]] = field(default_factory=dict)
    mean: float | None = None
    std: float | None = None
    positives: int | None = None
    published: float | None = None


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A line of a variant's table.

    Attributes:
        rate: of learning; None as the optimiser's section says.
        rates: validation score by rate that was tried in the pilot; None for one that failed.
        epochs, best_epoch, steps, seconds: of a training, on the mean over worlds and seeds.
        courses: the monitored metric on the validation split, epoch by epoch, by world and seed (`1/0`).
        failures: first lines of errors, by cell.
    """

    label: str
    role: Role
    scores: dict[str, PaperScore] = field(default_factory=dict)
    rate: float | None = None
    rates: dict[float, float | None] = field(default_factory=dict)
    epochs: float | None = None
    best_epoch: float | None = None
    steps: float | None = None
    seconds: float | None = None
    courses: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The table of one kind of worlds.

    Attributes:
        changes: what it changes of the experiment.
        worlds: that are finished.
        candidates: of the training split, in the first world.
        config: the first world's whole experiment, rates in place: what its cells were made with.
    """

    name: str
    changes: dict[str, Any]
    worlds: list[int]
    candidates: int
    rows: list[PaperRow]
    gains: list[Gain]
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PaperResult:
    """The whole page.

    Attributes:
        name: of the paper's file in `jobs/configs/papers`.
        about: facts by term: worlds, seeds, size, monitor, code.
        words: how to read it, by term.
        warnings: what a reader must not miss.
        pilot: by claim, the variance of its gain between worlds and between seeds.
        curve: names of variants in the order of a strength.
        tables: of the paper, whose figures stand beside ours.
        command: that makes the page; `again` makes one of its cells anew.
        statement: what a person says of all this, as Markdown.
    """

    name: str
    title: str
    premise: str
    about: dict[str, str]
    words: dict[str, str]
    warnings: list[str]
    columns: tuple[str, ...]
    variants: list[Variant]
    pilot: dict[str, dict[str, float]]
    curve: tuple[str, ...]
    tables: tuple[str, ...]
    command: str
    again: str
    statement: str = ""

    def to_dict(self) -> dict[str, Any]:
        spelled = asdict(self)
        for variant, plain in zip(self.variants, spelled["variants"], strict=True):
            plain["gains"] = [gain.to_dict() for gain in variant.gains]
        return spelled

    @classmethod
    def from_dict(cls, spelled: Mapping[str, Any]) -> "PaperResult":
        """What `to_dict` has written, from JSON, whose keys are text."""
        variants = [
            Variant(
                **each
                | {
                    "rows": [_row(row) for row in each["rows"]],
                    "gains": [_gain(gain) for gain in each["gains"]],
                }
            )
            for each in spelled["variants"]
        ]
        lists = {name: tuple(spelled[name]) for name in ("columns", "curve", "tables")}
        return cls(**{**spelled, **lists, "variants": variants})


def _gain(spelled: Mapping[str, Any]) -> Gain:
    own = {name: value for name, value in spelled.items() if name != "verdict"}
    over = own["over"]
    return Gain(**own | {"over": over and OverWorlds(**over | {"by_world": _by_number(over["by_world"], int)})})


def _row(spelled: Mapping[str, Any]) -> PaperRow:
    scores = {
        path: PaperScore(
            **score | {"by_world": {int(world): _by_number(values, int) for world, values in score["by_world"].items()}}
        )
        for path, score in spelled["scores"].items()
    }
    return PaperRow(**{**spelled, "scores": scores, "rates": _by_number(spelled["rates"], float)})


def _by_number(spelled: Mapping[str, Any], number: type) -> dict[Any, Any]:
    return {number(key): value for key, value in spelled.items()}
