"""Pictures of a paper's page as self-contained SVG data URLs; None where there is nothing to draw."""

from collections.abc import Sequence
from typing import Any

from models.schema import Schema
from pipelines.report.figures.style import INK, MODEL_COLOURS, drawing, legend_width, svg, widest, wrapped
from pipelines.report.papers.result import Gain, PaperResult, Variant
from pipelines.report.words import head, shown

WIDE = 3.8  # inches of the axes
HELD, OPEN, PAPER = "#2563a8", "#9aa5b1", "#c2344d"


def gains(result: PaperResult, schema: Schema) -> str | None:
    """Every claim's gain with its interval, the paper's gain as a cross, and a line at nothing."""
    main = next((variant for variant in result.variants if variant.gains), None)
    known = [gain for gain in main.gains if gain.over is not None] if main is not None else []
    if not known:
        return None
    labels = [_name(gain, schema) for gain in known]
    with drawing(1, (0.5 + widest(labels) + WIDE, 0.8 + 0.24 * len(known))) as (figure, (axes,)):
        axes.axvline(0, color=INK, linewidth=1.0)
        for place, gain in enumerate(known):
            over = gain.over
            assert over is not None
            colour = HELD if gain.verdict in ("holds", "reversed") else OPEN
            if over.low is not None:
                axes.plot([over.low, over.high], [place, place], color=colour, linewidth=2.2, zorder=2)
            axes.scatter(list(over.by_world.values()), [place] * len(over.by_world), s=9, color=colour, alpha=0.6, zorder=3)
            axes.scatter([over.mean], [place], s=30, color=colour, edgecolor="white", linewidth=0.6, zorder=4)
            if gain.published is not None:
                axes.scatter([gain.published], [place], s=26, marker="x", color=PAPER, linewidth=1.3, zorder=5)
        axes.set_yticks(range(len(known)), labels)
        axes.set_ylim(len(known) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(_number)
        axes.locator_params(axis="x", nbins=6)
        axes.set_xlabel(wrapped("gain over worlds with its 95 % interval; a dot a world, a cross the paper's", WIDE))
        return svg(figure)


def curve(result: PaperResult, schema: Schema) -> str | None:
    """Gains over the variants of a strength, with their intervals."""
    there = [variant for name in result.curve for variant in result.variants if variant.name == name and variant.gains]
    if len(there) < 2:
        return None
    lines = [(_name(gain, schema), place) for place, gain in enumerate(there[0].gains) if not gain.is_premise][:6]
    names = [variant.name for variant in there]
    with drawing(1, (WIDE + legend_width([label for label, _ in lines]), 3.0)) as (figure, (axes,)):
        axes.axhline(0, color=INK, linewidth=1.0)
        for number, (label, place) in enumerate(lines):
            points = [(i, own) for i, own in enumerate(_gain_of(there, place)) if own.over is not None]
            means = [own.over.mean for _, own in points if own.over is not None]
            reach = [0.0 if own.over is None or own.over.high is None else own.over.high - own.over.mean for _, own in points]
            shift = 0.06 * (number - (len(lines) - 1) / 2)
            axes.errorbar(
                [i + shift for i, _ in points], means, yerr=reach, marker="o", markersize=4, linewidth=1.4, elinewidth=1.0,
                color=MODEL_COLOURS[number % len(MODEL_COLOURS)], label=label,
            )  # fmt: skip
        axes.set_xticks(range(len(names)), names)
        axes.yaxis.set_major_formatter(_number)
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside right upper")
        return svg(figure)


def courses(result: PaperResult) -> str | None:
    """The monitored metric of the first world's first seed, a line a system, a dot at the best epoch of what can be stopped."""
    main = next((variant for variant in result.variants if variant.rows), None)
    rows = [row for row in main.rows if row.courses and any(row.courses.values())] if main is not None else []
    if not rows:
        return None
    with drawing(1, (WIDE + legend_width([row.label for row in rows]), 3.0)) as (figure, (axes,)):
        for number, row in enumerate(rows):
            values = next(values for values in row.courses.values() if values)
            style: dict[str, Any] = {"linestyle": "-" if number < len(MODEL_COLOURS) else "--"}
            colour = MODEL_COLOURS[number % len(MODEL_COLOURS)]
            axes.plot(range(1, len(values) + 1), values, label=row.label, color=colour, linewidth=1.3, marker=".", **style)
        axes.yaxis.set_major_formatter(_number)
        axes.set_xlabel("epoch")
        axes.set_title("on the validation day of the first world")
        figure.legend(loc="outside right upper")
        return svg(figure)


def _gain_of(there: Sequence[Variant], place: int) -> list[Gain]:
    return [variant.gains[place] for variant in there]


def _name(gain: Gain, schema: Schema) -> str:
    return f"{gain.better} − {gain.worse} · {' '.join(head(gain.path, schema))}"


def _number(value: float, _: int) -> str:
    return shown(value).rstrip("0").rstrip(".") or "0"
