"""Scoring, baselines and the report on a small world in which it is known what decides a click."""

import base64
import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from models.config import ConfigError
from models.ranker import Ranker
from models.schema import Field, Hash, Levels, Number, Schema, Target, Vocabulary
from models.zoo import resolve
from pipelines.bundle import Bundle, load_bundle, save_bundle
from pipelines.encode.batches import to_batch
from pipelines.encode.clock import Clock
from pipelines.encode.encode import encode
from pipelines.encode.fit import finish, fit_partial
from pipelines.evaluate import EvaluateConfig, evaluate, evaluate_table, score
from pipelines.evaluate.baselines import booster, booster_columns, popularity, training_sample
from pipelines.evaluate.evaluate import bundle_names
from pipelines.evaluate.truth import Truth, as_predicted, truth_of
from pipelines.prepared import SPLITS, Prepared
from pipelines.report.evaluation.entries import Entry, SearchShown
from pipelines.report.evaluation.metrics import EvaluationResult
from pipelines.report.evaluation.tables import Column, grid, number
from tests.pipelines.fabricate import noted_anew, write_manifest
from tests.pipelines.report_samples import page_of, result_with

MODEL = resolve({"system": "mmoe", "embedding_width": 4, "fusion": {"experts": 2, "hidden": [8], "towers": [4]}})
ROOMS, USERS, ENTRY_RATE = 30, 50, 0.25
HOUR = 3_600_000


def world_schema() -> Schema:
    number = Number(transform="log1p")
    return Schema(
        fields=(
            Field(name="user", of="feed", column="user_id", encoding=Hash(buckets=60)),
            Field(name="hour", of="feed", encoding=Vocabulary(min_count=1)),
            Field(name="device", of="feed", column="context.device", encoding=Vocabulary(min_count=1)),
            Field(name="room", of="candidate", column="room_id"),
            Field(name="rate", of="candidate", column="room_entry_rate.life", encoding=Number()),
            Field(name="pair", of="candidate", column="pair_room_entries", encoding=number),
        ),
        targets=(
            Target(name="click", action="enter"),
            Target(name="order", action="order", parents=("click",)),
            Target(name="stay", action="enter", kind="value", head="log1p", parents=("click",)),
        ),
        levels=Levels(of="room"),
    )


