"""The feature table once more, row by row in plain Python, straight from the definitions; and small random logs.

Nothing here is shared with the pipeline but the schema. Slow on purpose: every question is answered by looking at
every event.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.schema import Bins, Field, History, HistoryField, Number, Schema, Stages, Target, Vocabulary
from pipelines.logs import CanonicalLogs

HOUR = 3_600_000
DAY = 24 * HOUR
START = 20_000 * DAY
WINDOWS = {"10m": 600_000, "1h": HOUR, "life": None}

EXTRA = (
    "position",
    "state.viewers",
    "state.note",
    "product.price",
    "context.device",
    "user.age",
    "user_feeds",
    "user_impressions",
    "user_entries",
    "user_orders",
    "user_last_seen_hours",
    *(
        f"{owner}_{what}.{window}"
        for owner in ("room", "streamer")
        for what in ("impressions", "entries", "orders")
        for window in WINDOWS
    ),
    "room_age_hours",
    "streamer_age_hours",
    *(f"pair_{owner}_{what}" for owner in ("room", "streamer") for what in ("impressions", "entries", "orders", "hours")),
    *(f"preference.{target}{window}" for target in ("click", "long", "stay", "paid") for window in ("", ".1.5d")),
    "preference_count",
    "preference_count.1.5d",
    "room.category",
    "streamer.fans",
)


def wide_schema() -> Schema:
    """A schema that, with `EXTRA`, asks for every base column there is."""
    room, streamer, category = Vocabulary(min_count=1), Vocabulary(min_count=1), Vocabulary(min_count=1)
    return Schema(
        fields=(
            Field(name="room", of="candidate", column="room_id", encoding=room),
            Field(name="streamer", of="candidate", column="streamer_id", encoding=streamer),
            Field(name="product", of="candidate", column="state.product_id", encoding=Vocabulary(min_count=1)),
            Field(name="rate", of="candidate", column="room_entry_rate.1h", encoding=Number()),
        ),
        histories=(
            History(
                name="channels",
                events="engagements",
                length=4,
                min_stay_seconds=5.0,
                fields=(
                    HistoryField(name="room", column="room_id", encoding=room),
                    HistoryField(name="streamer", column="streamer_id", encoding=streamer),
                    HistoryField(name="category", column="room.category", encoding=category),
                    HistoryField(name="fans", column="streamer.fans", encoding=Bins(count=3)),
                    HistoryField(name="stay", column="stay_seconds", encoding=Bins(count=3)),
                ),
            ),
            History(
                name="goods",
                events="product_clicks",
                length=3,
                fields=(
                    HistoryField(name="product", column="product_id", encoding=Vocabulary(min_count=1)),
                    HistoryField(name="price", column="product.price", encoding=Bins(count=3)),
                ),
            ),
        ),
        targets=(
            Target(name="click", action="enter", attribution_seconds=120),
            Target(name="long", action="enter", at_least=30.0, attribution_seconds=40),
            Target(name="stay", action="enter", kind="value", head="log1p", attribution_seconds=120),
            Target(name="paid", action="order", kind="value", attribution_seconds=3600),
        ),
        preference_days=(7.0, 1.5),
        stages=Stages(click="click", stay="stay", order="long"),
    )


@dataclass(frozen=True)
class SmallLog:
    """Rows of every canonical table as dicts, in logged order."""

    impressions: list[dict]
    engagements: list[dict]
    product_clicks: list[dict]
    users: list[dict] = field(default_factory=list)
    rooms: list[dict] = field(default_factory=list)
    streamers: list[dict] = field(default_factory=list)
    products: list[dict] = field(default_factory=list)

    def write(self, folder: Path, *, files: int = 2, row_group: int = 17) -> CanonicalLogs:
        """As a canonical log; the event tables in several files of several row groups."""
        for table, types in TYPES.items():
            rows = getattr(self, table)
            for name in ("valid_from", "arrived_at"):
                if any(name in row for row in rows):
                    types = types.append(pa.field(name, INT))
            parts = np.array_split(np.arange(len(rows)), files if table in EVENTS else 1)
            for number, part in enumerate(parts):
                values = {name: [rows[place].get(name) for place in part] for name in types.names}
                path = folder / table / f"part-{number}.parquet"
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.table(values, schema=types), path, row_group_size=row_group)
        return CanonicalLogs(folder)

    def planted(self, table: str, row: dict) -> "SmallLog":
        """The same log with one more row at the end of a table."""
        return replace(self, **{table: [*getattr(self, table), row]})


EVENTS = ("impressions", "engagements", "product_clicks")
INT, REAL, WORD = pa.int64(), pa.float64(), pa.string()
TYPES = {
    "impressions": pa.schema(
        [
            ("request_id", INT),
            ("user_id", INT),
            ("room_id", INT),
            ("shown_at", INT),
            ("position", pa.int32()),
            ("context.device", WORD),
            ("state.viewers", INT),
            ("state.note", WORD),
            ("state.product_id", INT),
        ]
    ),
    "engagements": pa.schema(
        [("request_id", INT), ("user_id", INT), ("room_id", INT), ("at", INT), ("action", WORD), ("value", REAL)]
    ),
    "product_clicks": pa.schema([("user_id", INT), ("product_id", INT), ("at", INT)]),
    "users": pa.schema([("user_id", INT), ("age", INT)]),
    "rooms": pa.schema([("room_id", INT), ("streamer_id", INT), ("start_at", INT), ("end_at", INT), ("category", WORD)]),
    "streamers": pa.schema([("streamer_id", INT), ("fans", REAL)]),
    "products": pa.schema([("product_id", INT), ("price", REAL)]),
}


def random_log(seed: int, *, feeds: int = 30, users: int = 5, rooms: int = 7, days: int = 4) -> SmallLog:
    """Feeds with and without request ids, some of them used again, equal times, repeated rooms and rows, clocks that run
    behind, nulls.

    Every day has feeds, so that every split has some.
    """
    rng = np.random.default_rng(seed)
    one = lambda values: values[int(rng.integers(len(values)))]
    maybe = lambda value, share=0.8: value if rng.random() < share else None
    user_ids = [int(value) for value in rng.choice(10**12, users, replace=False)]
    room_ids = [int(value) for value in rng.choice(10**6, rooms, replace=False)]
    streamer_ids, product_ids = [11, 22, 33], [5, 6, 7, 8]
    # few different moments, so that many events share one
    moments = [
        START + day * DAY + int(hour * HOUR) + second * 1000
        for day in range(days)
        for hour in (8, 8.1, 9, 20)
        for second in (0, 1, 30, 61)
    ]
    impressions: list[dict] = []
    engagements: list[dict] = []
    for number in range(feeds):
        user = one(user_ids)
        at = one(moments) if number >= days else START + number * DAY + 8 * HOUR
        request = 1000 + number if rng.random() < 0.6 else None
        if request is not None and rng.random() < 0.2:
            request = 1000 + int(rng.integers(number + 1))  # an id that may be used already
        spread = rng.random() < 0.3
        for position in range(int(rng.integers(1, 5))):
            room = one(room_ids)
            shown_at = at + (int(rng.integers(0, 4)) * 500 if spread else 0)
            row = {
                "request_id": request,
                "user_id": user,
                "room_id": room,
                "shown_at": shown_at,
                "position": position,
                "context.device": maybe(one(["phone", "pad"])),
                "state.viewers": maybe(int(rng.integers(100))),
                "state.note": maybe(one(["new", "hot"])),
                "state.product_id": maybe(one([*product_ids, 99])),
            }
            impressions.append(row)
            if rng.random() < 0.1:
                impressions.append(row)  # logged twice
            for _ in range(int(rng.integers(0, 3))):
                engagements.append(
                    {
                        "request_id": request if rng.random() < 0.7 else None,
                        "user_id": user if rng.random() < 0.9 else one(user_ids),
                        "room_id": room,
                        "at": shown_at + one([0, 0, 1, 1000, 30_000, 50_000, -500, 200_000]),
                        "action": one(["enter", "enter", "order", "wave"]),
                        "value": maybe(one([0.0, 4.5, 5.0, 29.0, 30.0, 60.25, 600.0]), 0.9),
                    }
                )
    clicks = [
        {"user_id": one(user_ids), "product_id": one([*product_ids, 98]), "at": one(moments) + one([0, 0, 1, -1])}
        for _ in range(feeds)
    ]
    order = rng.permutation(len(engagements))
    engagements += [engagements[place] for place in order if rng.random() < 0.1]  # delivered twice
    order = rng.permutation(len(engagements))
    clicks += [click for click in clicks if rng.random() < 0.1]
    return SmallLog(
        impressions=impressions,
        engagements=[engagements[place] for place in order],
        product_clicks=clicks,
        users=[{"user_id": user, "age": maybe(int(rng.integers(20, 60)))} for user in user_ids[1:]],
        rooms=[
            {
                "room_id": room,
                "streamer_id": maybe(one(streamer_ids)),
                "start_at": maybe(START + int(rng.integers(-5, 20)) * HOUR, 0.5),
                "category": maybe(one(["game", "shop"])),
            }
            for room in room_ids[1:]
        ],
        streamers=[{"streamer_id": streamer, "fans": float(streamer)} for streamer in streamer_ids[:2]],
        products=[{"product_id": product, "price": maybe(product * 1.5)} for product in product_ids],
    )


def dated(log: SmallLog, seed: int) -> SmallLog:
    """The same log with attributes that change: up to five rows an id, each with the moment from which it holds.

    Some moments are those of feeds, some lie a millisecond beside them, before the log or after it.
    """
    rng = np.random.default_rng([seed, 1])
    one = lambda values: values[int(rng.integers(len(values)))]
    shown = sorted({row["shown_at"] for row in log.impressions})
    moments = sorted({START - 5 * DAY, START - 1, shown[-1] + 2 * DAY, *(at + more for at in shown for more in (-1, 0, 0, 1))})
    pools = {
        "users": {"age": [20, 30, 40, None]},
        "rooms": {"start_at": [START, START + 8 * HOUR, None], "category": ["game", "shop", None]},
        "streamers": {"fans": [1.0, 2.0, 3.0, None]},
        "products": {"price": [5.5, 6.5, 7.5, None]},
    }
    tables = {}
    for table, pool in pools.items():
        rows = []
        for row in getattr(log, table):
            for at in rng.choice(moments, int(rng.integers(0, 6)), replace=False):
                changed = {name: one(values) for name, values in pool.items()}
                if table == "rooms":
                    changed["streamer_id"] = one([row["streamer_id"], None])  # one a room; who it is may be known later
                rows.append({**row, **changed, "valid_from": int(at)})
        rows += [row for row in rows if rng.random() < 0.1]  # twice
        tables[table] = [rows[place] for place in rng.permutation(len(rows))]
    return replace(log, **tables)


def delayed(log: SmallLog, seed: int) -> SmallLog:
    """The same log with arrivals: most rows come at once, some a while or days later, some by clocks that run behind; some do
    not tell."""
    rng = np.random.default_rng([seed, 2])
    delays = [0, 0, 1, 500, 30_000, 30_000, 90_000, HOUR, 13 * HOUR, 2 * DAY, -1, -5000, None]

    def arriving(rows: list[dict]) -> list[dict]:
        found = []
        for row in rows:
            delay = delays[int(rng.integers(len(delays)))]
            at = row["shown_at"] if "shown_at" in row else row["at"]
            found.append({**row, "arrived_at": None if delay is None else at + delay})
        return found

    return replace(log, **{table: arriving(getattr(log, table)) for table in EVENTS})


# -- the definitions -------------------------------------------------------------------------------------------


@dataclass
class Shown:
    row: dict
    number: int  # in logged order
    feed: int = -1
    credited: list["Done"] = field(default_factory=list)

    @property
    def known(self) -> int:
        return arrival(self.row)


@dataclass
class Done:
    row: dict
    at: int
    answers: Shown | None = None

    @property
    def known(self) -> int:
        return max(arrival(self.row), self.at)

    @property
    def stay(self) -> float:
        return self.row["value"] or 0.0

    @property
    def over(self) -> int:
        return max(self.at + (round(self.stay * 1000) if self.row["action"] == "enter" else 0), self.known)


@dataclass
class Feed:
    user: int
    at: int
    rows: list[Shown]

    @property
    def known(self) -> int:
        return min(item.known for item in self.rows)


def arrival(row: dict) -> int:
    """When the platform knew of a row: as it says, but not before it happened."""
    happened = row["shown_at"] if "shown_at" in row else row["at"]
    arrived = row.get("arrived_at")
    return happened if arrived is None else max(arrived, happened)


def arrived(rows: list[dict]) -> list[dict]:
    """In the order of arrival, and of the log where several arrive together; as logged where nothing says when."""
    return sorted(rows, key=arrival) if any("arrived_at" in row for row in rows) else rows


def feeds_of(log: SmallLog, gap_ms: int, most: int) -> list[Feed]:
    stretch = stretches(log, gap_ms)
    seen: set = set()
    shown: list[Shown] = []
    for number, row in enumerate(arrived(log.impressions)):
        moment = row["shown_at"] if row["request_id"] is None else stretch[row["user_id"], row["request_id"], row["shown_at"]]
        key = (row["user_id"], row["request_id"], row["room_id"], moment)
        if key not in seen:
            seen.add(key)
            shown.append(Shown(row, number))
    groups: list[list[Shown]] = []
    by_request: dict[tuple, list[Shown]] = {}
    for item in shown:
        if item.row["request_id"] is not None:
            key = (item.row["user_id"], item.row["request_id"])
            by_request.setdefault((*key, stretch[*key, item.row["shown_at"]]), []).append(item)
    groups += by_request.values()
    for user in {item.row["user_id"] for item in shown}:
        mine = [item for item in shown if item.row["user_id"] == user and item.row["request_id"] is None]
        last = None
        for item in sorted(mine, key=lambda item: (item.row["shown_at"], item.number)):
            near = last is not None and item.row["shown_at"] - last <= gap_ms
            if near:
                chain += 1  # noqa: F821
            else:
                chain = 0
            if chain % most == 0:
                groups.append([])
            groups[-1].append(item)
            last = item.row["shown_at"]
    feeds = [
        Feed(group[0].row["user_id"], min(item.row["shown_at"] for item in group), sorted(group, key=lambda item: item.number))
        for group in groups
    ]
    feeds.sort(key=lambda feed: (feed.user, feed.at, feed.rows[0].number))
    for place, feed in enumerate(feeds):
        for item in feed.rows:
            item.feed = place
    return feeds


def stretches(log: SmallLog, gap_ms: int) -> dict[tuple, int]:
    """By user, request and moment: which of the request's stretches of time that is."""
    moments: dict[tuple, set[int]] = {}
    for row in log.impressions:
        if row["request_id"] is not None:
            moments.setdefault((row["user_id"], row["request_id"]), set()).add(row["shown_at"])
    found = {}
    for key, times in moments.items():
        number, last = 0, None
        for time in sorted(times):
            number += last is not None and time - last > gap_ms
            found[*key, time], last = number, time
    return found


