"""The report's sections on life-cycle stages, on targets and gates, on loss weights, parts of levels and the curriculum:
figures with a sentence each.

A figure is there only if it has something to show.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from models.schema import STAGES, Schema
from pipelines.report.evaluation.entries import Entry
from pipelines.report.evaluation.insight import Gate, ModelInsight, Preferences
from pipelines.report.evaluation.life_cycle import LifeCycle, StageDay, StagePairs
from pipelines.report.evaluation.metrics import EvaluationResult, TargetMetrics
from pipelines.report.figures.courses import (
    INTENTIONS,
    Readings,
    parts_of_levels,
    weights_and_cosines,
    weights_of_candidates,
)
from pipelines.report.figures.courses import curriculum as curriculum_figure
from pipelines.report.figures.courses import intentions as intentions_figures
from pipelines.report.figures.heat_maps import differences, heat_map
from pipelines.report.figures.stages import stage_shares, user_points
from pipelines.report.figures.target_graph import target_graph
from pipelines.report.targets import schema_edges

VISIBLE = 0.01  # mean gate weights that differ less between groups are not shown by group

Rows = list[list[float | None]]
"""Numbers of a heat map, row by row; None leaves a cell blank."""


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


def stages(models: Sequence[Entry], life_cycle: LifeCycle | None) -> list[Group]:
    """How users move through the stages of their life cycle, and which models' preferences tell the stages apart."""
    groups = []
    if life_cycle is not None:
        groups.append(Group(title="", columns=_life_cycle(life_cycle)))
    for entry in models:
        if entry.insight is not None and entry.insight.preferences is not None:
            groups.append(Group(title=entry.name, columns=_preferences(entry.insight.preferences)))
    return groups


def _life_cycle(life_cycle: LifeCycle) -> list[list[Panel]]:
    days, shift, truth = life_cycle.days, life_cycle.shift, life_cycle.truth
    most = max(STAGES, key=lambda stage: abs(_share(days[-1], stage) - _share(days[0], stage)))
    sampled = "" if life_cycle.user_share == 1 else f", on {life_cycle.user_share:.1%} of the users"
    text = (
        f"Stages of the users seen on a day, at their last feed of it{sampled}. "
        f"From {_unbroken(days[0].day)} to {_unbroken(days[-1].day)} the share of {most} users went "
        f"from {_share(days[0], most):.0%} to {_share(days[-1], most):.0%}."
        if len(days) > 1
        else f"Stages of the {days[0].users:,} users seen on {days[0].day}, at their last feed{sampled}."
    )
    first = Panel(figure=stage_shares("Users by stage", days), alt="users by stage and day", text=text)
    panels = []
    if shift.users:
        stay = sum(shift.counts[i][i] for i in range(len(STAGES))) / shift.users
        text = f"Of {shift.users:,} users seen on two days or more, {1 - stay:.0%} ended in another stage than they began in."
        figure = _crossed("From the first to the last day", shift.counts, "first day", "last day")
        panels.append(Panel(figure=figure, alt="stages of the first and the last day", text=text))
    if truth is not None:
        text = (
            f"The rule finds the simulator's own stage for {truth.agreement:.0%} of {truth.user_days:,} users' days "
            f"of the evaluated split; {truth.by_chance:.0%} would agree by chance."
        )
        figure = _crossed("True stage and rule", truth.counts, "true stage", "by the rule")
        panels.append(Panel(figure=figure, alt="true and rule-based stages", text=text))
    return [[first], panels]


def _share(day: StageDay, stage: str) -> float:
    return day.counts[stage] / day.users


def _crossed(title: str, counts: StagePairs, row_title: str, column_title: str) -> str:
    """Counts of pairs of stages as shares of their row."""
    table: Rows = [[count / sum(row) if sum(row) else None for count in row] for row in counts]
    texts = [
        ["" if share is None else f"{share:.0%} ({count:,})" for share, count in zip(shares, row, strict=True)]
        for shares, row in zip(table, counts, strict=True)
    ]
    return heat_map(title, STAGES, STAGES, table, texts, most=1, row_title=row_title, column_title=column_title)


