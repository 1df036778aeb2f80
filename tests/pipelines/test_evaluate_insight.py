"""What reports show of rankers' insides and of users' stages, on numbers worked out by hand."""

import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models.config import from_dict, to_dict
from models.hashing import splitmix64
from models.learners.workers import SingleWorker
from models.ranker import Ranker
from models.schema import STAGES, Schema
from models.slots import Insight
from models.zoo import resolve
from pipelines.bundle import load_bundle, save_bundle
from pipelines.evaluate import EvaluateConfig, evaluate, evaluate_table, score
from pipelines.evaluate.insight import (
    STEPS_AN_EPOCH,
    curriculum_of,
    gate_of,
    insight_of,
    last_of,
    preferences_of,
    sampled_feeds,
)
from pipelines.evaluate.life_cycle import agreement, life_cycle_of, shift_of
from pipelines.logs.simulator.clock import DAY_MS, EPOCH_MS
from pipelines.report.evaluation.entries import Entry, Epoch, EvaluationReport
from pipelines.report.evaluation.insight import CarriedEdge, CoursePoint, Gate, ModelInsight, Preferences
from pipelines.report.evaluation.life_cycle import StageShift
from pipelines.report.evaluation.sections import targets_and_gates
from pipelines.report.figures.target_graph import _places
from pipelines.report.targets import last_target
from pipelines.train.order import row_groups
from pipelines.train.stream import StoredFeeds
from pipelines.train.validation import validate
from tests.pipelines.fabricate import fabricate, noted_anew
from tests.pipelines.report_samples import page_of, result_with
from tests.pipelines.test_evaluate import Tables
from tests.samples import full_schema, tiny_schema

SMALL = {"embedding_width": 4, "fusion": {"hidden": [8], "towers": [4]}}
MMOE = resolve({"system": "mmoe", **SMALL, "fusion": {"experts": 2, "hidden": [8], "towers": [4]}})
DAY = EPOCH_MS // DAY_MS  # of a simulated world's first day


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """A prepared folder with stages: 40 users over 4 days, of which the last is validation."""
    return lived_in(fabricate(tmp_path_factory.mktemp("staged") / "prepared", schema=full_schema()))


def lived_in(prepared):
    """Users with several feeds, over days, in a fabricated folder."""
    for split, first_day, days in (("train", 0, 3), ("valid", 3, 1)):
        for file in prepared.files(split):
            table = pq.read_table(file)
            ids = table["feed_id"].to_numpy()
            day = DAY + first_day + ids % days
            for name, values in (("user_id", ids % 40), ("day", day.astype(np.int32)), ("at", day * DAY_MS + ids)):
                table = table.set_column(table.column_names.index(name), name, pa.array(values))
            pq.write_table(table, file, row_group_size=16)
    return noted_anew(prepared.path)


def bundle_of(prepared, path, model, history=(), change=lambda ranker: None):
    torch.manual_seed(0)
    ranker = Ranker(prepared.schema, model, prepared.encoder.table_sizes)
    change(ranker)
    parts = {"schema": prepared.schema, "system": model, "encoder": prepared.encoder, "ranker": ranker}
    save_bundle(path, **parts, metrics={}, provenance={"seed": 0})
    if history:
        (path.parent / "history.json").write_text(json.dumps(list(history)))
    return load_bundle(path)


# -- sample --------------------------------------------------------------------------------------------------------


def candidates_by_user(files):
    counts = {}
    for file in files:
        for row in pq.read_table(file).to_pylist():
            counts[row["user_id"]] = counts.get(row["user_id"], 0) + len(row["room_id"])
    return counts


@pytest.mark.parametrize("most", [1, 100, 250, 10**6])
def test_a_sample_is_the_users_of_lowest_hash_with_all_their_feeds(staged, most):
    files = staged.files("train")
    counts = candidates_by_user(files)
    expected, total = [], 0
    for user in sorted(counts, key=lambda user: int(splitmix64(np.array([user]))[0])):
        if expected and total + counts[user] > most:
            break
        expected.append(user)
        total += counts[user]
    sample = sampled_feeds(files, candidates=most)
    assert set(sample["user_id"].to_pylist()) == set(expected)
    assert sum(len(rooms) for rooms in sample["room_id"].to_pylist()) == total
    kept = [row["feed_id"] for file in files for row in pq.read_table(file).to_pylist() if row["user_id"] in expected]
    assert sample["feed_id"].to_pylist() == kept