def delivered(rows: list[dict]) -> list[dict]:
    """Rows in order of arrival, without those that repeat an earlier one in all but that."""
    plain = [{name: value for name, value in row.items() if name != "arrived_at"} for row in arrived(rows)]
    return [row for place, row in enumerate(arrived(rows)) if plain[place] not in plain[:place]]


def credit(log: SmallLog, feeds: list[Feed], gap_ms: int) -> list[Done]:
    done: list[Done] = []
    for row in delivered(log.engagements):
        item = Done(row, row["at"])
        same = [
            shown
            for feed in feeds
            for shown in feed.rows
            if shown.row["user_id"] == row["user_id"] and shown.row["room_id"] == row["room_id"]
        ]
        if row["request_id"] is not None:
            found = [shown for shown in same if shown.row["request_id"] == row["request_id"]]
            of_request = {shown.feed for feed in feeds for shown in feed.rows if is_of(shown, row)}
            if len(of_request) > 1:
                earlier = [shown for shown in found if shown.row["shown_at"] <= row["at"]]
                later = [shown for shown in found if shown.row["shown_at"] > row["at"]]
                if earlier:
                    item.answers = max(earlier, key=lambda shown: (shown.row["shown_at"], shown.feed, shown.number))
                elif later:
                    after = min(later, key=lambda shown: shown.row["shown_at"])
                    begun = feeds[after.feed].at <= row["at"] or after.feed == min(of_request)
                    if begun or after.row["shown_at"] - row["at"] <= gap_ms:
                        item.answers = after
            elif found:
                item.answers = found[0]
            if item.answers is not None:
                item.at = max(item.at, item.answers.row["shown_at"])
        else:
            earlier = [shown for shown in same if shown.row["shown_at"] <= row["at"]]
            if earlier:
                item.answers = max(earlier, key=lambda shown: (shown.row["shown_at"], shown.feed, shown.number))
        done.append(item)
    for item in sorted(done, key=lambda item: item.at):
        if item.answers is not None:
            item.answers.credited.append(item)
    return done


