"""A small live-stream world with known truth, written as canonical logs.

Size is one number, `users`; about users/8 streamers (at least 60; 4 % of them head, 16 % medium), users/2 products, and
seven feeds of 7.7 candidates per user and day follow from it. The same config writes the same bytes, and the first days
of a longer run are those of a shorter one.

| table | columns |
| --- | --- |
| impressions | request_id, user_id, room_id, shown_at, position, |
|  | `context.device`, `context.scene`, `state.viewers`, `state.revenue_1h`, `state.product_id` |
| engagements | user_id, room_id, at, action, value, request_id |
| product_clicks | user_id, product_id, at (clicks in rooms, and in a shop outside of all feeds) |
| users | user_id, age_band, gender, city_level |
| rooms | room_id, streamer_id, category, start_at, end_at |
| streamers | streamer_id, fans, category |
| products | product_id, category, price_band |

| target (name in the truth) | action | value | parent |
| --- | --- | --- | --- |
| click | enter | seconds of stay | |
| goods_bag | goods_bag | | click |
| product_click | product_click | | goods_bag |
| order | order | price | product_click |
| follow, comment, like | the same | | click |
| stay_seconds (a value) | enter | seconds of stay | |

Beside the logs lies the truth: `impressions.parquet` with request_id, user_id, room_id, shown_at, the probability of
every binary target and the expected `stay_seconds` (0 if not entered), given all that was drawn before the impression;
`stages/` with user_id, day and life-cycle stage; `streamers.parquet` with streamer_id and level.
"""

import time
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.config import config
from pipelines.logs import behaviour
from pipelines.logs.behaviour import FAVOURITES, SCENES, Familiarity, Impressions, Outcome
from pipelines.logs.world import (
    DAY_MS,
    DEVICES,
    EPOCH_MS,
    LEVELS,
    SLOT_MS,
    SLOTS_A_DAY,
    STAGES,
    Rooms,
    World,
    make_world,
    rooms_of_day,
)

_BLOCKS = 8  # parts of a day; what users learn about streamers counts from the next part on
_FEEDS_AT_ONCE = 20_000
_ROWS_A_FILE = 500_000


