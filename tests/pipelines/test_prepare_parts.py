"""Parts of prepare on numbers that can be checked in the head."""

import numpy as np
import pyarrow as pa
import pytest

from models.catalogue import ROOM, STREAMER, counters
from models.hashing import splitmix64
from pipelines.encode.clock import NEVER, hours_since
from pipelines.prepare.config import PrepareConfig
from pipelines.prepare.deliveries import again, engagements_again
from pipelines.prepare.features import slices
from pipelines.prepare.log_to_feeds import cut, once
from pipelines.prepare.room_counters import Counting, Rooms, count_bucket
from pipelines.prepare.tables import Attributes
from pipelines.prepare.timeline import Moments, Timeline, codes, find
from pipelines.runs import DamagedFile
from pipelines.runs.exchange import ExchangeWriter, bucket_of, read_bucket
from pipelines.runs.order import spread, stable_order


def array(*values):
    return np.array(values, np.int64)


# -- timeline --------------------------------------------------------------------------------------------------


def test_events_are_counted_strictly_before_and_by_owner():
    owner, at = array(0, 1, 0, 0), array(10, 10, 30, 20)
    moments = Moments(2, at, array(99))
    line = Timeline(moments, owner, at)
    asked, now = array(0, 0, 0, 1, 1, 0), array(10, 20, 21, 10, 11, 99)
    assert line.count(asked, now).tolist() == [0, 1, 2, 0, 1, 3]
    assert line.count(asked, now, window_ms=10).tolist() == [0, 1, 1, 0, 1, 0]
    assert line.last(asked, now).tolist() == [NEVER, 10, 20, NEVER, 10, 30]
    assert line.first_times().tolist() == [10, 10]


def test_a_window_reaching_before_all_events_counts_them_all():
    moments = Moments(3, array(1000))
    line = Timeline(moments, array(1), array(1000))
    assert line.count(array(0, 1, 2), array(1001, 1001, 1001), window_ms=10**12).tolist() == [0, 1, 0]


def test_hours_since():
    hours = hours_since(array(0, NEVER, 7_200_000), array(5_400_000, 0, 0))
    assert hours.dtype == np.float32
    np.testing.assert_array_equal(hours, [1.5, np.nan, np.nan])


@pytest.mark.parametrize("values", [[], [5], [7, 7, 7, 7, 3, 3, 3, 3, 7, 7, 7, 7], [9, 1, 9, 4]])
def test_codes_are_places_among_sorted_distinct_values(values):
    distinct, code = codes(array(*values))
    expected, places = np.unique(array(*values), return_inverse=True)
    assert distinct.tolist() == expected.tolist() and code.tolist() == places.tolist()


def test_find_order_and_spread():
    assert find(array(2, 4, 9), array(4, 5, 9, 10, 1)).tolist() == [1, -1, 2, -1, -1]
    assert find(array(), array(1)).tolist() == [-1]
    assert stable_order(array(1, 0, 1, 0)).tolist() == [1, 3, 0, 2]
    rows, offsets = spread(array(5, 0, 8), array(2, 0, 1))
    assert rows.tolist() == [5, 6, 8] and offsets.tolist() == [0, 2, 2, 3]


def test_too_many_owners_for_one_bucket_are_refused():
    with pytest.raises(ValueError, match="use fewer rows_per_bucket"):
        Moments(2**30, array(0, 2**40))


# -- exchange --------------------------------------------------------------------------------------------------


def test_splitmix64_gives_the_published_numbers():
    """The generator's first outputs from state 1234567, as in its reference test vectors."""
    state = np.array([1234567], np.int64)
    found = []
    for _ in range(3):
        found.append(int(splitmix64(state)[0]))
        state = (state.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)).view(np.int64)
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_every_row_reaches_its_bucket_in_order(tmp_path):
    ids = np.arange(100) % 7
    bucket = bucket_of(ids, 3)
    rounds = [pa.table({"id": ids[:60], "row": np.arange(60)}), pa.table({"id": ids[60:], "row": np.arange(60, 100)})]
    with ExchangeWriter(tmp_path / "a", rounds[0].schema, 3) as writer:
        writer.write(rounds[0], bucket[:60])
        writer.write(rounds[1], bucket[60:])
    for number in range(3):
        expected = np.flatnonzero(bucket == number)
        note = writer.note(tmp_path / "a", tmp_path)
        assert read_bucket([note], tmp_path, number, 3)["row"].to_pylist() == expected.tolist()
    assert note.rows == 100 and note.bytes == (tmp_path / "a").stat().st_size