def is_of(shown: Shown, row: dict) -> bool:
    return (shown.row["user_id"], shown.row["request_id"]) == (row["user_id"], row["request_id"])


def counts_for(item: Done, target: Target) -> bool:
    if item.row["action"] != target.action or item.answers is None:
        return False
    if item.known - item.answers.row["shown_at"] > target.attribution_seconds * 1000:
        return False
    return target.at_least is None or (item.row["value"] is not None and item.row["value"] >= target.at_least)


def label(shown: Shown, target: Target) -> float:
    values = [item.row["value"] or 0.0 for item in shown.credited if counts_for(item, target)]
    return float(bool(values)) if target.kind == "binary" else float(np.float32(sum(values)))


def written_label(shown: Shown, target: Target, ending: int) -> float:
    """As tables have it: below zero while more may come."""
    value = label(shown, target)
    is_open = shown.row["shown_at"] + target.attribution_seconds * 1000 >= ending
    return float(np.float32(-1 - np.float32(value))) if is_open else value


def known(shown: Shown, target: Target) -> list[tuple[int, float]]:
    """Moments and amounts by which a label became known."""
    needs_value = target.kind == "value" or target.at_least is not None
    events = [
        (item.over if needs_value else item.known, item.row["value"] or 0.0)
        for item in shown.credited
        if counts_for(item, target)
    ]
    if target.kind == "binary":
        return [(min(at for at, _ in events), 1.0)] if events else []
    return events


