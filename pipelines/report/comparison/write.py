"""The table on disk: `compare.html`, self-contained, `compare.md` for a README, `compare.json` with every number."""

import json
from dataclasses import dataclass
from pathlib import Path

from models.schema import Schema
from pipelines.report.comparison import figures
from pipelines.report.comparison.compared import Compared, CurveDrawn, Row, Score, Tested
from pipelines.report.page import page
from pipelines.report.words import MISSING, UNTAUGHT, arrow, head, p_shown, percent, shown, spread_shown
from pipelines.runs import write_text

COLUMNS_ABREAST = 8  # metrics in one table, so that a laptop shows it whole

COST_HEADS = (
    "dense parameters",
    "× base",
    "in tables",
    "training s",
    "candidates/s",
    "time a candidate, × base",
    "epochs",
    "best epoch",
)


def write_table(folder: Path, compared: Compared, schema: Schema) -> Path:
    """Writes the three files into the folder.

    Returns:
        path of `compare.html`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "compare.json", json.dumps(compared.to_dict(), indent=1, allow_nan=False) + "\n")
    write_text(folder / "compare.md", markdown(compared, schema))
    write_text(folder / "compare.html", html(compared, schema))
    return folder / "compare.html"


def parts_of(columns: tuple[str, ...]) -> list[list[str]]:
    """Columns divided evenly among as few tables as it takes; the columns of a target stay together if they fit."""
    by_target: dict[str, list[str]] = {}
    for path in columns:
        by_target.setdefault(path.split(".")[0], []).append(path)
    even = -(-len(columns) // -(-len(columns) // COLUMNS_ABREAST))
    parts: list[list[str]] = []
    for paths in by_target.values():
        for first in range(0, len(paths), COLUMNS_ABREAST):
            piece = paths[first : first + COLUMNS_ABREAST]
            if parts and len(parts[-1]) < even and len(parts[-1]) + len(piece) <= COLUMNS_ABREAST:
                parts[-1] += piece
            else:
                parts.append(piece)
    return parts


# -- Markdown ------------------------------------------------------------------------------------------------------


def markdown(compared: Compared, schema: Schema) -> str:
    lines = [f"## {compared.name}: {len(compared.systems)} systems compared", ""]
    lines += [" · ".join(f"{term}: {fact}" for term, fact in compared.about.items() if term != "Data"), ""]
    lines += [line for warning in compared.warnings for line in (f"> **{escaped(warning)}**", ">")][:-1]
    lines += [""] if compared.warnings else []
    for part in parts_of(compared.columns):
        heads = [" ".join(head(path, schema)) + arrow(path) for path in part]
        counts = [positives_shown(compared, path) for path in part]
        counted = [["positives", *counts]] if any(counts) else []
        rows = [[row.label, *(cell(row.scores[path]) for path in part)] for row in compared.rows]
        lines += grid_lines(["", *heads], counted + rows)
    if compared.claims:
        lines += ["**Claims**", "", *(f"- {escaped(str(claim))}" for claim in compared.claims), ""]
    for curve in compared.curves:
        values = [f"**{value}**" if place == curve.own else value for place, value in enumerate(curve.values)]
        rows = [
            [" ".join(head(path, schema)) + arrow(path), *(cell(score) for score in scores)]
            for path, scores in curve.scores.items()
        ]
        lines += grid_lines([f"{curve.title}, {curve.of}", *values], rows)
    costs = [[row.label, *_costs(row)] for row in compared.systems]
    lines += grid_lines(["cost", *COST_HEADS], costs)
    lines += [f"- {escaped(term)}: {escaped(text)}" for term, text in compared.words.items()]
    return "\n".join(lines) + "\n"


def grid_lines(heads: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown, an empty line behind it."""
    line = lambda cells: "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
    return [line(heads), line(["---"] + ["---:"] * (len(heads) - 1)), *map(line, rows), ""]


def positives_shown(compared: Compared, path: str) -> str:
    """How many positives a column rests on; nothing for what rests on none."""
    known = (row.scores[path].positives for row in compared.rows)
    return next((f"{positives:,}" for positives in known if positives is not None), "")


def cell(score: Score) -> str:
    """`**.7159**\\* ± .0011 (+1.2 %)`."""
    text = shown(score.mean)
    if score.place is not None:
        text = f"**{text}**" if score.place == 1 else f"<u>{text}</u>"
    text += "\\*" if score.is_significant else ""
    text += UNTAUGHT if score.untaught else ""
    text += f" ± {shown(score.std)}" if score.std is not None else ""
    return text + (f" ({percent(score.relaimpr)})" if score.relaimpr is not None else "")


def escaped(text: str) -> str:
    """Words that hold signs of Markdown."""
    return text.replace("*", "\\*").replace("_", "\\_").replace(">", "\\>")


def _costs(row: Row) -> list[str]:
    cost = row.cost
    if cost is None:
        return [MISSING] * len(COST_HEADS)
    number = lambda value, form: MISSING if value is None else format(value, form)
    return [
        f"{cost.dense:,}",
        number(cost.dense_times, ".2f"),
        f"{cost.tables:,}",
        number(cost.seconds, ",.1f"),
        number(cost.candidates_per_second, ",.0f"),
        number(cost.step_times, ".2f"),
        number(cost.epochs, ".1f"),
        number(cost.best_epoch, ".1f"),
    ]


