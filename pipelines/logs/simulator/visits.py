"""When users come: feeds they open, visits to the shop, and how the stages of their life cycle change from day to day."""

from dataclasses import dataclass

import numpy as np

from pipelines.logs.simulator.clock import DAY_MS, EPOCH_MS, moments
from pipelines.logs.simulator.people import World

SCENES = ("feed", "following", "mall")

# Sessions a day and mean feeds a session, visits to the shop a day; by stage.
_SESSIONS = np.array([0.9, 1.2, 2.0, 2.6])
_FEEDS = np.array([2.5, 3.0, 3.5, 3.5])
_SHOP_VISITS = np.array([0.5, 1.2, 2.0, 3.0])
_SCENE = np.array([[0.85, 0.03, 0.12], [0.75, 0.07, 0.18], [0.65, 0.17, 0.18], [0.6, 0.22, 0.18]])


@dataclass(frozen=True)
class Feeds:
    """Feeds in the order of their times."""

    user_F: np.ndarray
    at_F: np.ndarray  # Unix ms
    stage_F: np.ndarray
    scene_F: np.ndarray

    def __len__(self) -> int:
        return len(self.user_F)

    def __getitem__(self, rows: slice) -> "Feeds":
        return Feeds(**{name: values[rows] for name, values in vars(self).items()})


def feeds_of_day(rng: np.random.Generator, world: World, day: int, stage_U: np.ndarray) -> Feeds:
    """When users open their feeds on a day: sessions of a few feeds, some seconds to minutes apart."""
    users = world.users
    rate_U = np.where(users.first_day_U <= day, _SESSIONS[stage_U] * users.active_U, 0.0) * world.config.activity
    session_user = np.repeat(np.arange(len(users)), rng.poisson(rate_U))
    begin = moments(rng, len(session_user))
    feeds = _FEEDS if world.config.session is None else np.full(len(_FEEDS), world.config.session)
    count = rng.geometric(1 / feeds[stage_U[session_user]])
    user = np.repeat(session_user, count)
    pause = 8000 + (40_000 * np.exp(0.8 * rng.standard_normal(len(user)))).astype(np.int64)
    passed = np.cumsum(pause)
    first = np.repeat(np.cumsum(count) - count, count)
    at = np.repeat(begin, count) + passed - passed[first]
    keep = at < DAY_MS
    user, at = user[keep], at[keep]
    # Two sessions of a user may overlap; feeds within three seconds of the one before are not opened.
    order = np.lexsort((at, user))
    user, at = user[order], at[order]
    apart = np.ones(len(user), dtype=bool)
    apart[1:] = (user[1:] != user[:-1]) | (at[1:] - at[:-1] >= 3000)
    user, at = user[apart], at[apart]
    order = np.lexsort((user, at))
    user, at = user[order], at[order]
    stage = stage_U[user]
    scene = (rng.random(len(user))[:, None] > np.cumsum(_SCENE[stage], axis=1)[:, :2]).sum(axis=1)
    return Feeds(user_F=user, at_F=EPOCH_MS + day * DAY_MS + at, stage_F=stage, scene_F=scene)


def shop_of_day(rng: np.random.Generator, world: World, day: int, stage_U: np.ndarray) -> tuple[np.ndarray, ...]:
    """Clicks on products outside of any feed: (user, product, at), by time. Interest in products alone drives them."""
    users, products = world.users, world.products
    often = world.config.activity if world.config.intentions is None else world.config.activity * world.config.intentions.shop
    rate_U = np.where(users.first_day_U <= day, _SHOP_VISITS[stage_U] * users.active_U, 0.0) * often
    user = np.repeat(np.arange(len(users)), rng.poisson(rate_U))
    at = np.sort(EPOCH_MS + day * DAY_MS + moments(rng, len(user)))
    user = user[rng.permutation(len(user))]
    looked_at = rng.integers(0, len(products), (len(user), 16))
    wanted = world.wanted(user[:, None], looked_at)
    score = 1.2 * wanted + 0.4 * products.appeal_P[looked_at] + rng.gumbel(size=looked_at.shape)
    product = looked_at[np.arange(len(user)), np.argmax(score, axis=1)]
    return user, product, at


def next_stages(
    rng: np.random.Generator, stage_U: np.ndarray, entries_U: np.ndarray, orders_U: np.ndarray, pace: float = 1.0
) -> np.ndarray:
    """Life-cycle stages of the next day: what a user did today carries them on, a quiet day lets them slip.

    Args:
        pace: how often users come, beside the plain world; where they come seldom a quiet day says less.
    """
    draw = rng.random(len(stage_U))
    busy, quiet = np.minimum(entries_U, 6) / 6, entries_U == 0
    up = np.select(
        [stage_U == 0, stage_U == 1, stage_U == 2],
        [0.5 * (entries_U > 0), 0.03 + 0.15 * busy + 0.1 * (orders_U > 0), 0.02 + 0.1 * busy + 0.1 * (orders_U > 0)],
        0.0,
    )
    down = np.select([stage_U == 2, stage_U == 3], [0.06 + 0.1 * quiet, 0.06 + 0.1 * quiet], 0.0) * min(pace, 1.0)
    return np.where(draw < up, stage_U + 1, np.where(draw > 1 - down, stage_U - 1, stage_U))
