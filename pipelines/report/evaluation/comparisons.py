"""The report's sections that compare entries by what was known of users, by the exposure of what they place first, and
among what was live."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from models.metrics.entered import TOP
from models.metrics.names import TOPS
from models.schema import Schema, Target
from pipelines.report.evaluation.entries import Entry
from pipelines.report.evaluation.exposure import SplitExposure
from pipelines.report.evaluation.live import LiveRanking, LiveRanks
from pipelines.report.evaluation.metrics import EvaluationResult, TargetMetrics, Values
from pipelines.report.evaluation.tables import Cell, Column, Grid, Row, grid, merit, unit
from pipelines.report.figures.bars import group_bars
from pipelines.report.targets import last_target, root_targets

ABREAST = 10  # columns of a table
FEWEST = 10  # positives and negatives, or values, of a group in which entries are compared


# -- what was known ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the page shows of one target."""

    name: str
    tables: Sequence[Grid]
    bars: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Block:
    """Neighbouring columns: the groups of one history, or of activity."""

    by: str
    columns: Sequence[Column]


def known(entries: Sequence[Entry], schema: Schema, colour: Mapping[str, str], reference: EvaluationResult) -> list[Known]:
    """Of the first binary target without parents, of the last one and of the first value; without those of which the
    reference does not say what was known (`activity.by_known`).

    Args:
        reference: metrics that say how many candidates the groups have.
    """
    values = [target.name for target in schema.targets if not target.is_binary]
    shown = []
    for name in dict.fromkeys([*root_targets(schema)[:1], last_target(schema), *values[:1]]):
        target = schema.target(name)
        metrics = reference.targets.get(name)
        blocks = [] if metrics is None else _blocks(target, metrics)
        if blocks:
            there = [entry for entry in entries if name in entry.result.targets]
            shown.append(
                Known(
                    name=name,
                    tables=[_known_table(there, columns, reference) for columns in _abreast(blocks)],
                    bars=_bars(target, there, blocks, colour, reference),
                    text=_leads(there, target, blocks, reference),
                )
            )
    return shown


def _metric(target: Target) -> tuple[str, str]:
    """What is computed by group, and its name."""
    return ("auc", "AUC") if target.is_binary else ("mse", f"MSE{unit(target)}")


def _blocks(target: Target, metrics: TargetMetrics) -> list[Block]:
    metric, title = _metric(target)
    blocks = []
    for history, groups in metrics.by.histories.get("rows_by_history", {}).items():
        by = f"entries of {history}"
        columns = [
            Column(f"{title} by {by}", group, target.name, f"{metric}_by_history", group, of_history=history)
            for group in groups
        ]
        blocks.append(Block(by=by, columns=columns))
    if by_activity := metrics.group_values("rows_by_activity"):
        columns = [Column(f"{title} by activity", group, target.name, f"{metric}_by_activity", group) for group in by_activity]
        blocks.append(Block(by="activity", columns=columns))
    return blocks


def _abreast(blocks: Sequence[Block]) -> list[list[Column]]:
    """Columns of as few tables as a laptop's width asks for; no block is divided."""
    tables: list[list[Column]] = []
    for block in blocks:
        if tables and len(tables[-1]) + len(block.columns) <= ABREAST:
            tables[-1] += block.columns
        else:
            tables.append([*block.columns])
    return tables


def _count(column: Column, what: str, reference: EvaluationResult) -> int | None:
    """`rows` or `positives` of the column's group; None for the positives of a value."""
    counts = replace(column, metric=f"{what}_by_{column.metric.split('_by_')[1]}").of(reference)
    return None if counts is None else int(counts)


def _enough(column: Column, reference: EvaluationResult) -> bool:
    rows, positives = _count(column, "rows", reference) or 0, _count(column, "positives", reference)
    return (rows if positives is None else min(positives, rows - positives)) >= FEWEST


def _known_table(entries: Sequence[Entry], columns: Sequence[Column], reference: EvaluationResult) -> Grid:
    """The metric of every entry, and below it the groups' sizes; in small groups none is the best."""
    plain = grid(entries, columns)
    enough = [_enough(column, reference) for column in columns]
    rows = [
        replace(row, cells=[cell if compared else Cell(cell.text) for cell, compared in zip(row.cells, enough, strict=True)])
        for row in plain.rows
    ]
    for what, label in {"rows": "candidates", "positives": "positives"}.items():
        counts = [_count(column, what, reference) for column in columns]
        if any(count is not None for count in counts):
            rows.append(Row(label, "labels", [Cell(f"{count:,}") for count in counts]))
    return Grid(plain.heads, rows)


def _bars(
    target: Target,
    entries: Sequence[Entry],
    blocks: Sequence[Block],
    colour: Mapping[str, str],
    reference: EvaluationResult,
) -> str:
    values = {
        block.by: {
            entry.name: {
                column.head: column.of(entry.result) if _enough(column, reference) else None for column in block.columns
            }
            for entry in entries
        }
        for block in blocks
    }
    truths = [entry.name for entry in entries if entry.role == "truth"]
    return group_bars(
        _metric(target)[1],
        values,
        {entry.name: colour[entry.name] for entry in entries if entry.role != "truth"},
        ceiling=truths[0] if truths else None,
        from_zero=not target.is_binary,
        named=True,
    )


