"""What a finished unit of a comparison leaves in `result.json`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from models.config import from_dict, to_dict
from pipelines.compare.config import Parameters
from pipelines.report.evaluation.metrics import EvaluationResult


@dataclass(frozen=True, kw_only=True)
class Validated:
    """The metric of the validation split that a training was stopped by, and its value in the best epoch."""

    monitor: str
    value: float | None


@dataclass(frozen=True, kw_only=True)
class TrainingTook:
    """What a training took: seconds of steps alone, all steps and epochs, and the epoch whose weights are scored (from 1); and
    which parts of the scored ranker do nothing (`EpochRecord.alarms`)."""

    seconds: float
    candidates_per_second: float
    steps: int
    epochs: int
    best_epoch: int
    stopped: str
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainedCell:
    """What a result says of the training it comes from.

    Attributes:
        rate: None stands for the optimiser's own rates.
    """

    rate: float | None
    seed: int
    valid: Validated
    training: TrainingTook
    parameters: Parameters


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """The result of a cell, or of a baseline.

    Attributes:
        metrics: as `EvaluationResult` spells them; None for a baseline that could not be had.
        cell: None for a baseline.
        note: what a baseline is, or why it is left out.
        made: by which code and when.
        took_seconds: all of its work, scoring included.
    """

    label: str
    made: dict[str, Any]
    metrics: dict[str, Any] | None = None
    cell: TrainedCell | None = None
    note: str = ""
    took_seconds: float = 0.0

    @cached_property
    def evaluated(self) -> EvaluationResult | None:
        return None if self.metrics is None else EvaluationResult.from_dict(self.metrics)

    def after(self, seconds: float) -> "UnitResult":
        """The result of work that took so long."""
        return replace(self, took_seconds=seconds)

    def to_dict(self) -> dict[str, Any]:
        return to_dict(self)

    @classmethod
    def from_dict(cls, spelling: Mapping[str, Any]) -> "UnitResult":
        return from_dict(cls, spelling)
