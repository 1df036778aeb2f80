"""Rooms of a day, and their state from slot to slot."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.logs.simulator.clock import EPOCH_MS, SLOT_MS, SLOTS_A_DAY, moments, traffic
from pipelines.logs.simulator.people import CATEGORIES, LENGTH, SESSIONS, SHELF, Streamers, World

LONGEST_ROOM = 48  # slots: eight hours


@dataclass(frozen=True)
class Rooms:
    """Rooms and their state per slot. Column `t` of the state is slot `first_slot + t`; a room can be shown in slots
    [first_slot, end_slot), which lie within [start_at, end_at)."""

    id_R: np.ndarray
    streamer_R: np.ndarray
    first_slot_R: np.ndarray  # absolute: slot 0 is the first of day 0
    end_slot_R: np.ndarray
    start_at_R: np.ndarray
    end_at_R: np.ndarray
    heat_RT: np.ndarray  # how lively the room is
    mood_RT: np.ndarray  # how well it sells
    product_RT: np.ndarray  # product index on screen
    viewers_RT: np.ndarray
    revenue_RT: np.ndarray

    def __len__(self) -> int:
        return len(self.id_R)

    def table(self, streamers: Streamers) -> pa.Table:
        return pa.table(
            {
                "room_id": self.id_R,
                "streamer_id": streamers.id_S[self.streamer_R],
                "category": pa.array(np.array(CATEGORIES)[streamers.category_S[self.streamer_R]]),
                "start_at": self.start_at_R,
                "end_at": self.end_at_R,
            }
        )

    def after(self, slot: int) -> "Rooms":
        """Those still to be shown in `slot` or later."""
        keep = self.end_slot_R > slot
        return Rooms(**{name: values[keep] for name, values in vars(self).items()})

    def and_(self, other: "Rooms") -> "Rooms":
        return Rooms(**{name: np.concatenate([values, vars(other)[name]]) for name, values in vars(self).items()})


def rooms_of_day(
    rng: np.random.Generator, world: World, day: int, first_id: int, free_from_S: np.ndarray
) -> tuple[Rooms, np.ndarray]:
    """Rooms that start on `day`, and the slots from which their streamers are free again.

    Args:
        first_id: the id of the first of them; the others follow.
        free_from_S: a streamer starts no room before that slot.
    """
    streamers = world.streamers
    owner, first, end = [], [], []
    free = free_from_S.copy()
    for turn in range(SESSIONS.shape[1]):
        begins = rng.random(len(streamers)) < SESSIONS[streamers.level_S, turn]
        wished = day * SLOTS_A_DAY + moments(rng, len(streamers)) // SLOT_MS - 6  # live before the crowd comes
        length = np.exp(LENGTH[streamers.level_S] + 0.5 * rng.standard_normal(len(streamers)))
        length = np.clip(length, 4, LONGEST_ROOM).astype(np.int64)
        at = np.maximum(np.maximum(wished, day * SLOTS_A_DAY), free)
        chosen = np.flatnonzero(begins & (at < (day + 1) * SLOTS_A_DAY))
        owner.append(chosen)
        first.append(at[chosen])
        end.append(at[chosen] + length[chosen])
        free[chosen] = end[-1] + 2  # so that end_at of one lies before start_at of the next
    streamer, first_slot, end_slot = (np.concatenate(parts) for parts in (owner, first, end))
    order = np.lexsort((streamer, first_slot))
    streamer, first_slot, end_slot = streamer[order], first_slot[order], end_slot[order]
    count = len(streamer)
    heat_RT = _wander(rng, count)
    mood_RT = _wander(rng, count)
    changes = rng.random((count, LONGEST_ROOM)) < 0.5
    changes[:, 0] = False
    shelf_place = (rng.integers(0, SHELF, (count, 1)) + np.cumsum(changes, axis=1)) % SHELF
    level = streamers.level_S[streamer][:, None]
    busy = np.log(traffic(first_slot[:, None] + np.arange(LONGEST_ROOM)))
    crowd = np.array([2.5, 5.0, 7.5])[level] + 0.5 * busy + 0.5 * heat_RT + 0.25 * _normal(rng, count)
    viewers = np.round(np.exp(crowd)) + 1
    product_RT = streamers.shelf_SP[streamer[:, None], shelf_place]
    sells = 0.5 * streamers.skill_S[streamer][:, None] + 0.5 * mood_RT + 0.3 * _normal(rng, count)
    rooms = Rooms(
        id_R=np.arange(count, dtype=np.int64) + first_id,
        streamer_R=streamer,
        first_slot_R=first_slot,
        end_slot_R=end_slot,
        start_at_R=EPOCH_MS + first_slot * SLOT_MS - rng.integers(0, SLOT_MS, count),
        end_at_R=EPOCH_MS + end_slot * SLOT_MS + rng.integers(0, SLOT_MS, count),
        heat_RT=heat_RT,
        mood_RT=mood_RT,
        product_RT=product_RT,
        viewers_RT=viewers.astype(np.int64),
        revenue_RT=np.round(0.2 * viewers * np.exp(sells), 2),
    )
    return rooms, free


def _wander(rng: np.random.Generator, rooms: int) -> np.ndarray:
    """A standard normal per room and slot that keeps 85 % of itself from slot to slot, [rooms, LONGEST_ROOM]."""
    state_RT = _normal(rng, rooms)
    for slot in range(1, LONGEST_ROOM):
        state_RT[:, slot] = 0.85 * state_RT[:, slot - 1] + np.float32(np.sqrt(1 - 0.85**2)) * state_RT[:, slot]
    return state_RT


def _normal(rng: np.random.Generator, rooms: int) -> np.ndarray:
    return rng.standard_normal((rooms, LONGEST_ROOM), dtype=np.float32)
