"""The report's tables: rows of cells, the best of every column marked."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.metrics.names import DIRECTIONS
from models.schema import Target
from pipelines.report.evaluation.entries import Entry
from pipelines.report.evaluation.metrics import EvaluationResult
from pipelines.report.words import UNTAUGHT


@dataclass(frozen=True)
class Cell:
    """A cell's text, and whether it is marked as the best of its column or as wrong."""

    text: str
    best: bool = False
    wrong: bool = False


@dataclass(frozen=True)
class Row:
    """A line: an entry's, or with the role `labels` one that is no contestant."""

    name: str
    role: str
    cells: list[Cell]


@dataclass(frozen=True)
class Grid:
    """Rows of cells under column heads; a head is (group, column), groups may be empty."""

    heads: list[tuple[str, str]]
    rows: list[Row]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Neighbouring columns of one group, with their number; none if no column has a group."""
        found: list[tuple[str, int]] = []
        for group, _ in self.heads:
            if found and found[-1][0] == group:
                found[-1] = (group, found[-1][1] + 1)
            else:
                found.append((group, 1))
        return found if any(group for group, _ in found) else []

    @property
    def firsts(self) -> set[int]:
        """Columns that begin a group."""
        return {i for i, head in enumerate(self.heads) if self.groups and (i == 0 or head[0] != self.heads[i - 1][0])}


@dataclass(frozen=True)
class Column:
    """Where the numbers of a column come from: a target's metric, or that of the `mean`.

    Attributes:
        group: of columns, above their heads.
        of_group: for a metric by groups of candidates, the group.
        of_history: for a metric by groups of a history, the history.
    """

    group: str
    head: str
    target: str
    metric: str
    of_group: str = ""
    of_history: str = ""

    @property
    def path(self) -> str:
        return ".".join(part for part in (self.target, self.metric, self.of_history, self.of_group) if part)

    def of(self, result: EvaluationResult) -> float | None:
        """None where the result has no such number."""
        return result.find(self.path)

    def mark(self, result: EvaluationResult) -> str:
        """A sign behind numbers of a target that nothing taught."""
        metrics = result.targets.get(self.target)
        return UNTAUGHT if metrics is not None and metrics.untaught and self.of(result) is not None else ""


def grid(entries: Sequence[Entry], columns: Sequence[Column]) -> Grid:
    """The best entry of every column is marked; the truth stands beside the race, not in it."""
    rows: list[list[Cell]] = [[] for _ in entries]
    for column in columns:
        values = [column.of(entry.result) for entry in entries]
        texts = [number(value, column.metric) + column.mark(entry.result) for value, entry in zip(values, entries, strict=True)]
        racing = [merit(v, column.metric) for v, e in zip(values, entries, strict=True) if v is not None and e.role != "truth"]
        top = max(racing, default=None)
        winners = {
            text
            for text, value, entry in zip(texts, values, entries, strict=True)
            if value is not None and entry.role != "truth" and merit(value, column.metric) == top
        }
        for row, text, entry in zip(rows, texts, entries, strict=True):
            row.append(Cell(text, len(racing) > 1 and text in winners and entry.role != "truth"))
    heads = [(column.group, column.head) for column in columns]
    return Grid(heads, [Row(entry.name, entry.role, cells) for entry, cells in zip(entries, rows, strict=True)])


def merit(value: float, metric: str) -> float:
    """Larger is better, whatever the metric's direction."""
    return {"max": value, "min": -value, "one": -abs(value - 1)}[DIRECTIONS[metric]]


def number(value: float | None, metric: str) -> str:
    """The value with the digits that tell entries apart: four decimals, for large ones four places."""
    if value is None:
        return "–"
    if metric.startswith("calibration"):
        return f"{value:.3f}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def unit(target: Target) -> str:
    """What is said behind the name of an error of a target's values: that it is one after a logarithm."""
    return " (log)" if target.is_log else ""
