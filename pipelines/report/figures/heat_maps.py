"""Tables whose cells are coloured by their number."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.report.figures.style import GAP, INK, SMALL, TITLE, drawing, svg, widest, wrapped

ROW = 0.3  # inches
TILT = 40  # degrees of column names that do not fit side by side


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    texts: Sequence[Sequence[str]],
    *,
    most: float,
    row_title: str = "",
    column_title: str = "",
) -> str:
    """A table whose cells are the darker the larger; None stays blank. Cells are as wide as their texts need.

    Args:
        texts: what stands in the cells.
        most: the value of the darkest colour; the lightest is 0.
    """
    cell = _cell_width(columns, [text for row in texts for text in row])
    wide = cell * len(columns)
    name = wrapped(title, max(wide, widest(rows) + wide))
    size = (_names_width(rows) + wide + 0.15, ROW * len(rows) + _heads_height(columns, cell) + 0.45 + _more_lines(name))
    with drawing(1, size) as (figure, (axes,)):
        _cells(axes, rows, columns, values, texts, low=0.0, high=max(most, 1e-9), palette="Blues", cell=cell)
        axes.set_title(name)
        axes.set_ylabel(row_title)
        axes.set_xlabel(column_title)
        return svg(figure)


def differences(rows: Sequence[str], columns: Sequence[str], by_group: Mapping[str, Sequence[Sequence[float | None]]]) -> str:
    """A panel for every group with differences from the mean in hundredths, red above and blue below."""
    most = max((abs(value) for table in by_group.values() for row in table for value in row if value is not None), default=0)
    texts = {
        group: [["" if value is None else _signed(value) for value in row] for row in table]
        for group, table in by_group.items()
    }
    cell = _cell_width((), [text for table in texts.values() for row in table for text in row])
    cell = max(cell, (widest(by_group, TITLE, "bold") + GAP) / len(columns))
    width = _names_width(rows) + (cell * len(columns) + 0.2) * len(by_group)
    with drawing(len(by_group), (width, 0.27 * len(rows) + _heads_height(columns, cell) + 0.35)) as (figure, panels):
        for place, (axes, (group, table)) in enumerate(zip(panels, by_group.items(), strict=True)):
            names = rows if place == 0 else [""] * len(rows)
            high = max(most, 0.05)
            _cells(axes, names, columns, table, texts[group], low=-high, high=high, palette="RdBu_r", cell=cell)
            axes.set_title(group)
        return svg(figure)


def _cells(
    axes: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    texts: Sequence[Sequence[str]],
    *,
    low: float,
    high: float,
    palette: str,
    cell: float,
) -> None:
    table = [[float("nan") if value is None else value for value in row] for row in values]
    axes.imshow(table, cmap=palette, vmin=low, vmax=high, aspect="auto")
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            value = table[i][j]
            dark = value == value and (value - low) / (high - low) > 0.62 if low == 0 else abs(value) > 0.7 * high
            axes.text(j, i, text, ha="center", va="center", fontsize=SMALL, color="white" if dark else INK)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns)
    if not _side_by_side(columns, cell):
        for label in axes.get_xticklabels():
            label.set(rotation=TILT, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _signed(value: float) -> str:
    hundredths = round(100 * value)
    return f"{hundredths:+d}" if hundredths else "0"


def _cell_width(columns: Sequence[str], texts: Sequence[str]) -> float:
    """Wide enough for what stands in the cells, and for names of columns that are not much wider than that."""
    inside = max(0.3, widest(texts, SMALL) + GAP)
    names = widest(columns) + GAP
    return names if inside < names <= 1.5 * inside else inside


def _names_width(names: Sequence[str]) -> float:
    return 0.4 + widest(names)


def _side_by_side(columns: Sequence[str], cell: float) -> bool:
    """Whether the names of columns find place side by side."""
    return widest(columns) + GAP / 2 <= cell


def _heads_height(columns: Sequence[str], cell: float) -> float:
    return 0.25 if _side_by_side(columns, cell) else 0.2 + 0.65 * widest(columns)


def _more_lines(title: str) -> float:
    return 0.18 * title.count("\n")
