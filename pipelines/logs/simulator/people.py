"""Who lives in a simulated world: users, streamers, products, and what they like. Nothing happens here yet.

Affinity is a scaled dot product of latent vectors. The shared part of a user's interest meets rooms and products alike,
so what a user buys says something about what they watch; the other two parts meet only one of them.

    affinity to a room     = .75 shared . shared + .66 live . live
    affinity to a product  = .75 shared . shared + .66 goods . goods

Premises change it: `Levels` turns a user's vectors at the tail and at the head, `Intentions` puts having an intention or not
in the place of a part of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipelines.logs.simulator.config import LEVELS, PLAIN_SHARES, STAGES, Intentions, SimulateConfig

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
OWN_ON_SHELF = 0.75  # of a shelf that is of the streamer's own kind
USERS_AT_ONCE = 50_000
WITH, WITHOUT = 2.0, -0.5  # interest in what is of a user's intention, and in what is not: mean 0, deviation 1 at one in five

# When streamers are live, by level: chances of a first and a second room on a day, mean log of a room's slots.
SESSIONS = np.array([[0.6, 0.1], [0.75, 0.25], [0.95, 0.8]])
LENGTH = np.array([2.2, 2.6, 3.4])

# Pairs of places of which each plane of a quarter turn consists, by level and width of the taste; the medium level is turned by
# none. At the tail and at the head no two planes are the same, so that their tastes differ from each other as well.
_PLANES = {
    0: {SHARED: ((0, 1), (2, 3), (4, 5)), OWN: ((0, 1), (2, 3))},
    2: {SHARED: ((0, 2), (1, 4), (3, 5)), OWN: ((0, 2), (3, 1))},
}


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
class Purposes:
    """Which intention everything is of, and which ones users have."""

    strength: np.float32
    of_product_P: np.ndarray
    of_streamer_S: np.ndarray
    live_UI: np.ndarray  # intentions that a user has for rooms
    goods_UI: np.ndarray  # and for products; those of both are in both

    def meets(self, wanted_UI: np.ndarray, user: np.ndarray, kind: np.ndarray) -> np.ndarray:
        """`WITH` where the kind is among the user's intentions, else `WITHOUT`, float32."""
        has = np.zeros(np.broadcast_shapes(user.shape, kind.shape), dtype=bool)
        for place in range(wanted_UI.shape[1]):
            has |= wanted_UI[user, place] == kind
        return np.where(has, np.float32(WITH), np.float32(WITHOUT))

    def mixed(self, taste: np.ndarray, met: np.ndarray) -> np.ndarray:
        return (1 - self.strength) * taste + self.strength * met


@dataclass(frozen=True)
class World:
    """What stays as it is over the whole log.

    Attributes:
        purposes: None where interest does not go by intentions.
    """

    config: SimulateConfig
    users: Users
    streamers: Streamers
    products: Products
    purposes: Purposes | None

    def streamers_table(self) -> pa.Table:
        """As the log tells them: with their levels and intentions, where these are a premise."""
        table = self.streamers.table()
        if self.config.levels is not None:
            table = table.append_column("level", pa.array(self.streamers.level_S.astype(np.int32)))
        if self.purposes is not None:
            table = table.append_column("intention", pa.array(self.purposes.of_streamer_S.astype(np.int32)))
        return table

    def products_table(self) -> pa.Table:
        table = self.products.table()
        return (
            table
            if self.purposes is None
            else table.append_column("intention", pa.array(self.purposes.of_product_P.astype(np.int32)))
        )

    def suits(self, user: np.ndarray, streamer: np.ndarray) -> np.ndarray:
        """How well a streamer suits a user, about standard normal, float32."""
        users, streamers = self.users, self.streamers
        level = streamers.level_S[streamer]
        suits = np.float32(0.75) * self._met(users.shared_UK[user], streamers.shared_SK[streamer], level)
        suits += np.float32(0.66) * self._met(users.live_UK[user], streamers.live_SK[streamer], level)
        if self.purposes is None:
            return suits
        purposes = self.purposes
        return purposes.mixed(suits, purposes.meets(purposes.live_UI, user, purposes.of_streamer_S[streamer]))

    def wanted(self, user: np.ndarray, product: np.ndarray, level: np.ndarray | None = None) -> np.ndarray:
        """How much a user wants a product, about standard normal, float32.

        Args:
            level: of the streamer who shows it; None outside of rooms.
        """
        users, products = self.users, self.products
        wanted = np.float32(0.75) * self._met(users.shared_UK[user], products.shared_PK[product], level)
        wanted += np.float32(0.66) * self._met(users.goods_UK[user], products.goods_PK[product], level)
        if self.purposes is None:
            return wanted
        purposes = self.purposes
        return purposes.mixed(wanted, purposes.meets(purposes.goods_UI, user, purposes.of_product_P[product]))

    def rough_idea(self, user: np.ndarray, streamer: np.ndarray) -> np.ndarray:
        """What the platform knows of how well a streamer suits a user: the shared part at the medium level, and intentions."""
        known = dot(self.users.shared_UK[user], self.streamers.shared_SK[streamer])
        if self.purposes is None:
            return known
        purposes = self.purposes
        return purposes.mixed(known, purposes.meets(purposes.live_UI, user, purposes.of_streamer_S[streamer]))

    def _met(self, taste: np.ndarray, thing: np.ndarray, level: np.ndarray | None) -> np.ndarray:
        """The scaled dot product of tastes, turned as at their level, and things."""
        straight = dot(taste, thing)
        levels = self.config.levels
        if levels is None or not levels.strength or level is None:
            return straight
        angle = levels.strength * np.pi / 2
        aside = np.zeros_like(straight)
        for of, planes in _PLANES.items():
            rows = level == of
            aside[rows] = dot(turned(taste[rows], planes[taste.shape[-1]]), thing[rows])
        cosine = np.where(level == 1, np.float32(1), np.float32(np.cos(angle)))
        return cosine * straight + np.float32(np.sin(angle)) * aside


