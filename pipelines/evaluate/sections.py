"""The report's sections on life-cycle stages, on targets and gates, on loss weights, parts of levels and the curriculum:
figures with a sentence each.

A figure is there only if it has something to show.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.schema import STAGES, Schema
from pipelines.evaluate import figures
from pipelines.evaluate.insight import schema_edges

if TYPE_CHECKING:
    from pipelines.evaluate.report import Entry

VISIBLE = 0.01  # mean gate weights that differ less between groups are not shown by group

Table = list[list[float | None]]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A figure (as a data URL) with one sentence on what it says."""

    figure: str
    alt: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """Figures in columns under one title: an entry's name, or something else, or nothing."""

    title: str
    columns: Sequence[Sequence[Panel]]


# -- stages --------------------------------------------------------------------------------------------------------


def stages(models: Sequence["Entry"], course: Mapping[str, Any] | None) -> list[Group]:
    """
    Args:
        course: as `life_cycle.stage_course` gives it.
    """
    groups = []
    if course is not None:
        groups.append(Group(title="", columns=_course(course)))
    for entry in models:
        known = entry.insight.get("preferences")
        if known is not None:
            groups.append(Group(title=entry.name, columns=_preferences(known)))
    return groups


def _course(course: Mapping[str, Any]) -> list[list[Panel]]:
    days, shift, truth = course["days"], course["shift"], course["truth"]
    share = lambda day, stage: day["counts"][stage] / day["users"]
    most = max(STAGES, key=lambda stage: abs(share(days[-1], stage) - share(days[0], stage)))
    sampled = "" if course["user_share"] == 1 else f", on {course['user_share']:.1%} of the users"
    text = (
        f"Stages of the users seen on a day, at their last feed of it{sampled}. "
        f"From {_unbroken(days[0]['day'])} to {_unbroken(days[-1]['day'])} the share of {most} users went "
        f"from {share(days[0], most):.0%} to {share(days[-1], most):.0%}."
        if len(days) > 1
        else f"Stages of the {days[0]['users']:,} users seen on {days[0]['day']}, at their last feed{sampled}."
    )
    first = Panel(figure=figures.stage_shares("Users by stage", days), alt="users by stage and day", text=text)
    panels = []
    if shift["users"]:
        stay = sum(shift["counts"][i][i] for i in range(len(STAGES))) / shift["users"]
        text = (
            f"Of {shift['users']:,} users seen on two days or more, {1 - stay:.0%} ended in another stage than they began in."
        )
        figure = _crossed("From the first to the last day", shift["counts"], "first day", "last day")
        panels.append(Panel(figure=figure, alt="stages of the first and the last day", text=text))
    if truth is not None:
        text = (
            f"The rule finds the simulator's own stage for {truth['agreement']:.0%} of {truth['user_days']:,} users' days "
            f"of the evaluated split; {truth['by_chance']:.0%} would agree by chance."
        )
        figure = _crossed("True stage and rule", truth["counts"], "true stage", "by the rule")
        panels.append(Panel(figure=figure, alt="true and rule-based stages", text=text))
    return [[first], panels]


def _crossed(title: str, counts: Sequence[Sequence[int]], row_title: str, column_title: str) -> str:
    """Counts of pairs of stages as shares of their row."""
    table = [[count / sum(row) if sum(row) else None for count in row] for row in counts]
    texts = [
        ["" if share is None else f"{share:.0%} ({count:,})" for share, count in zip(shares, row, strict=True)]
        for shares, row in zip(table, counts, strict=True)
    ]
    return figures.heat_map(
        title, STAGES, STAGES, table, texts, most=1, row_title=row_title, column_title=column_title, cell=0.92
    )


def _preferences(known: Mapping[str, Any]) -> list[list[Panel]]:
    text = (
        f"Each point is one of {known['users']:,} users at the last feed, near to those of like predicted preferences (t-SNE). "
        f"Of a user's ten nearest, {known['neighbours']:.0%} are in the same rule-based stage; {known['by_chance']:.0%} would "
        "be by chance."
    )
    figure = figures.user_points("Users by predicted preferences", known["points"])
    points = Panel(figure=figure, alt="users by predicted preferences, coloured by stage", text=text)
    means = {stage: row for stage, row in known["mean_by_stage"].items() if row is not None}
    targets = list(next(iter(means.values())))
    spread = {name: _spread([row[name] for row in means.values()]) for name in targets}
    widest = max(targets, key=spread.__getitem__)
    by_stage = {stage: row[widest] for stage, row in means.items()}
    low, high = min(by_stage, key=by_stage.__getitem__), max(by_stage, key=by_stage.__getitem__)
    table = [[row[name] for name in targets] for row in means.values()]
    figure = figures.heat_map(
        "Mean predicted preference",
        list(means),
        targets,
        table,
        [[f"{value:.2f}" for value in row] for row in table],
        most=max(value for row in table for value in row),
        cell=0.5,
    )
    text = f"Stages differ most in {widest}: {by_stage[high]:.2f} for {high}, {by_stage[low]:.2f} for {low} users."
    return [[points], [Panel(figure=figure, alt="mean predicted preference by stage", text=text)]]