def world_features(seed: int, feeds: int, first_id: int) -> tuple[pa.Table, pa.Table]:
    """Raw feeds and their truth: a click depends on the room's rate, on repeat entries, and on the device (phones differ)."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 7, feeds)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    feed_N, n = np.repeat(np.arange(feeds), lengths), int(lengths.sum())
    cut = lambda values: pa.ListArray.from_arrays(offsets, pa.array(values))
    user, phone = rng.integers(0, USERS, feeds), rng.random(feeds) < 0.5
    # every room once in a feed
    room = np.concatenate([rng.permutation(ROOMS)[:count] for count in lengths]) + 100
    impressions = rng.integers(0, 400, n)
    entries = rng.binomial(impressions, 0.1 + 0.5 * (room - 100) / ROOMS)
    repeats = rng.poisson(0.4, n)
    rate = (entries + 20 * ENTRY_RATE) / (impressions + 20)
    logit = -3 + 4 * rate + 1.5 * np.minimum(repeats, 2) * np.where(phone[feed_N], 1, -0.3)
    click_p = 1 / (1 + np.exp(-logit))
    click = rng.random(n) < click_p
    order = click & (rng.random(n) < 0.3)
    ids = np.arange(first_id, first_id + feeds)
    at = 1_600_000_000_000 + ids * 60_000
    table = pa.table(
        {
            "feed_id": ids,
            "user_id": user,
            "at": at,
            "day": pa.array(np.full(feeds, 18518), pa.int32()),
            "room_id": cut(room),
            "context.device": pa.array(np.where(phone, "phone", "desk")),
            "room_impressions.life": cut(impressions),
            "room_entries.life": cut(entries),
            "pair_room_entries": cut(repeats),
            "label.click": cut(click.astype(np.float32)),
            "label.order": cut(order.astype(np.float32)),
            "label.stay": cut(np.where(click, rng.exponential(60, n) * (1 + repeats), 0).astype(np.float32)),
        }
    )
    known = {"user_id": user[feed_N], "room_id": room, "shown_at": at[feed_N], "click": click_p, "order": 0.3 * click_p}
    return table, pa.table(known)


def write_world(path: Path, *, train: int = 600, seed: int = 0) -> Prepared:
    """Two files a split; the truth lies beside it in `path/truth`."""
    schema, how = world_schema(), {"entry_rate": ENTRY_RATE, "clock": Clock()}
    sizes = {"train": train, "valid": 200, "test": 300}
    features, known, first = {}, [], 0
    for i, split in enumerate(SPLITS):
        features[split], facts = world_features(10 * seed + i, sizes[split], first)
        known.append(facts)
        first += sizes[split]
    state = finish(fit_partial(features["train"], schema, **how), schema, **how)
    for split, raw in features.items():
        half = raw.num_rows // 2
        for kind, whole in (("features", raw), ("feeds", encode(raw, schema, state))):
            (path / "prepared" / kind / split).mkdir(parents=True)
            for i, part in enumerate((whole.slice(0, half), whole.slice(half))):
                pq.write_table(part, path / "prepared" / kind / split / f"bucket-0000{i}.parquet", row_group_size=64)
    state.save(path / "prepared" / "encoder")
    (path / "prepared" / "schema.json").write_text(json.dumps(schema.to_dict()))
    splits = {split: {"files": 2, "feeds": sizes[split]} for split in SPLITS}
    write_manifest(path / "prepared", f"world-{seed}", splits)
    (path / "truth" / "impressions").mkdir(parents=True)
    pq.write_table(pa.concat_tables(known[::-1]), path / "truth" / "impressions" / "any.parquet")  # in any order
    return Prepared.open(path / "prepared")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


def random_bundle(prepared: Prepared, path: Path, seed: int = 0, history=()) -> Bundle:
    torch.manual_seed(seed)
    ranker = Ranker(prepared.schema, MODEL, prepared.encoder.table_sizes)
    save_bundle(
        path,
        schema=prepared.schema,
        system=MODEL,
        encoder=prepared.encoder,
        ranker=ranker,
        metrics={},
        provenance={"seed": seed, "best_epoch": 2, "epochs": 2, "stopped": "all epochs done"},
    )
    if history:
        (path.parent / "history.json").write_text(json.dumps(list(history)))
    return load_bundle(path)


# -- scores --------------------------------------------------------------------------------------------------------


def test_scores_keep_the_files_order_whatever_the_batch(world):
    torch.manual_seed(0)
    ranker = Ranker(world.schema, MODEL, world.encoder.table_sizes).train()
    small = score(ranker, world.schema, world.files("test"), batch_feeds=7)
    assert ranker.training  # as it was
    feeds = pa.concat_tables([pq.read_table(file) for file in world.files("test")])
    assert small["room_id"].to_pylist() == [room for rooms in feeds["room_id"].to_pylist() for room in rooms]
    assert small["level"].to_pylist() == [level for levels in feeds["level"].to_pylist() for level in levels]
    lengths = [len(rooms) for rooms in feeds["room_id"].to_pylist()]
    for name in ("feed_id", "user_id", "at"):
        assert small[name].to_pylist() == np.repeat(feeds[name].to_numpy(), lengths).tolist()
    with torch.no_grad():
        whole = ranker.eval().predict(to_batch(feeds, world.schema))
    for name in world.schema.target_names:
        np.testing.assert_allclose(small[name].to_numpy(), whole[name].numpy(), rtol=1e-5)
        assert small[f"label.{name}"].to_pylist() == to_batch(feeds, world.schema).labels[name].tolist()


def test_no_feeds_to_score(world):
    with pytest.raises(ValueError, match="no feeds to score"):
        score(Ranker(world.schema, MODEL, world.encoder.table_sizes), world.schema, [])


def test_metrics_of_a_scored_table(world):
    torch.manual_seed(1)
    scored = score(Ranker(world.schema, MODEL, world.encoder.table_sizes), world.schema, world.files("test"))
    result = evaluate_table(scored, world.schema)
    for name in ("click", "order"):
        expected = roc_auc_score(scored[f"label.{name}"], scored[name])
        assert result.value(f"{name}.auc") == pytest.approx(expected, abs=1e-12)
    assert (result.rows, result.feeds) == (scored.num_rows, 300)
    assert set(evaluate_table(scored.drop_columns(["stay"]), world.schema).targets) == {"click", "order"}


def test_a_target_that_nothing_taught_is_judged_on_request_and_marked(world, tmp_path):
    """`order` has weight 0. Its numbers stand beside, and everything else is as if they did not."""
    spelling = world.schema.to_dict()
    spelling["targets"][1]["loss_weight"] = 0.0
    schema = Schema.from_dict(spelling)
    ranker = Ranker(schema, MODEL, world.encoder.table_sizes)
    plain, whole = (score(ranker, schema, world.files("test"), untaught=asked) for asked in (False, True))
    assert "order" not in plain.column_names and whole.drop_columns(["order"]).equals(plain)
    taught, both = evaluate_table(plain, schema, taught=ranker.trained), evaluate_table(whole, schema, taught=ranker.trained)
    assert list(both.targets) == ["click", "order", "stay"]
    assert [metrics.untaught for metrics in both.targets.values()] == [False, True, False]
    assert both.value("order.auc") == pytest.approx(roc_auc_score(whole["label.order"], whole["order"]), abs=1e-12)
    assert EvaluationResult.from_dict(both.to_dict()) == both and "untaught" not in taught.to_dict()["targets"]["click"]
    others = {name: metrics for name, metrics in both.targets.items() if name != "order"}
    assert replace(both, targets=others) == taught  # no mean, funnel, alarm or fused score knows of it

    untaught = replace(world, schema=schema)
    bundles = [random_bundle(untaught, tmp_path / "bundle")]
    for asked in (False, True):
        config = EvaluateConfig(baselines=(), untaught=asked)
        said: list[str] = []
        path = evaluate(untaught, bundles, config, tmp_path / f"report-{asked}", say=said.append)
        assert ("†" in path.read_text()) == asked and ("(untaught)" in said[0]) == asked
    told = json.loads((tmp_path / "report-True" / "metrics.json").read_text())["entries"][0]["result"]["targets"]
    assert told["order"]["untaught"] is True and "untaught" not in told["click"]


# -- baselines -----------------------------------------------------------------------------------------------------


def test_popularity_is_the_smoothed_entry_rate_scaled_on_training_days(world):
    found = popularity(world, "test", rows=10**6, seed=0)
    test, train = (pa.concat_tables([pq.read_table(file) for file in world.features(split)]) for split in ("test", "train"))
    flat = lambda features, name: features[name].combine_chunks().flatten().to_numpy().astype(float)
    rate = lambda features: (flat(features, "room_entries.life") + 5) / (flat(features, "room_impressions.life") + 20)
    ratio = flat(train, "label.click").sum() / rate(train).sum()
    np.testing.assert_allclose(found.table["click"].to_numpy(), rate(test) * ratio, rtol=1e-5)
    assert found.table["label.click"].to_pylist() == flat(test, "label.click").tolist()
    assert "room_entry_rate.life for click" in found.note and "all training feeds" in found.note


def test_the_booster_beats_popularity_and_the_truth_beats_both(world):
    results = {
        "popularity": popularity(world, "test", rows=10**6, seed=0),
        "booster": booster(world, "test", rows=10**6, iterations=100, seed=0),
        "truth": as_predicted(truth_of(world, "test", world.path.parent / "truth")),
    }
    metrics = {name: evaluate_table(found.table, world.schema) for name, found in results.items()}
    aucs = {name: found.value("click.auc") for name, found in metrics.items()}
    assert 0.55 < aucs["popularity"] < aucs["booster"] - 0.05 < aucs["truth"] - 0.05
    assert metrics["booster"].value("stay.mse_transformed") < metrics["popularity"].value("stay.mse_transformed")
    assert metrics["booster"].value("click.calibration") == pytest.approx(1, abs=0.15)
    assert "stay" not in metrics["truth"].targets
    assert "hour, context.device, room_entry_rate.life, pair_room_entries" in results["booster"].note


def test_the_truth_is_joined_by_user_room_and_time(world):
    found = truth_of(world, "test", world.path.parent / "truth").table
    known = pq.read_table(world.path.parent / "truth" / "impressions").to_pylist()
    by_key = {(row["user_id"], row["room_id"], row["shown_at"]): row["click"] for row in known}
    rows = found.to_pylist()
    assert (
        len(rows) == score(Ranker(world.schema, MODEL, world.encoder.table_sizes), world.schema, world.files("test")).num_rows
    )
    assert all(row["click"] == by_key[row["user_id"], row["room_id"], row["at"]] for row in rows)


def test_a_truth_of_other_impressions_is_left_out(world, tmp_path):
    (tmp_path / "impressions").mkdir()
    pq.write_table(world_features(99, 5, 10**6)[1], tmp_path / "impressions" / "any.parquet")
    told = "left out: the truth knows 0.0% of the split's candidates, and it must know each of them once"
    assert truth_of(world, "test", tmp_path) == told


def test_a_target_that_is_labelled_otherwise_has_no_truth(world):
    """The world knows how probable an entry is, not one of at least 30 seconds, whatever the target is called."""
    targets = (replace(world.schema.targets[0], at_least=30.0), *world.schema.targets[1:])
    other = replace(world, schema=replace(world.schema, targets=targets))
    assert list(truth_of(other, "test", world.path.parent / "truth").known.chances) == ["order"]


def test_expected_metrics_are_those_of_many_draws(world):
    """A ranker's expected AUC, log loss and NDCG are what drawing all labels anew many times gives on average."""
    known = truth_of(world, "test", world.path.parent / "truth")
    assert isinstance(known, Truth)
    scored = random_bundle(world, world.path.parent / "drawn").ranker
    table = score(scored, world.schema, world.files("test"))
    found = evaluate_table(table, world.schema, known=known.known)
    rng, chance_N = np.random.default_rng(0), known.known.chances["click"]
    drawn = []
    for _ in range(60):
        label = pa.array((rng.random(len(chance_N)) < chance_N).astype(np.float32))
        again = table.set_column(table.column_names.index("label.click"), "label.click", label)
        drawn.append(evaluate_table(again, world.schema))
    for metric in ("auc", "log_loss", "ndcg@1", "ndcg@5", "ndcg_user@5", "gauc_feed", "auc_by_level.tail"):
        values = np.array([each.value(f"click.{metric}") for each in drawn])
        error = values.std() / np.sqrt(len(values))
        assert abs(found.value(f"click.expected_{metric}") - values.mean()) < 4 * error + 2e-4, metric


