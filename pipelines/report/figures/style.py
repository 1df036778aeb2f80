"""What all pictures share: colours, fonts, the measures of text, and how a figure becomes a data URL."""

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

INK, SOFT, RULE = "#1f2933", "#5b6770", "#9aa5b1"
MODEL_COLOURS = ("#2563a8", "#d97706", "#0f8a6d", "#9333a8", "#c2344d", "#5a7d1a")
BASELINE_COLOURS = ("#9aa5b1", "#647382")
TARGET_COLOURS = ("#2563a8", "#d97706", "#0f8a6d", "#9333a8", "#c2344d", "#5a7d1a", "#0e7490", "#a16207")
TITLE, TEXT, SMALL = 10, 9, 8  # points
GAP = 0.1  # inches between two labels at least
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": TEXT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": TITLE,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": "#e8ebee",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "svg.hashsalt": "liverank",  # same numbers, same bytes
}


def colours(roles: Mapping[str, str]) -> dict[str, str]:
    """A colour for every entry: models in strong ones, baselines grey, the truth in ink."""
    found: dict[str, str] = {}
    for role, palette in (("model", MODEL_COLOURS), ("baseline", BASELINE_COLOURS), ("truth", (INK,))):
        names = [name for name, own in roles.items() if own == role]
        found |= {name: palette[i % len(palette)] for i, name in enumerate(names)}
    return found


# -- measures ------------------------------------------------------------------------------------------------------


@cache
def text_width(text: str, size: float = TEXT, weight: str = "normal") -> float:
    """Inches that the text takes in the pictures' font; of several lines the longest one's."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="sans-serif", size=size, weight=weight)
    return max(text_to_path.get_text_width_height_descent(line, font, False)[0] for line in text.split("\n")) / 72


def widest(texts: Iterable[str], size: float = TEXT, weight: str = "normal") -> float:
    """Inches that the widest of the texts takes; 0 without any."""
    return max((text_width(text, size, weight) for text in texts), default=0.0)


def wrapped(text: str, inches: float, size: float = TITLE, weight: str = "bold") -> str:
    """The text in lines that are no wider, cut between words; a word that is wider alone stays whole."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and text_width(f"{lines[-1]} {word}", size, weight) <= inches:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def legend_width(names: Iterable[str]) -> float:
    """Inches that a legend of these names takes beside its axes."""
    return widest(names, SMALL) + 0.42


# -- figures -------------------------------------------------------------------------------------------------------


@contextmanager
def drawing(columns: int, size: tuple[float, float]) -> Iterator[tuple[Any, list[Any]]]:
    """A figure outside of pyplot's registry (nothing to close, no display), with the report's style.

    Args:
        columns: panels beside each other.
        size: width and height in inches.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, list(figure.subplots(1, columns, squeeze=False)[0])


def legend(axes: Any) -> None:
    """A legend to the right of the axes, if there is anything to explain."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)


def thin_ticks(figure: Any) -> None:
    """Blanks labels of numeric axes until none touches the next; names that were given to places stay.

    Call it when all else of the figure is in place.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter

    figure.draw_without_rendering()
    for axes in figure.axes:
        for axis, ends_of in ((axes.xaxis, lambda box: (box.x0, box.x1)), (axes.yaxis, lambda box: (box.y0, box.y1))):
            is_named = isinstance(axis.get_major_locator(), FixedLocator) and isinstance(
                axis.get_major_formatter(), FuncFormatter
            )
            if is_named or not axes.axison:
                continue
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high and tick.label1.get_text()]
            ends = [ends_of(tick.label1.get_window_extent()) for tick in ticks]
            every = _step_without_touch(ends, GAP / 3 * figure.dpi)
            if every > 1:
                texts = [tick.label1.get_text() if i % every == 0 else "" for i, tick in enumerate(ticks)]
                axis.set_ticks([tick.get_loc() for tick in ticks], texts)


def _step_without_touch(ends: Sequence[tuple[float, float]], apart: float) -> int:
    """The smallest step with which labels that reach from one end to another leave so much room between them."""
    for every in range(1, len(ends)):
        kept = sorted(ends[::every])
        if all(after[0] - before[1] >= apart for before, after in pairwise(kept)):
            return every
    return max(len(ends), 1)


def svg(figure: Any) -> str:
    """The figure as a data URL; the same figure gives the same bytes."""
    thin_ticks(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def png(file: Path) -> str:
    """A picture that lies on disk as a data URL."""
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
