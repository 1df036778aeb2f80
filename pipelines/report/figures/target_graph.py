"""The graph of targets: boxes from left to right, with what its edges carry."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from models.layers.graph import depths
from pipelines.report.figures.style import GAP, SMALL, SOFT, TEXT, drawing, svg, widest

BETWEEN, DOWN, NARROWEST, BOX_HEIGHT = 1.13, 0.62, 1.2, 0.44  # inches: between boxes, from row to row, size of a box


def target_graph(names: Sequence[str], notes: Mapping[str, str], edges: Mapping[tuple[str, str], float | None]) -> str:
    """Targets from left to right, children to the right of all their parents; as of `draw_graph`."""
    with drawing(1, size_of_graph(names, notes, list(edges))) as (figure, (axes,)):
        draw_graph(axes, names, notes, edges)
        return svg(figure)


def box_width(names: Sequence[str], notes: Mapping[str, str]) -> float:
    """Inches that a box needs for its name and note."""
    return max(NARROWEST, widest(names, TEXT, "bold") + 2 * GAP, widest(notes.values(), SMALL) + 2 * GAP)


def size_of_graph(names: Sequence[str], notes: Mapping[str, str], edges: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """Width and height in inches in which boxes have the size of their text."""
    box = box_width(names, notes)
    at = _places(names, edges)[0].values()
    columns, rows = max(column for column, _ in at), [row for _, row in at]
    return columns * (box + BETWEEN) + box + 0.3, (max(rows) - min(rows) + 1) * DOWN + 0.2


def draw_graph(
    axes: Any, names: Sequence[str], notes: Mapping[str, str], edges: Mapping[tuple[str, str], float | None]
) -> None:
    """Targets from left to right, children to the right of all their parents, on axes of `size_of_graph`.

    Args:
        notes: what stands under a target's name.
        edges: by (parent, child) what is carried, as number at the arrow and its width, red below 0; None is an arrow alone.
    """
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path

    place, ways = _places(names, list(edges))
    box = box_width(names, notes)
    at = {spot: (column * (box + BETWEEN), row * DOWN) for spot, (column, row) in place.items()}
    right, low, high = max(x for x, _ in at.values()), min(y for _, y in at.values()), max(y for _, y in at.values())
    most = max([abs(value) for value in edges.values() if value is not None], default=0.0)
    axes.set_xlim(-box / 2 - 0.12, right + box / 2 + 0.12)
    axes.set_ylim(high + 0.4, low - 0.4)
    axes.axis("off")
    for (parent, child), value in edges.items():
        x, y = at[parent]
        points, codes = [(x + box / 2, y)], [Path.MOVETO]
        for spot in ways[parent, child]:
            (x, y), (last_x, last_y) = at[spot], points[-1]
            middle = (last_x + x - box / 2) / 2
            points += [(middle, last_y), (middle, y), (x - box / 2, y)]
            codes += [Path.CURVE4] * 3
            if spot != child:
                points.append((x + box / 2, y))
                codes.append(Path.LINETO)
        line = 0.9 + 3.1 * abs(value) / most if value is not None and most else 1.1
        arrow: dict[str, Any] = {"arrowstyle": "-|>", "mutation_scale": 9 + line, "linewidth": line}
        arrow["color"] = "#c2344d" if value is not None and value < 0 else "#7b8fa6"
        axes.add_patch(FancyArrowPatch(path=Path(points, codes), shrinkA=0, shrinkB=0, zorder=1, **arrow))
        if value is not None:
            if len(ways[parent, child]) > 1:  # on the way past other targets
                x, y = at[ways[parent, child][0]]
            else:
                # on the curve where edges are far from each other: nearer to the end with fewer of them
                out, into = (sum(pair[end] == name for pair in edges) for end, name in enumerate((parent, child)))
                (px, py), (cx, cy) = (points[0], points[-1]) if out >= into else (points[-1], points[0])
                x, y = px + 0.616 * (cx - px), py + 0.718 * (cy - py)
            white = {"facecolor": "white", "edgecolor": "none", "pad": 1.2}
            axes.text(x, y, f"{value:.3g}", fontsize=SMALL, ha="center", va="center", zorder=3, bbox=white)
    for name in names:
        x, y = at[name]
        frame = FancyBboxPatch(
            (x - box / 2, y - BOX_HEIGHT / 2),
            box,
            BOX_HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.07",
            facecolor="#eef3f9",
            edgecolor="#2563a8",
            linewidth=1,
            zorder=2,
        )
        axes.add_patch(frame)
        note = notes.get(name, "")
        axes.text(x, y - (0.085 if note else 0), name, ha="center", va="center", weight="bold", fontsize=TEXT, zorder=3)
        axes.text(x, y + 0.1, note, ha="center", va="center", fontsize=SMALL, color=SOFT, zorder=3)


def _places(
    names: Sequence[str], edges: Sequence[tuple[str, str]]
) -> tuple[dict[Hashable, tuple[int, float]], dict[tuple[str, str], list[Hashable]]]:
    """Where targets stand, and where edges go.

    Returns:
        column and row of every target: a column per depth, a child beside its parents, never two in one place; an edge that
        passes columns has a place of its own in each; and by edge, the places after the parent, the child last.
    """
    parents = {name: tuple(parent for parent, child in edges if child == name) for name in names}
    column: dict[Hashable, int] = {name: depth for name, depth in depths(parents).items()}
    ways: dict[tuple[str, str], list[Hashable]] = {}
    for parent, child in edges:
        passed: list[Hashable] = [(parent, child, between) for between in range(column[parent] + 1, column[child])]
        column |= {spot: column[parent] + 1 + i for i, spot in enumerate(passed)}
        ways[parent, child] = [*passed, child]
    before: dict[Hashable, list[Hashable]] = {spot: [] for spot in column}
    for (parent, _), way in ways.items():
        for last, spot in zip([parent, *way], way, strict=False):
            before[spot].append(last)
    place: dict[Hashable, tuple[int, float]] = {}
    for depth in range(max(column.values()) + 1):
        wanted: dict[Hashable, float] = {}
        for spot in column:
            if column[spot] == depth:
                above = [place[last][1] for last in before[spot]]
                wanted[spot] = sum(above) / len(above) if above else 0.0
        rows: dict[Hashable, float] = {}
        for spot in sorted(wanted, key=wanted.__getitem__):
            rows[spot] = max(wanted[spot], max(rows.values()) + 1) if rows else wanted[spot]
        back = sum(rows[spot] - wanted[spot] for spot in rows) / len(rows)
        place |= {spot: (depth, row - back) for spot, row in rows.items()}
    return place, ways
