"""The report folder: `report.html`, self-contained, and `metrics.json` with all numbers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.metrics import CUTOFFS, DIRECTIONS
from models.schema import Schema, Target
from pipelines.evaluate import figures

GROUPS_ABREAST = 4  # targets in one overview table

Role = Literal["model", "baseline", "truth"]

EXPLANATIONS = {
    "AUC": "chance that a random positive is placed above a random negative, ties half; .5 is guessing",
    "gAUC feed": "AUC inside each feed, averaged over those with both classes, weighted by impressions: what ranking needs",
    "gAUC user": "the same inside each user",
    "NDCG@k": "how far up in the feed the positives stand, discounted by place; over feeds with a positive, 1 is perfect",
    "Prec@k": "share of positives among the first k places (of k, also where the feed is shorter)",
    "Log loss": "mean of -log of the probability given to what happened",
    "Calibration": "sum of predictions / sum of labels; 1 is right on average",
    "ECE": "mean gap between predicted and observed rate in bins of equal frequency",
    "Gini": "unevenness of the AUCs over the levels (CMLIR's formula); 0 is even",
    "MSE": "mean squared error, after the target's transform and in its own unit",
    "MAE": "mean absolute error in the target's own unit",
    "Funnel": "share of candidates for which a child target is predicted above its parent, which cannot be",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the tables.

    Attributes:
        result: metrics as `Evaluation.result` gives them.
        note: one line on what it is.
        history: records of epochs as a training run leaves them, for the learning curves.
        settings: shown as they are at the end of the report.
    """

    name: str
    role: Role
    result: Mapping[str, Any]
    note: str = ""
    history: Sequence[Mapping[str, Any]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def write_report(
    folder: Path,
    entries: Sequence[Entry],
    schema: Schema,
    *,
    about: Mapping[str, str],
    left_out: Mapping[str, str],
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `report.html` and `metrics.json` into the folder (made if needed).

    Args:
        entries: in the order in which the tables show them; names are unique.
        about: what was evaluated on what, shown at the top.
        left_out: baselines that could not be had, with the reason.
        settings: of the evaluation, shown at the end.

    Returns:
        path of `report.html`.
    """
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError(f"entries of a report need different names, got {', '.join(names)}.")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"settings": dict(settings or {})} | {entry.name: entry.settings for entry in entries if entry.settings}
    everything = {
        "about": dict(about),
        "left_out": dict(left_out),
        "settings": settings["settings"],
        "entries": [asdict(entry) for entry in entries],
    }
    (folder / "metrics.json").write_text(json.dumps(everything, indent=1, allow_nan=False), encoding="utf-8")
    (folder / "report.html").write_text(_html(entries, schema, about, left_out, settings), encoding="utf-8")
    return folder / "report.html"


# -- tables --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    text: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    name: str
    role: str
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
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
    """Where a table's column comes from: a target's metric (or that of the `mean`), and for a metric by level, the level."""

    group: str
    head: str
    target: str
    metric: str
    level: str = ""

    def of(self, result: Mapping[str, Any]) -> float | None:
        found = result["mean"] if self.target == "mean" else result["targets"].get(self.target, {})
        value = found.get(self.metric)
        if value is None:
            return None
        return value[self.level] if self.level else value


def table(entries: Sequence[Entry], columns: Sequence[Column]) -> Table:
    """The best entry of every column is marked; the truth stands beside the race, not in it."""
    rows: list[list[Cell]] = [[] for _ in entries]
    for column in columns:
        values = [column.of(entry.result) for entry in entries]
        texts = [number(value, column.metric) for value in values]
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
    return Table(heads, [Row(entry.name, entry.role, cells) for entry, cells in zip(entries, rows, strict=True)])


def merit(value: float, metric: str) -> float:
    """Larger is better, whatever the metric's direction."""
    return {"max": value, "min": -value, "one": -abs(value - 1)}[DIRECTIONS[metric]]


def number(value: float | None, metric: str) -> str:
    """The value with the digits that tell entries apart: four decimals, for large ones four places."""
    if value is None:
        return "–"
    if metric == "calibration":
        return f"{value:.3f}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def _overviews(entries: Sequence[Entry], schema: Schema) -> list[Table]:
    """AUC and gAUC (or the error) of every target; as many tables as a laptop's width asks for."""
    binary = [target.name for target in schema.targets if target.is_binary]
    groups = []
    for name in (["mean"] if len(binary) > 1 else []) + binary:
        groups.append([Column(name, "AUC", name, "auc"), Column(name, "gAUC feed", name, "gauc_feed")])
    for target in schema.targets:
        if not target.is_binary:
            groups.append([Column(target.name, f"MSE{_transformed(target)}", target.name, "mse_transformed")])
    tables = -(-len(groups) // GROUPS_ABREAST)
    size = -(-len(groups) // tables)
    return [
        table(entries, [column for group in groups[first : first + size] for column in group])
        for first in range(0, len(groups), size)
    ]


def _tables(target: Target, levels: Sequence[str]) -> list[list[Column]]:
    """Columns of a target's tables; two for a binary target, so that a laptop shows them whole."""
    scale = _transformed(target)
    if not target.is_binary:
        heads = {"mse_transformed": f"MSE{scale}", "mse": "MSE", "mae": "MAE", "calibration": "Calibration"}
        overall = [Column("overall", head, target.name, metric) for metric, head in heads.items()]
        return [overall + [Column(f"MSE{scale} by level", level, target.name, "mse_by_level", level) for level in levels]]
    areas = {"auc": "AUC", "gauc_feed": "gAUC feed", "gauc_user": "gAUC user"}
    ranking = {f"ndcg@{k}": f"NDCG@{k}" for k in CUTOFFS} | {f"precision@{k}": f"Prec@{k}" for k in CUTOFFS}
    probability = {"log_loss": "Log loss", "calibration": "Calibration", "ece": "ECE"}
    return [
        [Column("ranking", head, target.name, metric) for metric, head in areas.items()]
        + [Column("top of the feed", head, target.name, metric) for metric, head in ranking.items()],
        [Column("AUC by level", level, target.name, "auc_by_level", level) for level in levels]
        + [Column("AUC by level", "Gini", target.name, "gini")]
        + [Column("probability", head, target.name, metric) for metric, head in probability.items()],
    ]


def _transformed(target: Target) -> str:
    return " (log)" if target.transform == "log1p" else ""


# -- page ----------------------------------------------------------------------------------------------------------


def _html(
    entries: Sequence[Entry],
    schema: Schema,
    about: Mapping[str, str],
    left_out: Mapping[str, str],
    settings: Mapping[str, Mapping[str, Any]],
) -> str:
    import jinja2

    colour = figures.colours({entry.name: entry.role for entry in entries})
    models = [entry for entry in entries if entry.role == "model"]
    racing = [entry for entry in entries if entry.role != "truth"]
    reference = (models or list(entries))[0].result
    predicted = {name for entry in racing for name in entry.result["targets"]}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    curves = {entry.name: figures.learning_curves(entry.history, _best_epoch(entry)) for entry in models if entry.history}
    return environment.get_template("report.html.j2").render(
        about=about,
        alarms=[(entry.name, alarm["message"]) for entry in racing for alarm in entry.result["alarms"]],
        colour=colour,
        counts=[("candidates", reference["rows"]), ("feeds", reference["feeds"]), ("users", reference["users"])],
        user_share=reference["user_share"],
        entries=entries,
        left_out=left_out,
        overviews=_overviews(entries, schema),
        targets=[_section(target, entries, schema, colour) for target in schema.targets if target.name in predicted],
        curves=curves,
        funnel=_funnel(racing),
        explanations=EXPLANATIONS,
        schema=schema,
        settings={name: json.dumps(values, indent=2) for name, values in settings.items() if values},
    )


def _section(target: Target, entries: Sequence[Entry], schema: Schema, colour: Mapping[str, str]) -> dict[str, Any]:
    """What the page shows of one target."""
    known = [entry for entry in entries if target.name in entry.result["targets"]]
    racing = [entry for entry in known if entry.role != "truth"]
    own = {entry.name: entry.result["targets"][target.name] for entry in known}
    first = own[racing[0].name]
    truth = next((own[entry.name] for entry in known if entry.role == "truth"), None)
    metric = "auc_by_level" if target.is_binary else "mse_by_level"
    shares = []
    if target.is_binary:
        shares = [
            f"{first['positives']:,} positives of {first['rows']:,} ({first['positive_rate']:.2%})",
            f"gAUC over {first['gauc_feed_share'] or 0:.0%} of the feeds and {first['gauc_user_share'] or 0:.0%} of the users"
            if first["gauc_feed"] is not None
            else "gAUC over no feed: none has both classes",
            f"NDCG over {first['ranked_feeds']:.0%} of the feeds" if first["auc"] is not None else "",
            "rows by level: " + ", ".join(f"{level} {rows:,}" for level, rows in first["rows_by_level"].items()),
        ]
    else:
        shares = [f"mean {first['mean']:,.2f} over {first['rows']:,} candidates"]
    return {
        "target": target,
        "facts": [share for share in shares if share],
        "tables": [table(known, columns) for columns in _tables(target, schema.levels.names)],
        "bars": figures.level_bars(
            "AUC by level" if target.is_binary else f"MSE{_transformed(target)} by level",
            {entry.name: own[entry.name][metric] for entry in racing},
            colour,
            ceiling=truth[metric] if truth and target.is_binary else None,
            from_zero=not target.is_binary,
        ),
        "calibration": figures.calibration(
            "Calibration",
            {entry.name: own[entry.name]["calibration_curve"] for entry in racing if own[entry.name]["calibration_curve"]},
            colour,
            unit="rate" if target.is_binary else "mean",
        ),
    }


def _best_epoch(entry: Entry) -> int | None:
    return entry.settings.get("provenance", {}).get("best_epoch")


def _funnel(entries: Sequence[Entry]) -> Table | None:
    pairs = list(dict.fromkeys(pair for entry in entries for pair in entry.result["funnel"]))
    if not pairs:
        return None
    cells = lambda entry: [
        Cell(f"{entry.result['funnel'][pair]:.2%}" if pair in entry.result["funnel"] else "–") for pair in pairs
    ]
    heads = [("", pair.replace("<=", " > ")) for pair in pairs]
    return Table(heads, [Row(entry.name, entry.role, cells(entry)) for entry in entries])