def test_a_sample_has_at_most_so_many_users(staged):
    assert len(set(sampled_feeds(staged.files("train"), users=7)["user_id"].to_pylist())) == 7


# -- rankers -------------------------------------------------------------------------------------------------------


def test_gate_means_by_hand():
    weight_NE = np.array([[0.2, 0.8], [0.4, 0.6], [0.9, 0.1]])
    found = gate_of(("a", "b"), weight_NE, np.array([0, 0, 2]), ("tail", "medium", "head"))
    assert found.mean == pytest.approx([0.5, 0.5])
    assert found.by_level["tail"] == pytest.approx([0.3, 0.7])
    assert found.by_level["medium"] is None
    assert found.by_level["head"] == pytest.approx([0.9, 0.1])
    assert gate_of(("a", "b"), np.array([[np.nan, 1.0]]), np.array([0]), ("tail",)).mean == (None, 1.0)


def test_gates_of_a_ranker_with_set_weights(staged):
    ranker = Ranker(staged.schema, MMOE, staged.encoder.table_sizes).train()
    with torch.no_grad():
        for parameter in ranker.fusion.gate_scores.parameters():
            parameter.zero_()
        bias = ranker.fusion.gate_scores.bias.view(len(staged.schema.targets), 2)
        bias[2] = torch.log(torch.tensor([1.0, 3.0]))
    sample = sampled_feeds(staged.files("valid"))
    found = insight_of(ranker, staged.schema, sample)
    assert ranker.training  # as it was
    assert found.gates["order"].experts == ("expert 1", "expert 2")
    assert found.gates["order"].mean == pytest.approx([0.25, 0.75])
    assert found.gates["click"].mean == pytest.approx([0.5, 0.5])
    assert found.gates["order"].by_stage["loyal"] == pytest.approx([0.25, 0.75])
    assert set(found.gates["order"].by_level) == {"tail", "medium", "head"}
    assert (found.feeds, found.users) == (40, 40)
    assert found.candidates == sum(len(rooms) for rooms in sample["room_id"].to_pylist())
    assert found.edges == () and found.preferences is None


