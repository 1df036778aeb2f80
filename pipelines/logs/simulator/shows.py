"""What users are shown."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.logs.simulator.clock import EPOCH_MS, SLOT_MS
from pipelines.logs.simulator.config import FEED_SIZE
from pipelines.logs.simulator.people import World
from pipelines.logs.simulator.rooms import Rooms
from pipelines.logs.simulator.visits import Feeds

DRAWN = 32  # rooms drawn for a feed before the platform's own ranking cuts them
FAVOURITES = 4
_LEAST_DRAWN = 6  # of a level, where levels have their shares
_MOST_TIMES = 4.0  # its even part that a level gets of a feed at most, to make up for hours when too few of it were live


class Familiarity:
    """How well a user knows a streamer, from earlier entries: a sparse matrix kept as sorted keys."""

    def __init__(self, streamers: int, keys: np.ndarray | None = None, values: np.ndarray | None = None) -> None:
        """`keys`, `values`: as `state` gave them."""
        self._streamers = streamers
        self._keys = np.empty(0, dtype=np.int64) if keys is None else keys
        self._values = np.empty(0, dtype=np.float32) if values is None else values

    def state(self) -> tuple[np.ndarray, np.ndarray]:
        return self._keys, self._values

    def of(self, user_N: np.ndarray, streamer_N: np.ndarray) -> np.ndarray:
        """Familiarity per pair, in [-1, 3]; 0 for strangers."""
        if not len(self._keys):
            return np.zeros(len(user_N), dtype=np.float32)
        keys = user_N.astype(np.int64) * self._streamers + streamer_N
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.clip(np.where(self._keys[place] == keys, self._values[place], 0), -1, 3)

    def add(self, user_N: np.ndarray, streamer_N: np.ndarray, amount_N: np.ndarray) -> None:
        keys = np.concatenate([self._keys, user_N.astype(np.int64) * self._streamers + streamer_N])
        values = np.concatenate([self._values, amount_N])
        self._keys, inverse = np.unique(keys, return_inverse=True)
        self._values = np.bincount(inverse, weights=values, minlength=len(self._keys)).astype(np.float32)

    def fade(self, share: float) -> None:
        """Keeps that share of everything; what is next to nothing is forgotten."""
        self._values = self._values * np.float32(share)
        keep = np.abs(self._values) > 0.05
        self._keys, self._values = self._keys[keep], self._values[keep]


@dataclass(frozen=True)
class Impressions:
    """Candidates of feeds as shown; those of a feed lie together in the order of their positions."""

    feed_N: np.ndarray  # row of the feeds they were drawn for
    user_N: np.ndarray
    stage_N: np.ndarray
    scene_N: np.ndarray
    at_N: np.ndarray
    room_N: np.ndarray  # row of the rooms
    slot_N: np.ndarray  # absolute
    position_N: np.ndarray
    familiar_N: np.ndarray

    def __len__(self) -> int:
        return len(self.user_N)


def live_rooms(rooms: Rooms, streamers: int, first_slot: int, end_slot: int) -> np.ndarray:
    """The row of the room a streamer is live in at each slot, -1 if in none: [end_slot - first_slot, streamers]."""
    live = np.full((end_slot - first_slot, streamers), -1, dtype=np.int64)
    for offset in range(end_slot - first_slot):
        slot = first_slot + offset
        rows = np.flatnonzero((rooms.first_slot_R <= slot) & (slot < rooms.end_slot_R))
        live[offset, rooms.streamer_R[rows]] = rows
    return live


class Shares:
    """How shows are divided among levels of streamers, kept by giving each level what it has lacked so far.

    Args:
        share_L: of each level; they sum to 1.
    """

    def __init__(self, share_L: Sequence[float]) -> None:
        self.share_L = np.array(share_L)
        self.shown_L = np.zeros(len(share_L))

    def places(self, wanted_F: np.ndarray, there_FL: np.ndarray) -> np.ndarray:
        """Rooms of each level that feeds get, int64 [F, L]; never more than are there.

        Args:
            wanted_F: rooms that each feed is to have in all.
            there_FL: different rooms of each level that it could have.
        """
        places_FL = np.zeros(there_FL.shape, dtype=np.int64)
        owed_L = self.share_L * (self.shown_L.sum() + wanted_F.sum()) - self.shown_L
        for level, owed in enumerate(owed_L):
            even_F, there_F = wanted_F * self.share_L[level], there_FL[:, level]
            expected_F = np.minimum(even_F * _times(even_F, there_F, owed), there_F)
            # rounded along the feeds, so that the sum is what is owed
            places_FL[:, level] = np.minimum(np.diff(np.floor(np.cumsum(expected_F) + 0.5), prepend=0.0), there_F)
        return places_FL

    def note(self, level_N: np.ndarray) -> None:
        """Takes in the levels of what was shown."""
        self.shown_L += np.bincount(level_N, minlength=len(self.share_L))


def _times(even_F: np.ndarray, there_F: np.ndarray, owed: float) -> float:
    """How many times its even part each feed must get so that all get what is owed; at most `_MOST_TIMES`."""
    low, high = 0.0, _MOST_TIMES
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(even_F * middle, there_F).sum() < owed else (low, middle)
    return high


def choose(
    rng: np.random.Generator,
    world: World,
    rooms: Rooms,
    live_TS: np.ndarray,
    first_slot: int,
    feeds: Feeds,
    favourites_UC: np.ndarray,
    familiarity: Familiarity,
    shares: Shares | None = None,
) -> Impressions:
    """What the platform shows: rooms drawn by its weights, and favourites that are live, ranked by its own rough idea
    of affinity. The better half or so is shown; feeds for which nothing is live are left empty.

    Args:
        shares: of levels, which are kept; rooms are then drawn and cut level by level. It notes what is shown.
    """
    streamers = world.streamers
    slot_F = (feeds.at_F - EPOCH_MS) // SLOT_MS
    offset_F = slot_F - first_slot
    weight_TS = np.where(live_TS >= 0, streamers.weight_S, 0.0)
    if shares is None:
        streamer_FC, possible_FC = _drawn(rng, weight_TS, offset_F, DRAWN)
    else:
        of_level = [
            _drawn(rng, np.where(streamers.level_S == level, weight_TS, 0.0), offset_F, drawn)
            for level, drawn in enumerate(np.clip(np.ceil(DRAWN * shares.share_L), _LEAST_DRAWN, DRAWN).astype(int))
        ]
        streamer_FC, possible_FC = (np.concatenate(parts, axis=1) for parts in zip(*of_level, strict=True))
    drawn = streamer_FC.shape[1]
    favourite_FC = favourites_UC[feeds.user_F]
    recalled_FC = (rng.random(favourite_FC.shape) < np.where(feeds.scene_F == 1, 1.0, 0.6)[:, None]) & (favourite_FC >= 0)
    streamer_FC = np.concatenate([streamer_FC, np.where(recalled_FC, favourite_FC, 0)], axis=1)
    possible_FC = np.concatenate([possible_FC, recalled_FC], axis=1)
    room_FC = live_TS[offset_F[:, None], streamer_FC]
    possible_FC &= room_FC >= 0

    # Each room once: sorted by room, favourites first, all but the first of equal ones go.
    favourite_C = np.arange(streamer_FC.shape[1]) >= drawn
    none = np.int32(np.iinfo(np.int32).max)
    key_FC = np.sort(np.where(possible_FC, (room_FC * 2 + ~favourite_C).astype(np.int32), none), axis=1)
    room_FC, is_favourite_FC = key_FC >> 1, (key_FC & 1) == 0
    possible_FC = key_FC < none
    possible_FC[:, 1:] &= room_FC[:, 1:] != room_FC[:, :-1]
    room_FC = np.where(possible_FC, room_FC, 0)

    owner_FC = rooms.streamer_R[room_FC]
    affinity_FC = world.rough_idea(feeds.user_F[:, None], owner_FC)
    noise_FC = rng.gumbel(size=room_FC.shape).astype(np.float32)
    score_FC = 0.45 * affinity_FC + 0.8 * (is_favourite_FC & possible_FC) + 0.7 * noise_FC
    score_FC = np.where(possible_FC, score_FC, -np.inf)
    wanted_F = np.clip(np.round(FEED_SIZE + 2.2 * rng.standard_normal(len(feeds))), 2, 16).astype(np.int64)
    order_FC = np.argsort(-score_FC, axis=1, kind="stable")
    if shares is None:
        shown_F = np.minimum(wanted_F, possible_FC.sum(axis=1))
        kept_FC = np.arange(order_FC.shape[1]) < shown_F[:, None]
    else:
        kept_FC = _cut(shares, wanted_F, streamers.level_S[owner_FC], possible_FC, order_FC)
        shown_F = kept_FC.sum(axis=1)
    feed_N = np.repeat(np.arange(len(feeds)), shown_F)
    position_N = np.arange(len(feed_N)) - np.repeat(np.cumsum(shown_F) - shown_F, shown_F)
    room_N = room_FC[feed_N, order_FC[kept_FC]]
    if shares is not None:
        shares.note(streamers.level_S[rooms.streamer_R[room_N]])
    return Impressions(
        feed_N=feed_N,
        user_N=feeds.user_F[feed_N],
        stage_N=feeds.stage_F[feed_N],
        scene_N=feeds.scene_F[feed_N],
        at_N=feeds.at_F[feed_N],
        room_N=room_N,
        slot_N=slot_F[feed_N],
        position_N=position_N.astype(np.int32),
        familiar_N=familiarity.of(feeds.user_F[feed_N], rooms.streamer_R[room_N]),
    )


def _drawn(rng: np.random.Generator, weight_TS: np.ndarray, offset_F: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Streamers drawn for each feed by the weights of its slot, and whether there was one to draw, both [F, count]."""
    cumulative_TS = np.cumsum(weight_TS, axis=1)
    total_T = cumulative_TS[:, -1]
    ends_T = np.cumsum(total_T)
    drawn_FC = (ends_T - total_T)[offset_F][:, None] + total_T[offset_F][:, None] * rng.random((len(offset_F), count))
    possible = np.broadcast_to((total_T[offset_F] > 0)[:, None], drawn_FC.shape)
    live = np.flatnonzero(weight_TS)
    if not len(live):
        return np.zeros(drawn_FC.shape, dtype=np.int64), possible
    place = np.searchsorted(np.cumsum(weight_TS.ravel())[live], drawn_FC.ravel(), side="right")
    return live[np.minimum(place, len(live) - 1)].reshape(drawn_FC.shape) % weight_TS.shape[1], possible


def _cut(
    shares: Shares, wanted_F: np.ndarray, level_FC: np.ndarray, possible_FC: np.ndarray, order_FC: np.ndarray
) -> np.ndarray:
    """Which places of the platform's order are shown, bool [F, C]: the first of every level, as many as it gets."""
    in_order = np.where(possible_FC, level_FC, -1)[np.arange(len(order_FC))[:, None], order_FC]
    of_level = [in_order == level for level in range(len(shares.share_L))]
    places_FL = shares.places(wanted_F, np.stack([is_FC.sum(axis=1) for is_FC in of_level], axis=1))
    kept_FC = np.zeros(order_FC.shape, dtype=bool)
    for level, is_FC in enumerate(of_level):
        kept_FC |= is_FC & (np.cumsum(is_FC, axis=1) <= places_FL[:, level : level + 1])
    return kept_FC
