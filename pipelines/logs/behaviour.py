"""What users of the simulated world do: what they are shown, with which probability they act, and when.

Every probability is a function of what was drawn before the impression, so their product along the chain

    enter -> goods_bag -> product_click -> order,    enter -> follow, comment, like

is the truth about the impression, and no model can rank better than it in expectation.

Legend: F feeds, C candidates considered per feed, N impressions.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtr

from pipelines.logs.world import DAY_MS, EPOCH_MS, PRICE_BANDS, SLOT_MS, Rooms, World, dot, moments, traffic

SCENES = ("feed", "following", "mall")
TARGETS = ("click", "goods_bag", "product_click", "order", "follow", "comment", "like")  # binary ones, by the truth's names
DRAWN = 32  # candidates drawn for a feed before the platform's own ranking cuts them
FAVOURITES = 4
LONGEST_STAY = 7200.0  # seconds

# Offsets and weights by level (tail, medium, head).
_LEVEL = {
    "click": (-0.25, 0.0, 0.2),
    "goods_bag": (-0.2, 0.0, 0.25),
    "product_click": (0.1, 0.0, 0.0),
    "order": (-0.3, 0.0, 0.3),
    "follow": (0.5, 0.1, -0.4),
    "comment": (0.6, 0.1, -0.5),
    "like": (0.2, 0.0, -0.1),
    "affinity": (0.95, 0.8, 0.55),  # a small room lives on those it suits,
    "heat": (0.15, 0.35, 0.55),  # a large one on what is going on,
    "familiar": (0.75, 0.55, 0.35),  # and its visitors come back less for the person
}
# The same by stage (new, wander, stick, loyal).
_STAGE = {
    "click": (0.1, 0.25, 0.0, -0.05),
    "goods_bag": (-0.8, -0.3, 0.2, 0.5),
    "product_click": (-0.5, 0.1, 0.1, 0.3),
    "order": (-1.3, -0.6, 0.2, 0.7),
    "follow": (0.5, 0.3, 0.0, -0.5),
    "comment": (-0.8, -0.4, 0.3, 0.5),
    "like": (-0.4, 0.0, 0.2, 0.2),
    "stay": (-0.5, -0.3, 0.2, 0.5),
    "affinity": (0.6, 1.2, 1.0, 0.9),
    "familiar": (0.5, 0.6, 1.2, 1.5),
}
_WEIGHTS = ("affinity", "heat", "familiar")  # of the level that a world's contrast stretches; the others are offsets
_BY_LEVEL = {name: np.array(values, dtype=np.float32) for name, values in _LEVEL.items()}
_BY_STAGE = {name: np.array(values, dtype=np.float32) for name, values in _STAGE.items()}
_STAY_DEVIATION = 1.15  # of the logarithm of the stay


class Familiarity:
    """How well a user knows a streamer, from earlier entries: a sparse matrix kept as sorted keys."""

    def __init__(self, streamers: int) -> None:
        self._streamers = streamers
        self._keys = np.empty(0, dtype=np.int64)
        self._values = np.empty(0, dtype=np.float32)

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


@dataclass(frozen=True)
class Chances:
    """Probability of each action given the one before it on the chain; the logarithm of the stay is normal."""

    given_N: dict[str, np.ndarray]
    stay_mean_N: np.ndarray  # of the logarithm of seconds, before the cap
    stay_cap_N: np.ndarray  # seconds

    def truth(self) -> dict[str, np.ndarray]:
        """Probability of every target and expected seconds of stay (0 for those who do not enter), float32 [N]."""
        given = {name: values.astype(np.float64) for name, values in self.given_N.items()}
        click = given["click"]
        bag = click * given["goods_bag"]
        product = bag * given["product_click"]
        marginal = {"click": click, "goods_bag": bag, "product_click": product, "order": product * given["order"]}
        marginal |= {name: click * given[name] for name in ("follow", "comment", "like")}
        marginal["stay_seconds"] = click * self._expected_stay()
        return {name: values.astype(np.float32) for name, values in marginal.items()}

    def _expected_stay(self) -> np.ndarray:
        """E[min(X, cap)] of a log-normal X."""
        mean, cap, deviation = self.stay_mean_N.astype(np.float64), self.stay_cap_N, _STAY_DEVIATION
        gap = (np.log(cap) - mean) / deviation
        return np.exp(mean + deviation**2 / 2) * ndtr(gap - deviation) + cap * ndtr(-gap)


def live_rooms(rooms: Rooms, streamers: int, first_slot: int, end_slot: int) -> np.ndarray:
    """The row of the room a streamer is live in at each slot, -1 if in none: [end_slot - first_slot, streamers]."""
    live = np.full((end_slot - first_slot, streamers), -1, dtype=np.int64)
    for offset in range(end_slot - first_slot):
        slot = first_slot + offset
        rows = np.flatnonzero((rooms.first_slot_R <= slot) & (slot < rooms.end_slot_R))
        live[offset, rooms.streamer_R[rows]] = rows
    return live


def choose(
    rng: np.random.Generator,
    world: World,
    rooms: Rooms,
    live_TS: np.ndarray,
    first_slot: int,
    feeds: Feeds,
    favourites_UC: np.ndarray,
    familiarity: Familiarity,
) -> Impressions:
    """What the platform shows: rooms drawn by its weights, and favourites that are live, ranked by its own rough idea
    of affinity. The better half or so is shown; feeds for which nothing is live are left empty."""
    streamers, users = world.streamers, world.users
    slot_F = (feeds.at_F - EPOCH_MS) // SLOT_MS
    offset_F = slot_F - first_slot
    weight_TS = np.where(live_TS >= 0, streamers.weight_S, 0.0)
    cumulative_TS = np.cumsum(weight_TS, axis=1)
    total_T = cumulative_TS[:, -1]
    ends_T = np.cumsum(total_T)
    drawn_FC = (ends_T - total_T)[offset_F][:, None] + total_T[offset_F][:, None] * rng.random((len(feeds), DRAWN))
    flat = np.cumsum(weight_TS.ravel())
    place_FC = np.minimum(np.searchsorted(flat, drawn_FC.ravel(), side="right"), flat.size - 1).reshape(drawn_FC.shape)
    streamer_FC = place_FC % len(streamers)
    favourite_FC = favourites_UC[feeds.user_F]
    recalled_FC = (rng.random(favourite_FC.shape) < np.where(feeds.scene_F == 1, 1.0, 0.6)[:, None]) & (favourite_FC >= 0)
    streamer_FC = np.concatenate([streamer_FC, np.where(recalled_FC, favourite_FC, 0)], axis=1)
    possible_FC = np.concatenate([np.broadcast_to((total_T[offset_F] > 0)[:, None], drawn_FC.shape), recalled_FC], axis=1)
    room_FC = live_TS[offset_F[:, None], streamer_FC]
    possible_FC &= room_FC >= 0

    # Each room once: sorted by room, favourites first, all but the first of equal ones go.
    bonus_FC = np.concatenate([np.zeros(drawn_FC.shape, dtype=np.int64), np.ones(favourite_FC.shape, dtype=np.int64)], axis=1)
    key_FC = np.sort(np.where(possible_FC, room_FC * 2 + 1 - bonus_FC, np.iinfo(np.int64).max // 2), axis=1)
    room_FC, is_favourite_FC = key_FC // 2, key_FC % 2 == 0
    possible_FC = key_FC < np.iinfo(np.int64).max // 2
    possible_FC[:, 1:] &= room_FC[:, 1:] != room_FC[:, :-1]
    room_FC = np.where(possible_FC, room_FC, 0)

    owner_FC = rooms.streamer_R[room_FC]
    affinity_FC = dot(users.shared_UK[feeds.user_F][:, None], streamers.shared_SK[owner_FC])
    noise_FC = rng.gumbel(size=room_FC.shape).astype(np.float32)
    score_FC = 0.45 * affinity_FC + 0.8 * (is_favourite_FC & possible_FC) + 0.7 * noise_FC
    score_FC = np.where(possible_FC, score_FC, -np.inf)
    wanted_F = np.clip(np.round(7.8 + 2.2 * rng.standard_normal(len(feeds))), 2, 16).astype(np.int64)
    shown_F = np.minimum(wanted_F, possible_FC.sum(axis=1))
    order_FC = np.argsort(-score_FC, axis=1, kind="stable")

    feed_N = np.repeat(np.arange(len(feeds)), shown_F)
    position_N = np.arange(len(feed_N)) - np.repeat(np.cumsum(shown_F) - shown_F, shown_F)
    room_N = room_FC[feed_N, order_FC[feed_N, position_N]]
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


def by_level(contrast: float) -> dict[str, np.ndarray]:
    """Offsets and weights by level; weights lie `contrast` times as far from their mean over levels as in `_LEVEL`."""
    stretched = dict(_BY_LEVEL)
    if contrast != 1:
        for name in _WEIGHTS:
            mean = _BY_LEVEL[name].mean()
            stretched[name] = mean + np.float32(contrast) * (_BY_LEVEL[name] - mean)
    return stretched


def chances(world: World, rooms: Rooms, shown: Impressions) -> Chances:
    """The probabilities of everything that may follow an impression."""
    users, streamers, products = world.users, world.streamers, world.products
    user, stage, room = shown.user_N, shown.stage_N, shown.room_N
    state = shown.slot_N - rooms.first_slot_R[room]
    owner = rooms.streamer_R[room]
    level, of_level = streamers.level_S[owner], by_level(world.level_contrast)
    product = rooms.product_RT[room, state]
    heat, mood = rooms.heat_RT[room, state], rooms.mood_RT[room, state]

    suits = np.float32(0.75) * dot(users.shared_UK[user], streamers.shared_SK[owner])
    suits += np.float32(0.66) * dot(users.live_UK[user], streamers.live_SK[owner])
    wanted = np.float32(0.75) * dot(users.shared_UK[user], products.shared_PK[product])
    wanted += np.float32(0.66) * dot(users.goods_UK[user], products.goods_PK[product])
    too_dear = np.abs(products.band_P[product] - np.clip(users.budget_U[user], 0, PRICE_BANDS - 1))
    quality, skill = streamers.quality_S[owner], streamers.skill_S[owner]
    ios = users.device_U[user].astype(np.float32)
    following, mall = (shown.scene_N == 1).astype(np.float32), (shown.scene_N == 2).astype(np.float32)
    evening = np.log(traffic(shown.slot_N)).astype(np.float32)
    familiar = shown.familiar_N * of_level["familiar"][level] * _BY_STAGE["familiar"][stage]

    def start(name: str, constant: float) -> np.ndarray:
        return np.float32(constant) + of_level[name][level] + _BY_STAGE[name][stage]

    logits = {
        "click": start("click", -2.45)
        + of_level["affinity"][level] * _BY_STAGE["affinity"][stage] * suits
        + of_level["heat"][level] * heat
        + 0.25 * wanted
        + familiar
        + 0.55 * users.eager_U[user]
        + 0.4 * quality
        + 0.3 * following
        - 0.1 * evening
        - 0.45 * np.log1p(shown.position_N.astype(np.float32)),
        "goods_bag": start("goods_bag", -0.95)
        + 0.6 * wanted
        + 0.35 * skill
        + 0.35 * mood
        + 0.25 * familiar
        + 0.4 * mall
        + 0.2 * products.appeal_P[product],
        "product_click": start("product_click", -0.6) + 0.9 * wanted - 0.3 * too_dear + 0.35 * products.appeal_P[product],
        "order": start("order", -2.0)
        + 0.6 * wanted
        + 0.45 * skill
        + 0.5 * mood
        - 0.5 * too_dear
        + 0.3 * familiar
        + 0.25 * ios
        + 0.3 * mall,
        "follow": start("follow", -3.2) + 0.6 * suits + 0.3 * quality - 0.6 * np.maximum(shown.familiar_N, 0) - following,
        "comment": start("comment", -2.4) + 0.5 * suits + 0.4 * heat + 0.35 * familiar,
        "like": start("like", -1.9) + 0.6 * suits + 0.3 * quality + 0.2 * heat,
    }
    stay = np.float32(3.0) + _BY_STAGE["stay"][stage] + 0.45 * suits + 0.2 * quality + 0.2 * heat + 0.25 * familiar
    left = (rooms.end_at_R[room] - shown.at_N) / 1000 + 60.0  # a visit may outlast its room by the closing page
    return Chances(
        given_N={name: expit(logit) for name, logit in logits.items()},
        stay_mean_N=stay,
        stay_cap_N=np.minimum(left, LONGEST_STAY),
    )


@dataclass(frozen=True)
class Events:
    """What happened; rows refer to the impressions it happened on."""

    row_M: np.ndarray
    action_M: np.ndarray  # the name of the action
    at_M: np.ndarray
    value_M: np.ndarray  # NaN where the action has none


@dataclass(frozen=True)
class Outcome:
    """What users did with the rooms they were shown."""

    happened_N: dict[str, np.ndarray]  # by target, bool
    stay_N: np.ndarray  # seconds; 0 for those who did not enter
    events: Events


def act(rng: np.random.Generator, world: World, rooms: Rooms, shown: Impressions, chance: Chances) -> Outcome:
    """Draws what users do, seconds to minutes after the impression, in causal order."""
    n = len(shown)
    drawn = {name: rng.random(n, dtype=np.float32) < chance.given_N[name] for name in TARGETS}
    happened = {"click": drawn["click"]}
    for name, after in (("goods_bag", "click"), ("product_click", "goods_bag"), ("order", "product_click")):
        happened[name] = happened[after] & drawn[name]
    happened |= {name: happened["click"] & drawn[name] for name in ("follow", "comment", "like")}
    seconds = np.exp(chance.stay_mean_N + _STAY_DEVIATION * rng.standard_normal(n))
    seconds = np.minimum(seconds, chance.stay_cap_N)
    entered_at = shown.at_N + (500 + 1000 * rng.exponential(4.0, n)).astype(np.int64)
    length = seconds * 1000

    # The chain breaks the stay at three growing shares of it; one millisecond between any two at least.
    share = rng.random((3, n))
    bag = share[0] * 0.7
    click = bag + (1 - bag) * share[1] * 0.7
    order = click + (1 - click) * share[2]
    at = {
        "click": entered_at,
        "goods_bag": entered_at + 1 + (bag * length).astype(np.int64),
        "product_click": entered_at + 2 + (click * length).astype(np.int64),
        "order": entered_at + 3 + (order * length).astype(np.int64),
    }
    for name in ("follow", "comment", "like"):
        at[name] = entered_at + 1 + (rng.random(n) * length).astype(np.int64)
    product = rooms.product_RT[shown.room_N, shown.slot_N - rooms.first_slot_R[shown.room_N]]
    value = {"click": np.round(seconds, 3), "order": world.products.price_P[product]}

    rows, actions, times, values = [], [], [], []
    for name in TARGETS:
        row = np.flatnonzero(happened[name])
        rows.append(row)
        actions.append(np.full(len(row), "enter" if name == "click" else name, dtype=object))
        times.append(at[name][row])
        values.append(value[name][row] if name in value else np.full(len(row), np.nan))
    events = Events(
        row_M=np.concatenate(rows),
        action_M=np.concatenate(actions),
        at_M=np.concatenate(times),
        value_M=np.concatenate(values),
    )
    return Outcome(happened_N=happened, stay_N=np.where(happened["click"], seconds, 0.0), events=events)


def next_stages(rng: np.random.Generator, stage_U: np.ndarray, entries_U: np.ndarray, orders_U: np.ndarray) -> np.ndarray:
    """Life-cycle stages of the next day: what a user did today carries them on, a quiet day lets them slip."""
    draw = rng.random(len(stage_U))
    busy, quiet = np.minimum(entries_U, 6) / 6, entries_U == 0
    up = np.select(
        [stage_U == 0, stage_U == 1, stage_U == 2],
        [0.5 * (entries_U > 0), 0.03 + 0.15 * busy + 0.1 * (orders_U > 0), 0.02 + 0.1 * busy + 0.1 * (orders_U > 0)],
        0.0,
    )
    down = np.select([stage_U == 2, stage_U == 3], [0.06 + 0.1 * quiet, 0.06 + 0.1 * quiet], 0.0)
    return np.where(draw < up, stage_U + 1, np.where(draw > 1 - down, stage_U - 1, stage_U))


# Sessions a day and mean feeds a session, visits to the shop a day; by stage.
_SESSIONS = np.array([0.9, 1.2, 2.0, 2.6])
_FEEDS = np.array([2.5, 3.0, 3.5, 3.5])
_SHOP_VISITS = np.array([0.5, 1.2, 2.0, 3.0])
_SCENE = np.array([[0.85, 0.03, 0.12], [0.75, 0.07, 0.18], [0.65, 0.17, 0.18], [0.6, 0.22, 0.18]])


def feeds_of_day(rng: np.random.Generator, world: World, day: int, stage_U: np.ndarray) -> Feeds:
    """When users open their feeds on a day: sessions of a few feeds, some seconds to minutes apart."""
    users = world.users
    rate_U = np.where(users.first_day_U <= day, _SESSIONS[stage_U] * users.active_U, 0.0)
    session_user = np.repeat(np.arange(len(users)), rng.poisson(rate_U))
    begin = moments(rng, len(session_user))
    count = rng.geometric(1 / _FEEDS[stage_U[session_user]])
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
    rate_U = np.where(users.first_day_U <= day, _SHOP_VISITS[stage_U] * users.active_U, 0.0)
    user = np.repeat(np.arange(len(users)), rng.poisson(rate_U))
    at = np.sort(EPOCH_MS + day * DAY_MS + moments(rng, len(user)))
    user = user[rng.permutation(len(user))]
    looked_at = rng.integers(0, len(products), (len(user), 16))
    wanted = 0.75 * dot(users.shared_UK[user][:, None], products.shared_PK[looked_at])
    wanted = wanted + 0.66 * dot(users.goods_UK[user][:, None], products.goods_PK[looked_at])
    score = 1.2 * wanted + 0.4 * products.appeal_P[looked_at] + rng.gumbel(size=looked_at.shape)
    product = looked_at[np.arange(len(user)), np.argmax(score, axis=1)]
    return user, product, at