def _preferences(known: Preferences) -> list[list[Panel]]:
    text = (
        f"Each point is one of {known.users:,} users at the last feed, near to those of like predicted preferences (t-SNE). "
        f"Of a user's ten nearest, {known.neighbours:.0%} are in the same rule-based stage; {known.by_chance:.0%} would "
        "be by chance."
    )
    figure = user_points("Users by predicted preferences", known.points)
    points = Panel(figure=figure, alt="users by predicted preferences, coloured by stage", text=text)
    means = {
        stage: {name: value for name, value in row.items() if value is not None}
        for stage, row in known.mean_by_stage.items()
        if row is not None
    }
    targets = list(next(iter(means.values())))
    spread = {name: _spread([row[name] for row in means.values()]) for name in targets}
    widest = max(targets, key=spread.__getitem__)
    by_stage = {stage: row[widest] for stage, row in means.items()}
    low, high = min(by_stage, key=by_stage.__getitem__), max(by_stage, key=by_stage.__getitem__)
    table = [[row[name] for name in targets] for row in means.values()]
    figure = heat_map(
        "Mean predicted preference",
        list(means),
        targets,
        table,
        [[f"{value:.2f}" for value in row] for row in table],
        most=max(value for row in table for value in row),
    )
    text = f"Stages differ most in {widest}: {by_stage[high]:.2f} for {high}, {by_stage[low]:.2f} for {low} users."
    return [[points], [Panel(figure=figure, alt="mean predicted preference by stage", text=text)]]


# -- targets and gates ---------------------------------------------------------------------------------------------


def targets_and_gates(models: Sequence[Entry], schema: Schema, reference: EvaluationResult) -> list[Group]:
    """
    Args:
        reference: metrics that say how often targets happen.
    """
    notes = {name: _frequency(metrics) for name, metrics in reference.targets.items()}
    groups = []
    idle = [entry.name for entry in models if entry.insight is not None and not entry.insight.edges]
    plain = dict.fromkeys(schema_edges(schema))
    if idle and plain:
        nothing = f"{_in_words(idle)} hand{'s' if len(idle) == 1 else ''} nothing on"
        text = f"Targets with what must have happened before them; {nothing}."
        figure = target_graph(schema.target_names, notes, plain)
        panel = Panel(figure=figure, alt="the target graph", text=text)
        groups.append(Group(title="Target graph", columns=[[panel]]))
    for entry in models:
        panels = []
        if entry.insight is not None and entry.insight.edges:
            panels.append(_graph(entry.insight, schema, notes))
        if entry.insight is not None and entry.insight.gates:
            panels += _gates(entry.insight)
        if panels:
            groups.append(Group(title=entry.name, columns=[[panel] for panel in panels]))
    return groups


def _graph(insight: ModelInsight, schema: Schema, notes: Mapping[str, str]) -> Panel:
    edges = {(edge.parent, edge.child): edge.mean for edge in insight.edges}
    known = {pair: value for pair, value in edges.items() if value is not None}
    text = f"Numbers at the arrows: {insight.carries}, mean over {insight.candidates:,} candidates"
    if known:
        (parent, child), value = max(known.items(), key=lambda item: abs(item[1]))
        text += f"; most along {parent} → {child} ({value:.3g})"
    names = dict.fromkeys([*schema.target_names, *(name for pair in edges for name in pair)])
    figure = target_graph(list(names), notes, edges)
    return Panel(figure=figure, alt="what the target graph carries", text=f"{text}.")


def _gates(insight: ModelInsight) -> list[Panel]:
    """The mean gates, and how they differ between stages or levels, whichever differ more."""
    gates = insight.gates
    experts = list(dict.fromkeys(name for gate in gates.values() for name in gate.experts))
    means = _by_expert({target: gate.mean for target, gate in gates.items()}, gates, experts)
    targets = list(gates)
    known = [(value, target, name) for target, row in zip(targets, means, strict=True) for value, name in _named(row, experts)]
    text = f"Mean weight of the experts in each target's gate, over {insight.candidates:,} candidates; rows add up to 1"
    if known:
        even_of = {target: 1 / len(gate.experts) for target, gate in gates.items()}
        value, target, name = max(known, key=lambda item: item[0] - even_of[item[1]])
        text += f". The most one-sided is {target}: {value:.2f} on {name}, where an even gate has {even_of[target]:.2f}"
    texts = [["" if value is None else f"{value:.2f}" for value in row] for row in means]
    most = max((value for value, _, _ in known), default=1.0)
    figure = heat_map("Gates", targets, experts, means, texts, most=max(most, 0.5))
    panels = [Panel(figure=figure, alt="gates of the targets", text=f"{text}.")]

    best: tuple[float, str, dict[str, Rows]] = (VISIBLE, "", {})
    for by, of_gate in (("stage", lambda gate: gate.by_stage), ("level", lambda gate: gate.by_level)):
        names = of_gate(next(iter(gates.values())))
        there = [name for name in names if all(of_gate(gate)[name] is not None for gate in gates.values())]
        shifts = {
            name: _minus(_by_expert({target: of_gate(gate)[name] for target, gate in gates.items()}, gates, experts), means)
            for name in there
        }
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
        figure = differences(targets, experts, shifts)
        panels.append(Panel(figure=figure, alt=f"gates by {by}", text=text))
    return panels