def hours(then: int | None, now: int) -> float | None:
    return None if then is None else float(np.float32((now - then) / HOUR))


def counted(times: list[int], now: int, window: int | None = None) -> int:
    return sum(time < now and (window is None or time >= now - window) for time in times)


def as_of(rows: list[dict], now: int) -> dict:
    """Of the rows of one id the one that holds at a moment."""
    begun = [row for row in rows if row.get("valid_from", now) <= now]
    return max(begun, key=lambda row: row.get("valid_from", now), default={})


def candidate(item: Shown, feed: Feed, shown: list[Shown], done: dict[str, list[Done]], attribute, streamer_of) -> dict:
    now, room = feed.at, item.row["room_id"]
    streamer = streamer_of(room, now)
    values = {name: item.row[name] for name in ("position", "state.viewers", "state.note", "state.product_id")}
    values |= {
        "streamer_id": streamer,
        "product.price": attribute("products", item.row["state.product_id"], "price", now),
        "room.category": attribute("rooms", room, "category", now),
        "streamer.fans": attribute("streamers", streamer, "fans", now),
    }
    for owner in ("room", "streamer"):
        unknown = owner == "streamer" and streamer is None

        def is_same(other: int, at: int, owner=owner, unknown=unknown) -> bool:
            return not unknown and (other == room if owner == "room" else streamer_of(other, at) == streamer)

        seen = [other for other in shown if is_same(other.row["room_id"], other.known)]
        times = [other.known for other in seen]
        mine = [other.known for other in seen if other.row["user_id"] == feed.user]
        events = {"impressions": (times, mine)}
        for what, others in done.items():
            there = [other for other in others if is_same(other.row["room_id"], other.known)]
            own = [other.known for other in there if other.row["user_id"] == feed.user]
            events[what] = ([other.known for other in there], own)
        for what, (of_all, of_user) in events.items():
            for name, window_ms in WINDOWS.items():
                values[f"{owner}_{what}.{name}"] = None if unknown else counted(of_all, now, window_ms)
            values[f"pair_{owner}_{what}"] = None if unknown else counted(of_user, now)
        began = min((time for time in times if time < now), default=None)
        start = attribute("rooms", room, "start_at", now) if owner == "room" else None
        began = began if start is None else start
        values[f"{owner}_age_hours"] = hours(began, now) if began is not None and began < now else None
        last = max((time for time in events["impressions" if owner == "room" else "entries"][1] if time < now), default=None)
        values[f"pair_{owner}_hours"] = hours(last, now)
    return values