class FakeRanker(torch.nn.Module):
    """Tells the batch's own numbers, so that what comes out can be computed from the table."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.trained = ("click",)
        self.fusion = SimpleNamespace(expert_names={"click": ("a", "b", "c"), "order": ("a", "b", "c")})
        self.coupling = SimpleNamespace(carries="the level")

    def insight(self, batch):
        level_NE = torch.nn.functional.one_hot(batch.level_N, 3).float()
        user_R = batch.user_R / 40
        return Insight(
            gates={"click": level_NE, "order": level_NE},  # nobody trained the gate of order
            edges={("click", "order"): batch.level_N.float()},
            preferences={"click": user_R, "order": 1 - user_R},
        )


def test_insight_is_the_same_whatever_the_batch(staged):
    sample = sampled_feeds(staged.files("train"))
    small, whole = (insight_of(FakeRanker(), staged.schema, sample, batch_feeds=size) for size in (7, 10**6))
    level = np.concatenate(sample["level"].to_pylist())
    stage = np.repeat(sample["stage"].to_numpy(), [len(levels) for levels in sample["level"].to_pylist()])
    for found in (small, whole):
        assert found.edges == (CarriedEdge(parent="click", child="order", mean=pytest.approx(level.mean())),)
        assert found.carries == "the level"
        assert list(found.gates) == ["click"]
        gate = found.gates["click"]
        assert gate.mean == pytest.approx([(level == i).mean() for i in range(3)])
        assert gate.by_level["medium"] == (0, 1, 0)
        assert gate.by_stage["stick"] == pytest.approx([(level[stage == 2] == i).mean() for i in range(3)])
        assert found.preferences.users == 40
    assert small.preferences.points == whole.preferences.points
    # users 0 to 39 at their last feeds: the mean of user / 40 in a stage
    last = {row["user_id"]: row["stage"] for row in sorted(sample.to_pylist(), key=lambda row: row["at"])}
    loyal = [user / 40 for user, stage in last.items() if stage == 3]
    assert small.preferences.mean_by_stage["loyal"]["click"] == pytest.approx(np.mean(loyal), abs=1e-6)
    assert small.preferences.mean_by_stage["loyal"]["order"] == pytest.approx(1 - np.mean(loyal), abs=1e-6)


# -- preferences ---------------------------------------------------------------------------------------------------


def test_rows_of_last_moments_by_hand():
    at = np.array([5, 7, 7, 1, 9])
    assert last_of(at, np.array([2, 2, 2, 1, 1])).tolist() == [4, 2]  # of equal moments the later row
    assert last_of(at, np.array([2, 2, 2, 1, 1]), np.array([0, 0, 1, 0, 1])).tolist() == [3, 4, 1, 2]


def two_kinds(users=24):
    """Loyal users like all, new ones nothing; each had an earlier feed on which it was the other way round."""
    kind_U = np.arange(users) % 2
    preference_R = np.concatenate([1 - kind_U, kind_U]) * 0.8 + 0.1 + np.tile(np.arange(users), 2) * 1e-4
    columns = {"click": preference_R, "order": preference_R / 2, "flat": np.full(2 * users, 0.3)}
    stage_R = np.concatenate([3 - 3 * kind_U, 3 * kind_U])
    return columns, stage_R, np.tile(np.arange(users), 2), np.repeat([1, 2], users)


def test_preferences_of_users_at_their_last_feed():
    columns, *rest = two_kinds()
    found = preferences_of(columns, *rest)
    assert found.users == 24
    # even users new: .1 + mean of 0, 2, ..., 22 ten-thousandths; odd ones loyal: .9 + mean of 1, 3, ..., 23
    assert found.mean_by_stage["new"] == pytest.approx({"click": 0.1011, "order": 0.05055, "flat": 0.3})
    assert found.mean_by_stage["loyal"] == pytest.approx({"click": 0.9012, "order": 0.4506, "flat": 0.3})
    assert found.mean_by_stage["wander"] is None
    assert (found.neighbours, found.by_chance) == (1.0, 0.5)  # the other 11 of a kind are nearest
    assert sorted(point.stage for point in found.points) == ["loyal"] * 12 + ["new"] * 12
    assert found == preferences_of(columns, *rest)
    assert from_dict(Preferences, json.loads(json.dumps(to_dict(found), allow_nan=False))) == found


def test_no_picture_of_few_equal_or_broken_preferences():
    columns, *rest = two_kinds()
    assert preferences_of({"flat": columns["flat"]}, *rest) is None
    assert preferences_of({"click": np.where(np.arange(48) == 30, np.nan, columns["click"])}, *rest) is None
    few, *rest_of_few = two_kinds(users=10)
    assert preferences_of(few, *rest_of_few) is None


# -- target graph --------------------------------------------------------------------------------------------------


def test_the_last_target():
    assert last_target(tiny_schema()) == "order"
    spelling = tiny_schema().to_dict()
    values = Schema.from_dict({**spelling, "targets": [{**spelling["targets"][3], "parents": []}]})
    assert last_target(values) == "stay"


def test_targets_and_edges_never_share_a_place():
    names = ["click", "bag", "follow", "order", "visit"]
    edges = [
        ("click", "bag"),
        ("click", "follow"),
        ("bag", "order"),
        ("click", "order"),
        ("order", "visit"),
        ("click", "visit"),
    ]
    place, ways = _places(names, edges)
    assert {name: place[name][0] for name in names} == {"click": 0, "bag": 1, "follow": 1, "order": 2, "visit": 3}
    assert [len(ways[edge]) for edge in edges] == [1, 1, 1, 2, 1, 3]
    columns = [place[spot][0] for spot in ways["click", "visit"]]
    assert columns == [1, 2, 3]
    for column in range(4):
        rows = sorted(row for at, row in place.values() if at == column)
        assert all(after - before > 0.999 for before, after in pairwise(rows))


# -- curriculum ----------------------------------------------------------------------------------------------------


def records(scores):
    """As a training run leaves them in `history.json`."""
    return [
        {
            "epoch": epoch,
            "losses": {"click": 0.5 / (epoch + 1), "order": 0.1, "preference.click": 0.2, "preference.order": 0.0},
            "metrics": None if score is None else result_with({"order": {"auc": score}}).to_dict(),
        }
        for epoch, score in enumerate(scores)
    ]


def epochs(scores):
    return [Epoch.from_dict(record) for record in records(scores)]


def test_a_curriculums_course_by_hand():
    ranker = SimpleNamespace(coupling=SimpleNamespace(probability=lambda progress: max(0.5 - 0.25 * progress, 0.25)))
    course = curriculum_of(ranker, tiny_schema(), epochs([0.6, None, 0.7]))
    assert course.target == "order"
    by_progress = {point.progress: point.value for point in course.probability}
    assert (by_progress[0.0], by_progress[0.5], by_progress[1.0], by_progress[2.5]) == (0.5, 0.375, 0.25, 0.25)
    assert len(by_progress) == 3 * STEPS_AN_EPOCH and max(by_progress) < 3  # what follows the last epoch was never trained
    assert course.auc == (
        CoursePoint(progress=1.0, value=0.6),
        CoursePoint(progress=2.0, value=None),
        CoursePoint(progress=3.0, value=0.7),
    )


def test_no_curriculum_without_one_or_without_history():
    plain = SimpleNamespace(coupling=SimpleNamespace())
    assert curriculum_of(plain, tiny_schema(), epochs([0.6])) is None
    paced = SimpleNamespace(coupling=SimpleNamespace(probability=lambda progress: 1.0))
    assert curriculum_of(paced, tiny_schema(), []) is None


# -- stages --------------------------------------------------------------------------------------------------------


def test_shifts_by_hand():
    # user 1: new, then stick, then loyal; user 2: one day only; user 3: loyal stays loyal; user 4: loyal falls to new
    user = np.array([1, 1, 1, 2, 3, 3, 4, 4])
    day = np.array([5, 7, 6, 5, 5, 9, 8, 6])
    stage = np.array([0, 3, 2, 1, 3, 3, 0, 3])
    moved = StageShift(users=3, counts=((0, 0, 0, 1), (0,) * 4, (0,) * 4, (1, 0, 0, 1)))
    assert shift_of(user, day, stage) == moved


def test_the_course_of_stages_equals_a_loop_over_feeds(staged):
    course = life_cycle_of(staged, "valid", None)
    last = {}  # (day, user) -> stage of the last feed
    for split in ("train", "valid"):
        for file in staged.files(split):
            for row in sorted(pq.read_table(file).to_pylist(), key=lambda row: row["at"]):
                known = last.get((row["day"], row["user_id"]), (-1, None))
                if row["at"] >= known[0]:
                    last[row["day"], row["user_id"]] = (row["at"], row["stage"])
    assert [day.day for day in course.days] == ["2025-06-02", "2025-06-03", "2025-06-04", "2025-06-05"]
    assert [day.split for day in course.days] == ["train", "train", "train", "valid"]
    for place, day in enumerate(course.days):
        stages = [stage for (at, _), (_, stage) in last.items() if at == DAY + place]
        assert day.users == len(stages)
        assert day.counts == {name: stages.count(i) for i, name in enumerate(STAGES)}
    assert (course.user_share, course.truth) == (1.0, None)
    some = life_cycle_of(staged, "valid", None, most=80)
    assert some.user_share == 0.5  # of 160 feeds
    kept = (splitmix64(np.arange(40)) < np.uint64(2**63)).sum()
    assert some.days[-1].users == kept < 40


def test_agreement_with_the_truth_by_hand(tmp_path):
    (tmp_path / "stages").mkdir()
    true = pa.table({"user_id": [1, 2, 3, 1], "day": [4, 4, 4, 5], "stage": ["new", "loyal", "stick", "wander"]})
    pq.write_table(true, tmp_path / "stages" / "all.parquet")
    late = EPOCH_MS + 5 * DAY_MS - 1  # still day 4
    rows = pa.table(
        {
            "user_id": pa.array([1, 2, 3, 9]),
            "at": pa.array([late, late, late, late]),
            "stage": pa.array([0, 3, 1, 0], pa.int8()),
        }
    )
    found = agreement(rows, tmp_path)
    assert found.counts == ((1, 0, 0, 0), (0, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1))  # user 9 is unknown
    assert (found.user_days, found.agreement) == (3, pytest.approx(2 / 3))
    assert found.by_chance == pytest.approx(2 / 9)  # new and loyal: a third of either side each
    assert agreement(rows, None) is None and agreement(rows, tmp_path / "nowhere") is None
    assert agreement(rows.slice(3), tmp_path) is None  # nobody is known


def test_training_validates_by_stage_as_the_report_does(staged):
    ranker = Ranker(staged.schema, MMOE, staged.encoder.table_sizes)
    valid = StoredFeeds(groups=row_groups(staged.files("valid")), schema=staged.schema, batch_feeds=7)
    trained = validate(ranker, valid, SingleWorker())["targets"]
    reported = evaluate_table(score(ranker, staged.schema, staged.files("valid")), staged.schema).targets
    assert trained["click"]["rows_by_stage"] == reported["click"].group_values("rows_by_stage")
    assert trained["click"]["auc_by_stage"] == pytest.approx(reported["click"].group_values("auc_by_stage"), abs=1e-3)
    assert trained["stay"]["mse_by_stage"] == pytest.approx(reported["stay"].group_values("mse_by_stage"), rel=1e-5)


def test_no_course_without_stages(tmp_path):
    assert life_cycle_of(fabricate(tmp_path), "valid", None) is None


# -- report --------------------------------------------------------------------------------------------------------


def write_truth(prepared, path):
    """Chances of clicks and orders for all candidates, and stages that the rule always finds."""
    (path / "stages").mkdir(parents=True)
    (path / "impressions").mkdir()
    rows = {"user_id": [], "room_id": [], "shown_at": [], "click": [], "order": []}
    stages = {}
    for split in ("train", "valid"):
        for file in prepared.files(split):
            for feed in sorted(pq.read_table(file).to_pylist(), key=lambda feed: feed["at"]):
                stages[feed["user_id"], (feed["at"] - EPOCH_MS) // DAY_MS] = STAGES[feed["stage"]]
                for room, click in zip(feed["room_id"], feed["label.click"], strict=True):
                    values = (feed["user_id"], room, feed["at"], 0.2 + 0.6 * click, 0.01 * (room % 7))
                    for name, value in zip(rows, values, strict=True):
                        rows[name].append(value)
    pq.write_table(pa.table(rows), path / "impressions" / "any.parquet")
    table = {"user_id": [user for user, _ in stages], "day": [day for _, day in stages], "stage": list(stages.values())}
    pq.write_table(pa.table(table), path / "stages" / "all.parquet")
    return path


@pytest.fixture(scope="module")
def report(staged, tmp_path_factory):
    """Of a ranker with gates and preferences, of one with a curriculum, of one with nothing to show; and the truth."""
    path = tmp_path_factory.mktemp("report")
    systems = {
        "staged": {"system": "ple", **SMALL, "weighting": {"kind": "stage"}},
        "paced": {"system": "pimm", "embedding_width": 4, "coupling": {"alpha": 0.75, "decay": 0.5, "floor": 0.1}},
        "bottom": {"system": "shared_bottom", "embedding_width": 4},
    }
    bundles = [
        bundle_of(staged, path / name / "bundle", resolve(system), records([0.6, 0.7]) if name == "paced" else ())
        for name, system in systems.items()
    ]
    truth = write_truth(staged, path / "truth")
    config = EvaluateConfig(split="valid", baselines=("truth",))
    page = evaluate(staged, bundles, config, path / "report", truth, say=lambda line: None)
    return page.read_text(), json.loads((path / "report" / "metrics.json").read_text())


def test_all_numbers_of_the_page_are_in_its_metrics_and_can_be_read_back(report):
    _, everything = report
    assert EvaluationReport.from_dict(everything).to_dict() == everything


def sentence(text, start):
    """The figure's sentence that begins so, as a reader sees it."""
    found = text.index(f"<figcaption>{start}") + len("<figcaption>")
    return text[found : text.index("</figcaption>", found)].replace("&#39;", "'")


