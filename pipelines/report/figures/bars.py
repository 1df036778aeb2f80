"""Bars of a metric by groups of candidates, a bar for every entry."""

from collections.abc import Mapping

from pipelines.report.figures.style import (
    GAP,
    INK,
    SMALL,
    SOFT,
    TEXT,
    drawing,
    legend,
    legend_width,
    svg,
    text_width,
    widest,
    wrapped,
)

BESIDE, BETWEEN = 0.6, 0.5  # slots: outside of the first and last group, more between groups of two divisions
NARROWEST = 0.55  # inches of a slot, so that bars stay visible


def group_bars(
    title: str,
    values: Mapping[str, Mapping[str, Mapping[str, float | None]]],
    colour: Mapping[str, str],
    *,
    ceiling: str | None = None,
    from_zero: bool = False,
    named: bool = False,
    notes: Mapping[str, Mapping[str, str]] | None = None,
    notes_title: str = "",
) -> str:
    """A group of bars for every level and every stage, a bar for every entry; `ceiling` as a dash over the group.

    A group is as wide as its label needs.

    Args:
        values: by what candidates are divided by (level, stage), by entry, by group.
        colour: of the entries that get bars.
        ceiling: the entry that is no contestant.
        named: below the groups' names stands what candidates are divided by.
        notes: below a group's name, by what candidates are divided by and group.
        notes_title: what the notes are.
    """
    groups = [(by, name) for by, entries in values.items() for name in next(iter(entries.values()))]
    below = [(notes or {}).get(by, {}).get(name) for by, name in groups]
    labels = [name if note is None else f"{name}\n{note}" for (_, name), note in zip(groups, below, strict=True)]
    place = {group: i + BETWEEN * list(values).index(group[0]) for i, group in enumerate(groups)}
    sizes = {by: sum(group[0] == by for group in groups) for by in values}
    slot = max(NARROWEST, widest(labels) + GAP)
    if named:  # a name may be as wide as its groups together
        slot = max(slot, *(text_width(by) / (sizes[by] + BETWEEN - 0.1) for by in values))
    wide = slot * (max(place.values()) + 2 * BESIDE)
    known: list[float] = []
    shown = [*colour, *([ceiling] if ceiling is not None else [])]
    with drawing(1, (0.45 + wide + legend_width(shown), 3.15 if notes else 3.0)) as (figure, (axes,)):
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
        axes.set_xticks(list(place.values()), labels)
        axes.set_xlim(-BESIDE, max(place.values()) + BESIDE)
        if named:
            for by in values:
                own = [at for group, at in place.items() if group[0] == by]
                middle = (own[0] + own[-1]) / 2
                axes.annotate(
                    by,
                    (middle, 0),
                    (0, -2.6 * TEXT),
                    xycoords=axes.get_xaxis_transform(),
                    textcoords="offset points",
                    ha="center",
                    va="top",
                    color=SOFT,
                )
        if notes and notes_title:
            axes.set_xlabel(notes_title, fontsize=SMALL, color=SOFT)
        axes.grid(axis="x", visible=False)
        axes.set_title(wrapped(title, wide))
        legend(axes)
        return svg(figure)
