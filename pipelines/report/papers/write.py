"""A paper's page: `NAME.md`, small enough to be committed, its numbers as `NAME.json`, and its pictures as SVG.

What a person says of the numbers stands in `statements/NAME.md` beside the page, and the page begins with it.
"""

import json
from base64 import b64decode
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from models.schema import Schema
from pipelines.report.papers import figures
from pipelines.report.papers.result import Gain, PaperResult, PaperRow, PaperScore, Variant
from pipelines.report.words import MISSING, arrow, head, percent, shown
from pipelines.runs import write_text

COLUMNS_ABREAST = 6  # metrics in one table


def write_page(folder: Path, result: PaperResult, schema: Schema) -> Path:
    """Writes the page, its JSON and its pictures into the folder.

    Returns:
        path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    said = folder / "statements" / f"{result.name}.md"
    result = replace(result, statement=said.read_text(encoding="utf-8").strip() if said.is_file() else "")
    pictures = {
        "gains": figures.gains(result, schema),
        "curve": figures.curve(result, schema),
        "courses": figures.courses(result),
    }
    drawn = {name: picture for name, picture in pictures.items() if picture is not None}
    for name, picture in drawn.items():
        write_text(folder / f"{result.name}-{name}.svg", b64decode(picture.partition(",")[2]).decode())
    write_text(folder / f"{result.name}.json", json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n")
    write_text(folder / f"{result.name}.md", markdown(result, schema, drawn))
    return folder / f"{result.name}.md"


def markdown(result: PaperResult, schema: Schema, pictures: Collection[str] = ()) -> str:
    lines = [f"# {result.title}", ""]
    lines += [result.premise, ""] if result.premise else []
    lines += [" · ".join(f"{term}: {fact}" for term, fact in result.about.items()), ""]
    lines += ["```sh", result.command, result.again, "```", ""]
    lines += [line for warning in result.warnings for line in (f"> **{_escaped(warning)}**", ">")][:-1]
    lines += [""] if result.warnings else []
    lines += [result.statement, ""] if result.statement else []
    main = next((variant for variant in result.variants if variant.rows), None)
    if main is not None:
        for title, is_premise in (("What the claims stand on", True), ("Claims", False)):
            own = [gain for gain in main.gains if gain.is_premise == is_premise]
            lines += _gains(f"{title}, in {main.name}", own, schema, len(main.worlds)) if own else []
        lines += _picture(result, "gains", "Gains with their intervals", pictures)
        lines += _tables(result, main, schema)
    lines += _curve(result, schema)
    lines += _picture(result, "curve", "Gains over the strength of the premise", pictures)
    for variant in result.variants[1:]:
        if variant.name not in result.curve and variant.gains:
            lines += _gains(f"Beside: {variant.name}", variant.gains, schema, len(variant.worlds))
    if main is not None:
        lines += _regime(main)
        lines += _picture(result, "courses", "The monitored metric, epoch by epoch", pictures)
    lines += ["## How to read it", "", *(f"- {_escaped(term)}: {_escaped(text)}" for term, text in result.words.items())]
    return "\n".join(lines) + "\n"


def _gains(title: str, gains: Sequence[Gain], schema: Schema, worlds: int) -> list[str]:
    heads = ["claim", "metric", "gain [95 %]", "p", "p (Holm)", "seen", "to the truth", "paper", "verdict"]
    rows = []
    for gain in gains:
        over = gain.over
        rows.append(
            [
                f"{gain.better} {'≥' if gain.or_equal else '>'} {gain.worse}",
                " ".join(head(gain.path, schema)) + arrow(gain.path),
                MISSING if over is None else shown(over.mean, sign=True) + interval(gain),
                MISSING if over is None else _p(over.p),
                _p(gain.corrected),
                shown(gain.smallest),
                MISSING if gain.gap is None or gain.gap < 0 else percent(gain.gap, sign=False),
                shown(gain.published, sign=True),
                gain.verdict if gain.verdict != "too few positives" else f"too few positives ({gain.positives})",
            ]
        )
    return [f"## {title}", "", f"{worlds} worlds.", "", *grid(heads, rows)]


def interval(gain: Gain) -> str:
    over = gain.over
    return "" if over is None or over.low is None else f" [{shown(over.low)}, {shown(over.high)}]"


def _tables(result: PaperResult, variant: Variant, schema: Schema) -> list[str]:
    lines = ["## The table", ""]
    if result.tables:
        lines += [f"In brackets the paper's own figures: {'; '.join(result.tables)}. Their data is not ours.", ""]
    for first in range(0, len(result.columns), COLUMNS_ABREAST):
        part = result.columns[first : first + COLUMNS_ABREAST]
        counts = [_positives(variant, path) for path in part]
        rows = [["positives", *counts]] if any(counts) else []
        rows += [[row.label, *(_score(row.scores[path]) for path in part)] for row in variant.rows]
        lines += grid(["", *(" ".join(head(path, schema)) + arrow(path) for path in part)], rows)
    return lines


def _positives(variant: Variant, path: str) -> str:
    counts = [count for row in variant.rows if (count := row.scores[path].positives) is not None]
    return f"{min(counts):,}" if counts else ""


def _score(score: PaperScore) -> str:
    text = shown(score.mean) + (f" ± {shown(score.std)}" if score.std is not None else "")
    return text + (f" ({shown(score.published)})" if score.published is not None else "")


def _curve(result: PaperResult, schema: Schema) -> list[str]:
    there = [variant for name in result.curve for variant in result.variants if variant.name == name and variant.gains]
    if len(there) < 2:
        return []
    rows = []
    for place, gain in enumerate(there[0].gains):
        cells = []
        for variant in there:
            own = variant.gains[place]
            cells.append(MISSING if own.over is None else shown(own.over.mean, sign=True) + interval(own))
        rows.append([f"{gain.better} − {gain.worse}, {' '.join(head(gain.path, schema))}", *cells])
    return ["## Over the strength of the premise", "", *grid(["gain [95 %]", *(variant.name for variant in there)], rows)]


def _regime(variant: Variant) -> list[str]:
    rows = [[row.label, *_costs(row)] for row in variant.rows if row.role == "system"]
    heads = ["", "rate", "rates tried, on the validation day", "epochs", "best epoch", "steps", "training s"]
    return ["## Regime", "", f"{variant.candidates:,} training candidates.", "", *grid(heads, rows)]


def _costs(row: PaperRow) -> list[str]:
    number = lambda value, form: MISSING if value is None else format(value, form)
    return [
        number(row.rate, "g"),
        ", ".join(f"{rate:g} {shown(score)}" for rate, score in row.rates.items()) or MISSING,
        number(row.epochs, ".1f"),
        number(row.best_epoch, ".1f"),
        number(row.steps, ",.0f"),
        number(row.seconds, ",.0f"),
    ]


def _picture(result: PaperResult, name: str, alt: str, pictures: Collection[str]) -> list[str]:
    return [f"![{alt}]({result.name}-{name}.svg)", ""] if name in pictures else []


def _p(p: float | None) -> str:
    return MISSING if p is None else "< .001" if p < 0.001 else f"{p:.3f}"[1:] if p < 1 else "1"


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    line = lambda cells: "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    return [line(heads), line(["---"] + ["---:"] * (len(heads) - 1)), *map(line, rows), ""]


def _escaped(text: str) -> str:
    return text.replace("*", "\\*").replace("_", "\\_").replace(">", "\\>")
