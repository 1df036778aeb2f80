"""A search as a picture: the metric over the trials, and against every parameter."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tune.config import Choice, Int, LogUniform, TuneConfig

if TYPE_CHECKING:
    from pipelines.tune.search import Trial

COLOURS = {"done": "#2563a8", "stopped": "#b8c4cf"}
COLUMNS = 3


def draw(path: Path, trials: Sequence["Trial"], config: TuneConfig, metric: str, mode: str) -> None:
    """Writes a PNG; trials without any finished epoch are left out."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sorted((trial for trial in trials if trial.score is not None), key=lambda trial: trial.number)
    panels = 1 + len(config.space)
    rows = -(-panels // COLUMNS)
    style: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.2 * min(panels, COLUMNS), 3.1 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, min(panels, COLUMNS), squeeze=False).flat
        first = next(grid)
        _scatter(first, shown, [trial.number for trial in shown])
        pick = max if mode == "max" else min
        scores = [trial.score for trial in shown if trial.score is not None]
        best = [pick(scores[: i + 1]) for i in range(len(scores))]
        first.step([trial.number for trial in shown], best, where="post", color="#d97706", linewidth=1.3, label="best so far")
        first.set(xlabel="trial", ylabel=metric)
        first.xaxis.get_major_locator().set_params(integer=True)
        first.legend(frameon=False, fontsize=8)
        for axes, (name, dimension) in zip(grid, config.space.items(), strict=False):
            values = [trial.values[name] for trial in shown]
            if isinstance(dimension, Choice):
                names = [str(value) for value in dimension.values]
                values = [list(dimension.values).index(value) for value in values]
                axes.set_xticks(range(len(names)), names, rotation=20 if max(map(len, names)) > 8 else 0)
                axes.set_xlim(-0.5, len(names) - 0.5)
            elif isinstance(dimension, LogUniform) or (isinstance(dimension, Int) and dimension.log):
                axes.set_xscale("log")
            _scatter(axes, shown, values)
            axes.set(xlabel=name, ylabel=metric)
        for axes in figure.axes:
            axes.grid(color="#e8ebee")
        for axes in figure.axes[panels:]:
            axes.set_visible(False)
        figure.savefig(path, dpi=130)


def _scatter(axes: Any, trials: Sequence["Trial"], x: Sequence[float]) -> None:
    for status, colour in COLOURS.items():
        here = [
            (at, trial.score) for at, trial in zip(x, trials, strict=True) if (trial.status == "done") == (status == "done")
        ]
        if here:
            label = status if status == "done" else "stopped early"
            axes.scatter(*zip(*here, strict=True), s=28, color=colour, edgecolor="white", linewidth=0.6, label=label)