def naive_features(
    log: SmallLog,
    schema: Schema,
    *,
    gap_ms: int = 60_000,
    most: int = 500,
    day_shift_ms: int = 0,
    actions: Mapping[str, str] = MappingProxyType({"entries": "enter", "orders": "order"}),
    until: int | None = None,
) -> list[dict]:
    """
    Args:
        actions: what counters call the events of an action.
        until: the cut-off; None for the moment after the last row.
    """
    events = {name: getattr(log, name) for name in ("impressions", "engagements", "product_clicks")}
    if until is not None:
        log = replace(log, **{name: [row for row in rows if arrival(row) < until] for name, rows in events.items()})
    counted_actions = {*actions.values(), *(target.action for target in schema.targets)}
    seen = [*log.impressions, *log.product_clicks, *(row for row in log.engagements if row["action"] in counted_actions)]
    ending = 1 + max(map(arrival, seen)) if until is None else until
    feeds = feeds_of(log, gap_ms, most)
    done = credit(log, feeds, gap_ms)
    shown = [item for feed in feeds for item in feed.rows]
    of_kind = {what: [item for item in done if item.row["action"] == action] for what, action in actions.items()}
    entries = of_kind["entries"]
    keys = {"users": "user_id", "rooms": "room_id", "streamers": "streamer_id", "products": "product_id"}
    tables: dict[str, dict[int, list[dict]]] = {table: {} for table in keys}
    for table, key in keys.items():
        for row in getattr(log, table):
            tables[table].setdefault(row[key], []).append(row)
    attribute = lambda table, key, name, now: as_of(tables[table].get(key, []), now).get(name)

    def streamer_of(room: int, now: int) -> int | None:
        known = [row for row in tables["rooms"].get(room, []) if row["streamer_id"] is not None]
        return next((row["streamer_id"] for row in known if row.get("valid_from", now) <= now), None)

    rows = []
    for feed in feeds:
        now = feed.at
        own_shown = [item.known for item in shown if item.row["user_id"] == feed.user]
        own_entries = [item for item in entries if item.row["user_id"] == feed.user]
        row: dict = {
            "user_id": feed.user,
            "at": now,
            "day": (now + day_shift_ms) // DAY,
            "room_id": [item.row["room_id"] for item in feed.rows],
            "context.device": min(feed.rows, key=lambda item: item.number).row["context.device"],
            "user.age": attribute("users", feed.user, "age", now),
            "user_feeds": sum(other.user == feed.user and other.known < now for other in feeds),
            "user_impressions": counted(own_shown, now),
            **{
                f"user_{what}": counted([item.known for item in items if item.row["user_id"] == feed.user], now)
                for what, items in of_kind.items()
            },
            "user_last_seen_hours": hours(max((time for time in own_shown if time < now), default=None), now),
        }
        for target in schema.targets:
            row[f"label.{target.name}"] = [written_label(item, target, ending) for item in feed.rows]
        for place, days in enumerate(schema.preference_days):
            window, suffix = round(days * DAY), f".{days:g}d" if place else ""
            count = row[f"preference_count{suffix}"] = counted(own_shown, now, window)
            for target in schema.targets:
                amounts = [
                    amount
                    for item in shown
                    if item.row["user_id"] == feed.user
                    for at, amount in known(item, target)
                    if now - window <= at < now
                ]
                row[f"preference.{target.name}{suffix}"] = float(np.float32(sum(amounts) / count)) if count else None
                if place == 0:
                    row[f"sum.{target.name}"] = sum(map(Fraction, amounts))
        candidates = [candidate(item, feed, shown, of_kind, attribute, streamer_of) for item in feed.rows]
        row.update({name: [values[name] for values in candidates] for name in candidates[0]})
        for history in schema.histories:
            if history.events == "engagements":
                past = [item for item in own_entries if item.stay >= history.min_stay_seconds and item.over < now]
                # logged order within equal moments; `entries` keeps it
                past = sorted(past, key=lambda item: (item.over, item.at))[-history.length :]
                row[f"{history.name}.at"] = [item.at for item in past]
                row[f"{history.name}.room_id"] = [item.row["room_id"] for item in past]
                streamers = [streamer_of(item.row["room_id"], item.at) for item in past]
                row[f"{history.name}.streamer_id"] = streamers
                row[f"{history.name}.room.category"] = [
                    attribute("rooms", item.row["room_id"], "category", item.at) for item in past
                ]
                row[f"{history.name}.streamer.fans"] = [
                    attribute("streamers", streamer, "fans", item.at) for streamer, item in zip(streamers, past, strict=True)
                ]
                row[f"{history.name}.stay_seconds"] = [item.row["value"] for item in past]
            else:
                clicks = [
                    click for click in delivered(log.product_clicks) if click["user_id"] == feed.user and arrival(click) < now
                ]
                clicks = sorted(clicks, key=arrival)[-history.length :]
                row[f"{history.name}.at"] = [click["at"] for click in clicks]
                row[f"{history.name}.product_id"] = [click["product_id"] for click in clicks]
                row[f"{history.name}.product.price"] = [
                    attribute("products", click["product_id"], "price", click["at"]) for click in clicks
                ]
        rows.append(row)
    return rows


