"""How far a training has come, and what each of its epochs came to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from models.config import ConfigError
from pipelines.runs import read_json

HISTORY = "history.json"


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What a finished epoch came to: one entry of `history.json`.

    Attributes:
        epoch: counted from 0.
        total_steps: steps taken up to its end, in all epochs.
        losses: mean loss by target and penalty.
        diagnostics: what the learner told of itself: by name the mean over a stretch of steps, and as `progress` the epochs
            behind the end of the stretch, fractions included. So are the ranker's probes, before training and after the epoch.
        alarms: which of its parts do nothing any more by these probes, in sentences.
        metrics: the evaluation of the validation split; None without one.
        monitor: the metric that decides which epoch is best.
        candidates: trained on, over all ranks.
        seconds: of training steps, without validation and checkpoints.
    """

    epoch: int
    total_steps: int
    losses: Mapping[str, float]
    diagnostics: Sequence[Mapping[str, float]]
    metrics: dict[str, Any] | None
    monitor: float | None
    candidates: float
    seconds: float
    candidates_per_second: float
    alarms: Sequence[str] = ()


@dataclass(kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        epoch, step: the next step to take.
        total_steps: steps taken in all epochs.
        losses: by target (sum, count) of the epoch so far.
        diagnostics: of the epoch so far, as in `EpochRecord`.
        stretch: by name (sum, count) of the learner's diagnostics in the stretch of steps that is not over.
        at_start: the ranker's probes before training, by name.
        candidates, seconds: of the epoch so far, of training alone; this rank's candidates until the epoch is closed.
        history: a record for each finished epoch.
        best_epoch: index into the history; None before the first validation.
        stopped: why training is over; None while it is not.
    """

    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    losses: dict[str, tuple[float, float]] = field(default_factory=dict)
    diagnostics: list[dict[str, float]] = field(default_factory=list)
    stretch: dict[str, tuple[float, int]] = field(default_factory=dict)
    at_start: dict[str, float] = field(default_factory=dict)
    candidates: float = 0.0
    seconds: float = 0.0
    history: list[EpochRecord] = field(default_factory=list)
    best_epoch: int | None = None
    stopped: str | None = None

    def add(self, losses: Mapping[str, tuple[float, float]], candidates: int) -> None:
        """Counts a step's losses, (sum, count) by target over all ranks, and this rank's candidates."""
        for name, (total, count) in losses.items():
            past_total, past_count = self.losses.get(name, (0.0, 0.0))
            self.losses[name] = (past_total + total, past_count + count)
        self.candidates += candidates

    def add_diagnostics(self, diagnostics: Mapping[str, float]) -> None:
        """Counts the learner's diagnostics of a step."""
        for name, value in diagnostics.items():
            past_total, past_count = self.stretch.get(name, (0.0, 0))
            self.stretch[name] = (past_total + value, past_count + 1)

    def close_stretch(self, epochs: float) -> None:
        """Ends a stretch of steps; without diagnostics, nothing is noted.

        Of weights that differ between candidates it is noted what share of the candidates would say as much with even weights,
        (sum of w)^2 / sum of w^2 / n (Kish 1965), as `effective.<target>`.

        Args:
            epochs: behind its end, fractions included.
        """
        if self.stretch:
            means = {name: total / count for name, (total, count) in self.stretch.items()}
            gammas = {name.removeprefix("gamma."): mean for name, mean in means.items() if name.startswith("gamma.")}
            squares = {name: means[f"gamma_square.{name}"] for name in gammas}
            effective = {f"effective.{name}": mean**2 / squares[name] for name, mean in gammas.items() if squares[name]}
            self.diagnostics.append({"progress": epochs, **means, **effective})
        self.stretch = {}

    def add_probes(self, values: Mapping[str, float], epochs: float) -> None:
        """Notes the ranker's probes; nothing of a ranker without any.

        Args:
            epochs: behind the moment they were taken at, fractions included.
        """
        if values:
            self.diagnostics.append({"progress": epochs, **values})

    def close_epoch(self, metrics: dict[str, Any] | None, monitor: float | None, alarms: Sequence[str] = ()) -> EpochRecord:
        """Moves what was counted into a record at the end of the history, and begins the next epoch."""
        record = EpochRecord(
            epoch=self.epoch,
            total_steps=self.total_steps,
            losses={name: total / count for name, (total, count) in self.losses.items() if count},
            diagnostics=self.diagnostics,
            metrics=metrics,
            monitor=monitor,
            candidates=self.candidates,
            seconds=self.seconds,
            candidates_per_second=self.candidates / self.seconds,
            alarms=alarms,
        )
        self.history.append(record)
        self.epoch, self.step = self.epoch + 1, 0
        self.losses, self.diagnostics, self.candidates, self.seconds = {}, [], 0.0, 0.0
        return record

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, in which later steps change nothing."""
        return asdict(self)

    @classmethod
    def from_dict(cls, spelling: Mapping[str, Any]) -> Self:
        pairs = {key: {name: (total, count) for name, (total, count) in spelling[key].items()} for key in ("losses", "stretch")}
        return cls(**{**spelling, **pairs, "history": [EpochRecord(**record) for record in spelling["history"]]})


def read_progress(checkpoint: Path) -> Progress:
    """The progress that a checkpoint holds.

    Raises:
        ConfigError: it was written by another version of this program.
    """
    return _read(checkpoint / "progress.json", dict, Progress.from_dict)


def read_history(folder: Path) -> list[EpochRecord]:
    """Records of the epochs that the training in a folder has finished; none if it has not begun.

    Raises:
        ConfigError: they were written by another version of this program.
    """
    file = folder / HISTORY
    return _read(file, list, lambda spelling: [EpochRecord(**record) for record in spelling]) if file.exists() else []


def _read(file: Path, of: type, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(read_json(file, of=of, way_out="Delete it and start again, or train again with --restart (resume=False)."))
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{file} was written by another version of this program ({error}). Train again, into another folder or with "
            "--restart (resume=False)."
        ) from None