# -- HTML ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """A cell of the page: the value, its deviation, RelaImpr, marks, and what the pointer shows."""

    text: str
    spread: str
    relaimpr: str
    place: int | None
    star: bool
    tip: str


@dataclass(frozen=True, kw_only=True)
class PageTable:
    """A part of the table: targets with the number of their columns, heads, and rows of cells."""

    groups: list[tuple[str, int]]
    heads: list[str]
    positives: list[str]
    rows: list[tuple[Row, list[View]]]


@dataclass(frozen=True, kw_only=True)
class CurveSection:
    """What the page shows of a curve: a picture for each metric, and its numbers as a table."""

    curve: CurveDrawn
    figures: list[tuple[str, str]]
    rows: list[tuple[str, list[View]]]


@dataclass(frozen=True, kw_only=True)
class ClaimLine:
    """A claim on one metric in words; `kind` is how the page colours its verdict."""

    claim: str
    metric: str
    better: str
    worse: str
    gain: str
    seeds: str
    p: str
    gap: str
    verdict: str
    kind: str


def html(compared: Compared, schema: Schema) -> str:
    """The page, which needs nothing beside itself."""
    tables = [
        PageTable(
            groups=_groups([head(path, schema)[0] for path in part]),
            heads=[head(path, schema)[1] + arrow(path) for path in part],
            positives=[positives_shown(compared, path) for path in part],
            rows=[(row, [_view(row.scores[path], path) for path in part]) for row in compared.rows],
        )
        for part in parts_of(compared.columns)
    ]
    return page(
        "compare.html.j2",
        compared=compared,
        tables=tables,
        claims=[_claim(claim, schema) for claim in compared.claims],
        stands=sum(claim.stands for claim in compared.claims),
        figures=[
            (path, figures.dots(compared, path, " · ".join(head(path, schema))))
            for path in compared.columns
            if any(row.scores[path].by_seed for row in compared.systems)
        ],
        by_level=_by_level(compared, schema),
        curves=[_curve(curve, schema) for curve in compared.curves],
        cost_heads=COST_HEADS,
        costs=[(row, _costs(row)) for row in compared.systems],
        rated=[row for row in [*compared.systems, *compared.beside] if row.rates],
        shown=shown,
        settings={row.label: json.dumps(row.settings, indent=2) for row in compared.systems},
    )


def _by_level(compared: Compared, schema: Schema) -> list[tuple[str, str]]:
    """Targets that have a picture of their levels, with the picture."""
    names = schema.levels.names
    is_known = lambda scores: any(all(own[name].mean is not None for name in names) for own in scores.values())
    return [
        (target, figures.by_level(scores, target, names)) for target, scores in compared.by_level.items() if is_known(scores)
    ]


def _curve(curve: CurveDrawn, schema: Schema) -> CurveSection:
    return CurveSection(
        curve=curve,
        figures=[
            (path, figures.over_values(curve, path, " ".join(head(path, schema))))
            for path, scores in curve.scores.items()
            if any(score.mean is not None for score in scores)
        ],
        rows=[
            (" ".join(head(path, schema)) + arrow(path), [_view(score, path) for score in scores])
            for path, scores in curve.scores.items()
        ],
    )


def _groups(targets: list[str]) -> list[tuple[str, int]]:
    """Neighbouring columns of one target, with their number."""
    return [(target, targets.count(target)) for target in dict.fromkeys(targets)]


def _view(score: Score, path: str) -> View:
    tip = [f"seed {seed}: {shown(value)}" for seed, value in score.by_seed.items()]
    if score.against is not None and score.test is not None:
        gain = f"{spread_shown(score.test.mean, score.test.std, sign=True)}, {p_shown(score.test.p)}"
        tip.append(f"gain on {score.against}: {gain}")
    return View(
        text=shown(score.mean) + (UNTAUGHT if score.untaught else ""),
        spread="" if score.std is None else f"± {shown(score.std)}",
        relaimpr="" if score.relaimpr is None else percent(score.relaimpr),
        place=score.place,
        star=score.is_significant,
        tip="\n".join(tip),
    )


def _claim(claim: Tested, schema: Schema) -> ClaimLine:
    test, means = claim.test, claim.means
    return ClaimLine(
        claim=f"{claim.better} {'≥' if claim.or_equal else '>'} {claim.worse}",
        metric=" ".join(head(claim.path, schema)) + arrow(claim.path),
        better=shown(means[0]) if means else MISSING,
        worse=shown(means[1]) if means else MISSING,
        gain=spread_shown(test.mean, test.std, sign=True) if test else MISSING,
        seeds=str(test.seeds) if test else "0",
        p=MISSING if test is None or test.p is None else p_shown(test.p).removeprefix("p = ").removeprefix("p "),
        gap=MISSING if claim.gap is None or claim.gap < 0 else percent(claim.gap, sign=False),
        verdict=claim.verdict,
        kind=claim.verdict.replace(" ", "-"),
    )
