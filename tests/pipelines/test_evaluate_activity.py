"""Metrics by what was known of the user: history length and activity, in numbers, on the page and by path."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from models.metrics.names import direction
from models.schema import Schema
from pipelines.compare.config import CompareConfig, columns_of
from pipelines.evaluate import EvaluateConfig, evaluate, evaluate_table, score
from pipelines.evaluate.activity import ACTIVITY, activity_of, by_known, length_groups
from pipelines.evaluate.score import labelled_candidates
from pipelines.report.evaluation.comparisons import known
from pipelines.report.evaluation.entries import Entry
from pipelines.report.evaluation.metrics import ActivityGroup, ByGroup
from pipelines.report.words import head
from tests.pipelines.fabricate import fabricate
from tests.pipelines.report_samples import page_of, result_with
from tests.pipelines.test_evaluate import Tables
from tests.pipelines.test_evaluate_insight import MMOE, bundle_of, lived_in
from tests.samples import full_schema, tiny_schema

# -- groups --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "names"),
    {
        50: ["0", "1-5", "6-20", "21-49", "full"],
        10: ["0", "1", "2-4", "5-9", "full"],
        8: ["0", "1-3", "4-7", "full"],
        3: ["0", "1", "2", "full"],
        1: ["0", "full"],
    }.items(),
)
def test_groups_of_a_historys_length(length, names):
    starts, found = length_groups(length)
    assert found == names
    assert starts[:2] == [0, 1] and starts[-1] == length  # nothing known stands apart, and so does a full history


def test_thirds_of_users_by_hand():
    # user 7 had seen 4 before the first feed here (the 90 are of a later one), users 3 and 5 nothing, user 9 had seen 20
    user = np.array([7, 7, 3, 5, 9, 9])
    at = np.array([20, 10, 30, 5, 1, 2])
    earlier = np.array([90, 4, 0, 0, 20, 25])
    third, facts = activity_of(user, at, earlier)
    assert [ACTIVITY[place] for place in third] == ["medium", "medium", "low", "low", "high", "high"]
    assert facts == {
        "low": ActivityGroup(users=2, least=0, most=0),
        "medium": ActivityGroup(users=1, least=4, most=4),
        "high": ActivityGroup(users=1, least=20, most=20),
    }


def test_users_of_equal_activity_are_never_divided():
    third, facts = activity_of(np.arange(9), np.zeros(9, int), np.array([0] * 8 + [3]))
    assert third.tolist() == [1] * 8 + [2]  # the middle of the eight is in the second third
    assert [facts[name].users for name in ACTIVITY] == [0, 8, 1] and facts["low"].least is None


# -- metrics -------------------------------------------------------------------------------------------------------


def eight():
    """Two users: of user 1 nothing is known, user 2 has three channels (one feed: ten) and had been shown 30 before."""
    columns = {
        "feed_id": [0, 0, 0, 1, 1, 1, 2, 2],
        "user_id": [1, 1, 1, 2, 2, 2, 2, 2],
        "room_id": range(8),
        "at": [5, 5, 5, 5, 5, 5, 6, 6],
        "level": [0] * 8,
        "known.entries.channels": [0, 0, 0, 3, 3, 3, 10, 10],
        "known.impressions": [0, 0, 0, 30, 30, 30, 33, 33],
        "label.click": [1.0, 0, 1, 1, 0, 0, 0, 1],
        "label.stay": [0.0] * 3 + [np.e**2 - 1, 0, 0] + [np.e - 1] * 2,
        "click": [0.9, 0.2, 0.1, 0.5, 0.6, 0.4, 0.3, 0.3],
        "stay": [np.e - 1] * 6 + [0.0] * 2,
    }
    return pa.table({name: np.array(values) for name, values in columns.items()})


def test_metrics_of_eight_candidates():
    found, about = by_known(eight(), tiny_schema(), ["click", "stay"])
    # 0: (.9, .2) right, (.1, .2) wrong; 2-4: (.5, .6) wrong, (.5, .4) right; full: a tie
    lengths = {"0": 0.5, "1": None, "2-4": 0.5, "5-9": None, "full": 0.5}
    assert found["click"].histories["auc_by_history"] == {"channels": lengths}  # the table says nothing of products
    assert found["click"].histories["rows_by_history"]["channels"] == {"0": 3, "1": 0, "2-4": 3, "5-9": 0, "full": 2}
    assert found["click"].histories["positives_by_history"]["channels"] == {"0": 2, "1": 0, "2-4": 1, "5-9": 0, "full": 1}
    # high: positives .5 and .3, negatives .6, .4 and .3: (.5, .4), (.5, .3) right, (.3, .3) a tie, three wrong
    assert found["click"].groups["auc_by_activity"] == {"low": 0.5, "medium": None, "high": pytest.approx(2.5 / 6)}
    assert found["click"].groups["rows_by_activity"] == {"low": 3, "medium": 0, "high": 5}
    # in logs, 1 was predicted for 0; for 2, 0 and 0; and 0 for 1
    assert found["stay"].groups["mse_by_activity"] == {"low": pytest.approx(1), "medium": None, "high": pytest.approx(1)}
    assert "positives_by_activity" not in found["stay"].groups
    assert about.days == 7.0 and about.groups["high"] == ActivityGroup(users=1, least=30, most=30)


def test_the_mean_squared_error_is_that_of_the_group():
    table = eight().set_column(10, "stay", pa.array([0.0, 0, 0] + [np.e - 1] * 5))
    found, _ = by_known(table, tiny_schema(), ["stay"])
    assert found["stay"].histories["mse_by_history"]["channels"] == {
        "0": pytest.approx(0),
        "1": None,
        "2-4": pytest.approx(1),
        "5-9": None,
        "full": pytest.approx(0),
    }


def test_broken_predictions_have_sizes_but_no_metrics():
    table = eight().set_column(9, "click", pa.array([np.nan] + [0.5] * 7))
    found, _ = by_known(table, tiny_schema(), ["click"])
    assert found["click"].groups["auc_by_activity"] == dict.fromkeys(ACTIVITY)
    assert found["click"].groups["rows_by_activity"]["low"] == 3


def test_nothing_known_gives_nothing():
    table = eight().drop_columns(["known.entries.channels", "known.impressions"])
    assert by_known(table, tiny_schema(), ["click"]) == ({"click": ByGroup()}, None)


# -- scored tables -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    return lived_in(fabricate(tmp_path_factory.mktemp("lived") / "prepared", schema=full_schema()))


def test_scored_tables_say_what_was_known(lived, tmp_path):
    bundle = bundle_of(lived, tmp_path / "bundle", MMOE)
    files = lived.files("valid")
    feeds = [feed for file in files for feed in pq.read_table(file).to_pylist()]
    assert any(len(feed["channels.room"]) == 0 for feed in feeds)
    for table in (score(bundle.ranker, bundle.schema, files, batch_feeds=7), labelled_candidates(files, bundle.schema)):
        expected = [feed for feed in feeds for _ in feed["room_id"]]
        assert table["known.entries.channels"].to_pylist() == [len(feed["channels.room"]) for feed in expected]
        assert table["known.entries.products"].to_pylist() == [len(feed["products.product"]) for feed in expected]
        # of windows of 7 and 30 days, the longer one
        assert table["known.impressions"].to_pylist() == [feed["preference_count"][1] for feed in expected]


def test_groups_equal_a_loop_and_have_paths(lived, tmp_path):
    bundle = bundle_of(lived, tmp_path / "bundle", MMOE)
    table = score(bundle.ranker, bundle.schema, lived.files("train"))
    result = evaluate_table(table, bundle.schema)
    rows = [row for row in table.to_pylist() if 2 <= row["known.entries.channels"] <= 4]
    expected = roc_auc_score([row["label.click"] for row in rows], [row["click"] for row in rows])
    assert result.value("click.auc_by_history.channels.2-4") == pytest.approx(expected, abs=1e-12)
    assert result.value("click.rows_by_history.channels.2-4") == len(rows)
    assert result.value("stay.mse_by_activity.low") == result.targets["stay"].group_values("mse_by_activity")["low"]
    assert direction("click.auc_by_history.channels.2-4") == direction("click.auc_by_activity.low") == "max"
    assert direction("stay.mse_by_history.products.full") == "min"
    assert sum(result.targets["click"].group_values("rows_by_activity").values()) == table.num_rows
    assert not any("_by_" in name for name in result.mean)


def test_a_comparison_may_have_them_as_columns():
    named = (
        "click.auc_by_activity.low",
        "order.auc_by_history.channels.2-4",
        "stay.mse_by_history.products.full",
        "click.poor@1",
        "fused.poor@3",
    )
    compare = CompareConfig(systems={"mmoe": {"system": "mmoe"}}, metrics=named)
    assert columns_of(compare, full_schema()) == named
    assert [head(path, full_schema()) for path in named] == [
        ("click", "AUC low"),
        ("order", "AUC channels 2-4"),
        ("stay", "MSE (log) products full"),
        ("click", "Poor@1"),
        ("fused", "Poor@3"),
    ]


# -- page ----------------------------------------------------------------------------------------------------------


def entry(name, role, low, high, *, positives=(40, 40)):
    """Of clicks alone, by activity."""
    click = {
        "auc": (low + high) / 2,
        "auc_by_activity": {"low": low, "medium": None, "high": high},
        "rows_by_activity": {"low": 1000, "medium": 0, "high": 2000},
        "positives_by_activity": {"low": positives[0], "medium": 0, "high": positives[1]},
    }
    return Entry(name=name, role=role, result=result_with({"click": click}))


def clicks():
    return Schema.from_dict({**tiny_schema().to_dict(), "targets": [{"name": "click", "action": "enter"}]})


def section_of(*entries):
    colour = {each.name: "#000000" for each in entries}
    (only,) = known(entries, clicks(), colour, entries[0].result)
    return only


def test_the_table_ends_with_the_groups_sizes():
    shown = section_of(entry("a", "model", 0.75, 0.7), entry("b", "baseline", 0.7, 0.72), entry("t", "truth", 0.9, 0.9))
    (table,) = shown.tables
    assert [head for _, head in table.heads] == list(ACTIVITY) and table.heads[0][0] == "AUC by activity"
    assert [(row.name, [cell.text for cell in row.cells]) for row in table.rows] == [
        ("a", ["0.7500", "–", "0.7000"]),
        ("b", ["0.7000", "–", "0.7200"]),
        ("t", ["0.9000", "–", "0.9000"]),
        ("candidates", ["1,000", "0", "2,000"]),
        ("positives", ["40", "0", "40"]),
    ]
    assert [[cell.best for cell in row.cells] for row in table.rows[:3]] == [
        [True, False, False],
        [False, False, True],
        [False] * 3,
    ]
    assert shown.text == (
        "a against b, the best of the baselines, in AUC by activity: 0.0500 better for low, 0.0200 worse for high."
    )


def test_small_groups_are_shown_but_not_compared():
    shown = section_of(entry("a", "model", 0.75, 0.7, positives=(9, 10)), entry("b", "baseline", 0.7, 0.6))
    assert [cell.best for cell in shown.tables[0].rows[0].cells] == [False, False, True]
    assert shown.tables[0].rows[0].cells[0].text == "0.7500"
    assert "low" not in shown.text and "0.1000 better for high" in shown.text
    full = section_of(entry("a", "model", 0.75, 0.7, positives=(991, 10)), entry("b", "baseline", 0.7, 0.6))
    assert "low" not in full.text  # nine negatives


def test_the_best_baseline_is_the_one_that_is_best_overall():
    weak, strong = entry("weak", "baseline", 0.6, 0.6), entry("strong", "baseline", 0.5, 0.8)
    assert section_of(entry("a", "model", 0.75, 0.7), weak, strong).text.startswith("a against strong, ")
    assert section_of(entry("a", "model", 0.75, 0.7)).text == ""  # nobody to compare with


def test_histories_stand_apart_where_a_table_would_be_too_wide():
    def of(schema):
        groups = {history.name: length_groups(history.length)[1] for history in schema.histories}
        count = lambda value: {name: dict.fromkeys(names, value) for name, names in groups.items()}
        activity = {"auc_by_activity": dict.fromkeys(ACTIVITY, 0.5), "rows_by_activity": dict.fromkeys(ACTIVITY, 99)}
        history = {"auc_by_history": count(0.5), "rows_by_history": count(99), "positives_by_history": count(20)}
        click = {"auc": 0.5, **history, **activity, "positives_by_activity": dict.fromkeys(ACTIVITY, 20)}
        (only,) = known(
            [a := Entry(name="a", role="model", result=result_with({"click": click}))], schema, {"a": "k"}, a.result
        )
        return [[group for group, _ in table.groups] for table in only.tables]

    by = {
        name: f"AUC by {text}"
        for name, text in {"c": "entries of channels", "p": "entries of products", "a": "activity"}.items()
    }
    assert of(clicks()) == [[by["c"], by["p"]], [by["a"]]]  # 5 + 4 columns, and 3
    one = Schema.from_dict({**clicks().to_dict(), "histories": clicks().to_dict()["histories"][:1]})
    assert of(one) == [[by["c"], by["a"]]]


@pytest.fixture(scope="module")
def report(lived, tmp_path_factory):
    path = tmp_path_factory.mktemp("report")
    bundles = [bundle_of(lived, path / "mmoe" / "bundle", MMOE)]
    config = EvaluateConfig(split="valid", baselines=())
    page = evaluate(lived, bundles, config, path / "report", say=lambda line: None)
    return page.read_text(), json.loads((path / "report" / "metrics.json").read_text())


def test_the_section_on_what_was_known(report, lived):
    text, everything = report
    (mine,) = everything["entries"]
    click = mine["result"]["targets"]["click"]
    feeds = pq.read_table(lived.files("valid")[0]).to_pylist()
    assert click["rows_by_history"]["channels"]["0"] == sum(len(feed["room_id"]) for feed in feeds if not feed["channels.room"])
    part = text[text.index('<section id="known">') : text.index('<section id="exposure">')]
    assert part.count("<h3>") == 3 and all(f"<h3>{name}</h3>" in part for name in ("click", "order", "stay"))
    rows = {row[0][0]: [cell[0] for cell in row[1:]] for row in Tables(part).tables[0][2:]}
    assert rows["candidates"][:5] == [f"{rows:,}" for rows in click["rows_by_history"]["channels"].values()]
    aucs = click["auc_by_history"]["channels"].values()
    assert rows["mmoe"][:5] == ["–" if value is None else f"{value:.4f}" for value in aucs]
    groups = mine["result"]["activity"]["groups"]
    assert sum(group["users"] for group in groups.values()) == 40  # of the split
    low = groups["low"]
    assert "in the 30 days before" in " ".join(part.split())
    assert f"low: {low['users']} users with {low['least']} to {low['most']}" in " ".join(part.split())


def test_no_section_where_nothing_is_known(lived, tmp_path):
    bundle = bundle_of(lived, tmp_path / "bundle", MMOE)
    scored = score(bundle.ranker, bundle.schema, lived.files("valid"))
    bare = scored.drop_columns([name for name in scored.column_names if name.startswith("known.")])
    for table, there in ((scored, True), (bare, False)):
        entries = [Entry(name="a", role="model", result=evaluate_table(table, bundle.schema))]
        text = page_of(tmp_path / "report", entries, bundle.schema)
        assert ('id="known"' in text) == there