def turned(taste: np.ndarray, planes: Sequence[tuple[int, int]]) -> np.ndarray:
    """Tastes turned by a quarter in each plane: orthogonal to themselves, and as long."""
    found = np.empty_like(taste)
    for first, second in planes:
        found[..., first], found[..., second] = -taste[..., second], taste[..., first]
    return found


def make_world(config: SimulateConfig) -> World:
    """Draws everyone. The number of streamers and products follows from the number of users and how often they come."""
    rng = np.random.default_rng([config.seed, 0])
    centre_CK = _normal(rng, len(CATEGORIES), SHARED)
    products = _products(rng, config.products, centre_CK)
    streamers = _streamers(rng, config, centre_CK, products)
    users = _users(rng, config.users, centre_CK)
    purposes = None
    if config.intentions is not None:
        own = np.random.default_rng([config.seed, 3])
        purposes = _purposes(own, config.intentions, len(users), streamers, products)
        streamers = replace(streamers, shelf_SP=_shelves(own, streamers, products, purposes))
    return World(config=config, users=users, streamers=streamers, products=products, purposes=purposes)


def _purposes(rng: np.random.Generator, config: Intentions, users: int, streamers: Streamers, products: Products) -> Purposes:
    """Every category holds several kinds; a user's intentions are any of them."""
    in_category = -(-config.kinds // len(CATEGORIES))
    of = lambda category: (category + len(CATEGORIES) * rng.integers(0, in_category, len(category))) % config.kinds
    # A user's intentions are the first of a random order of all; drawn a few users at a time.
    chosen = [
        np.argsort(rng.random((min(USERS_AT_ONCE, users - start), config.kinds)), axis=1)[:, : config.each]
        for start in range(0, users, USERS_AT_ONCE)
    ]
    each_UI = np.concatenate(chosen).astype(np.int32)
    both, live = config.both, config.both + config.live
    return Purposes(
        strength=np.float32(config.strength),
        of_product_P=of(products.category_P),
        of_streamer_S=of(streamers.category_S),
        live_UI=each_UI[:, :live],
        goods_UI=np.concatenate([each_UI[:, :both], each_UI[:, live:]], axis=1),
    )


def _shelves(rng: np.random.Generator, streamers: Streamers, products: Products, purposes: Purposes) -> np.ndarray:
    """Shelves whose own part is of the streamer's intention, as far as interest goes by intentions."""
    own = _of_kind(rng, purposes.of_streamer_S, purposes.of_product_P, streamers.shelf_SP.shape)
    replaced = rng.random(own.shape) < OWN_ON_SHELF * purposes.strength
    return np.where(replaced, own, streamers.shelf_SP)


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


def _streamers(rng: np.random.Generator, config: SimulateConfig, centre_CK: np.ndarray, products: Products) -> Streamers:
    count = config.streamers
    _, medium, head = config.streamers_by_level()
    level = np.zeros(count, dtype=np.int8)
    order = rng.permutation(count)
    level[order[:head]], level[order[head : head + medium]] = 2, 1
    fans = np.exp(np.array([7.5, 11.0, 14.0])[level] + np.array([1.0, 0.8, 0.6])[level] * rng.standard_normal(count))
    pull = fans**0.3
    hours = (SESSIONS.sum(axis=1) * np.exp(LENGTH))[level]  # a level's pull is divided by how much its streamers are live
    of_level = np.array([(pull * hours)[level == i].sum() for i in range(len(LEVELS))])
    category = rng.integers(0, len(CATEGORIES), count)
    own = _of_kind(rng, category, products.category_P, (count, SHELF))
    other = rng.integers(0, len(products), (count, SHELF))
    return Streamers(
        id_S=np.arange(count, dtype=np.int64) + 2_001,
        level_S=level,
        fans_S=fans.astype(np.int64),
        weight_S=np.array(PLAIN_SHARES)[level] * pull / of_level[level],
        category_S=category,
        shared_SK=_around(rng, centre_CK[category]),
        live_SK=_normal(rng, count, OWN),
        quality_S=_normal(rng, count),
        skill_S=_normal(rng, count),
        shelf_SP=np.where(rng.random((count, SHELF)) < OWN_ON_SHELF, own, other),
    )


def _of_kind(rng: np.random.Generator, kind_S: np.ndarray, kind_P: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Random products of each streamer's kind, any where there are none of it, [S, SHELF]."""
    by_kind = np.argsort(kind_P, kind="stable")
    start = np.searchsorted(kind_P[by_kind], np.arange(max(kind_S.max(), kind_P.max()) + 2))
    low, high = start[kind_S][:, None], start[kind_S + 1][:, None]
    return by_kind[(low + rng.random(shape) * np.maximum(high - low, 1)).astype(np.int64) % len(kind_P)]
