"""Pictures of a report as self-contained SVG data URLs."""

import base64
import io
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.layers.graph import depths
from models.schema import STAGES

INK, FAINT = "#1f2933", "#d9dee3"
MODEL_COLOURS = ("#2563a8", "#d97706", "#0f8a6d", "#9333a8", "#c2344d", "#5a7d1a")
BASELINE_COLOURS = ("#9aa5b1", "#647382")
TARGET_COLOURS = ("#2563a8", "#d97706", "#0f8a6d", "#9333a8", "#c2344d", "#5a7d1a", "#0e7490", "#a16207")
STAGE_COLOURS = ("#aeb8c2", "#e0a13a", "#3f7fbf", "#0f6b55")  # new, wander, stick, loyal
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


def group_bars(
    title: str,
    values: Mapping[str, Mapping[str, Mapping[str, float | None]]],
    colour: Mapping[str, str],
    *,
    ceiling: str | None = None,
    from_zero: bool = False,
    named: bool = False,
    notes: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """A group of bars for every level and every stage, a bar for every entry; `ceiling` as a dash over the group.

    Args:
        values: by what candidates are divided by (level, stage), by entry, by group.
        colour: of the entries that get bars.
        ceiling: the entry that is no contestant.
        named: below the groups' names stands what candidates are divided by.
        notes: below a group's name, by what candidates are divided by and group.
    """
    groups = [(by, name) for by, entries in values.items() for name in next(iter(entries.values()))]
    place = {group: i + 0.5 * list(values).index(group[0]) for i, group in enumerate(groups)}
    known: list[float] = []
    width = min(1.9 + 0.6 * len(groups), 9.6) if named else 5.2 if len(values) == 1 else 6.1
    with drawing(1, (width, 3.0)) as (figure, (axes,)):
        width = 0.8 / len(colour)
        for i, name in enumerate(colour):
            found = {group: values[group[0]].get(name, {}).get(group[1]) for group in groups}
            heights = [float("nan") if found[group] is None else found[group] for group in groups]
            places = [place[group] + (i - (len(colour) - 1) / 2) * width for group in groups]
            axes.bar(places, heights, width * 0.92, color=colour[name], label=name)
            known += [value for value in found.values() if value is not None]
        if ceiling is not None:
            tops = {group: values[group[0]].get(ceiling, {}).get(group[1]) for group in groups}
            lines = {place[group]: value for group, value in tops.items() if value is not None}
            ends = [at - 0.42 for at in lines], [at + 0.42 for at in lines]
            axes.hlines(list(lines.values()), *ends, color=INK, linestyle=(0, (3, 2)), linewidth=1.2, label=ceiling)
            known += lines.values()
        if not from_zero and known:
            low, high = min([*known, 0.5]), max(known)
            margin = 0.06 * (high - low + 0.01)
            axes.set_ylim(low - margin if low < 0.5 else 0.5, high + margin)
        below = [(notes or {}).get(by, {}).get(name) for by, name in groups]
        names = [name if note is None else f"{name}\n{note}" for (_, name), note in zip(groups, below, strict=True)]
        axes.set_xticks(list(place.values()), names)
        axes.set_xlim(-0.65, max(place.values()) + 0.65)
        if named:
            for by in values:
                own = [at for group, at in place.items() if group[0] == by]
                middle = (own[0] + own[-1]) / 2
                axes.text(middle, -0.13, by, ha="center", va="top", transform=axes.get_xaxis_transform(), color="#5b6770")
        axes.grid(axis="x", visible=False)
        axes.set_title(title)
        _legend(axes)
        return svg(figure)


def calibration(title: str, curves: Mapping[str, Sequence[Mapping[str, Any]]], colour: Mapping[str, str], *, unit: str) -> str:
    """Mean label over mean prediction in bins of equal frequency; on the diagonal, predictions mean what they say."""
    from matplotlib.ticker import LogLocator, NullFormatter

    points = [point for curve in curves.values() for point in curve if point["predicted"] > 0 and point["observed"] > 0]
    with drawing(1, (4.2, 3.0)) as (figure, (axes,)):
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
                for axis in (axes.xaxis, axes.yaxis):
                    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
                    axis.set_major_formatter(lambda value, _: f"{value:g}")
                    axis.set_minor_formatter(NullFormatter())
            axes.set_xlim(low, high)
            axes.set_ylim(low, high)
        axes.set_xlabel(f"predicted {unit}")
        axes.set_ylabel(f"observed {unit}")
        axes.set_title(title)
        _legend(axes)
        return svg(figure)


def learning_curves(
    history: Sequence[Mapping[str, Any]], targets: Sequence[str], trained: Collection[str], best_epoch: int | None
) -> str:
    """Training loss of every trained target, relative to its first epoch, and validation AUC of every binary one, by epoch.

    Losses that parts add are dashed, those of one part (`part.target`) as their sum.

    Args:
        history: records of epochs: `epoch` (from 0), `losses` by target, `metrics` (as `Evaluation.result`, or None).
        targets: all of the schema, which decide colours.
        trained: those that are shown.
        best_epoch: counted from 1; marked.
    """
    epochs = [record["epoch"] + 1 for record in history]
    colour = {name: TARGET_COLOURS[i % len(TARGET_COLOURS)] for i, name in enumerate(targets)}
    penalties = [name for name in history[0]["losses"] if name not in colour]
    with drawing(2, (9.6, 2.9)) as (figure, (left, right)):
        style = {"marker": "o", "markersize": 3, "linewidth": 1.4}
        relative = lambda values: [value / values[0] if values[0] else float("nan") for value in values]
        for name in targets:
            if name not in history[0]["losses"] or name not in trained:
                continue
            losses = [record["losses"].get(name, float("nan")) for record in history]
            left.plot(epochs, relative(losses), color=colour[name], label=name, **style)
            scores = [(record["metrics"] or {"targets": {}})["targets"].get(name, {}).get("auc") for record in history]
            if any(value is not None for value in scores):
                values = [float("nan") if value is None else value for value in scores]
                right.plot(epochs, values, color=colour[name], label=name, **style)
        for i, part in enumerate(dict.fromkeys(name.split(".")[0] for name in penalties)):
            mine = [name for name in penalties if name.split(".")[0] == part]
            sums = [sum(record["losses"].get(name, float("nan")) for name in mine) for record in history]
            left.plot(epochs, relative(sums), color=BASELINE_COLOURS[i % 2], linestyle=(0, (3, 2)), linewidth=1.2, label=part)
        if best_epoch is not None:
            right.axvline(best_epoch, color="#9aa5b1", linewidth=1, linestyle=(0, (3, 2)), label="best epoch")
        left.set_title("Training loss (first epoch = 1)")
        right.set_title("Validation AUC")
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.set_xticks(epochs if len(epochs) <= 15 else epochs[:: len(epochs) // 10])
            _legend(axes)
        return svg(figure)


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
    cell: float = 0.62,
) -> str:
    """A table whose cells are the darker the larger; None stays blank.

    Args:
        texts: what stands in the cells.
        most: the value of the darkest colour; the lightest is 0.
        cell: width in inches.
    """
    size = (_names_width(rows) + cell * len(columns) + 0.15, 0.3 * len(rows) + _heads_height(columns, cell) + 0.45)
    with drawing(1, size) as (figure, (axes,)):
        _cells(axes, rows, columns, values, texts, low=0.0, high=max(most, 1e-9), palette="Blues", cell=cell)
        axes.set_title(title)
        axes.set_ylabel(row_title)
        axes.set_xlabel(column_title)
        return svg(figure)


def differences(rows: Sequence[str], columns: Sequence[str], by_group: Mapping[str, Sequence[Sequence[float | None]]]) -> str:
    """A panel for every group with differences from the mean in hundredths, red above and blue below."""
    most = max((abs(value) for table in by_group.values() for row in table for value in row if value is not None), default=0)
    cell = 0.36 if len(columns) < 9 else 0.3
    width = _names_width(rows) + (cell * len(columns) + 0.2) * len(by_group)
    with drawing(len(by_group), (width, 0.27 * len(rows) + _heads_height(columns, cell) + 0.35)) as (figure, panels):
        for place, (axes, (group, table)) in enumerate(zip(panels, by_group.items(), strict=True)):
            texts = [["" if value is None else _signed(value) for value in row] for row in table]
            names = rows if place == 0 else [""] * len(rows)
            _cells(axes, names, columns, table, texts, low=-max(most, 0.05), high=max(most, 0.05), palette="RdBu_r", cell=cell)
            axes.set_title(group)
        return svg(figure)


def target_graph(names: Sequence[str], notes: Mapping[str, str], edges: Mapping[tuple[str, str], float | None]) -> str:
    """Targets from left to right, children to the right of all their parents; as of `draw_graph`."""
    with drawing(1, size_of_graph(names, list(edges))) as (figure, (axes,)):
        draw_graph(axes, names, notes, edges)
        return svg(figure)


ACROSS, DOWN, BOX_WIDTH, BOX_HEIGHT = 2.75, 0.62, 1.62, 0.44  # inches: steps of a graph's grid, size of a target's box


def size_of_graph(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """Width and height in inches in which boxes have the size of their text."""
    at = _places(names, edges)[0].values()
    columns, rows = max(column for column, _ in at), [row for _, row in at]
    return columns * ACROSS + BOX_WIDTH + 0.3, (max(rows) - min(rows) + 1) * DOWN + 0.2


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
    at = {spot: (column * ACROSS, row * DOWN) for spot, (column, row) in place.items()}
    right, low, high = max(x for x, _ in at.values()), min(y for _, y in at.values()), max(y for _, y in at.values())
    most = max([abs(value) for value in edges.values() if value is not None], default=0.0)
    axes.set_xlim(-BOX_WIDTH / 2 - 0.12, right + BOX_WIDTH / 2 + 0.12)
    axes.set_ylim(high + 0.4, low - 0.4)
    axes.axis("off")
    for (parent, child), value in edges.items():
        x, y = at[parent]
        points, codes = [(x + BOX_WIDTH / 2, y)], [Path.MOVETO]
        for spot in ways[parent, child]:
            (x, y), (last_x, last_y) = at[spot], points[-1]
            middle = (last_x + x - BOX_WIDTH / 2) / 2
            points += [(middle, last_y), (middle, y), (x - BOX_WIDTH / 2, y)]
            codes += [Path.CURVE4] * 3
            if spot != child:
                points.append((x + BOX_WIDTH / 2, y))
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
            axes.text(x, y, f"{value:.3g}", fontsize=8, ha="center", va="center", zorder=3, bbox=white)
    for name in names:
        x, y = at[name]
        box = FancyBboxPatch(
            (x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2),
            BOX_WIDTH,
            BOX_HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.07",
            facecolor="#eef3f9",
            edgecolor="#2563a8",
            linewidth=1,
            zorder=2,
        )
        axes.add_patch(box)
        note = notes.get(name, "")
        axes.text(x, y - (0.085 if note else 0), name, ha="center", va="center", weight="bold", fontsize=9, zorder=3)
        axes.text(x, y + 0.1, note, ha="center", va="center", fontsize=8, color="#5b6770", zorder=3)


def user_points(title: str, points: Sequence[Mapping[str, Any]]) -> str:
    """Users in the plane, coloured by stage."""
    with drawing(1, (5.4, 4.0)) as (figure, (axes,)):
        for stage, colour in zip(STAGES, STAGE_COLOURS, strict=True):
            mine = [point for point in points if point["stage"] == stage]
            if mine:
                x, y = [point["x"] for point in mine], [point["y"] for point in mine]
                axes.scatter(x, y, s=11, color=colour, alpha=0.75, linewidths=0, label=f"{stage} ({len(mine)})")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_title(title)
        _legend(axes)
        return svg(figure)


def stage_shares(title: str, days: Sequence[Mapping[str, Any]]) -> str:
    """Shares of users by stage, a bar a day; dashed where another split begins."""
    width = min(0.42 * len(days) + 1.9, 9.6)
    with drawing(1, (max(width, 4.2), 3.0)) as (figure, (axes,)):
        below = [0.0] * len(days)
        for stage, colour in zip(STAGES, STAGE_COLOURS, strict=True):
            heights = [day["counts"][stage] / day["users"] for day in days]
            axes.bar(range(len(days)), heights, 0.86, bottom=below, color=colour, label=stage)
            below = [bottom + height for bottom, height in zip(below, heights, strict=True)]
        for place, day in enumerate(days):
            if place == 0 or day["split"] != days[place - 1]["split"]:
                if place:
                    axes.axvline(place - 0.5, color=INK, linewidth=1, linestyle=(0, (3, 2)))
                axes.text(place - 0.43, 1.02, day["split"], fontsize=8, color="#5b6770")
        every = -(-len(days) // 16)
        axes.set_xticks(
            range(0, len(days), every), [day["day"][5:] for day in days][::every], rotation=45 if len(days) > 5 else 0
        )
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, 1)
        axes.set_xlim(-0.6, len(days) - 0.4)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_title(title, pad=16)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
        return svg(figure)


def curriculum(courses: Mapping[str, Mapping[str, Any]], colour: Mapping[str, str]) -> str:
    """The probability of being shown labels over training, beside the validation AUC of the last target."""
    with drawing(2, (9.6, 2.9)) as (figure, (left, right)):
        for name, course in courses.items():
            left.plot(
                [point["progress"] for point in course["probability"]],
                [point["value"] for point in course["probability"]],
                color=colour[name],
                linewidth=1.6,
                label=name,
            )
            values = [float("nan") if point["value"] is None else point["value"] for point in course["auc"]]
            x = [point["progress"] for point in course["auc"]]
            right.plot(x, values, color=colour[name], linewidth=1.4, marker="o", markersize=3, label=name)
        last = max(point["progress"] for course in courses.values() for point in course["auc"])
        targets = ", ".join(dict.fromkeys(course["target"] for course in courses.values()))
        left.set_title("Probability of a label instead of a prediction")
        right.set_title(f"Validation AUC of {targets}")
        left.set_ylim(-0.03, 1.03)
        for axes in (left, right):
            axes.set_xlim(0, last * 1.03)
            axes.set_xlabel("epochs trained")
            _legend(axes)
        return svg(figure)


def weights_and_cosines(told: Sequence[Mapping[str, float | None]], targets: Sequence[str]) -> str:
    """The weight of every target's loss over training, beside its gradient's cosine with that of the primary target.

    Args:
        told: records of `progress` (in epochs), `weight.<target>` and `cosine.<target>`; what is missing leaves a gap.
        targets: all of the schema's, so that each has the colour of its learning curve.
    """
    panels = {"weight": "Weights of the targets' losses", "cosine": "Cosine with the primary target's gradient"}
    with drawing(2, (9.6, 2.9)) as (figure, both):
        for axes, (what, title) in zip(both, panels.items(), strict=True):
            for i, name in enumerate(targets):
                values = [record.get(f"{what}.{name}") for record in told]
                if any(value is not None for value in values):
                    x = [record["progress"] for record in told]
                    y = [float("nan") if value is None else value for value in values]
                    axes.plot(x, y, color=TARGET_COLOURS[i % len(TARGET_COLOURS)], linewidth=1.4, label=name)
            axes.set_title(title)
            axes.set_xlabel("epochs trained")
            axes.set_xlim(0, told[-1]["progress"])
            _legend(axes)
        both[0].set_ylim(bottom=0)
        both[1].axhline(0, color="#9aa5b1", linewidth=1, linestyle=(0, (3, 2)))
        return svg(figure)


def parts_of_levels(told: Sequence[Mapping[str, float | None]], levels: Sequence[str]) -> str:
    """How far every level's weights are from the common ones over training, beside its hardness where there is one.

    Args:
        told: records of `progress` (in epochs), `norm.<level>`, `hardness.<level>` and `alpha`; what is missing leaves a gap.
    """
    x = [record["progress"] for record in told]
    panels = {"norm": "Distance of a level's weights from the common ones"}
    if any(f"hardness.{name}" in record for record in told for name in levels):
        panels["hardness"] = "Hardness of the levels, and step size of common weights"
    course = lambda what: [value if (value := record.get(what)) is not None else float("nan") for record in told]
    with drawing(len(panels), (4.8 * len(panels), 2.9)) as (figure, every):
        for axes, (what, title) in zip(every, panels.items(), strict=True):
            for i, name in enumerate(levels):
                axes.plot(x, course(f"{what}.{name}"), color=MODEL_COLOURS[i % len(MODEL_COLOURS)], linewidth=1.4, label=name)
            if what == "hardness":
                axes.plot(x, course("alpha"), color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label="step size")
            axes.set_title(title)
            axes.set_xlabel("epochs trained")
            axes.set_xlim(0, x[-1])
            axes.set_ylim(bottom=0)
            _legend(axes)
        return svg(figure)


# -- parts ---------------------------------------------------------------------------------------------------------


@contextmanager
def drawing(columns: int, size: tuple[float, float]) -> Iterator[tuple[Any, list[Any]]]:
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


def svg(figure: Any) -> str:
    """The figure as a data URL; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def png(file: Path) -> str:
    """A picture that lies on disk as a data URL."""
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()


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
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if dark else INK)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns, **({} if _side_by_side(columns, cell) else {"rotation": 40, "ha": "right"}))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _signed(value: float) -> str:
    hundredths = round(100 * value)
    return f"{hundredths:+d}" if hundredths else "0"


def _names_width(names: Sequence[str]) -> float:
    return 0.35 + 0.075 * max(map(len, names))


def _side_by_side(columns: Sequence[str], cell: float) -> bool:
    """Whether the names of columns find place side by side."""
    return max(map(len, columns)) * 0.08 <= cell


def _heads_height(columns: Sequence[str], cell: float) -> float:
    return 0.25 if _side_by_side(columns, cell) else 0.2 + 0.05 * max(map(len, columns))


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
