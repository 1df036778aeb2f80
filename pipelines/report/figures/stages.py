"""Users and the stages of their life cycle: in the plane of their preferences, and day by day."""

from collections.abc import Sequence

from models.schema import STAGES
from pipelines.report.evaluation.insight import UserPoint
from pipelines.report.evaluation.life_cycle import StageDay
from pipelines.report.figures.style import GAP, INK, SMALL, SOFT, drawing, legend, legend_width, svg, text_width

STAGE_COLOURS = ("#aeb8c2", "#e0a13a", "#3f7fbf", "#0f6b55")  # new, wander, stick, loyal
WIDEST = 8.0  # inches of a day each


def user_points(title: str, points: Sequence[UserPoint]) -> str:
    """Users in the plane, coloured by stage."""
    with drawing(1, (5.4, 4.0)) as (figure, (axes,)):
        for stage, colour in zip(STAGES, STAGE_COLOURS, strict=True):
            mine = [point for point in points if point.stage == stage]
            if mine:
                x, y = [point.x for point in mine], [point.y for point in mine]
                axes.scatter(x, y, s=11, color=colour, alpha=0.75, linewidths=0, label=f"{stage} ({len(mine)})")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_title(title)
        legend(axes)
        return svg(figure)


def stage_shares(title: str, days: Sequence[StageDay]) -> str:
    """Shares of users by stage, a bar a day; dashed where another split begins."""
    wide = max(min(0.42 * len(days), WIDEST), 2.6)
    day_width = wide / len(days)
    with drawing(1, (0.6 + wide + legend_width(STAGES), 3.0)) as (figure, (axes,)):
        below = [0.0] * len(days)
        for stage, colour in zip(STAGES, STAGE_COLOURS, strict=True):
            heights = [day.counts[stage] / day.users for day in days]
            axes.bar(range(len(days)), heights, 0.86, bottom=below, color=colour, label=stage)
            below = [bottom + height for bottom, height in zip(below, heights, strict=True)]
        firsts = [place for place, day in enumerate(days) if place == 0 or day.split != days[place - 1].split]
        ends: list[float] = []  # of the names in each line above the bars, in inches
        for place in firsts:
            if place:
                axes.axvline(place - 0.5, color=INK, linewidth=1, linestyle=(0, (3, 2)))
            begin, name = place * day_width, days[place].split
            line = next((i for i, end in enumerate(ends) if end + GAP <= begin), len(ends))
            ends[line : line + 1] = [begin + text_width(name, SMALL)]
            axes.annotate(name, (place - 0.43, 1), (0, 3 + 10 * line), textcoords="offset points", fontsize=SMALL, color=SOFT)
        every = -(-len(days) // 16)
        tilted = day_width * every < text_width("00-00") + GAP
        axes.set_xticks(range(0, len(days), every), [day.day[5:] for day in days][::every], rotation=45 if tilted else 0)
        axes.grid(axis="x", visible=False)
        axes.set_ylim(0, 1)
        axes.set_xlim(-0.6, len(days) - 0.4)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.set_title(title, pad=6 + 10 * len(ends))
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
        return svg(figure)
