"""Pictures of a report as self-contained SVG data URLs."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

INK, FAINT = "#1f2933", "#d9dee3"
MODEL_COLOURS = ("#2563a8", "#d97706", "#0f8a6d", "#9333a8", "#c2344d", "#5a7d1a")
BASELINE_COLOURS = ("#9aa5b1", "#647382")
TARGET_COLOURS = ("#2563a8", "#d97706", "#0f8a6d", "#9333a8", "#c2344d", "#5a7d1a", "#0e7490", "#a16207")
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9aa5b1",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": "#e8ebee",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "liverank",  # same numbers, same bytes
}


def colours(roles: Mapping[str, str]) -> dict[str, str]:
    """A colour for every entry: models in strong ones, baselines grey, the truth in ink."""
    found: dict[str, str] = {}
    for role, palette in (("model", MODEL_COLOURS), ("baseline", BASELINE_COLOURS), ("truth", (INK,))):
        names = [name for name, own in roles.items() if own == role]
        found |= {name: palette[i % len(palette)] for i, name in enumerate(names)}
    return found


def level_bars(
    title: str,
    by_entry: Mapping[str, Mapping[str, float | None]],
    colour: Mapping[str, str],
    *,
    ceiling: Mapping[str, float | None] | None = None,
    from_zero: bool = False,
) -> str:
    """A group of bars for every level, a bar for every entry; `ceiling` as a dash over the group."""
    levels = list(next(iter(by_entry.values())))
    with _axes(1, (5.2, 3.0)) as (figure, (axes,)):
        width = 0.8 / len(by_entry)
        for i, (name, values) in enumerate(by_entry.items()):
            places = [level + (i - (len(by_entry) - 1) / 2) * width for level in range(len(levels))]
            heights = [values[level] if values[level] is not None else float("nan") for level in levels]
            axes.bar(places, heights, width * 0.92, color=colour[name], label=name)
        for place, level in enumerate(levels):
            if ceiling is not None and ceiling.get(level) is not None:
                label = "truth" if place == 0 else None
                axes.hlines(
                    ceiling[level], place - 0.42, place + 0.42, color=INK, linestyle=(0, (3, 2)), linewidth=1.2, label=label
                )
        known = [value for values in (*by_entry.values(), ceiling or {}) for value in values.values() if value is not None]
        if not from_zero and known:
            low, high = min([*known, 0.5]), max(known)
            margin = 0.06 * (high - low + 0.01)
            axes.set_ylim(low - margin if low < 0.5 else 0.5, high + margin)
        axes.set_xticks(range(len(levels)), levels)
        axes.grid(axis="x", visible=False)
        axes.set_title(title)
        _legend(axes)
        return _svg(figure)


def calibration(title: str, curves: Mapping[str, Sequence[Mapping[str, Any]]], colour: Mapping[str, str], *, unit: str) -> str:
    """Mean label over mean prediction in bins of equal frequency; on the diagonal, predictions mean what they say."""
    points = [point for curve in curves.values() for point in curve if point["predicted"] > 0 and point["observed"] > 0]
    with _axes(1, (4.2, 3.0)) as (figure, (axes,)):
        if points:
            values = [point[which] for point in points for which in ("predicted", "observed")]
            logarithmic = max(values) > 30 * min(values)
            low, high = (min(values) / 1.3, max(values) * 1.3) if logarithmic else (0.0, max(values) * 1.05)
            axes.plot([low, high], [low, high], color="#9aa5b1", linewidth=1, linestyle=(0, (4, 3)))
            for name, curve in curves.items():
                shown = [point for point in curve if not logarithmic or (point["predicted"] > 0 and point["observed"] > 0)]
                x, y = [point["predicted"] for point in shown], [point["observed"] for point in shown]
                axes.plot(x, y, color=colour[name], linewidth=1.3, marker="o", markersize=2.8, label=name)
            if logarithmic:
                axes.set_xscale("log")
                axes.set_yscale("log")
            axes.set_xlim(low, high)
            axes.set_ylim(low, high)
        axes.set_xlabel(f"predicted {unit}")
        axes.set_ylabel(f"observed {unit}")
        axes.set_title(title)
        _legend(axes)
        return _svg(figure)


def learning_curves(history: Sequence[Mapping[str, Any]], best_epoch: int | None) -> str:
    """Training loss of every target, relative to its first epoch, and validation AUC of every binary one, by epoch.

    Args:
        history: records of epochs: `epoch` (from 0), `losses` by target, `metrics` (as `Evaluation.result`, or None).
        best_epoch: counted from 1; marked.
    """
    epochs = [record["epoch"] + 1 for record in history]
    targets = list(history[0]["losses"])
    colour = {name: TARGET_COLOURS[i % len(TARGET_COLOURS)] for i, name in enumerate(targets)}
    with _axes(2, (9.6, 2.9)) as (figure, (left, right)):
        style = {"marker": "o", "markersize": 3, "linewidth": 1.4}
        for name in targets:
            first = history[0]["losses"][name]
            values = [record["losses"].get(name, float("nan")) / first if first else float("nan") for record in history]
            left.plot(epochs, values, color=colour[name], label=name, **style)
            scores = [(record["metrics"] or {"targets": {}})["targets"].get(name, {}).get("auc") for record in history]
            if any(value is not None for value in scores):
                values = [float("nan") if value is None else value for value in scores]
                right.plot(epochs, values, color=colour[name], label=name, **style)
        if best_epoch is not None:
            right.axvline(best_epoch, color="#9aa5b1", linewidth=1, linestyle=(0, (3, 2)), label="best epoch")
        left.set_title("Training loss (first epoch = 1)")
        right.set_title("Validation AUC")
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.set_xticks(epochs if len(epochs) <= 15 else epochs[:: len(epochs) // 10])
            _legend(axes)
        return _svg(figure)


# -- parts ---------------------------------------------------------------------------------------------------------


@contextmanager
def _axes(columns: int, size: tuple[float, float]) -> Iterator[tuple[Any, list[Any]]]:
    """A figure outside of pyplot's registry (nothing to close, no display), with the report's style."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)


def _svg(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
