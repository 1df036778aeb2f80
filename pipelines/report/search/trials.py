"""What a search over settings leaves: its trials, and the best of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["done", "stopped", "refused", "failed"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One line of the search's table.

    Attributes:
        number: from 1, in the order in which trials were started.
        status: `done`, `stopped` early because others were better, `refused` because the values do not go together, or
            `failed`.
        values: what was sampled, by path.
        score: the first metric in its best epoch, which is the one of the bundle; None if no epoch was finished.
        scores: all metrics in that epoch, by name.
        front: no other trial that was trained to its end is as good in all metrics and better in one (the Pareto front).
        best_epoch: counted from 1.
        seconds: of training steps.
        reason: of a refusal or a failure, in one line.
    """

    number: int
    id: str
    status: Status
    values: dict[str, Any]
    score: float | None
    best_epoch: int | None
    epochs: int
    seconds: float
    scores: dict[str, float] = field(default_factory=dict)
    front: bool = False
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a finished search leaves.

    Attributes:
        trials: the best first; refused and failed ones last.
        best: the best that was trained to its end, by the first metric.
        metric: the first one.
        bundle_path: its bundle, in the trial's folder.
        fresh: False if the search had been finished before.
    """

    trials: list[Trial]
    best: Trial
    bundle_path: Path
    metric: str
    folder: Path
    fresh: bool

    @property
    def front(self) -> list[Trial]:
        """Trials that none is better than in all metrics, the best by the first metric first."""
        return [trial for trial in self.trials if trial.front]

    @property
    def table(self) -> Path:
        return self.folder / "search.csv"

    @property
    def picture(self) -> Path:
        return self.folder / "search.png"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A setting that was searched over, as an axis of the search's picture.

    Attributes:
        path: of the setting.
        choices: the values there were to choose from; none where it was drawn from a range.
        is_log: whether small values were as likely as large ones.
        is_whole: whether only whole numbers were drawn.
    """

    path: str
    choices: tuple[Any, ...] = ()
    is_log: bool = False
    is_whole: bool = False