def test_columns_of_the_booster(world):
    there = {"room_entries.life", "room_impressions.life", "pair_room_entries", "at", "room_id", "context.device"}
    chosen = booster_columns(world.schema, there, ["room_impressions.life"])
    assert chosen == {  # ids are no counters; True: a number, False: a category
        "hour": False,
        "context.device": False,
        "room_entry_rate.life": True,
        "pair_room_entries": True,
        "room_impressions.life": True,
    }
    with pytest.raises(
        ConfigError, match=r"baseline_columns: `streamer_entries\.1h` is not in the feature tables.*extra_columns"
    ):
        booster_columns(world.schema, there, ["streamer_entries.1h"])


def test_a_sample_takes_whole_feeds_and_says_its_share(world):
    total = training_sample(world, ["room_entries.life"], rows=10**6, seed=0)
    assert total.share == 1 and total.table.num_rows == sum(
        len(rooms) for file in world.features("train") for rooms in pq.read_table(file)["room_id"].to_pylist()
    )
    some = training_sample(world, ["room_entries.life"], rows=500, seed=0)
    assert some.share == pytest.approx(500 / total.table.num_rows)
    assert some.table.num_rows == pytest.approx(500, rel=0.2)
    assert some.table == training_sample(world, ["room_entries.life"], rows=500, seed=0).table
    assert some.table != training_sample(world, ["room_entries.life"], rows=500, seed=1).table
    note = booster(world, "test", rows=500, iterations=5, seed=0).note
    assert re.search(r"on \d\d\.\d% of the training feeds, \d{3} rows", note)