def test_a_bucket_holds_what_was_written_to_it_or_is_refused(tmp_path):
    """Whichever byte changes: a reader of its bucket is told, and one of another bucket is, or reads what was there."""
    rows = pa.table({"id": np.arange(40), "name": ["a", None, "c", "d"] * 10})
    with ExchangeWriter(tmp_path / "a", rows.schema, 2) as writer:
        writer.write(rows, np.arange(40) % 2)
    note, sound = writer.note(tmp_path / "a", tmp_path), (tmp_path / "a").read_bytes()
    read = lambda number: read_bucket([note], tmp_path, number, 2).to_pylist()
    expected = [read(0), read(1)]
    assert expected == [rows.to_pylist()[::2], rows.to_pylist()[1::2]]
    told, refused = set(), 0
    for place in range(0, len(sound), 3):
        (tmp_path / "a").write_bytes(sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
        for number in (0, 1):
            try:
                assert read(number) == expected[number]
            except DamagedFile as error:
                refused += 1
                told.add(str(error))
    assert refused > len(sound) // 3  # but for padding, each byte is of one bucket at least
    assert told == {f"{tmp_path / 'a'} does not hold what was written to it."}
    (tmp_path / "a").write_bytes(sound[:-9])
    with pytest.raises(DamagedFile, match=f"a has {len(sound) - 9:,} bytes, not {len(sound):,}"):
        read(0)
    (tmp_path / "a").unlink()
    with pytest.raises(DamagedFile, match="a is not there"):
        read(1)


# -- feeds and credits -----------------------------------------------------------------------------------------


def bucket(impressions, engagements, **changes):
    shown = pa.table(
        {
            "request_id": pa.array([row[0] for row in impressions], pa.int64()),
            "user_id": pa.array([row[1] for row in impressions], pa.int64()),
            "room_id": pa.array([row[2] for row in impressions], pa.int64()),
            "shown_at": pa.array([row[3] for row in impressions], pa.int64()),
        }
    )
    done = pa.table(
        {
            "request_id": pa.array([row[0] for row in engagements], pa.int64()),
            "user_id": pa.array([row[1] for row in engagements], pa.int64()),
            "room_id": pa.array([row[2] for row in engagements], pa.int64()),
            "at": pa.array([row[3] for row in engagements], pa.int64()),
            "action": pa.array([0] * len(engagements), pa.int8()),
            "value": pa.array([None] * len(engagements), pa.float64()),
        }
    )
    return cut(shown, done, PrepareConfig(**changes))


def test_a_feed_is_a_request_or_what_follows_within_the_gap():
    log = bucket(
        [
            (None, 1, 10, 0),
            (None, 1, 11, 60_000),  # within the gap of the one before
            (None, 1, 12, 120_001),  # a millisecond too late
            (7, 2, 10, 5000),
            (7, 2, 11, 4000),  # the request's first moment is its time
            (8, 2, 10, 4000),  # another request at the same time
            (7, 1, 13, 0),  # the same request id of another user is another feed
        ],
        [],
    )
    assert log.feeds["user_id"].to_pylist() == [1, 1, 1, 2, 2]
    assert log.feeds["at"].to_pylist() == [0, 0, 120_001, 4000, 4000]
    assert log.feeds["size"].to_pylist() == [2, 1, 1, 2, 1]
    assert log.impressions["room_id"].to_pylist() == [10, 11, 13, 12, 10, 11, 10]
    assert len(set(log.feeds["feed_id"].to_pylist())) == 5


def test_a_request_id_that_is_used_again_is_another_feed():
    """Ids that start anew each week, and a session's id on all its requests: rows further apart than the gap are two feeds."""
    week = 7 * 86_400_000
    log = bucket(
        [
            (1, 1, 10, week),  # logged out of order
            (1, 1, 10, 0),
            (1, 1, 11, 60_000),
            (1, 1, 12, 120_001),
            (1, 1, 13, week),
            (1, 2, 10, 0),  # another user's
        ],
        [
            (1, 1, 10, 5000),
            (1, 1, 10, week + 5000),
            (1, 1, 13, week - 500),  # a clock that runs behind
            (1, 1, 13, week - 60_001),
            (1, 1, 12, week + 9000),  # long ago: whether that is too late asks every target
            (1, 2, 10, week),
        ],
    )
    assert log.feeds.select(["user_id", "at", "size"]).to_pylist() == [
        {"user_id": 1, "at": 0, "size": 2},
        {"user_id": 1, "at": 120_001, "size": 1},
        {"user_id": 1, "at": week, "size": 2},
        {"user_id": 2, "at": 0, "size": 1},
    ]
    assert log.impressions["room_id"].to_pylist() == [10, 11, 12, 10, 13, 10]
    assert log.engagements.select(["at", "row"]).to_pylist() == [
        {"at": 5000, "row": 0},  # nobody knew then that the id would be used again
        {"at": week - 60_001, "row": -1},
        {"at": week, "row": 4},
        {"at": week + 5000, "row": 3},
        {"at": week + 9000, "row": 2},
        {"at": week, "row": 5},
    ]
    assert log.told == {
        "alike": 0,
        "apart": 0,
        "again": {"requests": 1, "feeds": 3, "most": [[1, 3]]},
        "shared": {"ids": 1, "most": [[1, 2]]},
    }


def test_what_was_delivered_twice_counts_once():
    rows = [
        (None, 10, 0, 5.0),
        (None, 10, 0, 5.0),
        (None, 10, 0, 6.0),
        (7, 10, 0, 5.0),
        (None, 10, 1, 5.0),
        (None, 10, 0, None),
    ]
    columns = list(zip(*rows, strict=True))
    engagements = pa.table(
        {
            "request_id": pa.array(columns[0], pa.int64()),
            "user_id": pa.array([1] * 6),
            "room_id": pa.array(columns[1]),
            "at": pa.array(columns[2]),
            "action": pa.array([0] * 6, pa.int8()),
            "value": pa.array(columns[3], pa.float64()),
        }
    )
    twice, alike = engagements_again(engagements)
    assert twice.tolist() == [False, True, False, False, False, False]
    assert alike == 3  # another value, another request, no value
    twice, alike = engagements_again(engagements.append_column("event_id", pa.array([1, 2, 1, None, 1, None])))
    assert twice.tolist() == [False, False, True, False, True, False]  # the event's id decides, also where more differs
    assert alike == 3
    other_room = engagements.set_column(2, "room_id", pa.array([1, 2, 3, 4, 5, 6]))
    twice, alike = engagements_again(other_room.append_column("event_id", pa.array([1] * 6)))
    assert not twice.any() and alike == 0  # an id that means something else, a session


def test_product_clicks_count_once():
    clicks = pa.table({"user_id": [1, 1, 1, 2], "product_id": [5, 5, 6, 5], "at": [0, 0, 0, 0]})
    kept, copies, _ = once(clicks, 60_000)
    assert kept["product_id"].to_pylist() == [5, 6, 5]
    assert copies.select(["table", "reason", "user_id", "at"]).to_pylist() == [
        {"table": "product_clicks", "reason": "delivered twice", "user_id": 1, "at": 0}
    ]
    assert len(once(clicks.append_column("event_id", pa.array([1, 2, 3, 4])), 60_000)[0]) == 4


def test_an_event_id_that_comes_again_at_another_time_is_counted():
    """Events numbered anew each day: the id decides, but nobody delivers an event a day later."""
    day = 86_400_000
    rows = [(1, 5, 0), (2, 5, 10), (1, 5, 60_000), (1, 5, day), (2, 6, day), (None, 5, day), (1, 5, 60_001)]
    events, products, at = (pa.array(column, pa.int64()) for column in zip(*rows, strict=True))
    clicks = pa.table({"user_id": [9] * 7, "product_id": products, "at": at, "event_id": events})
    kept, copies, apart = once(clicks, 60_000)
    assert kept["at"].to_pylist() == [0, 10, day, day]
    assert sorted(copies["at"].to_pylist()) == [60_000, 60_001, day] and apart == 2


def test_equal_rows_among_many_are_found_as_one_looks_for_them():
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 8, 3000) for _ in range(4)]
    seen: set = set()
    expected = [row in seen or seen.add(row) is not None for row in zip(*(column.tolist() for column in columns), strict=True)]
    assert again(columns).tolist() == expected and any(expected)


