"""Numbers over the course of a training: losses and scores, curriculum, loss weights, weights of levels."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pipelines.report.evaluation.entries import Epoch
from pipelines.report.evaluation.insight import Curriculum
from pipelines.report.figures.style import (
    BASELINE_COLOURS,
    INK,
    MODEL_COLOURS,
    RULE,
    TARGET_COLOURS,
    drawing,
    legend,
    svg,
    wrapped,
)

PANEL, HEIGHT = 4.8, 2.9  # inches, with the legend
INTENTIONS = "disentangled."  # begins the names of what disentangled intentions tell

Readings = Sequence[Mapping[str, float | None]]
"""Numbers that a learner gives beside its losses: by name, and as `progress` the epochs trained. A gap is left where one is
missing."""


def learning_curves(history: Sequence[Epoch], targets: Sequence[str], trained: Collection[str], best_epoch: int | None) -> str:
    """Training loss of every trained target, relative to its first epoch, and validation AUC of every binary one, by epoch.

    Losses that parts add are dashed, those of one part (`part.target`) as their sum.

    Args:
        targets: all of the schema, which decide colours.
        trained: those that are shown.
        best_epoch: counted from 1; marked.
    """
    epochs = [record.epoch + 1 for record in history]
    colour = {name: TARGET_COLOURS[i % len(TARGET_COLOURS)] for i, name in enumerate(targets)}
    penalties = [name for name in history[0].losses if name not in colour]
    with drawing(2, (2 * PANEL, HEIGHT)) as (figure, (left, right)):
        style: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.4}
        relative = lambda values: [value / values[0] if values[0] else float("nan") for value in values]
        for name in targets:
            if name not in history[0].losses or name not in trained:
                continue
            losses = [record.losses.get(name, float("nan")) for record in history]
            left.plot(epochs, relative(losses), color=colour[name], label=name, **style)
            scores = [record.auc(name) for record in history]
            if any(value is not None for value in scores):
                right.plot(epochs, _with_gaps(scores), color=colour[name], label=name, **style)
        for i, part in enumerate(dict.fromkeys(name.split(".")[0] for name in penalties)):
            mine = [name for name in penalties if name.split(".")[0] == part]
            sums = [sum(record.losses.get(name, float("nan")) for name in mine) for record in history]
            left.plot(epochs, relative(sums), color=BASELINE_COLOURS[i % 2], linestyle=(0, (3, 2)), linewidth=1.2, label=part)
        if best_epoch is not None:
            right.axvline(best_epoch, color=RULE, linewidth=1, linestyle=(0, (3, 2)), label="best epoch")
        for axes, title in ((left, "Training loss (first epoch = 1)"), (right, "Validation AUC")):
            axes.set_xticks(epochs if len(epochs) <= 15 else epochs[:: len(epochs) // 10])
            _finish(axes, title, "epoch")
        return svg(figure)


def curriculum(courses: Mapping[str, Curriculum], colour: Mapping[str, str]) -> str:
    """The probability of being shown labels over training, beside the validation AUC of the last target."""
    with drawing(2, (2 * PANEL, HEIGHT)) as (figure, (left, right)):
        for name, course in courses.items():
            x = [point.progress for point in course.probability]
            left.plot(x, [point.value for point in course.probability], color=colour[name], linewidth=1.6, label=name)
            x = [point.progress for point in course.auc]
            y = _with_gaps([point.value for point in course.auc])
            right.plot(x, y, color=colour[name], linewidth=1.4, marker="o", markersize=3, label=name)
        last = max(point.progress for course in courses.values() for point in course.auc)
        targets = ", ".join(dict.fromkeys(course.target for course in courses.values()))
        left.set_ylim(-0.03, 1.03)
        for axes, title in (
            (left, "Probability of a label instead of a prediction"),
            (right, f"Validation AUC of {targets}"),
        ):
            axes.set_xlim(0, last * 1.03)
            _finish(axes, title, "epochs trained")
        return svg(figure)


def weights_and_cosines(readings: Readings, targets: Sequence[str]) -> str:
    """The weight of every target's loss over training, beside its gradient's cosine with that of the primary target.

    Args:
        readings: of `weight.<target>` and `cosine.<target>`.
        targets: all of the schema's, so that each has the colour of its learning curve.
    """
    panels = {"weight": "Weights of the targets' losses", "cosine": "Cosine with the primary target's gradient"}
    with drawing(2, (2 * PANEL, HEIGHT)) as (figure, both):
        _by_target(both, panels, readings, targets)
        both[0].set_ylim(bottom=0)
        both[1].axhline(0, color=RULE, linewidth=1, linestyle=(0, (3, 2)))
        return svg(figure)


def weights_of_candidates(readings: Readings, targets: Sequence[str]) -> str:
    """What candidates weigh in every target's loss over training, beside the share of them that would say as much evenly.

    Args:
        readings: of `gamma.<target>` and `effective.<target>`.
        targets: all of the schema's, so that each has the colour of its learning curve.
    """
    panels = {"gamma": "Mean weight of a candidate", "effective": "Effective share of candidates, (Σw)² / Σw² / n"}
    with drawing(2, (2 * PANEL, HEIGHT)) as (figure, both):
        _by_target(both, panels, readings, targets)
        both[0].set_yscale("log")
        both[1].set_ylim(0, 1.03)
        return svg(figure)


def _by_target(every: Sequence[Any], panels: Mapping[str, str], readings: Readings, targets: Sequence[str]) -> None:
    x = [record["progress"] for record in readings]
    for axes, (what, title) in zip(every, panels.items(), strict=True):
        for i, name in enumerate(targets):
            values = [record.get(f"{what}.{name}") for record in readings]
            if any(value is not None for value in values):
                axes.plot(x, _with_gaps(values), color=TARGET_COLOURS[i % len(TARGET_COLOURS)], linewidth=1.4, label=name)
        axes.set_xlim(0, x[-1])
        _finish(axes, title, "epochs trained")


def intentions(readings: Readings) -> list[tuple[str, str]]:
    """What disentangled intentions told before training and after every epoch: two figures of two panels, and what they show.

    Args:
        readings: of `disentangled.<what>.<history>` and `disentangled.<what>.<part>.<history>`.
    """
    dependence = "Consistent with specific: cosine, correlation of distances"
    pairs: dict[str, dict[tuple[str, ...], str]] = {
        "deviation of p and effective rank": {("spread",): "Deviation of p", ("rank",): "Effective rank of the intentions"},
        "dependence and entropy": {("cosine", "dcor"): dependence, ("entropy",): "Entropy of what is retrieved, of its most"},
    }
    x = [record["progress"] for record in readings]
    names = list(dict.fromkeys(name for record in readings for name in record if name.startswith(INTENTIONS)))
    figures = []
    for shows, panels in pairs.items():
        with drawing(2, (2 * PANEL, HEIGHT)) as (figure, both):
            for axes, (kinds, title) in zip(both, panels.items(), strict=True):
                shown = [name.removeprefix(INTENTIONS) for name in names if name.split(".")[1] in kinds]
                for i, name in enumerate(shown):
                    label = name if len(kinds) > 1 else name.split(".", 1)[1]
                    colour = MODEL_COLOURS[i % len(MODEL_COLOURS)]
                    values = _with_gaps([record.get(INTENTIONS + name) for record in readings])
                    label = label.replace(".", " ")
                    axes.plot(x, values, color=colour, linewidth=1.4, marker="o", markersize=3, label=label)
                if "dcor" not in kinds:
                    axes.set_ylim(bottom=0)
                _finish(axes, title, "epochs trained")
            figures.append((svg(figure), shows))
    return figures


def parts_of_levels(readings: Readings, levels: Sequence[str]) -> str:
    """How far every level's weights are from the common ones over training, beside its hardness where there is one.

    Args:
        readings: of `norm.<level>`, `hardness.<level>` and `alpha`.
    """
    x = [record["progress"] for record in readings]
    panels = {"norm": "Distance of a level's weights from the common ones"}
    if any(f"hardness.{name}" in record for record in readings for name in levels):
        panels["hardness"] = "Hardness of the levels, and step size of common weights"
    course = lambda what: _with_gaps([record.get(what) for record in readings])
    with drawing(len(panels), (PANEL * len(panels), HEIGHT)) as (figure, every):
        for axes, (what, title) in zip(every, panels.items(), strict=True):
            for i, name in enumerate(levels):
                axes.plot(x, course(f"{what}.{name}"), color=MODEL_COLOURS[i % len(MODEL_COLOURS)], linewidth=1.4, label=name)
            if what == "hardness":
                axes.plot(x, course("alpha"), color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label="step size")
            axes.set_xlim(0, x[-1])
            axes.set_ylim(bottom=0)
            _finish(axes, title, "epochs trained")
        return svg(figure)


def _finish(axes: Any, title: str, below: str) -> None:
    axes.set_title(wrapped(title, PANEL - 0.7))
    axes.set_xlabel(below)
    legend(axes)


def _with_gaps(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
