"""The report folder: `report.html`, self-contained, and `metrics.json` with all numbers."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from models.metrics.names import CUTOFFS
from models.schema import STAGES, Schema, Target
from pipelines.evaluate import comparisons, figures, sections
from pipelines.evaluate.page import page
from pipelines.evaluate.tables import Cell, Column, Row, Table, table, unit
from pipelines.runs import write_text

GROUPS_ABREAST = 4  # targets in one overview table
TOLERATED = 0.005  # share of candidates on which predictions may break the funnel beyond what labels do, before it is marked

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
        insight: what a model shows of its inside, as `insight.insight_of` gives it, with `curriculum` where it has one.
        settings: shown as they are at the end of the report.
    """

    name: str
    role: Role
    result: Mapping[str, Any]
    note: str = ""
    history: Sequence[Mapping[str, Any]] = ()
    insight: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A search that came before what is reported.

    Attributes:
        summary: what it came to, in lines.
        picture: a PNG.
        table: everything that was tried, as CSV with heads.
    """

    summary: Sequence[str]
    picture: Path
    table: Path


def write_report(
    folder: Path,
    entries: Sequence[Entry],
    schema: Schema,
    *,
    about: Mapping[str, str],
    left_out: Mapping[str, str],
    settings: Mapping[str, Any] | None = None,
    stages: Mapping[str, Any] | None = None,
    exposure: Mapping[str, Any] | None = None,
    searched: Searched | None = None,
) -> Path:
    """Writes `report.html` and `metrics.json` into the folder (made if needed).

    Args:
        entries: in the order in which the tables show them; names are unique.
        about: what was evaluated on what, shown at the top.
        left_out: baselines that could not be had, with the reason.
        settings: of the evaluation, shown at the end.
        stages: how users move through them, as `life_cycle.stage_course` gives it.
        exposure: what the split's own order does for those of little exposure, as `exposure.split_exposure` gives it.
        searched: the search before it; None for none.

    Returns:
        path of `report.html`.
    """
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        raise ValueError(f"entries of a report need different names, got {', '.join(names)}.")
    settings = {"settings": dict(settings or {})} | {entry.name: entry.settings for entry in entries if entry.settings}
    everything = {
        "about": dict(about),
        "left_out": dict(left_out),
        "settings": settings["settings"],
        "stages": stages,
        "exposure": exposure,
        "search": None if searched is None else list(searched.summary),
        "entries": [asdict(entry) for entry in entries],
    }
    write_text(folder / "metrics.json", json.dumps(everything, indent=1, allow_nan=False))
    text = _html(entries, schema, about, left_out, settings, stages, exposure, searched)
    write_text(folder / "report.html", text)
    return folder / "report.html"


# -- tables --------------------------------------------------------------------------------------------------------


def _overviews(entries: Sequence[Entry], schema: Schema) -> list[Table]:
    """AUC and gAUC (or the error) of every target; as many tables as a laptop's width asks for."""
    binary = [target.name for target in schema.targets if target.is_binary]
    groups = []
    for name in (["mean"] if len(binary) > 1 else []) + binary:
        groups.append([Column(name, "AUC", name, "auc"), Column(name, "gAUC feed", name, "gauc_feed")])
    for target in schema.targets:
        if not target.is_binary:
            groups.append([Column(target.name, f"MSE{unit(target)}", target.name, "mse_transformed")])
    tables = -(-len(groups) // GROUPS_ABREAST)
    size = -(-len(groups) // tables)
    return [
        table(entries, [column for group in groups[first : first + size] for column in group])
        for first in range(0, len(groups), size)
    ]


def _tables(target: Target, levels: Sequence[str], stages: Sequence[str]) -> list[list[Column]]:
    """Columns of a target's tables; two for a binary target, so that a laptop shows them whole.

    Args:
        stages: none where users have none.
    """
    scale = unit(target)
    if not target.is_binary:
        heads = {"mse_transformed": f"MSE{scale}", "mse": "MSE", "mae": "MAE", "calibration": "Calibration"}
        overall = [Column("overall", head, target.name, metric) for metric, head in heads.items()]
        by_level = [Column(f"MSE{scale} by level", level, target.name, "mse_by_level", level) for level in levels]
        by_stage = [Column(f"MSE{scale} by stage", stage, target.name, "mse_by_stage", stage) for stage in stages]
        return [overall + by_level + by_stage]
    areas = {"auc": "AUC", "gauc_feed": "gAUC feed", "gauc_user": "gAUC user"}
    ranking = {f"ndcg@{k}": f"NDCG@{k}" for k in CUTOFFS} | {f"precision@{k}": f"Prec@{k}" for k in CUTOFFS}
    probability = {"log_loss": "Log loss", "calibration": "Calibration", "ece": "ECE"}
    return [
        [Column("ranking", head, target.name, metric) for metric, head in areas.items()]
        + [Column("top of the feed", head, target.name, metric) for metric, head in ranking.items()],
        [Column("AUC by level", level, target.name, "auc_by_level", level) for level in levels]
        + [Column("AUC by level", "Gini", target.name, "gini")]
        + [Column("AUC by stage", stage, target.name, "auc_by_stage", stage) for stage in stages]
        + [Column("probability", head, target.name, metric) for metric, head in probability.items()],
    ]


# -- page ----------------------------------------------------------------------------------------------------------


def _html(
    entries: Sequence[Entry],
    schema: Schema,
    about: Mapping[str, str],
    left_out: Mapping[str, str],
    settings: Mapping[str, Mapping[str, Any]],
    stages: Mapping[str, Any] | None,
    exposure: Mapping[str, Any] | None,
    searched: Searched | None,
) -> str:
    colour = figures.colours({entry.name: entry.role for entry in entries})
    models = [entry for entry in entries if entry.role == "model"]
    racing = [entry for entry in entries if entry.role != "truth"]
    reference = (models or list(entries))[0].result
    predicted = {name for entry in racing for name in entry.result["targets"]}
    curves = {
        entry.name: figures.learning_curves(entry.history, schema.target_names, entry.result["targets"], _best_epoch(entry))
        for entry in models
        if entry.history
    }
    return page(
        Path(__file__).parent / "templates" / "report.html.j2",
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
        stages=sections.stages(models, stages),
        known=comparisons.known(entries, schema, colour, reference),
        activity=reference.get("activity"),
        fewest=comparisons.FEWEST,
        exposure=exposure,
        exposures=comparisons.exposures(entries, schema, exposure) if exposure is not None else [],
        inside=sections.targets_and_gates(models, schema, reference),
        funnel=_funnel(racing, reference),
        weights=sections.weights(models, schema),
        levels=sections.levels(models, schema),
        curriculum=sections.curriculum(models, colour),
        searched=None if searched is None else _searched(searched),
        explanations=EXPLANATIONS,
        schema=schema,
        settings={name: json.dumps(values, indent=2) for name, values in settings.items() if values},
    )


def _searched(searched: Searched) -> dict[str, Any]:
    """What the page shows of a search."""
    with searched.table.open(newline="", encoding="utf-8") as file:
        heads, *rows = csv.reader(file)
    return {"summary": searched.summary, "picture": figures.png(searched.picture), "heads": heads, "rows": rows}


def _section(target: Target, entries: Sequence[Entry], schema: Schema, colour: Mapping[str, str]) -> dict[str, Any]:
    """What the page shows of one target."""
    known = [entry for entry in entries if target.name in entry.result["targets"]]
    racing = [entry for entry in known if entry.role != "truth"]
    own = {entry.name: entry.result["targets"][target.name] for entry in known}
    first = own[racing[0].name]
    truth = next((own[entry.name] for entry in known if entry.role == "truth"), None)
    shares = []
    if target.is_binary:
        shares = [
            f"{first['positives']:,} positives of {first['rows']:,} ({first['positive_rate']:.2%})",
            f"gAUC over {first['gauc_feed_share'] or 0:.0%} of the feeds and {first['gauc_user_share'] or 0:.0%} of the users"
            if first["gauc_feed"] is not None
            else "gAUC over no feed: none has both classes",
            f"NDCG over {first['ranked_feeds']:.0%} of the feeds" if first["auc"] is not None else "",
            *(
                f"positives by {by}: "
                + ", ".join(
                    f"{group} {first[f'positives_by_{by}'][group]:,} of {rows:,}"
                    for group, rows in first[f"rows_by_{by}"].items()
                )
                for by in ("level", "stage")
                if f"rows_by_{by}" in first
            ),
        ]
    else:
        shares = [f"mean {first['mean']:,.2f} over {first['rows']:,} candidates"]
    metric = "auc" if target.is_binary else "mse"
    title = "AUC" if target.is_binary else f"MSE{unit(target)}"
    groups = [by for by in ("level", "stage") if any(f"{metric}_by_{by}" in own[entry.name] for entry in racing)]
    return {
        "target": target,
        "facts": [share for share in shares if share],
        "tables": [
            table(known, columns) for columns in _tables(target, schema.levels.names, STAGES if "stage" in groups else ())
        ],
        "groups": groups,
        "bars": figures.group_bars(
            f"{title} by {' and '.join(groups)}",
            {
                by: {name: found[f"{metric}_by_{by}"] for name, found in own.items() if f"{metric}_by_{by}" in found}
                for by in groups
            },
            {entry.name: colour[entry.name] for entry in racing},
            ceiling="truth" if truth and target.is_binary else None,
            from_zero=not target.is_binary,
            notes={
                by: {group: f"{positives:,} pos." for group, positives in first[f"positives_by_{by}"].items()}
                for by in groups
                if f"positives_by_{by}" in first
            },
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


def _funnel(entries: Sequence[Entry], reference: Mapping[str, Any]) -> Table | None:
    """Shares of broken edges, grouped by parent, and below them what the labels do; marked where predictions are worse."""
    names = list(dict.fromkeys(pair for entry in entries for pair in entry.result["funnel"]))
    if not names:
        return None
    pairs = sorted(names, key=lambda pair: [name.split("<=")[1] for name in names].index(pair.split("<=")[1]))
    known = reference.get("funnel_labels", {})

    def cell(value: float | None, real: float | None) -> Cell:
        if value is None:
            return Cell("–")
        return Cell(f"{value:.2%}", wrong=value > (real or 0.0) + TOLERATED)

    rows = [
        Row(entry.name, entry.role, [cell(entry.result["funnel"].get(pair), known.get(pair)) for pair in pairs])
        for entry in entries
    ]
    if known:
        cells = [Cell("–" if known.get(pair) is None else f"{known[pair]:.2%}") for pair in pairs]
        rows.append(Row("what happened", "labels", cells))
    return Table([(f"above {pair.split('<=')[1]}", pair.split("<=")[0]) for pair in pairs], rows)
