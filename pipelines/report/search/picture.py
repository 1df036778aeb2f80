"""A search as a picture: the metric over the trials, and against every setting; of two metrics, trials in their plane with
the Pareto front.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.report.figures.style import GAP, SMALL, TEXT, thin_ticks, widest, wrapped
from pipelines.report.search.trials import Axis, Trial

COLOURS = {"done": "#2563a8", "stopped": "#b8c4cf"}
FRONT = "#d97706"
COLUMNS = 3
PANEL = 4.2  # inches


def draw(path: Path, trials: Sequence[Trial], settings: Sequence[Axis], metrics: Sequence[str], *, largest: bool) -> None:
    """Writes a PNG; trials without any finished epoch are left out.

    Args:
        settings: that were searched over.
        metrics: the first two are drawn.
        largest: whether the first metric is to be large.
    """
    import matplotlib
    from matplotlib import ticker
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sorted((trial for trial in trials if trial.score is not None), key=lambda trial: trial.number)
    metric, *others = metrics
    panels = 1 + bool(others) + len(settings)
    rows = -(-panels // COLUMNS)
    style: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(PANEL * min(panels, COLUMNS), 3.1 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, min(panels, COLUMNS), squeeze=False).flat
        first = next(grid)
        _scatter(first, shown, [trial.number for trial in shown])
        pick = max if largest else min
        scores = [trial.score for trial in shown if trial.score is not None]
        best = [pick(scores[: i + 1]) for i in range(len(scores))]
        first.step([trial.number for trial in shown], best, where="post", color="#d97706", linewidth=1.3, label="best so far")
        first.set(xlabel="trial", ylabel=wrapped_label(metric))
        first.xaxis.get_major_locator().set_params(integer=True)
        first.legend(frameon=False, fontsize=8)
        if others:
            _plane(next(grid), shown, metric, others[0])
        for axes, setting in zip(grid, settings, strict=False):
            values = [trial.values[setting.path] for trial in shown]
            if setting.choices:
                names = [str(value) for value in setting.choices]
                values = [setting.choices.index(value) for value in values]
                axes.set_xticks(range(len(names)), names)
                if (widest(names, TEXT) + GAP) * len(names) > PANEL - 0.9:
                    for label in axes.get_xticklabels():
                        label.set(rotation=35, ha="right", rotation_mode="anchor")
                axes.set_xlim(-0.5, len(names) - 0.5)
            elif setting.is_log:
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
                axes.xaxis.set_minor_locator(ticker.NullLocator())
            elif setting.is_whole:
                axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
            _scatter(axes, shown, values)
            axes.set(xlabel=setting.path, ylabel=wrapped_label(metric))
        for axes in figure.axes:
            axes.grid(color="#e8ebee")
        for axes in figure.axes[panels:]:
            axes.set_visible(False)
        thin_ticks(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130)
        path.write_bytes(buffer.getvalue())


def _scatter(axes: Any, trials: Sequence[Trial], x: Sequence[float]) -> None:
    for status, colour in COLOURS.items():
        here = [
            (at, trial.score) for at, trial in zip(x, trials, strict=True) if (trial.status == "done") == (status == "done")
        ]
        if here:
            label = status if status == "done" else "stopped early"
            axes.scatter(*zip(*here, strict=True), s=28, color=colour, edgecolor="white", linewidth=0.6, label=label)


def _plane(axes: Any, trials: Sequence[Trial], first: str, second: str) -> None:
    """Trials by two metrics; those of the front are joined and numbered."""
    for trial in trials:
        axes.scatter(
            trial.scores[second],
            trial.scores[first],
            s=34 if trial.front else 22,
            color=FRONT if trial.front else COLOURS["done" if trial.status == "done" else "stopped"],
            edgecolor="white",
            linewidth=0.6,
            zorder=3 if trial.front else 2,
        )
    front = sorted((trial.scores[second], trial.scores[first], trial.number) for trial in trials if trial.front)
    axes.plot([x for x, _, _ in front], [y for _, y, _ in front], color=FRONT, linewidth=1.2, label="Pareto front")
    axes.set(xlabel=second, ylabel=wrapped_label(first))
    _number(axes, front)
    axes.legend(frameon=False, fontsize=8)


def _number(axes: Any, front: Sequence[tuple[float, float, int]]) -> None:
    """Writes the trials' numbers beside their points; one that would touch the last gets no number, the table has them all."""
    (low_x, high_x), (low_y, high_y) = axes.get_xlim(), axes.get_ylim()
    across, down = (PANEL - 0.9) / ((high_x - low_x) or 1), 2.4 / ((high_y - low_y) or 1)  # inches a unit, about
    last: tuple[float, float, float] | None = None
    for x, y, number in front:
        left, bottom, wide = x * across, y * down, widest([str(number)], SMALL)
        if last is None or left > last[2] + GAP / 2 or abs(bottom - last[1]) > 0.15:
            axes.annotate(str(number), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=SMALL)
            last = left, bottom, left + wide


def wrapped_label(metric: str) -> str:
    """The name of a metric in lines as long as a panel is high."""
    return wrapped(metric, 2.6, TEXT, "normal")