def test_metrics_by_stage_of_every_entry(report, staged):
    text, everything = report
    entries = {entry["name"]: entry["result"]["targets"] for entry in everything["entries"]}
    assert list(entries) == ["staged", "paced", "bottom", "truth"]
    assert entries["truth"]["click"]["auc_by_stage"] == dict.fromkeys(STAGES, 1.0)  # it knows every click
    clicks = dict.fromkeys(STAGES, 0)
    for feed in pq.read_table(staged.files("valid")[0]).to_pylist():
        clicks[STAGES[feed["stage"]]] += int(sum(feed["label.click"]))
    assert entries["bottom"]["click"]["positives_by_stage"] == clicks
    heads = {tuple(cell[0] for cell in rows[1]) for rows in Tables(text).tables if len(rows) > 1}
    assert ("", "tail", "medium", "head", "Gini", *STAGES, "Log loss", "Calibration", "ECE") in heads
    assert ("", "MSE (log)", "MSE", "MAE", "tail", "medium", "head", *STAGES) in heads


def test_the_stages_section(report):
    text, everything = report
    course = everything["stages"]
    assert course["truth"]["agreement"] == 1.0  # as the truth was written
    assert course["truth"]["user_days"] == course["days"][-1]["users"] == 40
    said = sentence(text, "The rule finds")
    assert said.startswith("The rule finds the simulator's own stage for 100% of 40 users' days of the evaluated split")
    moved = course["shift"]["users"] - sum(course["shift"]["counts"][i][i] for i in range(4))
    share = moved / course["shift"]["users"]
    assert f"{share:.0%} ended in another stage" in sentence(text, f"Of {course['shift']['users']} users")
    known = everything["entries"][0]["insight"]["preferences"]
    assert len(known["points"]) == known["users"] == 40
    assert f"{known['neighbours']:.0%} are in the same rule-based stage" in sentence(text, "Each point is one of 40 users")
    assert everything["entries"][1]["insight"]["preferences"] is None and text.count("Each point is one of") == 1


