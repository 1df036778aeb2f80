"""Who lives in the simulated world: users, streamers, products, and the rooms of a day. Nothing happens here yet.

Affinity is a scaled dot product of latent vectors. The shared part of a user's interest meets rooms and products alike,
so what a user buys says something about what they watch; the other two parts meet only one of them.

    affinity to a room     = shared . shared + live . live
    affinity to a product  = shared . shared + goods . goods

Legend: U users, S streamers, P products, R rooms, T ten-minute slots.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

EPOCH_MS = 1_748_822_400_000  # Monday, 2 June 2025, 00:00 UTC: where day 0 of every world begins
DAY_MS, SLOT_MS = 86_400_000, 600_000
SLOTS_A_DAY = DAY_MS // SLOT_MS
LONGEST_ROOM = 48  # slots: eight hours

LEVELS = ("tail", "medium", "head")
STAGES = ("new", "wander", "stick", "loyal")
CATEGORIES = (
    "apparel", "beauty", "books", "electronics", "food", "furniture", "games", "health",
    "jewellery", "music", "outdoor", "pets", "sports", "toys", "travel", "wine",
)  # fmt: skip
AGE_BANDS = ("12-17", "18-23", "24-30", "31-40", "41-49", "50+")
GENDERS = ("female", "male", "unknown")
DEVICES = ("android", "ios")

SHARED, OWN = 6, 4  # width of the shared part, and of each of the two that are not
SHELF = 12  # products a streamer sells
PRICE_BANDS = 5

LEVEL_SHARES = (0.2, 0.3, 0.5)
# By level: chances of a first and a second room on a day, mean log of their slots.
_LENGTH = np.array([2.2, 2.6, 3.4])
_SESSIONS = np.array([[0.6, 0.1], [0.75, 0.25], [0.95, 0.8]])
_TRAFFIC = np.array([3, 2, 1, 1, 1, 2, 4, 6, 7, 7, 8, 9, 11, 10, 8, 8, 8, 9, 11, 14, 17, 18, 14, 8], dtype=np.float64)


def traffic(slot: np.ndarray) -> np.ndarray:
    """How busy the platform is at an absolute slot, relative to its mean over the day."""
    return (_TRAFFIC / _TRAFFIC.mean())[(slot % SLOTS_A_DAY) * 24 // SLOTS_A_DAY]


def moments(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random times of a day (ms since its start, int64), dense where the platform is busy."""
    hour = rng.choice(24, count, p=_TRAFFIC / _TRAFFIC.sum())
    return (hour * 3_600_000 + rng.integers(0, 3_600_000, count)).astype(np.int64)


