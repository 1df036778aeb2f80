"""Calibration: what was predicted against what was observed."""

from collections.abc import Mapping, Sequence

from pipelines.report.evaluation.metrics import CalibrationPoint
from pipelines.report.figures.style import RULE, drawing, legend, legend_width, svg


def calibration(title: str, curves: Mapping[str, Sequence[CalibrationPoint]], colour: Mapping[str, str], *, unit: str) -> str:
    """Mean label over mean prediction in bins of equal frequency; on the diagonal, predictions mean what they say."""
    from matplotlib.ticker import LogLocator, NullFormatter

    points = [point for curve in curves.values() for point in curve if point.predicted > 0 and point.observed > 0]
    with drawing(1, (3.0 + legend_width(curves), 3.0)) as (figure, (axes,)):
        if points:
            values = [value for point in points for value in (point.predicted, point.observed)]
            logarithmic = max(values) > 30 * min(values)
            low, high = (min(values) / 1.3, max(values) * 1.3) if logarithmic else (0.0, max(values) * 1.05)
            axes.plot([low, high], [low, high], color=RULE, linewidth=1, linestyle=(0, (4, 3)))
            for name, curve in curves.items():
                shown = [point for point in curve if not logarithmic or (point.predicted > 0 and point.observed > 0)]
                x, y = [point.predicted for point in shown], [point.observed for point in shown]
                axes.plot(x, y, color=colour[name], linewidth=1.3, marker="o", markersize=2.8, label=name)
            if logarithmic:
                axes.set_xscale("log")
                axes.set_yscale("log")
                for axis in (axes.xaxis, axes.yaxis):
                    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
                    axis.set_major_formatter(lambda value, _: f"{value:g}")
                    axis.set_minor_formatter(NullFormatter())
            axes.set_xlim(low, high)
            axes.set_ylim(low, high)
        axes.set_xlabel(f"predicted {unit}")
        axes.set_ylabel(f"observed {unit}")
        axes.set_title(title)
        legend(axes)
        return svg(figure)