def _leads(entries: Sequence[Entry], target: Target, blocks: Sequence[Block], reference: EvaluationResult) -> str:
    """How far the first model is ahead of the best baseline, by activity; nothing where one of them is missing."""
    overall = "auc" if target.is_binary else "mse_transformed"
    score = lambda entry: entry.result.targets[target.name].values.get(overall)
    scored = [entry for entry in entries if score(entry) is not None]
    models, baselines = ([entry for entry in scored if entry.role == role] for role in ("model", "baseline"))
    if not models or not baselines:
        return ""
    best = max(baselines, key=lambda entry: merit(score(entry), overall))
    leads = []
    for column in (column for block in blocks if block.by == "activity" for column in block.columns):
        mine, others = column.of(models[0].result), column.of(best.result)
        if mine is not None and others is not None and _enough(column, reference):
            lead = merit(mine, overall) - merit(others, overall)
            leads.append(f"{abs(lead):.4f} {'better' if lead >= 0 else 'worse'} for {column.head}")
    if not leads:
        return ""
    title = _metric(target)[1]
    return f"{models[0].name} against {best.name}, the best of the baselines, in {title} by activity: {', '.join(leads)}."


# -- exposure ------------------------------------------------------------------------------------------------------


def exposures(entries: Sequence[Entry], schema: Schema, exposure: SplitExposure) -> list[tuple[str, Grid]]:
    """Shares of poor, and where there are any, of new candidates among the first places; each below what it means."""
    orders = [name for name in (*root_targets(schema)[:1], "fused") if any(_shares(entry, name) for entry in entries)]
    measure = f"by {exposure.column}" if exposure.column else "by impressions on training days"
    texts = {
        "poor": f"Poor: the {exposure.of} is of the lowest level, {exposure.level}, {measure}",
        "new": f"New: no training day has shown the {exposure.of}",
    }
    tables = []
    for mark, text in texts.items():
        if not orders or not any(exposure.random.get(f"{mark}@{k}") for k in TOPS):
            continue
        heads = [("by the fused score" if order == "fused" else f"by {order}", f"top {k}") for order in orders for k in TOPS]
        known: list[tuple[str, str, list[Values]]] = [
            (entry.name, entry.role, [_shares(entry, order) for order in orders]) for entry in entries
        ]
        for name, own in (("logged order", exposure.logged), ("random order", exposure.random)):
            known.append((name, "labels", [own] * len(orders)))
        rows = [
            Row(name, role, [_percent(own.get(f"{mark}@{k}")) for own in shares for k in TOPS]) for name, role, shares in known
        ]
        tables.append((text, Grid(heads, rows)))
    return tables


def _shares(entry: Entry, order: str) -> Values:
    """An entry's shares in the order by a target, or by the fused score."""
    if order == "fused":
        return entry.result.fused
    metrics = entry.result.targets.get(order)
    found = {} if metrics is None else metrics.values
    return {name: value for name, value in found.items() if name.startswith(("poor@", "new@"))}


def _percent(share: float | None) -> Cell:
    return Cell("–" if share is None else f"{share:.1%}")


# -- among what was live -------------------------------------------------------------------------------------------


def among_live(entries: Sequence[Entry], live: LiveRanking) -> list[tuple[str, Grid]]:
    """How far up entered rooms stand: overall, and MRR and Recall@10 by level, stage and age of the room."""
    roles = {entry.name: entry.role for entry in entries if entry.role == "model"}
    orders = [
        (f"{name}, by {order}" if name in roles else name, roles.get(name, "baseline"), ranks)
        for name, found in live.ranks.items()
        for order, ranks in found.items()
    ]
    metrics = [*(f"recall@{k}" for k in TOP), *(f"ndcg@{k}" for k in TOP), "mrr"]
    heads = {"recall": "Recall", "ndcg": "NDCG", "mrr": "MRR"}
    spelled = [metric.replace(metric.split("@")[0], heads[metric.split("@")[0]]) for metric in metrics]

    def table(columns: Sequence[tuple[str, str]], values: Callable[[LiveRanks], Sequence[float | None]]) -> Grid:
        found = [values(ranks) for _, _, ranks in orders]
        best = [max((row[place] or 0.0 for row in found), default=0.0) for place in range(len(columns))]
        cells = lambda own: [
            Cell("–" if value is None else f"{value:.4f}", best=value is not None and value == top > 0)
            for value, top in zip(own, best, strict=True)
        ]
        rows = [Row(name, role, cells(own)) for (name, role, _), own in zip(orders, found, strict=True)]
        return Grid(list(columns), rows)

    tables = [("Overall", table([("", head) for head in spelled], lambda ranks: [ranks.values[metric] for metric in metrics]))]
    for by in orders[0][2].by if orders else ():
        groups = {group: own["entries"] for group, own in orders[0][2].by[by].items() if own["entries"]}
        for metric, head in (("recall@10", "Recall@10"), ("mrr", "MRR")):
            columns = [(f"{head} (entries)", f"{group} ({count:,.0f})") for group, count in groups.items()]
            of = lambda ranks, by=by, metric=metric, groups=groups: [ranks.by[by][group][metric] for group in groups]
            tables.append((f"{head} by {by}" if by != "age" else f"{head} by age of the room", table(columns, of)))
    return tables