# -- targets and gates ---------------------------------------------------------------------------------------------


def targets_and_gates(models: Sequence["Entry"], schema: Schema, reference: Mapping[str, Any]) -> list[Group]:
    """
    Args:
        reference: metrics that say how often targets happen.
    """
    notes = {name: _frequency(metrics) for name, metrics in reference["targets"].items()}
    groups = []
    idle = [entry.name for entry in models if entry.insight and not entry.insight.get("edges")]
    plain = dict.fromkeys(schema_edges(schema))
    if idle and plain:
        text = (
            f"Targets with what must have happened before them; {_listed(idle)} hand{'s' if len(idle) == 1 else ''} nothing on."
        )
        figure = figures.target_graph(schema.target_names, notes, plain)
        panel = Panel(figure=figure, alt="the target graph", text=text)
        groups.append(Group(title="Target graph", columns=[[panel]]))
    for entry in models:
        panels = []
        if entry.insight.get("edges"):
            panels.append(_graph(entry.insight, schema, notes))
        if entry.insight.get("gates"):
            panels += _gates(entry.insight)
        if panels:
            groups.append(Group(title=entry.name, columns=[[panel] for panel in panels]))
    return groups


def _graph(insight: Mapping[str, Any], schema: Schema, notes: Mapping[str, str]) -> Panel:
    edges = {(edge["parent"], edge["child"]): edge["mean"] for edge in insight["edges"]}
    known = {pair: value for pair, value in edges.items() if value is not None}
    text = f"Numbers at the arrows: {insight['carries']}, mean over {insight['candidates']:,} candidates"
    if known:
        (parent, child), value = max(known.items(), key=lambda item: abs(item[1]))
        text += f"; most along {parent} → {child} ({value:.3g})"
    names = dict.fromkeys([*schema.target_names, *(name for pair in edges for name in pair)])
    figure = figures.target_graph(list(names), notes, edges)
    return Panel(figure=figure, alt="what the target graph carries", text=f"{text}.")


def _gates(insight: Mapping[str, Any]) -> list[Panel]:
    gates = insight["gates"]
    experts = list(dict.fromkeys(name for gate in gates.values() for name in gate["experts"]))

    def table(weights: Mapping[str, Sequence[float | None] | None]) -> Table:
        """Targets by experts; None where a target lacks the expert."""
        rows: Table = []
        for target, values in weights.items():
            own = dict(zip(gates[target]["experts"], values, strict=True)) if values is not None else {}
            rows.append([own.get(name) for name in experts])
        return rows

    means = table({target: gate["mean"] for target, gate in gates.items()})
    targets = list(gates)
    known = [(value, target, name) for target, row in zip(targets, means, strict=True) for value, name in _named(row, experts)]
    text = f"Mean weight of the experts in each target's gate, over {insight['candidates']:,} candidates; rows add up to 1"
    if known:
        even_of = {target: 1 / len(gate["experts"]) for target, gate in gates.items()}
        value, target, name = max(known, key=lambda item: item[0] - even_of[item[1]])
        text += f". The most one-sided is {target}: {value:.2f} on {name}, where an even gate has {even_of[target]:.2f}"
    texts = [["" if value is None else f"{value:.2f}" for value in row] for row in means]
    most = max((value for value, _, _ in known), default=1.0)
    cell = 0.5 if max(map(len, experts)) * 0.08 <= 0.5 or len(experts) > 6 else 0.66
    figure = figures.heat_map("Gates", targets, experts, means, texts, most=max(most, 0.5), cell=cell)
    panels = [Panel(figure=figure, alt="gates of the targets", text=f"{text}.")]

    best: tuple[float, str, dict[str, Table]] = (VISIBLE, "", {})
    for by in ("stage", "level"):
        names = next(iter(gates.values())).get(f"by_{by}", {})
        there = [name for name in names if all(gate[f"by_{by}"][name] is not None for gate in gates.values())]
        shifts = {name: _minus(table({t: gate[f"by_{by}"][name] for t, gate in gates.items()}), means) for name in there}
        widest = max(
            (abs(value) for rows in shifts.values() for row in rows for value in row if value is not None), default=0.0
        )
        if len(there) > 1 and widest > best[0]:
            best = (widest, by, shifts)
    widest, by, shifts = best
    if shifts:
        value, group, target, name = max(
            (
                (value, group, target, name)
                for group, rows in shifts.items()
                for target, row in zip(targets, rows, strict=True)
                for value, name in _named(row, experts)
            ),
            key=lambda item: abs(item[0]),
        )
        text = (
            f"How gates of a {by} differ from the mean, in hundredths: most for {target}, whose weight on {name} is "
            f"{abs(100 * value):.0f} {'higher' if value > 0 else 'lower'} where the {by} is {group}."
        )
        figure = figures.differences(targets, experts, shifts)
        panels.append(Panel(figure=figure, alt=f"gates by {by}", text=text))
    return panels


# -- curriculum ----------------------------------------------------------------------------------------------------


