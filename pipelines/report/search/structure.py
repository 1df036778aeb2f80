"""A structure search as a picture: the score of every graph that was tried, and the graph that was found."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import stdev
from typing import Any

from pipelines.report.figures.style import GAP, SMALL, thin_ticks, widest
from pipelines.report.figures.target_graph import draw_graph, size_of_graph
from pipelines.report.search.graphs import StructureResult, Tried

TRIED, TAKEN = "#9aa5b1", "#d97706"
HEIGHT, MARGIN = 3.4, 0.75  # inches: of the picture, left of an axis
ACROSS = 0.24  # inches for every graph that was tried
TILT = 50  # degrees of the changes that are written at the graphs taken, steep enough for neighbours not to touch
TINY = 7  # points


def draw(path: Path, result: StructureResult, names: Sequence[str]) -> None:
    """Writes a PNG; graphs without a score are left out.

    Args:
        names: of the searched targets.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [each for each in result.tried if each.scores]
    edges = sorted(result.found.graph)
    graph_width, graph_height = size_of_graph(names, {}, edges)
    beside = widest([",\n".join(each.roles) for each in result.final], SMALL) + GAP  # for every graph of the last comparison
    path_width, final_width = min(max(4.5, ACROSS * len(shown)), 11.0), beside * (len(result.final) + 0.5)
    width, height = 2 * MARGIN + path_width + final_width + graph_width + 0.3, max(HEIGHT, graph_height + 0.5)
    style: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)

        def axes_at(left: float, wide: float, bottom: float, high: float) -> Any:
            return figure.add_axes((left / width, bottom / height, wide / width, high / height))

        _draw_path(axes_at(MARGIN, path_width, 0.6, height - 0.95), result, shown)
        _draw_final(axes_at(2 * MARGIN + path_width, final_width, 0.6, height - 0.95), result)
        left = 2 * MARGIN + path_width + final_width + 0.2
        axes = axes_at(left, graph_width, (height - graph_height) / 2, graph_height)
        draw_graph(axes, names, {}, dict.fromkeys(edges))
        axes.set_title(f"found: graph {result.found.number}" + ("" if edges else ", no edges"), fontsize=9)
        thin_ticks(figure)
        figure.savefig(path, dpi=130)


def _draw_path(axes: Any, result: StructureResult, shown: Sequence[Tried]) -> None:
    """Every graph's mean and spread over seeds by number, lines between rounds, and the way over the graphs taken."""
    _points(axes, [each.number for each in shown], [each.scores for each in shown], TRIED, "tried")
    by_number = {each.number: each for each in result.tried}
    way = [by_number[step.number] for step in result.steps if step.taken or step.round == 0]
    _points(axes, [each.number for each in way], [each.scores for each in way], TAKEN, "taken")
    last = result.tried[-1].number
    heights = [each.score for each in way]
    axes.step([*(each.number for each in way), last], [*heights, heights[-1]], where="post", color=TAKEN, linewidth=1.3)
    for each in way:
        axes.annotate(each.change, (each.number, each.score), (3, 7), textcoords="offset points", fontsize=TINY, rotation=TILT)
    for before, after in pairwise(result.tried):
        if after.round != before.round:
            axes.axvline(after.number - 0.5, color="#e8ebee", linewidth=1, zorder=0)
    axes.set(xlabel="graph tried", ylabel=result.metric if len(result.metric) < 40 else "score")
    axes.set_xlim(0.3, last + 0.9)
    axes.margins(y=0.15)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color="#e8ebee")
    axes.legend(frameon=False, fontsize=SMALL, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0)


def _draw_final(axes: Any, result: StructureResult) -> None:
    """The last comparison; its seeds are others, so it has an axis of its own."""
    places = range(len(result.final))
    _points(axes, places, [each.scores for each in result.final], TAKEN, "")
    names = [",\n".join(each.roles) for each in result.final]
    axes.set_xticks(places, names, fontsize=SMALL)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.margins(y=0.25)
    axes.grid(axis="y", color="#e8ebee")
    axes.set_title(f"seeds {', '.join(map(str, result.final_seeds))}", fontsize=SMALL)


def _points(axes: Any, places: Sequence[int], scores: Sequence[Sequence[float]], colour: str, label: str) -> None:
    means = [sum(each) / len(each) for each in scores]
    deviations = [stdev(each) if len(each) > 1 else 0.0 for each in scores]
    several = any(deviation > 0 for deviation in deviations)
    style: dict[str, Any] = {"fmt": "o", "color": colour, "markersize": 4.5, "elinewidth": 1, "label": label}
    axes.errorbar(places, means, yerr=deviations if several else None, **style)