@config
class SimulateConfig:
    """A simulated world.

    Attributes:
        users: the size of the world; about 45 impressions per user and day.
        days: days in the log, from 2025-06-02 on (UTC).
        seed: another seed, another world.
    """

    kind: Literal["simulate"] = "simulate"
    users: int = 2000
    days: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("users", 20), ("days", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; a simulated world needs at least {least}.")


def simulate(source: SimulateConfig, logs: Path, truth: Path) -> None:
    """Writes the logs of a world into the folder `logs` and what is true about them into `truth`."""
    world = make_world(source.users, source.seed)
    users, streamers = world.users, world.streamers
    _write(users.table(), logs / "users.parquet")
    _write(streamers.table(), logs / "streamers.parquet")
    _write(world.products.table(), logs / "products.parquet")
    level = pa.array(np.array(LEVELS)[streamers.level_S])
    _write(pa.table({"streamer_id": streamers.id_S, "level": level}), truth / "streamers.parquet")

    familiarity = Familiarity(len(streamers))
    favourites_UC = np.full((len(users), FAVOURITES), -1, dtype=np.int64)
    stage_U = users.first_stage_U
    rng = np.random.default_rng([source.seed, 1])
    free_from_S = np.full(len(streamers), -SLOTS_A_DAY)
    rooms, free_from_S = rooms_of_day(rng, world, -1, 1_000_001, free_from_S)  # those of the night before
    next_room, next_request = 1_000_001 + len(rooms), 1
    rooms = rooms.after(0)
    _write(rooms.table(streamers), logs / "rooms" / "day-before.parquet")
    truth_file = _Lines(truth / "impressions.parquet")
    for day in range(source.days):
        started = time.monotonic()
        rng = np.random.default_rng([source.seed, 2, day])
        today, free_from_S = rooms_of_day(rng, world, day, next_room, free_from_S)
        next_room += len(today)
        _write(today.table(streamers), logs / "rooms" / f"{_date(day)}.parquet")
        rooms = rooms.after(day * SLOTS_A_DAY).and_(today)
        there = users.first_day_U <= day
        stage = pa.array(np.array(STAGES)[stage_U[there]])
        stages = pa.table({"user_id": users.id_U[there], "day": np.full(there.sum(), day), "stage": stage})
        _write(stages, truth / "stages" / f"{_date(day)}.parquet")

        feeds = behaviour.feeds_of_day(rng, world, day, stage_U)
        shop = behaviour.shop_of_day(rng, world, day, stage_U)
        files = {name: _Parts(logs / name, _date(day)) for name in ("impressions", "engagements", "product_clicks")}
        files["product_clicks"].write(_clicks(world, *shop))
        entries_U, orders_U = np.zeros(len(users), dtype=np.int64), np.zeros(len(users), dtype=np.int64)
        shown_count = 0
        slots = SLOTS_A_DAY // _BLOCKS
        for block in range(_BLOCKS):
            first_slot = day * SLOTS_A_DAY + block * slots
            live_TS = behaviour.live_rooms(rooms, len(streamers), first_slot, first_slot + slots)
            opens = EPOCH_MS + first_slot * SLOT_MS
            begin, end = np.searchsorted(feeds.at_F, [opens, opens + slots * SLOT_MS])
            learned: list[tuple[np.ndarray, ...]] = []
            for at in range(begin, end, _FEEDS_AT_ONCE):
                some = feeds[at : min(at + _FEEDS_AT_ONCE, end)]
                shown = behaviour.choose(rng, world, rooms, live_TS, first_slot, some, favourites_UC, familiarity)
                chance = behaviour.chances(world, rooms, shown)
                outcome = behaviour.act(rng, world, rooms, shown, chance)
                request_N = next_request + shown.feed_N
                next_request += len(some)
                shown_count += len(shown)
                impressions = _impressions(world, rooms, shown, request_N)
                files["impressions"].write(impressions)
                engagements, clicks = _happenings(world, rooms, shown, outcome, request_N)
                files["engagements"].write(engagements)
                files["product_clicks"].write(clicks)
                known = impressions.select(["request_id", "user_id", "room_id", "shown_at"])
                for name, values in chance.truth().items():
                    known = known.append_column(name, pa.array(values))
                truth_file.write(known)
                entries_U += np.bincount(shown.user_N[outcome.happened_N["click"]], minlength=len(users))
                orders_U += np.bincount(shown.user_N[outcome.happened_N["order"]], minlength=len(users))
                learned.append(_learned(rooms, shown, outcome))
            if learned:
                _remember(familiarity, favourites_UC, *(np.concatenate(part) for part in zip(*learned, strict=True)))
        for file in files.values():
            file.close()
        stage_U = np.where(there, behaviour.next_stages(rng, stage_U, entries_U, orders_U), stage_U).astype(np.int8)
        seconds = time.monotonic() - started
        print(
            f"  day {day + 1}/{source.days}: {len(feeds):,} feeds, {shown_count:,} impressions, {entries_U.sum():,} entries, "
            f"{orders_U.sum():,} orders, {shown_count / max(seconds, 1e-9):,.0f} impressions/s",
            flush=True,
        )
    truth_file.close()


def _learned(rooms: Rooms, shown: Impressions, outcome: Outcome) -> tuple[np.ndarray, ...]:
    """(user, streamer, change of familiarity) of all who entered: leaving at once makes strangers, staying friends."""
    row = np.flatnonzero(outcome.happened_N["click"])
    stay = outcome.stay_N[row]
    amount = np.where(stay < 4, -0.25, 0.15 + 0.25 * np.log1p(stay / 30))
    amount = amount + 1.0 * outcome.happened_N["follow"][row] + 0.8 * outcome.happened_N["order"][row]
    return shown.user_N[row], rooms.streamer_R[shown.room_N[row]], amount.astype(np.float32)


def _remember(
    familiarity: Familiarity, favourites_UC: np.ndarray, user_N: np.ndarray, streamer_N: np.ndarray, amount_N: np.ndarray
) -> None:
    """Takes what was learned in a block into account; changes its first two arguments."""
    familiarity.fade(0.985)  # an eighth of a day: half is forgotten in about six days
    familiarity.add(user_N, streamer_N, amount_N)
    liked = np.flatnonzero(amount_N > 0.5)
    user, last = np.unique(user_N[liked][::-1], return_index=True)
    streamer = streamer_N[liked][::-1][last]
    new = ~(favourites_UC[user] == streamer[:, None]).any(axis=1)
    user, streamer = user[new], streamer[new]
    favourites_UC[user] = np.column_stack([favourites_UC[user, 1:], streamer])  # the oldest makes room


def _impressions(world: World, rooms: Rooms, shown: Impressions, request_N: np.ndarray) -> pa.Table:
    state = shown.slot_N - rooms.first_slot_R[shown.room_N]
    device = world.users.device_U[shown.user_N].astype(np.int32)
    return pa.table(
        {
            "request_id": request_N,
            "user_id": world.users.id_U[shown.user_N],
            "room_id": rooms.id_R[shown.room_N],
            "shown_at": shown.at_N,
            "position": shown.position_N,
            "context.device": pa.array(DEVICES).take(pa.array(device)),
            "context.scene": pa.array(SCENES).take(pa.array(shown.scene_N.astype(np.int32))),
            "state.viewers": rooms.viewers_RT[shown.room_N, state],
            "state.revenue_1h": rooms.revenue_RT[shown.room_N, state],
            "state.product_id": world.products.id_P[rooms.product_RT[shown.room_N, state]],
        }
    )


def _happenings(
    world: World, rooms: Rooms, shown: Impressions, outcome: Outcome, request_N: np.ndarray
) -> tuple[pa.Table, pa.Table]:
    """The engagements, by time, and the product clicks among them as rows of the second domain."""
    events = outcome.events
    order = np.argsort(events.at_M, kind="stable")
    row = events.row_M[order]
    engagements = pa.table(
        {
            "user_id": world.users.id_U[shown.user_N[row]],
            "room_id": rooms.id_R[shown.room_N[row]],
            "at": events.at_M[order],
            "action": pa.array(events.action_M[order], pa.string()),
            "value": pa.array(events.value_M[order], from_pandas=True),
            "request_id": request_N[row],
        }
    )
    clicked = events.action_M[order] == "product_click"
    row = row[clicked]
    product = rooms.product_RT[shown.room_N[row], shown.slot_N[row] - rooms.first_slot_R[shown.room_N[row]]]
    return engagements, _clicks(world, shown.user_N[row], product, events.at_M[order][clicked])


def _clicks(world: World, user: np.ndarray, product: np.ndarray, at: np.ndarray) -> pa.Table:
    return pa.table({"user_id": world.users.id_U[user], "product_id": world.products.id_P[product], "at": at})


def _date(day: int) -> str:
    return str(np.datetime64(EPOCH_MS + day * DAY_MS, "ms").astype("datetime64[D]"))


def _write(table: pa.Table, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, compression="zstd")


class _Lines:
    """One Parquet file that grows by tables, so that memory does not."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self._rows += table.num_rows
        if self._rows >= _ROWS_A_FILE // 4:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        if self._writer is None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._file, table.schema, compression="zstd")
        self._writer.write_table(table)
        self._waiting, self._rows = [], 0

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()


class _Parts:
    """A table of one day: files of at most about `_ROWS_A_FILE` rows, `FOLDER/DATE-00.parquet` and so on."""

    def __init__(self, folder: Path, date: str) -> None:
        self._folder, self._date = folder, date
        self._part, self._rows = 0, 0
        self._file = self._next()

    def _next(self) -> _Lines:
        return _Lines(self._folder / f"{self._date}-{self._part:02d}.parquet")

    def write(self, table: pa.Table) -> None:
        if self._rows and self._rows + table.num_rows > _ROWS_A_FILE:
            self._file.close()
            self._part, self._rows = self._part + 1, 0
            self._file = self._next()
        self._file.write(table)
        self._rows += table.num_rows

    def close(self) -> None:
        self._file.close()