def test_a_long_chain_is_cut_into_feeds_of_bounded_size():
    log = bucket([(None, 1, room, room) for room in range(10)], [], feed_most=4)
    assert log.feeds["size"].to_pylist() == [4, 4, 2]
    assert log.feeds["at"].to_pylist() == [0, 4, 8]


def test_the_first_of_repeated_impressions_counts():
    log = bucket([(7, 1, 10, 50), (7, 1, 10, 20), (None, 1, 10, 90), (None, 1, 10, 90), (None, 1, 10, 91)], [])
    assert log.feeds["at"].to_pylist() == [50, 90]
    assert log.quarantined.select(["at", "reason"]).to_pylist() == [
        {"at": 90, "reason": "delivered twice"},
        {"at": 20, "reason": "impression logged twice"},
    ]


def test_engagements_are_credited_by_request_else_to_the_latest_impression():
    log = bucket(
        [(7, 1, 10, 100), (8, 1, 10, 200), (None, 1, 11, 300)],
        [
            (7, 1, 10, 250),  # its request, although another was later
            (7, 1, 10, 90),  # a clock that runs behind
            (None, 1, 10, 199),
            (None, 1, 10, 200),
            (None, 1, 11, 299),  # before the only one
            (9, 1, 10, 400),  # no such request
            (7, 1, 11, 400),  # no such room in it
            (None, 2, 10, 400),  # nothing shown to this user
        ],
    )
    found = zip(*(log.engagements[name].to_pylist() for name in ("user_id", "at", "row")), strict=True)
    assert sorted(found) == [
        (1, 100, 0),
        (1, 199, 0),
        (1, 200, 1),
        (1, 250, 0),
        (1, 299, -1),
        (1, 400, -1),
        (1, 400, -1),
        (2, 400, -1),
    ]


