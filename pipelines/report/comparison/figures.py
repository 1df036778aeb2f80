"""Pictures of a comparison as self-contained SVG data URLs."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.report.comparison.compared import Compared, CurveDrawn, Score
from pipelines.report.figures.style import (
    GAP,
    INK,
    MODEL_COLOURS,
    SMALL,
    TEXT,
    drawing,
    legend_width,
    svg,
    text_width,
    widest,
    wrapped,
)
from pipelines.report.words import arrow, shown

DOT, BEST = "#7da7d4", "#2563a8"
LINES: tuple[Any, ...] = (("#9aa5b1", (0, (1, 1.5))), ("#647382", (0, (6, 2))))  # of the baselines
LEVELS = MODEL_COLOURS
WIDE = 3.6  # inches of the axes
REACH = 0.6  # lines farther from the dots than this share of their range are named at the edge instead of drawn


def dots(compared: Compared, path: str, title: str) -> str:
    """A line a system: every seed a dot, the mean a stroke; baselines and the truth as lines, or as words at the edge.

    At least one system must have a value.
    """
    rows = [row for row in compared.systems if row.scores[path].mean is not None]
    values = [value for row in rows for value in row.scores[path].by_seed.values()]
    low, high = min(values), max(values)
    size = max(high - low, 1e-4)
    near = lambda value: low - REACH * size <= value <= high + REACH * size
    lines = {row.label: row for row in compared.rows if row.role != "system" and row.scores[path].mean is not None}
    drawn = {label: value for label, row in lines.items() if near(value := row.scores[path].mean or 0.0)}
    low, high = min([low, *drawn.values()]), max([high, *drawn.values()])
    margin = 0.08 * max(high - low, 1e-4)
    far = {label: row.scores[path].mean or 0.0 for label, row in lines.items() if label not in drawn}
    left = " · ".join(f"← {label} {shown(value)}" for label, value in far.items() if value < low)
    right = " · ".join(f"{label} {shown(value)} →" for label, value in far.items() if value > high)
    edges = [(text, side) for text, side in ((left, "left"), (right, "right")) if text]
    fits = sum(text_width(text, SMALL) + GAP for text, _ in edges) <= WIDE
    labels = {label: f"{label} {shown(value)}" for label, value in drawn.items()}
    beside = legend_width(labels.values()) if drawn else 0.1
    wide = max(WIDE, *(text_width(text, SMALL) for text, _ in edges)) if edges else WIDE
    width, height = 0.3 + widest(row.label for row in rows) + wide + beside, 0.95 + 0.27 * len(rows)
    with drawing(1, (width, height + (0.15 if edges and not fits else 0))) as (figure, (axes,)):
        for place, row in enumerate(rows):
            score = row.scores[path]
            colour = BEST if score.place == 1 else DOT
            seeds = list(score.by_seed.values())
            axes.scatter(
                seeds, [place] * len(seeds), s=26, color=colour, alpha=0.75, edgecolor="white", linewidth=0.5, zorder=3
            )
            axes.plot([score.mean] * 2, [place - 0.3, place + 0.3], color=INK, linewidth=1.6, zorder=4)
        for label, value in drawn.items():
            colour, dash = LINES[list(lines).index(label) % len(LINES)] if lines[label].role != "truth" else (INK, (0, (3, 2)))
            axes.axvline(value, label=labels[label], color=colour, linestyle=dash, linewidth=1.2)
        axes.set_xlim(low - margin, high + margin)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(_number)
        axes.locator_params(axis="x", nbins=6)
        axes.grid(axis="y", visible=False)
        axes.set_title(wrapped(title + arrow(path), wide))
        for line, (text, side) in enumerate(edges):
            at = (0.0 if side == "left" else 1.0, 0.0)
            below = -22 - (0 if fits else 11 * line)  # points; two that do not fit side by side stand in two lines
            where: dict[str, Any] = {"xycoords": "axes fraction", "xytext": (0, below), "textcoords": "offset points"}
            axes.annotate(text, at, ha=side, va="top", fontsize=SMALL, color="#52606b", annotation_clip=False, **where)
        if drawn:
            figure.legend(loc="outside right upper")
        return svg(figure)


def by_level(scores: Mapping[str, Mapping[str, Score]], target: str, levels: Sequence[str]) -> str:
    """A line a system: the mean AUC of every level, with the deviation over seeds, and what Gini makes of them.

    Args:
        scores: of every level and `gini`, by system; at least one system has all levels.
    """
    known = {label: own for label, own in scores.items() if all(own[level].mean is not None for level in levels)}
    width = 0.3 + widest(known) + WIDE + text_width("Gini ↓", TEXT, "bold") + legend_width(levels)
    with drawing(1, (width, 1.15 + 0.3 * len(known))) as (figure, (axes,)):
        for place, own in enumerate(known.values()):
            means = [own[level].mean or 0.0 for level in levels]
            axes.plot([min(means), max(means)], [place, place], color="#d9dee3", linewidth=3, zorder=1)
            for i, level in enumerate(levels):
                error = {"xerr": own[level].std, "elinewidth": 1.0} if own[level].std is not None else {}
                label = level if place == 0 else None
                axes.errorbar(means[i], place, fmt="o", markersize=5, color=LEVELS[i % len(LEVELS)], label=label, **error)
            axes.text(1.01, place, shown(own["gini"].mean), transform=axes.get_yaxis_transform(), va="center")
        axes.text(1.01, -0.9, "Gini ↓", transform=axes.get_yaxis_transform(), va="center", fontweight="bold")
        axes.set_ylim(len(known) - 0.5, -0.5)
        axes.set_yticks(range(len(known)), list(known))
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(_number)
        axes.grid(axis="y", visible=False)
        axes.set_title(wrapped(f"{target} · AUC by level", WIDE))
        axes.set_xlabel("mean over seeds, with their deviation")
        figure.legend(loc="outside right upper")
        return svg(figure)


def over_values(curve: CurveDrawn, path: str, title: str) -> str:
    """A metric over the values of a setting, evenly spaced: every seed a dot, a line through the means with the deviation over
    seeds, and a dashed line at the value that the system has by itself. At least one value must have been scored."""
    scores = dict(enumerate(curve.scores[path]))
    known = {place: score for place, score in scores.items() if score.mean is not None}
    slot = max(0.42, widest(curve.values, TEXT, "bold") + GAP)
    wide = slot * max(len(scores), 4)
    with drawing(1, (0.8 + wide, 2.5)) as (figure, (axes,)):
        axes.axvline(curve.own, color="#9aa5b1", linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        for place, score in known.items():
            seeds = list(score.by_seed.values())
            axes.scatter([place] * len(seeds), seeds, s=16, color=DOT, alpha=0.75, edgecolor="white", linewidth=0.5, zorder=2)
        spread = [score.std or 0.0 for score in known.values()]
        means = [score.mean for score in known.values()]
        style = {"marker": "o", "markersize": 4.5, "linewidth": 1.5, "elinewidth": 1.0, "capsize": 2.5}
        axes.errorbar(list(known), means, yerr=spread if any(spread) else None, color=BEST, zorder=3, **style)
        axes.set_xlim(-0.5, len(scores) - 0.5)
        axes.set_xticks(range(len(scores)), curve.values)
        axes.get_xticklabels()[curve.own].set_fontweight("bold")
        axes.yaxis.set_major_formatter(_number)
        axes.locator_params(axis="y", nbins=6)
        axes.grid(axis="x", visible=False)
        axes.set_title(wrapped(title + arrow(path), wide))
        axes.set_xlabel(wrapped(curve.title, wide, TEXT, "normal"))
        return svg(figure)


def _number(value: float, _: int) -> str:
    """An axis' number, no longer than it must be."""
    return shown(value).rstrip("0").rstrip(".") or "0"
