"""Two times: what had arrived counts, label windows close, labels that are open are masked, and logs that are cut off agree."""

import math
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.benches.clock import BEGIN_MS, cut_at_random, planted_late, world
from models.batch import Early, joined
from models.config import ConfigError
from models.losses import Losses, sum_count
from models.metrics.evaluation import Evaluation
from models.schema import Schema, Target
from pipelines.bundle import load_bundle
from pipelines.encode.batches import Arrivals, to_batch
from pipelines.encode.open_labels import BINS, arrived_share, share_of_window
from pipelines.evaluate.baselines import booster, popularity
from pipelines.evaluate.score import evaluate_table
from pipelines.logs import SimulateConfig, materialise
from pipelines.logs.simulator import Delays
from pipelines.prepare import PrepareConfig, prepare
from pipelines.prepare.clean import actions_of
from pipelines.prepare.labels import Credits
from pipelines.prepare.log_to_feeds import cut
from pipelines.prepared import OpenLabels, Prepared
from pipelines.train import train
from pipelines.tune.structure.problem import shares_of
from tests.pipelines.fabricate import noted_anew
from tests.pipelines.naive_prepare import (
    DAY,
    EXTRA,
    HOUR,
    START,
    SmallLog,
    arrival,
    dated,
    delayed,
    naive_features,
    random_log,
    wide_schema,
)
from tests.pipelines.test_prepare import assert_same, rows_of

SCHEMA = wide_schema()


def config(**changes) -> PrepareConfig:
    return PrepareConfig(**({"parallel": "none", "extra_columns": EXTRA, "quarantine_limit": 0.5} | changes))


def moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


