"""Writes the report of an evaluation: `report.html`, self-contained, and `metrics.json` with all numbers."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.metrics.names import CUTOFFS
from models.metrics.value import DECILES
from models.schema import STAGES, Schema, Target
from pipelines.report.evaluation import comparisons, sections
from pipelines.report.evaluation.entries import Entry, EvaluationReport, SearchShown
from pipelines.report.evaluation.metrics import EvaluationResult
from pipelines.report.evaluation.tables import Cell, Column, Grid, Row, grid, unit
from pipelines.report.figures.bars import group_bars
from pipelines.report.figures.calibration import calibration
from pipelines.report.figures.courses import learning_curves
from pipelines.report.figures.style import colours, png
from pipelines.report.page import page
from pipelines.report.words import UNTAUGHT
from pipelines.runs import write_text

GROUPS_ABREAST = 4  # targets in one overview table
TOLERATED = 0.005  # share of candidates on which predictions may break the funnel beyond what labels do, before it is marked

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
    "MSE": "mean squared error, of what is predicted of the logarithm (log), and in the target's own unit",
    "Norm. Gini": "Gini coefficient of values in the order of predictions, by that in their own order; 1 orders by value",
    "Decile error": "mean distance from 1 of predicted / observed in tenths of the candidates by prediction",
    "MAE": "mean absolute error in the target's own unit",
    "expected": "of a simulated world: the same under its true probabilities instead of drawn labels, so without their noise",
    "Funnel": "share of candidates for which a child target is predicted above its parent, which cannot be",
}
MARKED = {UNTAUGHT: "a target of weight 0: nothing taught the model this, so it follows from other targets alone; never served"}


def write_report(folder: Path, report: EvaluationReport, schema: Schema, search: SearchShown | None = None) -> Path:
    """Writes `report.html` and `metrics.json` into the folder (made if needed).

    Args:
        search: the search that `report.search` speaks of, to be shown with all that was tried.

    Returns:
        path of `report.html`.
    """
    write_text(folder / "metrics.json", json.dumps(report.to_dict(), indent=1, allow_nan=False))
    write_text(folder / "report.html", html(report, schema, search))
    return folder / "report.html"


# -- tables --------------------------------------------------------------------------------------------------------


def _overviews(entries: Sequence[Entry], schema: Schema) -> list[Grid]:
    """AUC and gAUC (or the error) of every target; as many tables as a laptop's width asks for."""
    binary = [target.name for target in schema.targets if target.is_binary]
    groups = []
    has_truth = any(column.of(entry.result) is not None for entry in entries for column in _expected_auc(*binary))
    for name in (["mean"] if len(binary) > 1 else []) + binary:
        known = _expected_auc(name) if has_truth else []
        groups.append([Column(name, "AUC", name, "auc"), *known, Column(name, "gAUC feed", name, "gauc_feed")])
    for target in schema.targets:
        if not target.is_binary:
            groups.append([Column(target.name, f"MSE{unit(target)}", target.name, "mse_transformed")])
    tables = -(-len(groups) // (GROUPS_ABREAST - has_truth))
    size = -(-len(groups) // tables)
    return [
        grid(entries, [column for group in groups[first : first + size] for column in group])
        for first in range(0, len(groups), size)
    ]


def _expected_auc(*names: str) -> list[Column]:
    return [Column(name, "expected AUC", name, "expected_auc") for name in names]


def _tables(target: Target, levels: Sequence[str], stages: Sequence[str], has_truth: bool) -> list[list[Column]]:
    """Columns of a target's tables; two for a binary target, so that a laptop shows them whole, and one for the truth.

    Args:
        stages: none where users have none.
        has_truth: whether there are expected metrics.
    """
    scale = unit(target)
    if not target.is_binary:
        heads = {"mse_transformed": f"MSE{scale}", "mse": "MSE", "mae": "MAE"}
        heads |= {"expected_mse_transformed": f"expected MSE{scale}"} if has_truth else {}
        overall = [Column("overall", head, target.name, metric) for metric, head in heads.items()]
        by_level = [Column(f"MSE{scale} by level", level, target.name, "mse_by_level", level) for level in levels]
        by_stage = [Column(f"MSE{scale} by stage", stage, target.name, "mse_by_stage", stage) for stage in stages]
        order = {"normalised_gini": "Norm. Gini", **{f"value_ndcg@{k}": f"NDCG@{k}" for k in CUTOFFS}}
        deciles = [str(1 + place) for place in range(DECILES)]
        return [
            overall + by_level + by_stage,
            [Column("order by value", head, target.name, metric) for metric, head in order.items()]
            + [Column("calibration", "overall", target.name, "calibration")]
            + [Column("calibration", "decile error", target.name, "decile_error")],
            [Column("calibration by decile of predictions", at, target.name, "calibration_by_decile", at) for at in deciles],
        ]
    areas = {"auc": "AUC", "gauc_feed": "gAUC feed", "gauc_user": "gAUC user"}
    ranking = {f"ndcg@{k}": f"NDCG@{k}" for k in CUTOFFS} | {f"precision@{k}": f"Prec@{k}" for k in CUTOFFS}
    probability = {"log_loss": "Log loss", "calibration": "Calibration", "ece": "ECE"}
    expected = {"auc": "AUC", "gauc_feed": "gAUC feed", **{f"ndcg@{k}": f"NDCG@{k}" for k in CUTOFFS}, "log_loss": "Log loss"}
    of_levels = "expected AUC by level"
    under_truth = [
        *(Column("expected, under the truth", head, target.name, f"expected_{metric}") for metric, head in expected.items()),
        *(Column(of_levels, level, target.name, "expected_auc_by_level", level) for level in levels),
        Column(of_levels, "Gini", target.name, "expected_gini"),
        *(Column("expected AUC by stage", stage, target.name, "expected_auc_by_stage", stage) for stage in stages),
    ]
    return [
        [Column("ranking", head, target.name, metric) for metric, head in areas.items()]
        + [Column("top of the feed", head, target.name, metric) for metric, head in ranking.items()],
        [Column("AUC by level", level, target.name, "auc_by_level", level) for level in levels]
        + [Column("AUC by level", "Gini", target.name, "gini")]
        + [Column("AUC by stage", stage, target.name, "auc_by_stage", stage) for stage in stages]
        + [Column("probability", head, target.name, metric) for metric, head in probability.items()],
        *([under_truth] if has_truth else []),
    ]


# -- page ----------------------------------------------------------------------------------------------------------


def html(report: EvaluationReport, schema: Schema, search: SearchShown | None = None) -> str:
    """The page, which needs nothing beside itself."""
    entries, exposure = report.entries, report.exposure
    colour = colours({entry.name: entry.role for entry in entries})
    models = [entry for entry in entries if entry.role == "model"]
    racing = [entry for entry in entries if entry.role != "truth"]
    reference = (models or entries)[0].result
    predicted = {name for entry in racing for name in entry.result.targets}
    settings = {"settings": report.settings} | {entry.name: entry.settings for entry in entries if entry.settings}
    curves = {
        entry.name: learning_curves(entry.history, schema.target_names, _taught(entry), entry.best_epoch)
        for entry in models
        if entry.history
    }
    return page(
        "report.html.j2",
        about=report.about,
        alarms=[(entry.name, message) for entry in racing for message in entry.alarms],
        remarks=report.remarks,
        account=report.account,
        colour=colour,
        counts=[("candidates", reference.rows), ("feeds", reference.feeds), ("users", reference.users)],
        user_share=reference.user_share,
        entries=entries,
        left_out=report.left_out,
        overviews=_overviews(entries, schema),
        targets=[_section(target, entries, schema, colour) for target in schema.targets if target.name in predicted],
        curves=curves,
        stages=sections.stages(models, report.life_cycle),
        known=comparisons.known(entries, schema, colour, reference),
        activity=reference.activity,
        fewest=comparisons.FEWEST,
        exposure=exposure,
        live=report.live,
        live_tables=comparisons.among_live(entries, report.live) if report.live is not None else [],
        exposures=comparisons.exposures(entries, schema, exposure) if exposure is not None else [],
        inside=sections.targets_and_gates(models, schema, reference),
        funnel=_funnel(racing, reference),
        weights=sections.weights(models, schema),
        intentions=sections.intentions(models),
        levels=sections.levels(models, schema),
        curriculum=sections.curriculum(models, colour),
        search=None if search is None else _search(search),
        explanations=EXPLANATIONS
        | (MARKED if any(len(_taught(entry)) < len(entry.result.targets) for entry in models) else {}),
        schema=schema,
        settings={name: json.dumps(values, indent=2) for name, values in settings.items() if values},
    )


def _taught(entry: Entry) -> list[str]:
    return [name for name, metrics in entry.result.targets.items() if not metrics.untaught]


@dataclass(frozen=True, kw_only=True)
class SearchSection:
    """What the page shows of a search."""

    summary: Sequence[str]
    picture: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


def _search(search: SearchShown) -> SearchSection:
    with search.table.open(newline="", encoding="utf-8") as file:
        heads, *rows = csv.reader(file)
    return SearchSection(summary=search.summary, picture=png(search.picture), heads=heads, rows=rows)


@dataclass(frozen=True, kw_only=True)
class TargetSection:
    """What the page shows of one target.

    Attributes:
        groups: what the bars divide candidates by.
    """

    target: Target
    facts: Sequence[str]
    tables: Sequence[Grid]
    groups: Sequence[str]
    bars: str
    calibration: str


def _section(target: Target, entries: Sequence[Entry], schema: Schema, colour: Mapping[str, str]) -> TargetSection:
    known = [entry for entry in entries if target.name in entry.result.targets]
    racing = [entry for entry in known if entry.role != "truth"]
    own = {entry.name: entry.result.targets[target.name] for entry in known}
    first = own[racing[0].name]
    has_truth = len(known) > len(racing)
    values = first.values
    shares = []
    has_expected = values.get("expected_auc" if target.is_binary else "expected_mse_transformed") is not None
    if target.is_binary:
        shares = [
            f"{first.positives:,} positives of {first.rows:,} ({first.mean_label:.2%})",
            f"gAUC over {values['gauc_feed_share'] or 0:.0%} of the feeds and {values['gauc_user_share'] or 0:.0%} of the users"
            if values["gauc_feed"] is not None
            else "gAUC over no feed: none has both classes",
            f"NDCG over {values['ranked_feeds']:.0%} of the feeds" if values["auc"] is not None else "",
            *(
                f"positives by {by}: "
                + ", ".join(
                    f"{group} {first.group_values(f'positives_by_{by}')[group]:,} of {rows:,}"
                    for group, rows in first.group_values(f"rows_by_{by}").items()
                )
                for by in ("level", "stage")
                if first.group_values(f"rows_by_{by}")
            ),
        ]
    else:
        shares = [f"mean {first.mean_label:,.2f} over {first.rows:,} candidates"]
    metric = "auc" if target.is_binary else "mse"
    title = "AUC" if target.is_binary else f"MSE{unit(target)}"
    groups = [by for by in ("level", "stage") if any(own[entry.name].group_values(f"{metric}_by_{by}") for entry in racing)]
    return TargetSection(
        target=target,
        facts=[share for share in shares if share],
        tables=[
            grid(known, columns)
            for columns in _tables(target, schema.levels.names, STAGES if "stage" in groups else (), has_expected)
        ],
        groups=groups,
        bars=group_bars(
            f"{title} by {' and '.join(groups)}",
            {
                by: {name: found for name, metrics in own.items() if (found := metrics.group_values(f"{metric}_by_{by}"))}
                for by in groups
            },
            {entry.name: colour[entry.name] for entry in racing},
            ceiling="truth" if has_truth and target.is_binary else None,
            from_zero=not target.is_binary,
            notes={
                by: {group: f"{positives:,}" for group, positives in first.group_values(f"positives_by_{by}").items()}
                for by in groups
                if first.group_values(f"positives_by_{by}")
            },
            notes_title="positives of each group",
        ),
        calibration=calibration(
            "Calibration",
            {entry.name: own[entry.name].calibration_curve for entry in racing if own[entry.name].calibration_curve},
            colour,
            unit="rate" if target.is_binary else "mean",
        ),
    )


def _funnel(entries: Sequence[Entry], reference: EvaluationResult) -> Grid | None:
    """Shares of broken edges, grouped by parent, and below them what the labels do; marked where predictions are worse."""
    names = list(dict.fromkeys(pair for entry in entries for pair in entry.result.funnel))
    if not names:
        return None
    pairs = sorted(names, key=lambda pair: [name.split("<=")[1] for name in names].index(pair.split("<=")[1]))
    known = reference.funnel_labels

    def cell(value: float | None, real: float | None) -> Cell:
        if value is None:
            return Cell("–")
        return Cell(f"{value:.2%}", wrong=value > (real or 0.0) + TOLERATED)

    rows = [
        Row(entry.name, entry.role, [cell(entry.result.funnel.get(pair), known.get(pair)) for pair in pairs])
        for entry in entries
    ]
    if known:
        cells = [Cell("–" if known.get(pair) is None else f"{known[pair]:.2%}") for pair in pairs]
        rows.append(Row("what happened", "labels", cells))
    return Grid([(f"above {pair.split('<=')[1]}", pair.split("<=")[0]) for pair in pairs], rows)
