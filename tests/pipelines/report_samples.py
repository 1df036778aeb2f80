"""Results and reports with the numbers that a test is about; what is not named is filled in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.schema import Schema
from pipelines.report.evaluation.entries import Entry, EvaluationReport
from pipelines.report.evaluation.metrics import EvaluationResult
from pipelines.report.evaluation.write import write_report

EMPTY: dict[str, Any] = {"rows": 8, "feeds": 2, "users": 2, "user_share": 1.0, "mean": {}, "alarms": []}
BINARY = {"kind": "binary", "rows": 8, "positives": 4, "positive_rate": 0.5}


def result_with(targets: Mapping[str, Mapping[str, Any]] | None = None, **more: Any) -> EvaluationResult:
    """An evaluation of binary targets with these metrics, spelled as in `metrics.json`."""
    spelled = {name: {**BINARY, **metrics} for name, metrics in (targets or {}).items()}
    return EvaluationResult.from_dict({**EMPTY, "funnel": {}, "funnel_labels": {}, "targets": spelled, **more})


def page_of(folder: Path, entries: list[Entry], schema: Schema, **more: Any) -> str:
    """The page of a report on these entries; its other parts may be named."""
    search = more.pop("search_shown", None)
    report = EvaluationReport(entries=tuple(entries), about={"Run": "r"}, **more)
    return write_report(folder, report, schema, search).read_text(encoding="utf-8")