def _by_expert(weights: Mapping[str, Sequence[float | None] | None], gates: Mapping[str, Gate], experts: Sequence[str]) -> Rows:
    """A row for each target and a column for each expert; None where a target lacks the expert."""
    rows: Rows = []
    for target, values in weights.items():
        own = dict(zip(gates[target].experts, values, strict=True)) if values is not None else {}
        rows.append([own.get(name) for name in experts])
    return rows


# -- curriculum ----------------------------------------------------------------------------------------------------


def curriculum(models: Sequence[Entry], colour: Mapping[str, str]) -> list[Group]:
    """How likely children were shown labels while their models were trained."""
    courses = {
        entry.name: entry.insight.curriculum
        for entry in models
        if entry.insight is not None and entry.insight.curriculum is not None
    }
    if not courses:
        return []
    sentences = []
    for name, course in courses.items():
        first, last = (course.probability[place].value for place in (0, -1))
        scores = [(point.value, point.progress) for point in course.auc if point.value is not None]
        best = max(scores, key=lambda score: score[0], default=None)
        where = f"; {course.target} was best after epoch {best[1]:.0f} ({best[0]:.4f})" if best else ""
        sentences.append(
            f"{name} was shown a parent's label instead of its prediction with probability {first:.2f} at the start "
            f"and {last:.2f} at the end{where}."
        )
    figure = curriculum_figure(courses, colour)
    return [Group(title="", columns=[[Panel(figure=figure, alt="the curriculum's course", text=" ".join(sentences))]])]


# -- loss weights --------------------------------------------------------------------------------------------------


def weights(models: Sequence[Entry], schema: Schema) -> list[Group]:
    """How an adaptive learner weighed the targets' losses, and what candidates weighed in them."""
    groups = []
    for entry in models:
        panels = [*_adaptive_weights(entry, schema.target_names), *_weights_of_candidates(entry, schema.target_names)]
        if panels:
            groups.append(Group(title=entry.name, columns=[[panel] for panel in panels]))
    return groups


def _adaptive_weights(entry: Entry, targets: Sequence[str]) -> list[Panel]:
    readings = _readings(entry, "weight.")
    if not readings:
        return []
    last = _values(readings, "weight", targets, lambda values: values[-1])
    mean, ahead = (_values(readings, what, targets, lambda values: sum(values) / len(values)) for what in ("cosine", "ahead"))
    sentences = []
    if last:
        primary = [name for name in targets if name not in last]
        beside = f"; {primary[0]}, the primary target, always 1" if len(primary) == 1 else ""
        sentences.append(f"At the end {_extremes(last, 'weighs most', '')}{beside}.")
    if mean:
        along = _extremes(mean, "agrees most with the primary target's", "that of ")
        sentences.append(f"Over all of training the gradient of {along}.")
    if ahead:
        told = ", ".join(f"{name} ({value:.2f})" for name, value in ahead.items())
        sentences.append(f"With that of other users' feeds agree: {told}.")
    alt = f"loss weights and gradient cosines of {entry.name}"
    return [Panel(figure=weights_and_cosines(readings, targets), alt=alt, text=" ".join(sentences))]


def _weights_of_candidates(entry: Entry, targets: Sequence[str]) -> list[Panel]:
    readings = _readings(entry, "effective.")
    if not readings:
        return []
    gamma = _values(readings, "gamma", targets, lambda values: values[-1])
    effective = _values(readings, "effective", targets, lambda values: values[-1])
    each = [f"{name} {gamma[name]:.2g} and {effective[name]:.0%}" for name in effective]
    text = (
        "What a candidate weighs in a target's loss in the mean, and how many evenly weighed candidates would say as much, at "
        f"the end: {', '.join(each)}."
    )
    return [Panel(figure=weights_of_candidates(readings, targets), alt=f"weights of candidates of {entry.name}", text=text)]