def curriculum(models: Sequence["Entry"], colour: Mapping[str, str]) -> list[Group]:
    courses = {entry.name: entry.insight["curriculum"] for entry in models if "curriculum" in entry.insight}
    if not courses:
        return []
    sentences = []
    for name, course in courses.items():
        first, last = (course["probability"][place]["value"] for place in (0, -1))
        scores = [(point["value"], point["progress"]) for point in course["auc"] if point["value"] is not None]
        best = max(scores, key=lambda score: score[0], default=None)
        where = f"; {course['target']} was best after epoch {best[1]:.0f} ({best[0]:.4f})" if best else ""
        sentences.append(
            f"{name} was shown a parent's label instead of its prediction with probability {first:.2f} at the start "
            f"and {last:.2f} at the end{where}."
        )
    figure = figures.curriculum(courses, colour)
    return [Group(title="", columns=[[Panel(figure=figure, alt="the curriculum's course", text=" ".join(sentences))]])]


# -- loss weights --------------------------------------------------------------------------------------------------


def weights(models: Sequence["Entry"], schema: Schema) -> list[Group]:
    """What an adaptive learner told while it trained: `diagnostics` of the epochs' records, of those that have some."""
    groups = []
    for entry in models:
        told = _told(entry, "weight.")
        if not told:
            continue
        last = _values(told, "weight", schema.target_names, lambda values: values[-1])
        mean = _values(told, "cosine", schema.target_names, lambda values: sum(values) / len(values))
        sentences = []
        if last:
            primary = [name for name in schema.target_names if name not in last]
            beside = f"; {primary[0]}, the primary target, always 1" if len(primary) == 1 else ""
            sentences.append(f"At the end {_extremes(last, 'weighs most', '')}{beside}.")
        if mean:
            along = _extremes(mean, "agrees most with the primary target's", "that of ")
            sentences.append(f"Over all of training the gradient of {along}.")
        figure = figures.weights_and_cosines(told, schema.target_names)
        panel = Panel(figure=figure, alt=f"loss weights and gradient cosines of {entry.name}", text=" ".join(sentences))
        groups.append(Group(title=entry.name, columns=[[panel]]))
    return groups


# -- parts of levels -----------------------------------------------------------------------------------------------


def levels(models: Sequence["Entry"], schema: Schema) -> list[Group]:
    """What a learner with weights of each level told while it trained."""
    names = schema.levels.names
    groups = []
    for entry in models:
        told = _told(entry, "norm.")
        if not told:
            continue
        last = _values(told, "norm", names, lambda values: values[-1])
        mean = _values(told, "hardness", names, lambda values: sum(values) / len(values))
        far = max(last, key=last.__getitem__)
        near = min(last, key=last.__getitem__)
        text = f"At the end the weights of {far} are farthest from the common ones ({last[far]:.2f}), those of {near} nearest "
        sentences = [text + f"({last[near]:.2f})."]
        if mean:
            hard = max(mean, key=mean.__getitem__)
            sentences.append(f"Over all of training {hard} was the hardest, with {mean[hard]:.0%} of all gradients' length.")
        alt = f"distances from the common weights and hardness of the levels of {entry.name}"
        panel = Panel(figure=figures.parts_of_levels(told, names), alt=alt, text=" ".join(sentences))
        groups.append(Group(title=entry.name, columns=[[panel]]))
    return groups


# -- parts ---------------------------------------------------------------------------------------------------------


def _told(entry: "Entry", what: str) -> list[Mapping[str, float | None]]:
    """What a learner told over all epochs; nothing if none of it begins so."""
    told = [record for epoch in entry.history for record in epoch.get("diagnostics") or ()]
    return told if any(name.startswith(what) for record in told for name in record) else []


def _values(
    told: Sequence[Mapping[str, float | None]], what: str, names: Sequence[str], of: Callable[[list[float]], float]
) -> dict[str, float]:
    """By target or level, one number of the course of its `what`; only those that have one."""
    courses = {name: [record.get(f"{what}.{name}") for record in told] for name in names}
    known = {name: [value for value in course if value is not None] for name, course in courses.items()}
    return {name: of(values) for name, values in known.items() if values}


def _extremes(values: Mapping[str, float], most: str, of: str) -> str:
    """`order weighs most (0.62), stay least (0.11)`; of one target alone, the first half."""
    high, low = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    text = f"{high} {most} ({values[high]:.2f})"
    return text if high == low else f"{text}, {of}{low} least ({values[low]:.2f})"


def _unbroken(day: str) -> str:
    return day.replace("-", "\N{NON-BREAKING HYPHEN}")


def _frequency(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['positive_rate']:.2%}" if metrics["kind"] == "binary" else f"mean {metrics['mean']:,.3g}"


def _named(row: Sequence[float | None], names: Sequence[str]) -> list[tuple[float, str]]:
    return [(value, name) for value, name in zip(row, names, strict=True) if value is not None]


def _minus(first: Table, second: Table) -> Table:
    return [
        [None if a is None or b is None else a - b for a, b in zip(row, other, strict=True)]
        for row, other in zip(first, second, strict=True)
    ]


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
