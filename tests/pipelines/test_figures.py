"""No label of a picture touches another one, however long names and numbers are."""

import math
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from models.schema import STAGES
from pipelines.report.comparison.compared import Compared, CurveDrawn, Row, Score
from pipelines.report.comparison.figures import by_level, dots, over_values
from pipelines.report.evaluation.entries import Epoch
from pipelines.report.evaluation.insight import CoursePoint, Curriculum
from pipelines.report.evaluation.life_cycle import StageDay
from pipelines.report.evaluation.metrics import CalibrationPoint
from pipelines.report.figures.bars import group_bars
from pipelines.report.figures.calibration import calibration
from pipelines.report.figures.courses import (
    curriculum,
    learning_curves,
    parts_of_levels,
    weights_and_cosines,
    weights_of_candidates,
)
from pipelines.report.figures.heat_maps import differences, heat_map
from pipelines.report.figures.stages import stage_shares
from pipelines.report.figures.style import text_width, wrapped
from pipelines.report.figures.target_graph import target_graph
from pipelines.report.search.graphs import Finalist, Step, StructureResult, Tried
from pipelines.report.search.picture import draw as draw_search
from pipelines.report.search.structure import draw as draw_structure
from pipelines.report.search.trials import Axis, Trial
from tests.pipelines.report_samples import result_with
from tests.samples import tiny_schema

# -- what touches --------------------------------------------------------------------------------------------------


@pytest.fixture
def labels(monkeypatch):
    """All labels of the pictures saved from now on."""
    found: list[str] = []
    draw = Text.draw

    def recorded(self, renderer):
        draw(self, renderer)
        if self.get_visible():
            found.append(self.get_text())

    monkeypatch.setattr(Text, "draw", recorded)
    return found


@pytest.fixture
def touching(monkeypatch):
    """Pairs of labels that touch each other in pictures saved from now on, from where Matplotlib itself draws them."""
    found: list[tuple[str, str]] = []
    drawn: dict[Text, tuple[str, np.ndarray]] | None = None  # saving draws more than once; where a label came to counts
    draw, savefig = Text.draw, Figure.savefig

    def recorded(self, renderer):
        draw(self, renderer)
        if drawn is not None and self.get_visible() and self.get_text().strip():
            drawn[self] = (self.get_text(), corners(self, renderer))

    def saved(self, *args, **options):
        nonlocal drawn
        drawn = {}
        savefig(self, *args, **options)
        found.extend((one, other) for (one, a), (other, b) in combinations(drawn.values(), 2) if overlap(a, b))
        drawn = None

    monkeypatch.setattr(Text, "draw", recorded)
    monkeypatch.setattr(Figure, "savefig", saved)
    return found