def dot(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Row-wise dot product scaled to unit variance for standard normal rows. No BLAS, so bytes do not depend on threads."""
    return np.einsum("...k,...k->...", left, right) / np.float32(np.sqrt(left.shape[-1]))


@dataclass(frozen=True)
class Users:
    """Everyone who watches: who they are, what they like, and how much they do."""

    id_U: np.ndarray
    first_day_U: np.ndarray  # the day from which the user is there
    first_stage_U: np.ndarray
    shared_UK: np.ndarray
    live_UK: np.ndarray
    goods_UK: np.ndarray
    eager_U: np.ndarray  # how readily the user enters anything
    active_U: np.ndarray  # sessions, relative to the stage's mean
    budget_U: np.ndarray  # in price bands
    device_U: np.ndarray
    age_U: np.ndarray
    gender_U: np.ndarray
    city_U: np.ndarray

    def __len__(self) -> int:
        return len(self.id_U)

    def table(self) -> pa.Table:
        return pa.table(
            {
                "user_id": self.id_U,
                "age_band": pa.array(np.array(AGE_BANDS)[self.age_U]),
                "gender": pa.array(np.array(GENDERS)[self.gender_U]),
                "city_level": (self.city_U + 1).astype(np.int32),
            }
        )


@dataclass(frozen=True)
class Streamers:
    """Everyone who streams: how large they are, what they show, and how well they sell."""

    id_S: np.ndarray
    level_S: np.ndarray
    fans_S: np.ndarray
    weight_S: np.ndarray  # how often the platform picks one of the streamer's rooms
    category_S: np.ndarray
    shared_SK: np.ndarray
    live_SK: np.ndarray
    quality_S: np.ndarray
    skill_S: np.ndarray  # in selling
    shelf_SP: np.ndarray  # product indices, [S, SHELF]

    def __len__(self) -> int:
        return len(self.id_S)

    def table(self) -> pa.Table:
        category = pa.array(np.array(CATEGORIES)[self.category_S])
        return pa.table({"streamer_id": self.id_S, "fans": self.fans_S, "category": category})


@dataclass(frozen=True)
class Products:
    """Everything that is sold."""

    id_P: np.ndarray
    category_P: np.ndarray
    shared_PK: np.ndarray
    goods_PK: np.ndarray
    appeal_P: np.ndarray
    band_P: np.ndarray
    price_P: np.ndarray

    def __len__(self) -> int:
        return len(self.id_P)

    def table(self) -> pa.Table:
        category = pa.array(np.array(CATEGORIES)[self.category_P])
        return pa.table({"product_id": self.id_P, "category": category, "price_band": self.band_P.astype(np.int32)})


@dataclass(frozen=True)
class World:
    """What stays as it is over the whole log; `behaviour` says what happens in it."""

    users: Users
    streamers: Streamers
    products: Products
    level_contrast: float


def make_world(users: int, seed: int, level_shares: Sequence[float] = LEVEL_SHARES, level_contrast: float = 1.0) -> World:
    """Draws everyone. The number of streamers and products follows from the number of users.

    Args:
        level_shares: share of the platform's draws that the streamers of each level have together.
        level_contrast: how differently users choose at each level (`behaviour.by_level`).
    """
    rng = np.random.default_rng([seed, 0])
    centre_CK = _normal(rng, len(CATEGORIES), SHARED)
    products = _products(rng, max(300, users // 2), centre_CK)
    streamers = _streamers(rng, max(200, users // 8), centre_CK, products, level_shares)
    everyone = _users(rng, users, centre_CK)
    return World(users=everyone, streamers=streamers, products=products, level_contrast=level_contrast)


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _around(rng: np.random.Generator, centre_NK: np.ndarray) -> np.ndarray:
    """Rows of unit variance, two thirds of it from the centre."""
    return (0.8 * centre_NK + 0.6 * _normal(rng, *centre_NK.shape)).astype(np.float32)


def _users(rng: np.random.Generator, count: int, centre_CK: np.ndarray) -> Users:
    age = rng.choice(len(AGE_BANDS), count, p=[0.06, 0.2, 0.28, 0.26, 0.12, 0.08])
    gender = rng.choice(len(GENDERS), count, p=[0.5, 0.42, 0.08])
    city = rng.choice(5, count, p=[0.12, 0.24, 0.28, 0.22, 0.14])
    taste_AK, taste_GK = _normal(rng, len(AGE_BANDS), SHARED), _normal(rng, len(GENDERS), SHARED)
    # A user likes one or two categories, and a little of what their age and gender like.
    first, second = (centre_CK[rng.integers(0, len(centre_CK), count)] for _ in range(2))
    share = rng.uniform(0.5, 1.0, (count, 1)).astype(np.float32)
    shared = 0.7 * (share * first + (1 - share) * second) + 0.35 * taste_AK[age] + 0.35 * taste_GK[gender]
    shared = shared + 0.55 * _normal(rng, count, SHARED)
    late = rng.random(count) < 0.3
    first_day = np.where(late, 1 + rng.geometric(0.15, count), 0)
    stage = rng.choice(len(STAGES), count, p=[0.15, 0.4, 0.28, 0.17])
    return Users(
        id_U=np.arange(count, dtype=np.int64) + 10_001,
        first_day_U=first_day,
        first_stage_U=np.where(late, 0, stage).astype(np.int8),
        shared_UK=shared.astype(np.float32),
        live_UK=_normal(rng, count, OWN),
        goods_UK=_normal(rng, count, OWN),
        eager_U=_normal(rng, count),
        active_U=rng.gamma(2.0, 0.5, count),
        budget_U=(2.0 + 0.35 * (2 - city) + 0.2 * (age - 2) + 0.8 * _normal(rng, count)).astype(np.float32),
        device_U=rng.binomial(1, 0.2 + 0.08 * (4 - city)),
        age_U=age,
        gender_U=gender,
        city_U=city,
    )


def _products(rng: np.random.Generator, count: int, centre_CK: np.ndarray) -> Products:
    category = rng.integers(0, len(CATEGORIES), count)
    band = rng.choice(PRICE_BANDS, count, p=[0.25, 0.3, 0.22, 0.15, 0.08])
    return Products(
        id_P=np.arange(count, dtype=np.int64) + 500_001,
        category_P=category,
        shared_PK=_around(rng, centre_CK[category]),
        goods_PK=_normal(rng, count, OWN),
        appeal_P=_normal(rng, count),
        band_P=band,
        price_P=np.round(np.exp(2.3 + 0.9 * band + 0.3 * _normal(rng, count).astype(np.float64)), 2),
    )


def _streamers(
    rng: np.random.Generator, count: int, centre_CK: np.ndarray, products: Products, level_shares: Sequence[float]
) -> Streamers:
    head, medium = max(3, round(0.04 * count)), max(8, round(0.16 * count))
    level = np.zeros(count, dtype=np.int8)
    order = rng.permutation(count)
    level[order[:head]], level[order[head : head + medium]] = 2, 1
    fans = np.exp(np.array([7.5, 11.0, 14.0])[level] + np.array([1.0, 0.8, 0.6])[level] * rng.standard_normal(count))
    pull = fans**0.3
    hours = (_SESSIONS.sum(axis=1) * np.exp(_LENGTH))[level]  # a level's pull is divided by how much its streamers are live
    of_level = np.array([(pull * hours)[level == i].sum() for i in range(len(LEVELS))])
    category = rng.integers(0, len(CATEGORIES), count)
    # Three quarters of a shelf are of the streamer's own category.
    by_category = np.argsort(products.category_P, kind="stable")
    start = np.searchsorted(products.category_P[by_category], np.arange(len(CATEGORIES) + 1))
    low, high = start[category][:, None], start[category + 1][:, None]
    own = by_category[(low + rng.random((count, SHELF)) * np.maximum(high - low, 1)).astype(np.int64) % len(products)]
    other = rng.integers(0, len(products), (count, SHELF))
    return Streamers(
        id_S=np.arange(count, dtype=np.int64) + 2_001,
        level_S=level,
        fans_S=fans.astype(np.int64),
        weight_S=np.array(level_shares)[level] * pull / of_level[level],
        category_S=category,
        shared_SK=_around(rng, centre_CK[category]),
        live_SK=_normal(rng, count, OWN),
        quality_S=_normal(rng, count),
        skill_S=_normal(rng, count),
        shelf_SP=np.where(rng.random((count, SHELF)) < 0.75, own, other),
    )


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
    for turn in range(_SESSIONS.shape[1]):
        begins = rng.random(len(streamers)) < _SESSIONS[streamers.level_S, turn]
        wished = day * SLOTS_A_DAY + moments(rng, len(streamers)) // SLOT_MS - 6  # live before the crowd comes
        length = np.exp(_LENGTH[streamers.level_S] + 0.5 * rng.standard_normal(len(streamers)))
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
    crowd = np.array([2.5, 5.0, 7.5])[level] + 0.5 * busy + 0.5 * heat_RT + 0.25 * _normal(rng, count, LONGEST_ROOM)
    viewers = np.round(np.exp(crowd)) + 1
    product_RT = streamers.shelf_SP[streamer[:, None], shelf_place]
    sells = 0.5 * streamers.skill_S[streamer][:, None] + 0.5 * mood_RT + 0.3 * _normal(rng, count, LONGEST_ROOM)
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
    state_RT = _normal(rng, rooms, LONGEST_ROOM)
    for slot in range(1, LONGEST_ROOM):
        state_RT[:, slot] = 0.85 * state_RT[:, slot - 1] + np.float32(np.sqrt(1 - 0.85**2)) * state_RT[:, slot]
    return state_RT