def test_popularity_without_counters_says_what_is_missing(world, tmp_path):
    prepared = write_world(tmp_path, train=40)
    for file in prepared.features("test"):
        pq.write_table(pq.read_table(file).drop_columns(["room_impressions.life"]), file)
    prepared = noted_anew(tmp_path / "prepared")
    assert "room_impressions.life to prepare.extra_columns" in popularity(prepared, "test", rows=100, seed=0)


# -- report --------------------------------------------------------------------------------------------------------


class Tables(html.parser.HTMLParser):
    """Cells of all tables as lists of rows, with the classes of every cell; and every link out of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[tuple[str, str]]]] = []
        self.links: list[str] = []
        self.cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = True
            self.tables[-1][-1].append(("", attributes.get("class") or ""))

    def handle_endtag(self, tag):
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.cell:
            text, classes = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (text + data, classes)


def history_of(result):
    losses = {"click": 0.6, "order": 0.2, "stay": 3.0}
    return [{"epoch": i, "losses": {k: v / (i + 1) for k, v in losses.items()}, "metrics": result.to_dict()} for i in range(2)]


def test_the_report_holds_the_numbers_of_models_baselines_and_truth(world, tmp_path):
    known = truth_of(world, "test", world.path.parent / "truth")
    result = evaluate_table(known.table, world.schema, known=known.known)
    bundles = [
        random_bundle(world, tmp_path / "first" / "bundle", 0, history_of(result)),
        random_bundle(world, tmp_path / "second" / "bundle", 1),
    ]
    said: list[str] = []
    config = EvaluateConfig(baseline_iterations=20)
    path = evaluate(world, bundles, config, tmp_path / "report", world.path.parent / "truth", run="a <run>", say=said.append)
    everything = json.loads((tmp_path / "report" / "metrics.json").read_text())
    results = {entry["name"]: entry["result"] for entry in everything["entries"]}
    assert list(results) == ["first", "second", "popularity", "booster", "truth"]
    scored = score(bundles[1].ranker, world.schema, world.files("test"))
    second = evaluate_table(scored, world.schema, known=known.known)
    for metric in ("auc", "expected_auc", "expected_ndcg@5"):
        assert results["second"]["targets"]["click"][metric] == second.value(f"click.{metric}")

    text = path.read_text()
    page = Tables(text)
    assert page.links and all(link.startswith("data:image/svg+xml;base64,") for link in page.links)  # nothing is fetched
    assert "a &lt;run&gt;" in text and "test, 2020-09-" in text and "world-0" in text
    heads = ["AUC", "expected AUC", "gAUC feed"]
    assert [cell[0] for cell in page.tables[0][1]] == ["", *2 * heads]
    assert [cell[0] for cell in page.tables[1][1]] == ["", *heads, "MSE (log)"]
    overview = {row[0][0]: row[1:] + other[1:] for row, other in zip(page.tables[0][2:], page.tables[1][2:], strict=True)}
    for name, cells in overview.items():
        found = {**results[name]["targets"], "mean": results[name]["mean"]}
        metrics = ("auc", "expected_auc", "gauc_feed")
        expected = [found[of][metric] for of in ("mean", "click", "order") for metric in metrics]
        assert [cell[0] for cell in cells[:9]] == [f"{value:.4f}" for value in expected]
    assert [name for name, cells in overview.items() if "best" in cells[0][1]] == ["booster"]  # the truth does not race
    assert overview["truth"][9][0] == "–"
    # bars and calibration for every target; curves of the bundle that has a history; the graph; gates, and where they differ
    assert len(page.links) == 2 * 3 + 1 + 1 + 2 + text.count('alt="gates by level"')
    assert 'id="inside"' in text and 'id="stages"' not in text and 'id="curriculum"' not in text
    assert "Report: " in said[-1] and any("truth" in line for line in said)


def test_the_search_before_it_is_shown_with_all_its_trials(world, tmp_path):
    scored = truth_of(world, "test", world.path.parent / "truth").table
    entries = [Entry(name="x", role="model", result=evaluate_table(scored, world.schema))]
    (tmp_path / "search.csv").write_text('trial,click.auc,reason\n2,0.71,\n1,,"a <b>, c"\n')
    (tmp_path / "search.png").write_bytes(b"\x89PNG picture")
    found = SearchShown(summary=("Best of 2: trial 2",), picture=tmp_path / "search.png", table=tmp_path / "search.csv")
    text = page_of(tmp_path, entries, world.schema, search=found.summary, search_shown=found)
    assert "<h2>Search</h2>" in text and "Best of 2: trial 2" in text and "all that was tried (2)" in text
    assert "<td>2</td><td>0.71</td><td></td>" in text and "a &lt;b&gt;, c" in text
    assert 'src="data:image/png;base64,' + base64.b64encode(b"\x89PNG picture").decode() in text
    assert json.loads((tmp_path / "metrics.json").read_text())["search"] == ["Best of 2: trial 2"]
    assert "<h2>Search</h2>" not in page_of(tmp_path, entries, world.schema)


def test_alarms_stand_on_top(world, tmp_path):
    scored = truth_of(world, "test", world.path.parent / "truth").table
    flat = scored.set_column(scored.column_names.index("order"), "order", pa.array(np.full(scored.num_rows, 0.125)))
    entries = [Entry(name="flat", role="model", result=evaluate_table(flat, world.schema))]
    text = page_of(tmp_path, entries, world.schema, left_out={"booster": "left out: no"})
    assert text.index('id="alarms"') < text.index('id="overview"')
    assert "flat: `order`: all" in text and "0.125" in text and "left out: no" in text
    fine = [Entry(name="fine", role="model", result=evaluate_table(scored, world.schema))]
    silent = page_of(tmp_path, fine, world.schema)
    assert 'id="alarms"' not in silent and 'id="remarks"' not in silent


def test_what_of_the_data_says_nothing_stands_before_the_numbers(world, tmp_path):
    scored = truth_of(world, "test", world.path.parent / "truth").table
    entries = [Entry(name="x", role="model", result=evaluate_table(scored, world.schema))]
    remarks = ("history `past`: empty in all 40 feeds of training days",)
    text = page_of(tmp_path, entries, world.schema, remarks=remarks)
    assert text.index(f"<li>{remarks[0]}</li>") < text.index('id="overview"')
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["remarks"] == list(remarks)


def test_best_cells_follow_the_metrics_direction():
    def entry(name, role, **metrics):
        return Entry(name=name, role=role, result=result_with({"t": metrics}))

    entries = [
        entry("a", "model", auc=0.7, log_loss=0.3, calibration=1.2, gini=None),
        entry("b", "baseline", auc=0.6, log_loss=0.2, calibration=0.9, gini=0.1),
        entry("c", "truth", auc=0.9, log_loss=0.1, calibration=1.0, gini=0.0),
    ]
    shown = grid(entries, [Column("", metric, "t", metric) for metric in ("auc", "log_loss", "calibration", "gini")])
    assert [[cell.best for cell in row.cells] for row in shown.rows] == [
        [True, False, False, False],
        [False, True, True, False],  # the only value of a column is not the best of anything
        [False, False, False, False],
    ]
    assert [cell.text for cell in shown.rows[0].cells] == ["0.7000", "0.3000", "1.200", "–"]
    assert number(12345.678, "mse") == "12,345.7"


def test_bundles_get_different_names(tmp_path):
    paths = ["runs/mmoe/bundle", "runs/ple/bundle", "other/ple/bundle", "runs/ple/bundle", "registry/quick/quick-0001"]
    bundles = [Bundle(**dict.fromkeys(Bundle.__dataclass_fields__) | {"path": tmp_path / path}) for path in paths]
    assert bundle_names(bundles) == ["mmoe", "runs/ple", "other/ple", "runs/ple (2)", "quick-0001"]


def test_bundles_of_other_data_and_empty_splits_are_refused(world, tmp_path):
    other = write_world(tmp_path / "other", train=50, seed=1)
    bundle = random_bundle(other, tmp_path / "run" / "bundle")
    with pytest.raises(ConfigError, match="was trained on other prepared data"):
        evaluate(world, [bundle], EvaluateConfig(), tmp_path / "report")
    for kind in ("feeds", "features"):
        for file in (other.path / kind / "test").glob("*.parquet"):
            file.unlink()
    none = {"files": 0, "feeds": 0}
    write_manifest(
        other.path, other.fingerprint, {"train": {"files": 2, "feeds": 50}, "valid": {"files": 2, "feeds": 200}, "test": none}
    )
    other = Prepared.open(other.path)
    with pytest.raises(ConfigError, match=r"evaluate\.split is `test`.* set prepare\.test_days to 1"):
        evaluate(other, [bundle], EvaluateConfig(), tmp_path / "report")
    with pytest.raises(ConfigError, match="nothing to report"):
        evaluate(world, [], EvaluateConfig(baselines=()), tmp_path / "report")
    with pytest.raises(ValueError, match="baseline_rows must be at least 1, got 0"):
        EvaluateConfig(baseline_rows=0)