def corners(text: Text, renderer) -> np.ndarray:
    """[4, 2] of the text's rectangle, turned as it is; a pixel less above and below, where letters seldom reach."""
    box, angle = text.get_window_extent(renderer), math.radians(text.get_rotation())
    if angle % (math.pi / 2) == 0:
        width, height = (box.width, box.height) if angle % math.pi == 0 else (box.height, box.width)
    else:
        width, height, _ = renderer.get_text_width_height_descent(text.get_text(), text.get_fontproperties(), False)
    half = np.array([[x * width / 2, y * (height / 2 - 1)] for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return half @ turn + [(box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2]


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two rectangles overlap: no side of either divides them."""
    for sides in (a, b):
        for first, second in ((0, 1), (1, 2)):
            along = sides[second] - sides[first]
            if (a @ along).max() <= (b @ along).min() or (b @ along).max() <= (a @ along).min():
                return False
    return True


def test_labels_that_run_into_each_other_are_found(touching, tmp_path):
    figure = Figure(figsize=(2, 2))
    axes = figure.subplots()
    axes.set_xticks([0, 0.1, 1], ["1,717 pos.", "2,480 pos.", "4"])
    axes.set_yticks([])
    figure.savefig(tmp_path / "x.svg")
    assert touching == [("1,717 pos.", "2,480 pos.")]


# -- measures ------------------------------------------------------------------------------------------------------


def test_text_is_as_wide_as_it_is_drawn(tmp_path):
    figure = Figure(figsize=(4, 1))
    label = figure.text(0, 0, "1,717 positives", fontsize=9)
    figure.draw_without_rendering()
    assert text_width("1,717 positives", 9) == pytest.approx(label.get_window_extent().width / figure.dpi, rel=0.05)
    assert text_width("ab\n1,717 positives", 9) == text_width("1,717 positives", 9)


def test_lines_are_cut_between_words():
    inches = text_width("one two", 10, "bold") + 0.01
    assert wrapped("one two three incomprehensibilities", inches) == "one two\nthree\nincomprehensibilities"


# -- pictures ------------------------------------------------------------------------------------------------------

LEVELS = ("just arrived", "tail", "medium", "head", "celebrities")
TARGETS = ("click", "goods_bag", "product_click", "order", "follow", "comment", "like", "stay_seconds")
COLOUR = {"a_system_of_long_name": "#111111", "popularity": "#222222", "booster": "#333333"}


def bars(named=False):
    groups = {"level": LEVELS, "stage": STAGES}
    values = {by: {name: {group: 0.7 for group in own} for name in (*COLOUR, "truth")} for by, own in groups.items()}
    notes = None if named else {by: {group: "1,234,567" for group in own} for by, own in groups.items()}
    names = {"level": "entries of what was looked at", "stage": "activity of users"}
    values = {names[by]: entries for by, entries in values.items()} if named else values
    return group_bars(
        "AUC by level and stage", values, COLOUR, ceiling="truth", named=named, notes=notes, notes_title="positives"
    )


def calibrations(low):
    points = tuple(CalibrationPoint(predicted=low * 1.3**i, observed=low * 1.31**i, rows=9) for i in range(16))
    return calibration("Calibration", dict.fromkeys(COLOUR, points), COLOUR, unit="rate")


def curves():
    result = result_with({name: {"auc": 0.7} for name in TARGETS})
    losses = {name: 0.1 for name in TARGETS}
    return learning_curves([Epoch(epoch=i, losses=losses, metrics=result) for i in range(150)], TARGETS, TARGETS, 77)


def course():
    points = tuple(CoursePoint(progress=float(i), value=0.5) for i in range(12))
    return curriculum({name: Curriculum(target="product_click", probability=points, auc=points) for name in COLOUR}, COLOUR)


def readings(*what):
    return [{"progress": float(i), **{f"{name}.{of}": 0.5 for name in what for of in (*TARGETS, *LEVELS)}} for i in range(9)]


def counts():
    texts = [["63% (1,234,567)"] * 4] * 4
    return heat_map("From the first to the last day", STAGES, STAGES, [[0.5] * 4] * 4, texts, most=1, column_title="last day")


def gates(experts):
    rows = [[1 / len(experts)] * len(experts)] * len(TARGETS)
    return heat_map("Gates", TARGETS, experts, rows, [["0.33"] * len(experts)] * len(TARGETS), most=1)


def days(count):
    splits = ["train"] * (count - 2) + ["valid", "test"]
    shares = dict.fromkeys(STAGES, 5)
    return [StageDay(day=f"2025-06-{i % 30 + 1:02d}", split=split, users=20, counts=shares) for i, split in enumerate(splits)]


def graph(names):
    edges = {(parent, child): 0.0123 for parent, child in pairwise(names[:4])}
    return target_graph(names, dict.fromkeys(names, "12.34%"), edges | {(names[0], name): -0.5 for name in names[4:]})


def compared_rows():
    score = lambda *values: {"product_click.auc": Score(mean=float(np.mean(values)), by_seed=dict(enumerate(values)))}
    systems = {f"a_system_of_long_name_{i}": (0.7 + i / 1e3, 0.701 + i / 1e3) for i in range(9)}
    baselines = {"popularity": 0.6, "booster": 0.9, "near": 0.7}
    rows = [Row(label=name, role="system", scores=score(*both)) for name, both in systems.items()]
    rows += [Row(label=name, role="baseline", scores=score(value)) for name, value in baselines.items()]
    rows.append(Row(label="truth", role="truth", scores=score(0.95)))
    plain = {"about": {}, "words": {}, "warnings": [], "beside": [], "by_level": {}, "claims": [], "curves": []}
    return Compared(name="x", columns=("product_click.auc",), base="x", rows=rows, failed=0, missing=0, **plain)


def levels():
    score = Score(mean=0.71, std=0.01)
    own = {**{level: score for level in LEVELS}, "gini": Score(mean=0.0123)}
    return by_level({f"a_system_of_long_name_{i}": own for i in range(4)}, "product_click", LEVELS)


def values():
    names = ["0.00012", "256-128-64", "natural", "0.0005", "0.001"]
    scores = {"product_click.auc": [Score(mean=0.7, by_seed={0: 0.7})] * 5}
    drawn = CurveDrawn(of="x", axis="a", title="steps of each level's own", values=names, labels=names, own=1, scores=scores)
    return over_values(drawn, "product_click.auc", "product_click AUC tail")


PICTURES = {
    "bars": bars,
    "bars with names": lambda: bars(named=True),
    "calibration of small rates": lambda: calibrations(0.0004),
    "calibration of large values": lambda: calibrations(11000.0),
    "learning curves": curves,
    "curriculum": course,
    "loss weights": lambda: weights_and_cosines(readings("weight", "cosine"), TARGETS),
    "weights of candidates": lambda: weights_of_candidates(readings("gamma", "effective"), TARGETS),
    "levels": lambda: parts_of_levels(readings("norm", "hardness"), LEVELS),
    "counts": counts,
    "gates": lambda: gates([f"shared expert {i}" for i in range(9)]),
    "gates of two experts": lambda: gates(["channels", "products"]),
    "differences": lambda: differences(TARGETS, ["own"], {level: [[-0.123]] * len(TARGETS) for level in LEVELS}),
    "eight days": lambda: stage_shares("Users by stage", days(8)),
    "sixty days": lambda: stage_shares("Users by stage", days(60)),
    "target graph": lambda: graph(TARGETS),
    "target graph of long names": lambda: graph([f"{name}_within_the_hour" for name in TARGETS]),
    "seeds": lambda: dots(compared_rows(), "product_click.auc", "product_click · AUC"),
    "systems by level": levels,
    "values": values,
}


@pytest.mark.parametrize("name", PICTURES)
def test_no_label_touches_another(name, touching):
    assert PICTURES[name]().startswith("data:image/svg+xml;base64,")
    assert touching == []


def test_names_stay_where_numbers_are_thinned(labels):
    counts()
    differences(["first", "second", "third"], ["own", "shared"], {"tail": [[0.1, 0.2]] * 3})
    assert {*STAGES, "last day", "first", "second", "third", "own", "shared"} <= set(labels)
    labels.clear()
    learning_curves([Epoch(epoch=i, losses={"click": 0.1}) for i in range(150)], ["click"], ["click"], None)
    assert "1" in labels and "151" not in labels


def test_no_label_of_a_search_touches_another(touching, tmp_path):
    systems = [f"a_system_of_long_name_{i}" for i in range(4)]
    trials = [
        Trial(
            number=i,
            id=str(i),
            status="done",
            values={"model.system": systems[i % 4], "train.optimiser.dense.rate": 10 ** -(3 + i / 20)},
            score=0.7 + i / 1e4,
            scores={"mean.auc": 0.7 + i / 1e4, "mean.gini": 0.01 + i / 1e5},
            best_epoch=1,
            epochs=1,
            seconds=1.0,
            front=True,
        )
        for i in range(1, 31)
    ]
    axes = [Axis(path="model.system", choices=tuple(systems)), Axis(path="train.optimiser.dense.rate", is_log=True)]
    draw_search(tmp_path / "search.png", trials, axes, ("mean.auc", "mean.gini"), largest=True)
    assert touching == []


def test_no_label_of_a_search_for_the_graph_touches_another(touching, tmp_path):
    names = tiny_schema().target_names
    changes = ["no edges", "+ click → goods_bag", "+ goods_bag → order", "- click → goods_bag", "+ click → stay"]
    tried = tuple(
        Tried(number=i + 1, graph=frozenset({("click", "order")}), round=i, change=change, scores=(0.7 + i / 1e3, 0.701))
        for i, change in enumerate(changes)
    )
    final = tuple(
        Finalist(roles=(role,), graph=tried[0].graph, scores=(0.7, 0.71), difference=0.0)
        for role in ("found", "first", "reference")
    )
    result = StructureResult(
        found=tried[-1],
        schema=tiny_schema(),
        tried=tried,
        steps=tuple(Step(round=i, number=i + 1, taken=True, tolerance=0.0) for i in range(len(tried))),
        tolerance=0.0,
        final=final,
        final_seeds=(10, 11, 12),
        final_error=None,
        final_tolerance=0.0,
        over_budget=False,
        bundle_path=Path("bundle"),
        metric="mean of click.auc, order.auc",
        folder=tmp_path,
        fresh=True,
    )
    draw_structure(tmp_path / "structure.png", result, names)
    assert touching == []