def test_the_section_on_targets_and_gates(report):
    text, everything = report
    gates = everything["entries"][0]["insight"]["gates"]
    value, target, name = max(
        (value, target, name)
        for target, gate in gates.items()
        for value, name in zip(gate["mean"], gate["experts"], strict=True)
    )
    assert all(sum(gate["mean"]) == pytest.approx(1, abs=1e-5) for gate in gates.values())
    assert f"The most one-sided is {target}: {value:.2f} on {name}, where an even gate has 0.33." in text
    assert "staged and bottom hand nothing on" in sentence(text, "Targets with what must have happened")
    insight = everything["entries"][1]["insight"]
    assert {(edge["parent"], edge["child"]) for edge in insight["edges"]} >= {("click", "goods_bag"), ("goods_bag", "order")}
    most = max(insight["edges"], key=lambda edge: abs(edge["mean"]))
    assert f"most along {most['parent']} → {most['child']} ({most['mean']:.3g})." in sentence(text, "Numbers at the arrows")


def gates_of(by_stage, by_level):
    """A model's gates: of `click` over its own expert and two shared ones, of `order` over a shared one alone."""
    alone = [{group: (1.0,) for group in groups} for groups in (by_level, by_stage)]
    order = Gate(experts=("shared 1",), mean=(1.0,), by_level=alone[0], by_stage=alone[1])
    click = Gate(experts=("own", "shared 1", "shared 2"), mean=(0.7, 0.2, 0.1), by_level=by_level, by_stage=by_stage)
    insight = ModelInsight(candidates=1234, feeds=1, users=1, gates={"click": click, "order": order})
    return Entry(name="a", role="model", result=result_with(), insight=insight)


