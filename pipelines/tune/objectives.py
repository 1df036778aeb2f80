"""What a search goes by: one validation metric or several, and which trials none of the others is better than."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from models.config import ConfigError
from models.metrics.names import direction, value_of
from pipelines.train.monitor import Monitor
from pipelines.train.progress import EpochRecord
from pipelines.tune.config import TuneConfig


@dataclass(frozen=True)
class Objectives:
    """The metrics of a search.

    Attributes:
        monitor: the first, by which training knows its best epoch.
        others: paths of further metrics.
    """

    monitor: Monitor
    others: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.monitor.name, *self.others)

    @property
    def modes(self) -> tuple[Literal["min", "max"], ...]:
        """Of every metric, whether it is to be large or small."""
        first: Literal["min", "max"] = "min" if self.monitor.is_better(0.0, 1.0) else "max"
        return (first, *("min" if direction(path) == "min" else "max" for path in self.others))

    def best(self, history: Sequence[EpochRecord]) -> EpochRecord | None:
        """The record of the epoch that is best by the first metric, the earliest of equal ones; None without any."""
        best: EpochRecord | None = None
        for record in history:
            if best is None or self.monitor.is_better(_monitored(record), _monitored(best)):
                best = record
        return best

    def scores(self, record: EpochRecord) -> dict[str, float]:
        """All metrics of an epoch, by name.

        Raises:
            ConfigError: the validation split does not define one.
        """
        scores = {self.monitor.name: _monitored(record)}
        return scores | {path: measured(record.metrics or {}, path) for path in self.others}

    def front(self, scores: Sequence[Mapping[str, float]]) -> list[int]:
        """Places of those that no other one dominates (as good in all metrics and better in one): the Pareto front."""
        merits = [
            tuple(each[name] * (1 if mode == "max" else -1) for name, mode in zip(self.names, self.modes, strict=True))
            for each in scores
        ]
        dominated = lambda mine: any(
            other != mine and all(theirs >= own for theirs, own in zip(other, mine, strict=True)) for other in merits
        )
        return [place for place, mine in enumerate(merits) if not dominated(mine)]


def _monitored(record: EpochRecord) -> float:
    assert record.monitor is not None  # a search begins only where there are validation feeds
    return record.monitor


def measured(metrics: Mapping[str, Any], path: str) -> float:
    """A metric that a search goes by, of one evaluation.

    Raises:
        ConfigError: the validation split does not define it.
    """
    try:
        value = value_of(metrics, path)
    except KeyError as error:
        raise ConfigError(f"tune.metric: {error.args[0]}") from None
    if value is None:
        raise ConfigError(
            f"tune.metric: `{path}` is not defined on the validation split (an AUC needs positives and negatives, a Gini two "
            "levels that have both). Use more validation days, another metric, or leave the target out."
        )
    return float(value)


def objectives_of(config: TuneConfig, monitor: Monitor) -> Objectives:
    """Those of a search whose trainings have this monitor, which is the first metric where any are named."""
    return Objectives(monitor, config.metrics[1:])