# -- intentions ----------------------------------------------------------------------------------------------------


def intentions(models: Sequence[Entry]) -> list[Group]:
    """Whether disentangled intentions stayed apart and alive while they were trained."""
    groups = []
    for entry in models:
        readings = _readings(entry, INTENTIONS)
        if not readings:
            continue
        first, last = readings[0], readings[-1]
        before, after = (
            {name.removeprefix(f"{INTENTIONS}rank."): value for name, value in reading.items() if "rank." in name and value}
            for reading in (first, last)
        )
        sentences = []
        if kept := {name: value / before[name] for name, value in after.items() if name in before}:
            least = min(kept, key=kept.__getitem__)
            called = least.replace(".", " ")
            sentences.append(f"Of {called} intentions {after[least]:.1f} of {before[least]:.1f} directions are left.")
        spreads = [value for name, value in last.items() if name.startswith(f"{INTENTIONS}spread.") and value is not None]
        if spreads:
            sentences.append(f"At the end p deviates by {min(spreads):.2f} or more.")
        panels = [
            Panel(figure=figure, alt=f"{alt} of {entry.name}", text=text)
            for (figure, alt), text in zip(intentions_figures(readings), (" ".join(sentences), ""), strict=True)
        ]
        groups.append(Group(title=entry.name, columns=[panels]))
    return groups


# -- parts of levels -----------------------------------------------------------------------------------------------


def levels(models: Sequence[Entry], schema: Schema) -> list[Group]:
    """How far the weights of each level went from the common ones, and how hard the levels were to learn."""
    names = schema.levels.names
    groups = []
    for entry in models:
        readings = _readings(entry, "norm.")
        if not readings:
            continue
        last = _values(readings, "norm", names, lambda values: values[-1])
        mean = _values(readings, "hardness", names, lambda values: sum(values) / len(values))
        far = max(last, key=last.__getitem__)
        near = min(last, key=last.__getitem__)
        text = f"At the end the weights of {far} are farthest from the common ones ({last[far]:.2f}), those of {near} nearest "
        sentences = [text + f"({last[near]:.2f})."]
        if mean:
            hard = max(mean, key=mean.__getitem__)
            sentences.append(f"Over all of training {hard} was the hardest, with {mean[hard]:.0%} of all gradients' length.")
        alt = f"distances from the common weights and hardness of the levels of {entry.name}"
        panel = Panel(figure=parts_of_levels(readings, names), alt=alt, text=" ".join(sentences))
        groups.append(Group(title=entry.name, columns=[[panel]]))
    return groups


# -- parts ---------------------------------------------------------------------------------------------------------


def _readings(entry: Entry, what: str) -> Readings:
    """The readings of all epochs that tell of a name that begins with `what`."""
    readings = [record for epoch in entry.history for record in epoch.diagnostics]
    return [record for record in readings if any(name.startswith(what) for name in record)]


def _values(readings: Readings, what: str, names: Sequence[str], of: Callable[[list[float]], float]) -> dict[str, float]:
    """By target or level, one number of the course of its `what`; only those that have one."""
    courses = {name: [record.get(f"{what}.{name}") for record in readings] for name in names}
    known = {name: [value for value in course if value is not None] for name, course in courses.items()}
    return {name: of(values) for name, values in known.items() if values}


def _extremes(values: Mapping[str, float], most: str, of: str) -> str:
    """`order weighs most (0.62), stay least (0.11)`; of one target alone, the first half."""
    high, low = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    text = f"{high} {most} ({values[high]:.2f})"
    return text if high == low else f"{text}, {of}{low} least ({values[low]:.2f})"


def _unbroken(day: str) -> str:
    return day.replace("-", "\N{NON-BREAKING HYPHEN}")


def _frequency(metrics: TargetMetrics) -> str:
    return f"{metrics.mean_label:.2%}" if metrics.is_binary else f"mean {metrics.mean_label:,.3g}"


def _named(row: Sequence[float | None], names: Sequence[str]) -> list[tuple[float, str]]:
    return [(value, name) for value, name in zip(row, names, strict=True) if value is not None]


def _minus(first: Rows, second: Rows) -> Rows:
    return [
        [None if a is None or b is None else a - b for a, b in zip(row, other, strict=True)]
        for row, other in zip(first, second, strict=True)
    ]


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _in_words(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
