"""Numbers of a comparison's cells: a metric's values over the seeds of a row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from models.metrics.names import value_of
from pipelines.compare.config import System
from pipelines.compare.statistics import Paired, spread

if TYPE_CHECKING:
    from pipelines.compare.comparison import Comparison

Metrics = Mapping[int, Mapping[str, Any]]
"""What an evaluation gave, by seed."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A row's values of one metric.

    Attributes:
        by_seed: the values of a system's seeds; a floor has only the one in `mean`.
        std: over seeds (n - 1); None for one.
        relaimpr: of the mean, against the base row's.
        against: the best other system, which the row was tested against.
        test: of the row against it.
        place: 1 for the best system, 2 for the second; else None.
    """

    mean: float | None = None
    std: float | None = None
    by_seed: dict[int, float] = field(default_factory=dict)
    relaimpr: float | None = None
    against: str | None = None
    test: Paired | None = None
    place: int | None = None

    @property
    def is_significant(self) -> bool:
        """Whether it is above every other system, and the difference to the next is no chance."""
        return self.place == 1 and self.test is not None and self.test.is_significant


def metrics_of(comparison: "Comparison", system: System) -> Metrics:
    """Of the finished cells of a system."""
    return {
        cell.seed: comparison.results[cell.folder]["metrics"]
        for cell in comparison.cells(system)
        if cell.folder in comparison.results
    }


def score_of(metrics: Metrics, path: str) -> Score:
    """Values of the seeds in which the metric is defined."""
    by_seed = {seed: value for seed, result in metrics.items() if (value := value_in(result, path)) is not None}
    mean, std = spread(list(by_seed.values())) if by_seed else (None, None)
    return Score(mean=mean, std=std, by_seed=by_seed)


def value_in(metrics: Mapping[str, Any], path: str) -> float | None:
    """None also where a row has no predictions of the target (the truth of values)."""
    try:
        return value_of(metrics, path)
    except KeyError:
        return None
