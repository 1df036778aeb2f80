"""A small live-stream world with known truth, written as canonical logs.

Size is one number, `users`: about users/8 streamers (at least 200; 4 % of them head, 16 % medium), users/2 products (at
least 300) and 4.5 feeds of 7.7 candidates per user and day follow from it. The same config writes the same bytes, and
the first days of a longer run are those of a shorter one.

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

Where the world has delays, the three tables of events have `arrived_at` as well (see `Delays`).

Beside the logs lies the truth: `impressions/` with request_id, user_id, room_id, shown_at, the probability of
every binary target and the expected `stay_seconds` (0 if not entered), given all that was drawn before the impression, and
the mean and the cap of the log-normal stay of those who enter (`stay_log_mean`, `stay_cap_seconds`);
`stages/` with user_id, day and life-cycle stage; `streamers.parquet` with streamer_id and level.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.logs.files import GrowingFile, GrowingFolder, write
from pipelines.logs.simulator import state
from pipelines.logs.simulator.acts import Outcome, act
from pipelines.logs.simulator.chances import chances
from pipelines.logs.simulator.clock import EPOCH_MS, SLOT_MS, SLOTS_A_DAY, date_of
from pipelines.logs.simulator.config import LEVELS, STAGES, SimulateConfig
from pipelines.logs.simulator.delivery import ARRIVED_AT, TABLES, Delivery
from pipelines.logs.simulator.people import DEVICES, World, make_world
from pipelines.logs.simulator.rooms import Rooms, rooms_of_day
from pipelines.logs.simulator.shows import FAVOURITES, Familiarity, Impressions, Shares, choose, live_rooms
from pipelines.logs.simulator.visits import SCENES, feeds_of_day, next_stages, shop_of_day

_BLOCKS = 8  # parts of a day; what users learn about streamers counts from the next part on
_FEEDS_AT_ONCE = 20_000
_FIRST_ROOM = 1_000_001
KEYS = ["request_id", "user_id", "room_id", "shown_at"]  # of an impression, in the truth


@dataclass
class Life:
    """What changes while the world lives; everything else about it is fixed when it is made."""

    world: World
    familiarity: Familiarity
    favourites_UC: np.ndarray  # streamer indices, the latest last; -1 where there is none
    stage_U: np.ndarray
    rooms: Rooms  # those that are live or will be
    free_from_S: np.ndarray  # the slot from which a streamer can start a room
    next_room: int
    next_request: int
    shares: Shares | None  # of levels, where they are a premise
    delivery: Delivery
    day: int  # the next one to be lived

    def save(self, folder: Path) -> None:
        """Writes all that another day needs beside the world, which is made anew of its config."""
        keys, values = self.familiarity.state()
        shown = {} if self.shares is None else {"shares.shown": self.shares.shown_L}
        arrays = {
            "familiarity.keys": keys,
            "familiarity.values": values,
            "favourites": self.favourites_UC,
            "stage": self.stage_U,
            "free_from": self.free_from_S,
            "numbers": np.array([self.next_room, self.next_request, self.day], np.int64),
            **shown,
        }
        state.save(folder, arrays, self.rooms, self.delivery.waiting())


def begin(world: World) -> Life:
    """The world in the midnight before day 0; rooms of the evening before are still live."""
    users, streamers, levels = world.users, world.streamers, world.config.levels
    free_from_S = np.full(len(streamers), -SLOTS_A_DAY)
    rooms, free_from_S = rooms_of_day(np.random.default_rng([world.config.seed, 1]), world, -1, _FIRST_ROOM, free_from_S)
    return Life(
        world=world,
        familiarity=Familiarity(len(streamers)),
        favourites_UC=np.full((len(users), FAVOURITES), -1, dtype=np.int64),
        stage_U=users.first_stage_U,
        rooms=rooms.after(0),
        free_from_S=free_from_S,
        next_room=_FIRST_ROOM + len(rooms),
        next_request=1,
        shares=None if levels is None or levels.shares is None else Shares(levels.shares),
        delivery=Delivery(world.config.delays),
        day=0,
    )


def going_on(world: World, folder: Path) -> Life:
    """The world as `Life.save` left it."""
    arrays, rooms, pending = state.load(folder)
    life = begin(world)
    life.familiarity = Familiarity(len(world.streamers), arrays["familiarity.keys"], arrays["familiarity.values"])
    life.favourites_UC, life.stage_U, life.free_from_S = (arrays[name] for name in ("favourites", "stage", "free_from"))
    life.next_room, life.next_request, life.day = arrays["numbers"].tolist()
    life.rooms, life.delivery = rooms, Delivery(world.config.delays, pending)
    if life.shares is not None:
        life.shares.shown_L = arrays["shares.shown"]
    return life


def simulate(source: SimulateConfig, output: Path) -> None:
    """Writes the logs of a world into the folder `output/logs`, what is true about them into `output/truth`, and what it takes
    to go on into `output/state`. Where a shorter simulation left these, only the days after it are added."""
    logs, truth, before = output / "logs", output / "truth", output / "state"
    world = make_world(source)
    if state.is_there(before):
        life = going_on(world, before)
    else:
        streamers = world.streamers
        write(world.users.table(), logs / "users.parquet")
        write(world.streamers_table(), logs / "streamers.parquet")
        write(world.products_table(), logs / "products.parquet")
        level = pa.array(np.array(LEVELS)[streamers.level_S])
        write(pa.table({"streamer_id": streamers.id_S, "level": level}), truth / "streamers.parquet")
        life = begin(world)
        write(life.rooms.table(streamers), logs / "rooms" / "day-before.parquet")
    for day in range(life.day, source.days):
        started = time.monotonic()
        counts = _live(life, day, logs, truth)
        rate = counts["impressions"] / (time.monotonic() - started)
        told = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        print(f"  day {day + 1}/{source.days}: {told}; {rate:,.0f} impressions/s", flush=True)
    life.save(before)


def goes_on(before: SimulateConfig, after: SimulateConfig) -> bool:
    """Whether a simulation is another one with more days."""
    return after.days > before.days and replace(before, days=after.days) == after


def _live(life: Life, day: int, logs: Path, truth: Path) -> dict[str, int]:
    """Lives and writes one day; changes `life`. Returns counts of what happened, by name."""
    world, date, delivery = life.world, date_of(day), life.delivery
    rng, late = (np.random.default_rng([world.config.seed, stream, day]) for stream in (2, 4))
    users = world.users
    today, life.free_from_S = rooms_of_day(rng, world, day, life.next_room, life.free_from_S)
    life.next_room += len(today)
    write(today.table(world.streamers), logs / "rooms" / f"{date}.parquet")
    life.rooms = life.rooms.after(day * SLOTS_A_DAY).and_(today)
    there = users.first_day_U <= day
    stage = pa.array(np.array(STAGES)[life.stage_U[there]])
    stages = pa.table({"user_id": users.id_U[there], "day": np.full(there.sum(), day), "stage": stage})
    write(stages, truth / "stages" / f"{date}.parquet")

    feeds = feeds_of_day(rng, world, day, life.stage_U)
    entries_U, orders_U = np.zeros(len(users), dtype=np.int64), np.zeros(len(users), dtype=np.int64)
    impressions = 0
    with ExitStack() as stack:
        files = {table: stack.enter_context(GrowingFolder(logs / table, date)) for table in TABLES}
        truth_file = stack.enter_context(GrowingFile(truth / "impressions" / f"{date}.parquet", repeated=KEYS))
        sent = lambda table, rows: delivery.write(table, rows, day, files[table])
        delivery.begin_day(day, files)
        sent("product_clicks", delivery.shop(late, _clicks(world, *shop_of_day(rng, world, day, life.stage_U))))
        slots = SLOTS_A_DAY // _BLOCKS
        for first_slot in range(day * SLOTS_A_DAY, (day + 1) * SLOTS_A_DAY, slots):
            live_TS = live_rooms(life.rooms, len(world.streamers), first_slot, first_slot + slots)
            opens = EPOCH_MS + first_slot * SLOT_MS
            first, end = np.searchsorted(feeds.at_F, [opens, opens + slots * SLOT_MS])
            learned = []
            for at in range(first, end, _FEEDS_AT_ONCE):
                some = feeds[at : min(at + _FEEDS_AT_ONCE, end)]
                shown = choose(
                    rng, world, life.rooms, live_TS, first_slot, some, life.favourites_UC, life.familiarity, life.shares
                )
                chance = chances(world, life.rooms, shown)
                outcome = act(rng, world, life.rooms, shown, chance)
                request_N = life.next_request + shown.feed_N
                life.next_request += len(some)
                impressions += len(shown)
                entries_U += np.bincount(shown.user_N[outcome.happened_N["click"]], minlength=len(users))
                orders_U += np.bincount(shown.user_N[outcome.happened_N["order"]], minlength=len(users))
                learned.append(_learned(life.rooms, shown, outcome))

                shown_table = _impressions(world, life.rooms, shown, request_N)
                happened, product = _happenings(world, life.rooms, shown, outcome, request_N)
                engagements = delivery.engagements(late, happened)
                sent("impressions", delivery.impressions(late, shown_table))
                sent("engagements", engagements)
                sent("product_clicks", _product_clicks(world, engagements, product))
                keys = shown_table.select(KEYS)
                truth_file.write(pa.table({**dict(zip(keys.column_names, keys.columns, strict=True)), **chance.truth()}))
            if learned:
                user_N, streamer_N, amount_N = (np.concatenate(part) for part in zip(*learned, strict=True))
                _remember(life, user_N, streamer_N, amount_N)
    life.day = day + 1
    life.stage_U = np.where(there, next_stages(rng, life.stage_U, entries_U, orders_U, world.config.pace), life.stage_U)
    return {"feeds": len(feeds), "impressions": impressions, "entries": int(entries_U.sum()), "orders": int(orders_U.sum())}


def _learned(rooms: Rooms, shown: Impressions, outcome: Outcome) -> tuple[np.ndarray, ...]:
    """(user, streamer, change of familiarity) of all who entered: leaving at once makes strangers, staying friends."""
    row = np.flatnonzero(outcome.happened_N["click"])
    stay = outcome.stay_N[row]
    amount = np.where(stay < 4, -0.25, 0.15 + 0.25 * np.log1p(stay / 30))
    amount = amount + 1.0 * outcome.happened_N["follow"][row] + 0.8 * outcome.happened_N["order"][row]
    return shown.user_N[row], rooms.streamer_R[shown.room_N[row]], amount.astype(np.float32)


def _remember(life: Life, user_N: np.ndarray, streamer_N: np.ndarray, amount_N: np.ndarray) -> None:
    """Takes what was learned in a block into account; changes `life`."""
    life.familiarity.fade(0.985)  # an eighth of a day: half is forgotten in about six days
    life.familiarity.add(user_N, streamer_N, amount_N)
    liked = np.flatnonzero(amount_N > 0.5)
    user, last = np.unique(user_N[liked][::-1], return_index=True)
    streamer = streamer_N[liked][::-1][last]
    new = ~(life.favourites_UC[user] == streamer[:, None]).any(axis=1)
    user, streamer = user[new], streamer[new]
    life.favourites_UC[user] = np.column_stack([life.favourites_UC[user, 1:], streamer])  # the oldest makes room


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
) -> tuple[pa.Table, np.ndarray]:
    """The engagements, by time, and the product that was on screen at each of them."""
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
    return engagements, rooms.product_RT[shown.room_N[row], shown.slot_N[row] - rooms.first_slot_R[shown.room_N[row]]]


def _product_clicks(world: World, engagements: pa.Table, product: np.ndarray) -> pa.Table:
    """The product clicks among engagements as rows of the second domain."""
    clicked = engagements["action"].to_numpy() == "product_click"
    rows = engagements.filter(pa.array(clicked))
    columns = {"user_id": rows["user_id"], "product_id": world.products.id_P[product[clicked]], "at": rows["at"]}
    return pa.table(columns | ({ARRIVED_AT: rows[ARRIVED_AT]} if ARRIVED_AT in rows.column_names else {}))


def _clicks(world: World, user: np.ndarray, product: np.ndarray, at: np.ndarray) -> pa.Table:
    return pa.table({"user_id": world.users.id_U[user], "product_id": world.products.id_P[product], "at": at})