def test_gates_are_shown_by_what_they_differ_by():
    by_stage = {"new": [0.72, 0.19, 0.09], "wander": None, "stick": None, "loyal": [0.69, 0.205, 0.105]}
    clear = {"tail": [0.5, 0.35, 0.15], "medium": [0.7, 0.2, 0.1], "head": [0.8, 0.125, 0.075]}
    faint = {"tail": [0.704, 0.198, 0.098], "medium": [0.7, 0.2, 0.1], "head": [0.696, 0.202, 0.102]}
    show = lambda *groups: targets_and_gates([gates_of(*groups)], tiny_schema(), result_with())[-1].columns
    (means,), (differences,) = show(by_stage, clear)
    assert means.text == (
        "Mean weight of the experts in each target's gate, over 1,234 candidates; rows add up to 1. "
        "The most one-sided is click: 0.70 on own, where an even gate has 0.33."
    )
    assert differences.text.endswith("most for click, whose weight on own is 20 lower where the level is tail.")
    assert show(by_stage, faint)[1][0].text.endswith("most for click, whose weight on own is 2 higher where the stage is new.")
    assert len(show(dict.fromkeys(by_stage), faint)) == 1  # less than a hundredth


def test_the_section_on_the_curriculum(report):
    text, everything = report
    course = everything["entries"][1]["insight"]["curriculum"]
    assert {point["progress"]: point["value"] for point in course["probability"]}[0.98] == 0.75  # by epoch, as published
    said = sentence(text, "paced was shown")
    assert "with probability 0.75 at the start and 0.25 at the end; order was best after epoch 2 (0.7000)." in said
    assert all(everything["entries"][i]["insight"]["curriculum"] is None for i in (0, 2))