@dataclass(frozen=True)
class Taught:
    """What the training days teach of labels and users."""

    quantiles: dict[str, list[float]]
    medians: dict[str, Fraction]


def naive_taught(rows: list[dict], schema: Schema) -> Taught:
    """From the training days' rows of `naive_features`."""
    quantiles = {}
    for target in schema.targets:
        if target.kind == "value":
            labels = sorted(value for row in rows for value in row[f"label.{target.name}"] if value > 0)
            places = [share / 256 * (len(labels) - 1) for share in range(257)] if labels else []
            quantiles[target.name] = [
                labels[int(place)] + (place - int(place)) * (labels[min(int(place) + 1, len(labels) - 1)] - labels[int(place)])
                for place in places
            ] or [0.0] * 257
    last: dict[int, dict] = {}
    for row in sorted(rows, key=lambda row: row["at"]):
        if row["preference_count"]:
            last[row["user_id"]] = row
    found: dict[str, list[Fraction]] = {"click": [], "stay": [], "order": []}
    for row in last.values():
        for name, rate in naive_rates(row, schema.stages).items():
            found[name].append(rate)
    return Taught(
        quantiles, {name: sorted(rates)[(len(rates) - 1) // 2] if rates else Fraction(0) for name, rates in found.items()}
    )


def naive_rates(row: dict, stages: Stages) -> dict[str, Fraction]:
    if not row["preference_count"]:
        return {}
    clicks, stay, orders = (row[f"sum.{name}"] for name in (stages.click, stages.stay, stages.order))
    rates = {"click": clicks / row["preference_count"]}
    return rates | {"stay": stay / clicks, "order": orders / clicks} if clicks else rates


def naive_feed(row: dict, schema: Schema, taught: Taught) -> dict:
    """The stage and the preferences of an encoded feed; those of values up to rounding."""
    rates = naive_rates(row, schema.stages)
    if "click" not in rates or rates["click"] <= taught.medians["click"]:
        stage = 0
    elif rates["stay"] <= taught.medians["stay"]:
        stage = 1
    elif rates["order"] <= taught.medians["order"]:
        stage = 2
    else:
        stage = 3
    found: dict = {"stage": stage}
    suffixes = ["", *(f".{days:g}d" for days in schema.preference_days[1:])]
    found["preference_count"] = [row[f"preference_count{suffix}"] for suffix in suffixes]
    clicks = [row[f"preference.{schema.stages.click}{suffix}"] for suffix in suffixes]
    for target in schema.targets:
        means = [row[f"preference.{target.name}{suffix}"] for suffix in suffixes]
        rates = [mean / click if click else None for mean, click in zip(means, clicks, strict=True)]
        if target.kind == "binary":
            rates = [None if rate is None else min(rate, 1) for rate in rates]
        else:
            means, rates = (
                [None if value is None else place_of(value, taught.quantiles[target.name]) for value in values]
                for values in (means, rates)
            )
        found[f"preference.{target.name}"] = means
        if target.name != schema.stages.click:
            found[f"per_click.{target.name}"] = rates
    return found


def place_of(value: float, quantiles: list[float]) -> float:
    """Where a value lies among quantiles, from 0 to 1: after those below it, in proportion between two of them."""
    if value <= 0:
        return 0.0
    reached = sum(quantile <= value for quantile in quantiles)
    if reached == 0 or reached == len(quantiles):
        return reached / len(quantiles)
    low, high = quantiles[reached - 1], quantiles[reached]
    return (reached - 1 + (value - low) / (high - low)) / 256


def day_name(day: int) -> str:
    return str(datetime.date(1970, 1, 1) + datetime.timedelta(days=day))