# -- rooms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows_per_slice", [10**6, 40, 7])
def test_counters_of_slices_equal_those_of_one_piece(tmp_path, rows_per_slice):
    rng = np.random.default_rng(0)
    ids, hour = np.arange(100, 106), 3_600_000
    streamer_of = {100: 1, 101: 1, 102: 2, 103: None, 104: 2, 105: 2}
    start_at = pa.array([None, 5, None, None, None, None])
    rooms = Attributes(
        "room_id", pa.table({"room_id": ids, "streamer_id": pa.array(list(streamer_of.values())), "start_at": start_at})
    )
    batches = []
    for size in (90, 0, 60):  # of three buckets of users
        shown_at = rng.integers(0, 40, size) * (hour // 8) + 1000
        columns = {"row": pa.array(rng.permutation(size), pa.int32()), "room_id": rng.choice(ids, size), "known_at": shown_at}
        batches.append(pa.record_batch(columns | {"feed_at": shown_at - rng.integers(0, 2, size)}))
    events = {"room_id": rng.choice(ids, 160), "known_at": rng.integers(0, 40, 160) * (hour // 8) + 1000}
    done = [pa.record_batch({**events, "action": pa.array([0, 2] * 80, pa.int8())})]  # every second one is an order
    of_room = ["room_impressions.10m", "room_impressions.life", "room_entries.1h", "room_orders.life", "room_age_hours"]
    of_streamer = ["streamer_impressions.1h", "streamer_entries.life", "streamer_orders.10m", "streamer_age_hours"]
    columns = counters([*of_room, *of_streamer], ROOM, STREAMER)
    assert [column.name for column in columns] == [*of_room, *of_streamer]
    counting = Counting(Rooms.of(ids, rooms), columns, ["enter", "comment", "order"])
    ending = 10 * hour
    final, writer = count_bucket(batches, done, counting, rows_per_slice=rows_per_slice, ending=ending, output=tmp_path / "out")

    pairs = lambda batch, time: zip(batch["room_id"].to_pylist(), batch[time].to_pylist(), strict=True)
    shown = [pair for batch in batches for pair in pairs(batch, "known_at")]
    entered, ordered = (list(pairs(done[0].slice(first), "known_at"))[::2] for first in (0, 1))

    def expected(room, now):
        same = [other for other in streamer_of if streamer_of[other] == streamer_of[room]]
        known = streamer_of[room] is not None
        count = lambda events, among, window=10**15: sum(other in among and now - window <= at < now for other, at in events)
        first = lambda among: min((at for other, at in shown if other in among and at < now), default=None)
        age = lambda began: None if began is None or began >= now else pytest.approx((now - began) / hour, rel=1e-6)
        return {
            "room_impressions.10m": count(shown, [room], hour // 6),
            "room_entries.1h": count(entered, [room], hour),
            "room_orders.life": count(ordered, [room]),
            "streamer_impressions.1h": count(shown, same, hour) if known else None,
            "streamer_entries.life": count(entered, same) if known else None,
            "streamer_orders.10m": count(ordered, same, hour // 6) if known else None,
            "room_impressions.life": count(shown, [room]),
            "streamer_age_hours": age(first(same)) if known else None,
            "room_age_hours": age(5 if room == 101 else first([room])),
        }

    for number, batch in enumerate(batches):
        note = writer.note(tmp_path / "out", tmp_path)
        found = {row["row"]: row for row in read_bucket([note], tmp_path, number, 3).to_pylist()}
        assert len(found) == len(batch)
        for row, room, now in zip(*(batch[name].to_pylist() for name in ("row", "room_id", "feed_at")), strict=True):
            assert found[row] == {"row": row, **expected(room, now)}
    for place, room in enumerate(ids.tolist()):
        assert {name: values[place].as_py() for name, values in final.items()} == expected(room, ending)
    began = counting.began(ROOM, array(0, 1), array(ending, ending)).tolist()
    assert began == [min(at for room, at in shown if room == 100), 5]


# -- slices ----------------------------------------------------------------------------------------------------


def test_slices_end_between_users_where_they_can():
    user = array(0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 3, 4)
    assert [(part.start, part.stop) for part in slices(user, 4)] == [(0, 2), (2, 6), (6, 10), (10, 12)]
    assert list(slices(array(), 4)) == []