def test_the_funnel_beside_what_happened(tmp_path):
    def entry(name, role, funnel, labels):
        return Entry(name=name, role=role, result=result_with(funnel=funnel, funnel_labels=labels))

    labels = {"goods_bag<=click": 0.0, "order<=goods_bag": 0.02, "follow<=click": 0.0}
    entries = [
        entry("a", "model", {"goods_bag<=click": 0.004, "order<=goods_bag": 0.0249, "follow<=click": 0.3}, labels),
        entry("b", "baseline", {"goods_bag<=click": 0.006, "order<=goods_bag": 0.026}, labels),
    ]
    page = Tables(page_of(tmp_path, entries, tiny_schema()))
    groups, heads, *rows = next(rows for rows in page.tables if rows[-1][0][0] == "what happened")
    assert [cell[0] for cell in groups] == ["", "above click", "above goods_bag"]  # edges of one parent stand together
    assert [cell[0] for cell in heads] == ["", "goods_bag", "follow", "order"]
    assert [[cell[0] for cell in row] for row in rows] == [
        ["a", "0.40%", "30.00%", "2.49%"],
        ["b", "0.60%", "–", "2.60%"],
        ["what happened", "0.00%", "0.00%", "2.00%"],
    ]
    assert [["wrong" in cell[1] for cell in row] for row in rows] == [
        [False, False, True, False],  # more than half a point above what happened
        [False, True, False, True],
        [False] * 4,
    ]


def test_a_schema_without_stages_and_a_ranker_that_is_broken(tmp_path):
    prepared = fabricate(tmp_path / "prepared")

    def broken(ranker):
        with torch.no_grad():
            for parameter in ranker.parameters():
                parameter.fill_(float("nan"))

    config = EvaluateConfig(split="valid", baselines=())
    esmm = bundle_of(prepared, tmp_path / "esmm" / "bundle", resolve({"system": "esmm", "embedding_width": 4}))
    nan = bundle_of(prepared, tmp_path / "nan" / "bundle", MMOE, change=broken)
    text = evaluate(prepared, [esmm, nan], config, tmp_path / "report", say=lambda line: None).read_text()
    assert 'id="alarms"' in text and 'id="stages"' not in text and 'id="curriculum"' not in text
    assert "AUC by stage" not in text
    everything = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert everything["stages"] is None
    assert everything["entries"][1]["insight"]["gates"]["click"]["mean"] == [None, None]
    edges = everything["entries"][0]["insight"]["edges"]
    assert sentence(text, "Numbers at the arrows").startswith("Numbers at the arrows: probability of the parent, mean over")
    assert all(0 < edge["mean"] < 1 for edge in edges)
