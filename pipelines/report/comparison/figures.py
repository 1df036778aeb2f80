"""Pictures of a comparison as self-contained SVG data URLs."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.compare.curves import Drawn
from pipelines.compare.scores import Score
from pipelines.compare.table import Compared
from pipelines.report.figures import INK, MODEL_COLOURS, drawing, svg
from pipelines.report.words import arrow, shown

DOT, BEST = "#7da7d4", "#2563a8"
LINES: tuple[Any, ...] = (("#9aa5b1", (0, (1, 1.5))), ("#647382", (0, (6, 2))))  # of the floors
LEVELS = MODEL_COLOURS
REACH = 0.6  # lines farther from the dots than this share of their range are told at the edge instead of drawn


def dots(compared: Compared, path: str, title: str) -> str:
    """A line a system: every seed a dot, the mean a stroke; floors and the truth as lines, or as words at the edge.

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
    with drawing(1, (5.4, 0.95 + 0.27 * len(rows))) as (figure, (axes,)):
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
            axes.axvline(value, label=f"{label} {shown(value)}", color=colour, linestyle=dash, linewidth=1.2)
        axes.set_xlim(low - margin, high + margin)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(_number)
        axes.locator_params(axis="x", nbins=6)
        axes.grid(axis="y", visible=False)
        axes.set_title(title + arrow(path))
        far = {label: row.scores[path].mean or 0.0 for label, row in lines.items() if label not in drawn}
        left = [f"← {label} {shown(value)}" for label, value in far.items() if value < low]
        right = [f"{label} {shown(value)} →" for label, value in far.items() if value > high]
        for text, side in ((" · ".join(left), "left"), (" · ".join(right), "right")):
            if text:
                x = 0.0 if side == "left" else 1.0
                where = {"xy": (x, 0), "xycoords": "axes fraction", "xytext": (0, -22), "textcoords": "offset points"}
                axes.annotate(text, ha=side, va="top", fontsize=8, color="#52606b", annotation_clip=False, **where)
        if drawn:
            figure.legend(loc="outside right upper", fontsize=8)
        return svg(figure)


def by_level(scores: Mapping[str, Mapping[str, Score]], target: str, levels: Sequence[str]) -> str:
    """A line a system: the mean AUC of every level, with the deviation over seeds, and what Gini makes of them.

    Args:
        scores: of every level and `gini`, by system; at least one system has all levels.
    """
    known = {label: own for label, own in scores.items() if all(own[level].mean is not None for level in levels)}
    with drawing(1, (6.4, 1.15 + 0.3 * len(known))) as (figure, (axes,)):
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
        axes.set_title(f"{target} · AUC by level")
        axes.set_xlabel("mean over seeds, with their deviation")
        figure.legend(loc="outside right upper", fontsize=8)
        return svg(figure)


def over_values(curve: Drawn, path: str, title: str) -> str:
    """A metric over the values of a setting, evenly spaced: every seed a dot, a line through the means with the deviation over
    seeds, and a dashed line at the value that the system has by itself. At least one value must have been scored."""
    scores = dict(enumerate(curve.scores[path]))
    known = {place: score for place, score in scores.items() if score.mean is not None}
    with drawing(1, (1.6 + 0.42 * max(len(scores), 4), 2.5)) as (figure, (axes,)):
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
        axes.set_title(title + arrow(path))
        axes.set_xlabel(curve.title)
        return svg(figure)


def _number(value: float, _: int) -> str:
    """An axis' number, no longer than it must be."""
    return shown(value).rstrip("0").rstrip(".") or "0"
