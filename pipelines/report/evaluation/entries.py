"""What stands on the page of an evaluation, typed; `metrics.json` is its spelling."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.config import from_dict, to_dict
from pipelines.report.evaluation.exposure import SplitExposure
from pipelines.report.evaluation.insight import ModelInsight
from pipelines.report.evaluation.life_cycle import LifeCycle
from pipelines.report.evaluation.live import LiveRanking
from pipelines.report.evaluation.metrics import EvaluationResult

Role = Literal["model", "baseline", "truth"]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The record of an epoch that a training run leaves in `history.json`.

    Attributes:
        epoch: from 0.
        losses: the mean by target; losses that a part of the model adds are called `part` or `part.target`.
        diagnostics: what learner and ranker told of themselves during the epoch, such as loss weights, each with its `progress`
            in epochs.
        alarms: which of the ranker's parts did nothing at its end, in sentences.
        metrics: on the validation split; None without one.
        more: whatever else the run has noted (steps, seconds), which no page shows.
    """

    epoch: int
    losses: dict[str, float] = field(default_factory=dict)
    diagnostics: tuple[dict[str, float | None], ...] = ()
    alarms: tuple[str, ...] = ()
    metrics: EvaluationResult | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def auc(self, target: str) -> float | None:
        """On the validation split; None where it is not defined or not known."""
        return None if self.metrics is None else self.metrics.find(f"{target}.auc")

    def to_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "losses": self.losses,
            "diagnostics": list(self.diagnostics),
            "alarms": list(self.alarms),
            "metrics": None if self.metrics is None else self.metrics.to_dict(),
            **self.more,
        }

    @classmethod
    def from_dict(cls, spelling: Mapping[str, Any]) -> "Epoch":
        more = dict(spelling)
        metrics = more.pop("metrics", None)
        return cls(
            epoch=more.pop("epoch"),
            losses=more.pop("losses", {}),
            diagnostics=tuple(more.pop("diagnostics", ())),
            alarms=tuple(more.pop("alarms", ())),
            metrics=None if metrics is None else EvaluationResult.from_dict(metrics),
            more=more,
        )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the tables.

    Attributes:
        note: one line on what it is.
        history: the epochs of its training, for the learning curves.
        insight: what a model shows of its inside; None for what has no inside.
        settings: shown as they are at the end of the page.
    """

    name: str
    role: Role
    result: EvaluationResult
    note: str = ""
    history: tuple[Epoch, ...] = ()
    insight: ModelInsight | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best_epoch(self) -> int | None:
        """Counted from 1; None where it is not known."""
        return self.settings.get("provenance", {}).get("best_epoch")

    @property
    def alarms(self) -> list[str]:
        """What cannot be right of its predictions, and which of its parts do nothing; of a training, as of its best epoch."""
        best = [epoch for epoch in self.history if self.best_epoch in (None, epoch.epoch + 1)][-1:]
        return [*(alarm.message for alarm in self.result.alarms), *(text for epoch in best for text in epoch.alarms)]

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "role": self.role,
            "result": self.result.to_dict(),
            "note": self.note,
            "history": [epoch.to_dict() for epoch in self.history],
            "insight": None if self.insight is None else to_dict(self.insight),
            "settings": dict(self.settings),
        }

    @classmethod
    def from_dict(cls, spelling: Mapping[str, Any]) -> "Entry":
        insight = spelling["insight"]
        return cls(
            name=spelling["name"],
            role=spelling["role"],
            result=EvaluationResult.from_dict(spelling["result"]),
            note=spelling["note"],
            history=tuple(map(Epoch.from_dict, spelling["history"])),
            insight=None if insight is None else from_dict(ModelInsight, insight),
            settings=spelling["settings"],
        )


@dataclass(frozen=True, kw_only=True)
class SearchShown:
    """A search that came before what is reported.

    Attributes:
        summary: what it came to, in lines.
        picture: a PNG.
        table: everything that was tried, as CSV with heads.
    """

    summary: tuple[str, ...]
    picture: Path
    table: Path


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Everything that the page of an evaluation shows, less the pictures of a search.

    Attributes:
        entries: in the order in which tables show them; names are unique.
        about: what was evaluated on what, shown on top.
        left_out: baselines that could not be had, with the reason.
        settings: of the evaluation.
        life_cycle: how users move through their stages; None where they have none.
        exposure: what the split's own order does for candidates of little exposure; None where nobody asked.
        live: entries ranked among what was live; None where nobody asked.
        search: what the search before it came to, in lines; None where there was none.
        remarks: what of the prepared data says nothing, in lines.
        account: what became of the log's rows, in lines.

    Raises:
        ValueError: two entries of one name.
    """

    entries: tuple[Entry, ...]
    about: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    life_cycle: LifeCycle | None = None
    exposure: SplitExposure | None = None
    live: LiveRanking | None = None
    search: tuple[str, ...] | None = None
    remarks: tuple[str, ...] = ()
    account: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if len(set(names)) < len(names):
            raise ValueError(f"entries of a report need different names, got {', '.join(names)}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `metrics.json` holds them."""
        return {
            "about": self.about,
            "left_out": self.left_out,
            "settings": self.settings,
            "stages": None if self.life_cycle is None else to_dict(self.life_cycle),
            "exposure": None if self.exposure is None else to_dict(self.exposure),
            "live": None if self.live is None else self.live.to_dict(),
            "search": None if self.search is None else list(self.search),
            "remarks": list(self.remarks),
            "account": list(self.account),
            "entries": [entry.to_dict() for entry in self.entries],
        }

    @classmethod
    def from_dict(cls, spelling: Mapping[str, Any]) -> "EvaluationReport":
        stages, exposure, live, search = (spelling[part] for part in ("stages", "exposure", "live", "search"))
        return cls(
            entries=tuple(map(Entry.from_dict, spelling["entries"])),
            about=spelling["about"],
            left_out=spelling["left_out"],
            settings=spelling["settings"],
            life_cycle=None if stages is None else from_dict(LifeCycle, stages),
            exposure=None if exposure is None else from_dict(SplitExposure, exposure),
            live=None if live is None else from_dict(LiveRanking, live),
            search=None if search is None else tuple(search),
            remarks=tuple(spelling["remarks"]),
            account=tuple(spelling["account"]),
        )
