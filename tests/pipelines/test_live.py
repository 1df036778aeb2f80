"""Ranking among what was live: which rooms, their columns as of then against a naive reference, places, and refusals."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from models.config import ConfigError
from pipelines.encode.encode import encode
from pipelines.encode.feeds import LABEL_PREFIX
from pipelines.evaluate import EvaluateConfig
from pipelines.evaluate.live import FEEDS, floors, ranked_by, sample_of
from pipelines.live import build, live_feeds
from pipelines.live.entries import Lives, entering
from pipelines.prepare import PrepareConfig, prepare
from tests.pipelines.naive_prepare import (
    EXTRA,
    HOUR,
    START,
    Shown,
    as_of,
    candidate,
    credit,
    dated,
    feeds_of,
    label,
    random_log,
    wide_schema,
)

DAYS = 4


def a_log(seed: int, changing: bool):
    """Rooms are live for some hours, some are never known to be; one is live all the time and never shown."""
    log = random_log(seed, feeds=80, rooms=9, days=DAYS)
    rng = np.random.default_rng([seed, 2])
    rooms = []
    for row in log.rooms:
        start = START + int(rng.integers(0, 60)) * HOUR if rng.random() < 0.9 else None
        rooms.append({**row, "start_at": start, "end_at": None if start is None else start + int(rng.integers(24, 96)) * HOUR})
    rooms.append({"room_id": 5, "streamer_id": 11, "category": "game", "start_at": START, "end_at": START + 10 * 24 * HOUR})
    log = replace(log, rooms=rooms)
    if not changing:
        return log
    log = dated(log, seed)  # whose starts change, and are at times not known
    return replace(log, rooms=[{**row, "end_at": START + int(rng.integers(3, 9)) * 24 * HOUR} for row in log.rooms])


SCHEMA = wide_schema()
CONFIG = PrepareConfig(
    parallel="none", extra_columns=EXTRA, quarantine_limit=0.5, rows_per_chunk=20, rows_per_bucket=40, open_labels="as_is"
)
LIVE = EvaluateConfig(candidates="live", baselines=())


def made(tmp_path, log, monkeypatch, **changes):
    """Live feeds of the test day, and their raw columns as they were handed to the encoder."""
    logs = log.write(tmp_path / "logs")
    prepared = prepare(logs, SCHEMA, CONFIG, tmp_path / "prepared")
    raw = []

    def kept(features, schema, state):
        raw.append(features)
        return encode(features, schema, state)

    monkeypatch.setattr(build, "encode", kept)
    folder = live_feeds(logs, prepared, CONFIG, replace(LIVE, **changes), tmp_path / "live")
    return prepared, folder, [row for table in raw for row in table.to_pylist()]


@pytest.mark.parametrize("changing", [False, True], ids=["fixed", "changing"])
@pytest.mark.parametrize("seed", range(3))
def test_rooms_and_columns_equal_a_naive_reference(tmp_path, monkeypatch, seed, changing):
    log = a_log(seed, changing)
    _, folder, rows = made(tmp_path, log, monkeypatch)
    feeds = feeds_of(log, 60_000, 500)
    done = credit(log, feeds, 60_000)
    shown = [item for feed in feeds for item in feed.rows]
    of_kind = {
        what: [item for item in done if item.row["action"] == action]
        for what, action in (("entries", "enter"), ("orders", "order"))
    }
    keys = {"users": "user_id", "rooms": "room_id", "streamers": "streamer_id", "products": "product_id"}
    tables: dict = {table: {} for table in keys}
    for table, key in keys.items():
        for row in getattr(log, table):
            tables[table].setdefault(row[key], []).append(row)
    attribute = lambda table, key, name, now: as_of(tables[table].get(key, []), now).get(name)

    def streamer_of(room, now):
        known = [row for row in tables["rooms"].get(room, []) if row["streamer_id"] is not None]
        return next((row["streamer_id"] for row in known if row.get("valid_from", now) <= now), None)

    def live_at(now):
        found = []
        for room, own in tables["rooms"].items():
            spans = [(row["start_at"], row["end_at"]) for row in own if None not in (row.get("start_at"), row.get("end_at"))]
            if spans and min(start for start, _ in spans) <= now < max(end for _, end in spans):
                found.append(room)
        return sorted(found)

    def state_of(room, now):
        last = [item for item in shown if item.row["room_id"] == room and item.row["shown_at"] < now]
        names = ("state.viewers", "state.note", "state.product_id")
        newest = max((item.row["shown_at"] for item in last), default=None)
        return [{name: item.row[name] for name in names} for item in last if item.row["shown_at"] == newest] or [
            dict.fromkeys(names)
        ]

    click = entering(SCHEMA)
    test_day = max((feed.at // (24 * HOUR)) for feed in feeds)
    expected = {}
    for feed in feeds:
        entered = {item.row["room_id"] for item in feed.rows if label(item, click)}
        live = live_at(feed.at)
        if feed.at // (24 * HOUR) == test_day and entered & set(live):
            expected.setdefault((feed.user, feed.at), []).append((feed, live, entered))
    assert len(rows) == sum(map(len, expected.values())) >= 3
    unseen = 0
    for row in rows:
        of_moment = expected[row["user_id"], row["at"]]
        clicked = {room for room, value in zip(row["room_id"], row[LABEL_PREFIX + click.name], strict=True) if value}
        feed, live, entered = next(each for each in of_moment if each[2] & set(each[1]) == clicked)
        of_moment.remove((feed, live, entered))
        assert row["room_id"] == live
        logged: dict[int, list[Shown]] = {}  # a room may be shown twice
        for item in feed.rows:
            logged.setdefault(item.row["room_id"], []).append(item)
        for place, room in enumerate(live):
            states = state_of(room, feed.at)
            found = {
                name: values[place] for name, values in row.items() if isinstance(values, list) and len(values) == len(live)
            }
            assert {name: found[name] for name in states[0]} in states
            item = Shown(row={"room_id": room, "position": None, **{name: found[name] for name in states[0]}}, number=-1)
            for name, value in candidate(item, feed, shown, of_kind, attribute, streamer_of).items():
                assert name not in found or found[name] == value, (name, room, feed.at)
            for target in SCHEMA.targets:
                wanted = max((label(item, target) for item in logged.get(room, [])), default=0.0)
                assert found[LABEL_PREFIX + target.name] == pytest.approx(wanted)
            unseen += room not in logged
    assert unseen >= 3
    stored = pq.read_table(folder / FEEDS)
    assert stored["room_id"].to_pylist() == [row["room_id"] for row in rows]
    sample = sample_of(folder)
    assert (sample.feeds, sample.live) == (len(rows), pytest.approx(np.mean([len(row["room_id"]) for row in rows])))
    assert not (folder / "work").exists()


def test_what_is_shown_to_the_user_has_the_columns_of_the_preparation(tmp_path, monkeypatch):
    """All but the state, which is the room's last one and not that of the impression."""
    prepared, _, rows = made(tmp_path, a_log(4, False), monkeypatch)
    logged = {row["feed_id"]: row for file in prepared.features("test") for row in pq.read_table(file).to_pylist()}
    compared = 0
    for row in rows:
        own = logged[row["feed_id"]]
        for place, room in enumerate(row["room_id"]):
            if room in own["room_id"]:
                there = own["room_id"].index(room)
                for name, values in own.items():
                    if (
                        isinstance(values, list)
                        and len(values) == len(own["room_id"])
                        and not name.startswith(
                            ("state.", "product.", "position", *(f"{history.name}." for history in SCHEMA.histories))
                        )
                    ):
                        assert row[name][place] == values[there], name
                        compared += 1
        for name in ("user.age", "user_impressions", "channels.at"):
            assert row[name] == own[name]
    assert compared > 50