# -- arrivals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_off_log_equals_the_naive_reference(tmp_path, seed):
    log = delayed(dated(random_log(seed, feeds=60), seed), seed)
    until = START + 3 * DAY + 8 * HOUR + 400_000
    prepared = prepare(log.write(tmp_path / "logs"), SCHEMA, config(until=moment(until)), tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert_same(rows, naive_features(log, SCHEMA, until=until))
    assert prepared.manifest.ending == until
    assert prepared.manifest.arrivals == ("impressions", "engagements", "product_clicks")
    left = {table: account.left_out for table, account in prepared.manifest.counts.account.items()}
    assert all(left[table]["arrived from prepare.until on"] for table in prepared.manifest.arrivals)
    stood = sum(value < 0 for row in rows for value in row["label.paid"])
    assert stood == sum(split.open_labels["paid"].labels for split in prepared.manifest.splits.values() if split.open_labels)


def shown(user: int, room: int, at: int, **more) -> dict:
    row = dict.fromkeys(["position", "context.device", "state.viewers", "state.note", "state.product_id"])
    return {**row, "request_id": None, "user_id": user, "room_id": room, "shown_at": at, **more}


def done(user: int, room: int, at: int, action: str = "enter", value: float = 0.0, **more) -> dict:
    return {"request_id": None, "user_id": user, "room_id": room, "at": at, "action": action, "value": value, **more}


def one_feed_a_day(**more) -> list[dict]:
    return [shown(1, 5, START + day * DAY, request_id=day + 1, **more) for day in range(4)]


def test_a_row_is_seen_from_its_arrival_on_and_never_before_it_happened(tmp_path, capsys):
    """An entry of day 0 that arrives on day 2; one whose arrival lies before it; one that does not say."""
    events = [
        done(1, 5, START + HOUR, arrived_at=START + 2 * DAY - 1),
        done(1, 5, START + DAY + HOUR, arrived_at=START + HOUR),
        done(1, 5, START + 2 * DAY + HOUR, arrived_at=None),
    ]
    log = SmallLog(one_feed_a_day(), events, [])
    prepared = prepare(log.write(tmp_path / "logs"), SCHEMA, config(), tmp_path / "out")
    assert [row["user_entries"] for row in sorted(rows_of(tmp_path / "out"), key=lambda row: row["at"])] == [0, 0, 2, 3]
    assert prepared.manifest.counts.found.missing["engagements"]["arrived_at"] == {"none": 1, "before it happened": 1}
    said = capsys.readouterr().out
    assert "no arrivals (`arrived_at`) in `impressions`, `product_clicks`: there an event arrives when it happens" in said
    assert "column `arrived_at`: values that count as missing (" in said


def test_arrivals_in_seconds_are_refused(tmp_path):
    log = SmallLog(one_feed_a_day(), [done(1, 5, START + HOUR, arrived_at=START // 1000)], [])
    with pytest.raises(ConfigError, match=r"column `arrived_at` goes from .* Are these seconds\?"):
        prepare(log.write(tmp_path / "logs"), SCHEMA, config(), tmp_path / "out")


def test_windows_close_by_request_id_too(tmp_path, capsys):
    """`paid` waits an hour: what happens later, or arrives later, never counts."""
    events = [
        done(1, 5, START + HOUR, "order", 10.0, request_id=1, arrived_at=START + HOUR),
        done(1, 5, START + HOUR + 1, "order", 100.0, request_id=1, arrived_at=START + HOUR + 1),
        done(1, 5, START + 1000, "order", 1000.0, request_id=1, arrived_at=START + 2 * HOUR),
    ]
    log = SmallLog(one_feed_a_day(), events, [])
    prepared = prepare(log.write(tmp_path / "logs"), SCHEMA, config(), tmp_path / "out")
    rows = sorted(rows_of(tmp_path / "out"), key=lambda row: row["at"])
    assert [row["label.paid"] for row in rows] == [[10.0], [0.0], [0.0], [-1.0]]
    assert [row["user_orders"] for row in rows] == [0, 3, 3, 3]
    assert prepared.manifest.counts.found.too_late == {"paid": 1}
    assert prepared.manifest.counts.unattributed_engagements == 2
    assert "target `paid`: 1 engagements happened within its window and arrived after it" in capsys.readouterr().out


# -- open labels -----------------------------------------------------------------------------------------------


def test_open_labels_are_marked_counted_and_taken_as_they_are_on_demand(tmp_path, capsys):
    last = START + 3 * DAY
    events = [done(1, 5, last + 60_000, "order", 7.0), done(1, 5, last + 61_000, "enter", 31.0)]
    logs = SmallLog(one_feed_a_day(), events, []).write(tmp_path / "logs")
    marked = prepare(logs, SCHEMA, config(), tmp_path / "marked").manifest
    assert marked.splits["test"].open_labels == {  # `long` waits 40 s
        "click": OpenLabels(labels=1, positive=1),
        "stay": OpenLabels(labels=1, positive=1),
        "paid": OpenLabels(labels=1, positive=1),
    }
    assert not marked.splits["train"].open_labels
    assert "labels of the test split whose window has not closed: click 1 (1 positive already)" in capsys.readouterr().out
    prepare(logs, SCHEMA, config(open_labels="as_is"), tmp_path / "plain")
    closed = prepare(logs, SCHEMA, config(until=moment(last + HOUR + 1)), tmp_path / "closed").manifest
    assert not closed.splits["test"].open_labels
    names = ("label.click", "label.long", "label.stay", "label.paid")
    found = {}
    for folder in ("marked", "plain", "closed"):
        (row,) = rows_of(tmp_path / folder, "feeds/test")
        found[folder] = [row[name][0] for name in names]
    assert found == {"marked": [-2.0, 0.0, -32.0, -8.0], "plain": [1.0, 0.0, 31.0, 7.0], "closed": [1.0, 0.0, 31.0, 7.0]}


def test_a_split_without_one_final_label_is_told_with_the_way_out(tmp_path):
    logs = SmallLog(one_feed_a_day(), [done(1, 5, START + HOUR)], []).write(tmp_path / "logs")
    told = prepare(logs, SCHEMA, config(), tmp_path / "out").manifest.remarks[-1]
    assert told.startswith("not one label of the test split is final: the log ends at 2") and "`prepare.until`" in told


def test_days_that_warm_up_fill_histories_and_are_in_no_split(tmp_path):
    logs = random_log(2, feeds=60).write(tmp_path / "logs")
    plain = prepare(logs, SCHEMA, config(), tmp_path / "plain").manifest
    warm = prepare(logs, SCHEMA, config(warmup_days=1), tmp_path / "warm").manifest
    first = plain.days["train"][0]
    assert warm.warmup_days == (first,) and warm.days["train"] == plain.days["train"][1:]
    assert warm.warmup_feeds == plain.counts.feeds_by_day[first] > 0
    begin = START + DAY
    assert_same(rows_of(tmp_path / "warm"), [row for row in rows_of(tmp_path / "plain") if row["at"] >= begin])
    with pytest.raises(ConfigError, match=r"train split .* has no feeds.*warmup_days 2"):
        prepare(logs, SCHEMA, config(warmup_days=2), tmp_path / "cold")


def labels_at(log: SmallLog, until: int) -> dict[str, dict[int, float]]:
    """By target and number of an impression its label, as tables have it, of what had arrived by a moment."""
    actions = actions_of(SCHEMA, ())
    known = {name: [row for row in getattr(log, name) if row["arrived_at"] < until] for name in ("impressions", "engagements")}
    column = lambda table, name, kind=None: pa.array([row[name] for row in known[table]], kind or pa.int64())
    names = ("request_id", "user_id", "room_id", "shown_at", "arrived_at", "position")
    engagements = {name: column("engagements", name) for name in ("request_id", "user_id", "room_id", "at", "arrived_at")}
    engagements |= {"action": pa.array([actions.index(row["action"]) for row in known["engagements"]], pa.int8())}
    engagements |= {"value": column("engagements", "value", pa.float64())}
    found = cut(pa.table({name: column("impressions", name) for name in names}), pa.table(engagements), PrepareConfig())
    credits = Credits(found.engagements, found.impressions["shown_at"].to_numpy(), actions)
    numbers = found.impressions["position"].to_pylist()
    return {target.name: dict(zip(numbers, credits.written(target, until).tolist(), strict=True)) for target in SCHEMA.targets}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_final_label_never_changes(seed):
    """Logs with and without request ids, some used again, clocks that run behind and answers that come days late, as known at
    ten moments: what was final at one is the same at all later ones."""
    log = delayed(random_log(seed), seed)
    impressions = [{**row, "position": number, "arrived_at": row["shown_at"]} for number, row in enumerate(log.impressions)]
    engagements = [{**row, "arrived_at": arrival(row)} for row in log.engagements if row["action"] != "wave"]
    log = replace(log, impressions=impressions, engagements=engagements)
    moments = np.sort(np.random.default_rng(seed).integers(START + 9 * HOUR, START + 7 * DAY, 10))
    final: dict[tuple[str, int], float] = {}
    for until in moments.tolist():
        now = {
            (name, number): value for name, of in labels_at(log, until).items() for number, value in of.items() if value >= 0
        }
        assert final.items() <= now.items(), until
        final = now
    assert final


def test_logs_cut_at_random_moments_agree_on_final_labels(tmp_path):
    cuts = cut_at_random(tmp_path, users=30, days=4, moments=4, seed=1)
    assert cuts.holds, cuts.line()


def test_nothing_sees_a_late_row_before_it_arrives(tmp_path):
    planted = planted_late(tmp_path, users=30, days=3, events=20_000, seed=1)
    assert planted.holds, planted.line()


# -- what is learnt and judged ---------------------------------------------------------------------------------

TWO = Schema(
    fields=SCHEMA.fields,
    histories=(),
    targets=(Target(name="click", action="enter"), Target(name="order", action="order", parents=("click",))),
)
LOGITS = {"click": torch.tensor([0.0, 2.0, -1.0]), "order": torch.zeros(3)}


def test_losses_of_open_labels_do_not_count():
    losses = Losses(TWO)
    labels = {"click": torch.tensor([1.0, 0.0, 1.0]), "order": torch.tensor([0.0, -1.0, -2.0])}
    early = Early(targets=frozenset(["order"]))
    found, over = losses(LOGITS, labels, early), losses.over(labels, early)
    assert over.keys() == {"order"} and over["order"].tolist() == [True, False, False]
    total, count = sum_count(found["order"], over["order"])
    assert total.item() == pytest.approx(math.log(2)) and count.item() == 1
    assert losses.beliefs(labels, early)["order"].isnan().tolist() == [False, True, True]


def test_early_labels_are_learnt_by_what_has_arrived():
    """p = 1/2 and F = 1/4: a positive costs -log 1/2, nothing yet -log(1 - 1/8)."""
    losses = Losses(TWO)
    labels = {"click": torch.tensor([1.0, 0.0, 1.0]), "order": torch.tensor([0.0, -1.0, -2.0])}
    early = Early(targets=frozenset(["order"]), arrived={"order": torch.tensor([1.0, 0.25, 0.25])})
    assert losses.over(labels, early) == {}
    expected = [math.log(2), -math.log(7 / 8), math.log(2)]
    assert losses(LOGITS, labels, early)["order"].tolist() == pytest.approx(expected)


def test_early_losses_are_least_at_the_true_chance():
    """Of 1000 alike, 300 positive in the end and 90 so far (F = .3): the best guess is .3, where plain labels say .09."""
    labels = torch.cat([torch.full((90,), -2.0), torch.full((910,), -1.0)])
    early = Early(targets=frozenset(["click"]), arrived={"click": torch.full((1000,), 0.3)})
    losses, chances = Losses(replace(TWO, targets=TWO.targets[:1])), np.linspace(0.01, 0.6, 60)
    total = [
        losses({"click": torch.full((1000,), math.log(p / (1 - p)))}, {"click": labels}, early)["click"].sum().item()
        for p in chances
    ]
    assert chances[int(np.argmin(total))] == pytest.approx(0.3, abs=0.006)


def test_the_share_that_has_arrived_is_counted_by_part_of_the_window():
    counts = [0] * BINS
    counts[0], counts[32] = 1, 3  # one at once, three about an eighth of the window later
    share = arrived_share(counts, np.array([0.0, share_of_window(1), share_of_window(32), share_of_window(33), 0.9, 1.0, 7.0]))
    assert share.tolist() == pytest.approx([0.0, 0.25, 0.25, 1.0, 1.0, 1.0, 1.0])
    assert arrived_share([0] * BINS, np.array([0.5, 1.0])).tolist() == [0.0, 1.0]


def test_arrivals_are_counted_of_closed_windows_by_hand():
    engagements = pa.table({"at": [0, 450, 0, 10], "row": [0, 1, 2, 2], "action": [0, 0, 0, 0], "value": [1.0] * 4})
    credits = Credits(engagements, np.array([0, 0, -1000]), ["enter"])
    target = Target(name="click", action="enter", attribution_seconds=3.6)
    counts = credits.arrived(target, np.array([True, True, False]))
    assert counts.sum() == 2 and counts[0] == 1 and counts[int(BINS / 2)] == 1  # 450 of 3600 ms: an eighth, (1/2)^3
    assert credits.arrived(target, np.array([False, False, True]))[int((1000 / 3600) ** (1 / 3) * BINS)] == 1


def test_batches_tell_what_is_open_and_keep_it_in_parts(tmp_path):
    log = delayed(random_log(1, feeds=60), 1)
    until = START + 3 * DAY + 8 * HOUR + 100_000
    prepared = prepare(log.write(tmp_path / "logs"), SCHEMA, config(until=moment(until)), tmp_path / "out")
    parts = [pq.read_table(file) for file in prepared.files("test")]
    arrivals = Arrivals.of(SCHEMA, prepared.manifest.ending, prepared.manifest.arrived)
    batch = to_batch(pa.concat_tables(parts), SCHEMA, None, arrivals)
    assert batch.early is not None and {"click", "paid"} <= batch.early.targets
    assert batch.early.arrived.keys() == batch.early.targets & {"click", "long"}  # values wait
    open_N = batch.labels["click"] < 0
    assert (
        open_N.any() and (batch.early.arrived["click"][~open_N] == 1).all() and (batch.early.arrived["click"][open_N] < 1).any()
    )
    again = joined([batch.of_feeds(torch.arange(batch.feeds) == place) for place in range(batch.feeds)])
    assert torch.equal(again.early.arrived["click"], batch.early.arrived["click"])
    plain = to_batch(pa.concat_tables([pq.read_table(file) for file in prepared.files("train")]), SCHEMA)
    assert all(
        (label_N >= 0).all() for name, label_N in plain.labels.items() if plain.early is None or name not in plain.early.targets
    )


def test_training_leaves_out_what_is_open_or_learns_it_early_and_says_so(tmp_path):
    experiment, logs = world(tmp_path, users=25, days=3, seed=0)
    cut = replace(experiment.prepare, until=moment(BEGIN_MS + 2 * DAY + 12 * HOUR))
    prepared = prepare(logs, experiment.schema, cut, tmp_path / "marked")
    settings = replace(experiment.train, epochs=1, monitor="click.auc")
    still_open = prepared.manifest.splits["train"].open_labels["order"].labels
    told, weights = {}, {}
    for way in ("wait", "corrected"):
        lines: list[str] = []
        given = replace(settings, delayed=way)
        found = train(prepared, experiment.system, given, output=tmp_path / way, say=lines.append)
        told[way] = next(line for line in lines if line.startswith("Labels whose window has not closed"))
        weights[way] = torch.cat([each.flatten() for each in load_bundle(found.bundle_path).ranker.parameters()])
    assert told["wait"] == f"Labels whose window has not closed: order {still_open:,}; left out (train.delayed: wait)."
    assert told["corrected"].endswith("learnt early for order, else left out (train.delayed: corrected).")
    assert not torch.equal(weights["wait"], weights["corrected"])
    plain = prepare(logs, experiment.schema, replace(cut, open_labels="as_is"), tmp_path / "plain")
    with pytest.raises(ConfigError, match="takes them as they are"):
        train(plain, experiment.system, replace(settings, delayed="corrected"), output=tmp_path / "refused")


def with_other_open_labels(prepared: Prepared, folder) -> Prepared:
    """The same tables with what is known so far of every open order turned round: -1 is -2, and -2 is -1."""
    shutil.copytree(prepared.path, folder)
    for file in [*folder.glob("features/*/*.parquet"), *folder.glob("feeds/*/*.parquet")]:
        table = pq.read_table(file, partitioning=None)
        place = table.schema.get_field_index("label.order")
        turned = [[-3 - value if value < 0 else value for value in values] for values in table["label.order"].to_pylist()]
        pq.write_table(table.set_column(place, "label.order", pa.array(turned, table.schema.field(place).type)), file)
    return noted_anew(folder)


def test_baselines_and_metrics_do_not_look_at_open_labels(tmp_path):
    experiment, logs = world(tmp_path, users=25, days=4, seed=0)
    cut_off = replace(experiment.prepare, until=moment(BEGIN_MS + 3 * DAY + 12 * HOUR))
    one = prepare(logs, experiment.schema, cut_off, tmp_path / "one")
    other = with_other_open_labels(one, tmp_path / "other")
    assert one.manifest.splits["valid"].open_labels["order"].labels == one.manifest.splits["valid"].candidates
    for predict in (partial(popularity, rows=10**6, seed=0), partial(booster, rows=10**6, iterations=5, seed=0)):
        found = [predict(each, "valid") for each in (one, other)]
        names = experiment.schema.target_names
        assert found[0].table.select(names) == found[1].table.select(names) and found[0].note == found[1].note
        metrics = [evaluate_table(each.table, experiment.schema).to_dict() for each in found]
        assert metrics[0] == metrics[1] and metrics[0]["targets"]["order"]["auc"] is None
    assert shares_of(one, ["order"]) == shares_of(other, ["order"])


def evaluated(label_N, keep=slice(None)) -> dict:
    rng = np.random.default_rng(0)
    n = len(label_N)
    prediction_N, level_N, feed_N = rng.random(n), rng.integers(0, 3, n), np.arange(n) // 4
    evaluation = Evaluation(TWO)
    columns = [{"click": prediction_N[keep], "order": prediction_N[keep]}, {"click": label_N[keep], "order": label_N[keep] * 0}]
    evaluation.add(*columns, level_N[keep], feed_N[keep], (feed_N // 3)[keep])
    return evaluation.result()


def test_targets_are_judged_by_final_labels_alone():
    label_N = np.random.default_rng(1).integers(0, 2, 60).astype(float)
    final_N = np.arange(60) % 5 > 0
    marked = np.where(final_N, label_N, -1 - label_N)
    found, expected = evaluated(marked), evaluated(label_N, final_N)
    assert found["targets"]["click"] == expected["targets"]["click"]
    assert found["rows"] == 60 and found["targets"]["click"]["rows"] == 48
    assert found["funnel_labels"]["order<=click"] == 0


def test_a_target_without_a_final_label_has_no_metrics_and_an_alarm():
    found = evaluated(np.full(20, -1.0))
    assert found["targets"]["click"]["rows"] == 0 and found["targets"]["click"]["auc"] is None
    assert [alarm["kind"] for alarm in found["alarms"]] == ["not_final"]
    assert found["mean"]["auc"] is None or found["targets"]["order"]["auc"] == found["mean"]["auc"]


# -- the world goes on -----------------------------------------------------------------------------------------


def bytes_of(folder) -> dict[str, bytes]:
    files = (file for name in ("logs", "truth", "state") for file in (folder / name).rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("delays", [None, Delays()], ids=["plain", "delays"])
def test_a_world_goes_on_to_the_same_bytes(tmp_path, delays, capsys):
    world = SimulateConfig(users=40, days=3, delays=delays)
    materialise(world, tmp_path / "whole")
    for days in (1, 3):
        materialise(replace(world, days=days), tmp_path / "parts")
    assert "is the beginning of what is asked for" in capsys.readouterr().out
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "whole")


def test_late_rows_lie_in_the_file_of_the_day_on_which_they_arrive(tmp_path):
    """All that happens in the plain world happens here too; what is late has arrived by its file's day, or waits."""
    plain = materialise(SimulateConfig(users=60, days=3), tmp_path / "plain")
    late = materialise(SimulateConfig(users=60, days=3, delays=Delays(order=40_000.0)), tmp_path / "late")
    waiting = pq.read_table(tmp_path / "late" / "state" / "pending-engagements.parquet").to_pylist()
    found = list(waiting)
    crossed = 0
    for file in late.files("engagements"):
        day = int(np.datetime64(file.name[:10], "ms").astype(np.int64))
        rows = pq.read_table(file).to_pylist()
        assert all(day <= row["arrived_at"] < day + DAY and row["at"] <= row["arrived_at"] for row in rows)
        crossed += sum(row["at"] < day for row in rows)
        found += rows
    assert crossed > 0 and any(row["action"] == "order" for row in waiting)
    strip = lambda rows: sorted(repr({name: row[name] for name in row if name != "arrived_at"}) for row in rows)
    assert strip(found) == strip(row for file in plain.files("engagements") for row in pq.read_table(file).to_pylist())