def test_of_many_rooms_some_are_drawn_with_those_entered(tmp_path, monkeypatch):
    log = a_log(0, False)
    prepared, folder, rows = made(tmp_path, log, monkeypatch, live_rooms=2, live_entries=4)
    assert len(rows) <= 4 and {len(row["room_id"]) for row in rows} <= {1, 2, 3}
    click = LABEL_PREFIX + entering(SCHEMA).name
    assert all(max(row[click]) == 1 for row in rows)
    sample = sample_of(folder)
    assert sample.live > sample.ranked and "are ranked (at most 2, drawn)" in str(sample)
    again = live_feeds(tmp_path / "nowhere", prepared, CONFIG, replace(LIVE, live_rooms=2, live_entries=4), folder)
    assert again == folder  # finished: nothing is read


class Ideal(torch.nn.Module):
    """Knows the labels."""

    def __init__(self, sign):
        super().__init__()
        self.weight, self.sign = torch.nn.Parameter(torch.ones(1)), sign

    def predict(self, batch):
        return {name: self.sign * label_N for name, label_N in batch.labels.items()}


def test_places_of_who_knows_everything_of_chance_and_of_popularity(tmp_path, monkeypatch):
    _, folder, rows = made(tmp_path, a_log(1, False), monkeypatch)
    click = entering(SCHEMA).name
    best = ranked_by(Ideal(1.0), SCHEMA, folder)[click]
    assert best.values["mrr"] == best.values["recall@1"] == best.values["ndcg@10"] == 1.0
    entries = sum(sum(row[LABEL_PREFIX + click]) for row in rows)
    assert best.values["entries"] == entries == sample_of(folder).entries
    assert all(sum(own["entries"] for own in groups.values()) == entries for groups in best.by.values())
    floor = floors(SCHEMA, folder)
    others = [
        len(row["room_id"]) - int(sum(row[LABEL_PREFIX + click]))
        for row in rows
        for _ in range(int(sum(row[LABEL_PREFIX + click])))
    ]
    assert floor["chance"].values["recall@1"] == pytest.approx(np.mean([1 / (1 + count) for count in others]))
    assert "popularity" in floor
    worst = ranked_by(Ideal(-1.0), SCHEMA, folder)[click]
    assert worst.values["mrr"] == pytest.approx(np.mean([1 / (1 + count) for count in others]))


def test_what_cannot_be_asked_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"compare a candidate with the rest of a logged feed \(`list_context`\)"):
        entering(replace(SCHEMA, list_context=True))
    no_entry = tuple(target for target in SCHEMA.targets if target.action != "enter")
    with pytest.raises(ConfigError, match="no target of the schema has `action: enter`"):
        entering(replace(SCHEMA, targets=no_entry, stages=None))
    log = random_log(0)
    bare = replace(log, rooms=[{name: value for name, value in row.items() if name == "room_id"} for row in log.rooms])
    with pytest.raises(ConfigError, match=r"the log says of no room when it began and ended|has no `start_at` and `end_at`"):
        Lives.of(bare.write(tmp_path / "logs"))
