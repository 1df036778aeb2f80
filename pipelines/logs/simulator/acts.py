"""What users do with what they are shown, drawn from its chances."""

from dataclasses import dataclass

import numpy as np

from pipelines.logs.simulator.chances import ACTIONS, STAY_DEVIATION, TARGETS, Chances
from pipelines.logs.simulator.people import World
from pipelines.logs.simulator.rooms import Rooms
from pipelines.logs.simulator.shows import Impressions


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
    seconds = np.exp(chance.stay_mean_N + STAY_DEVIATION * rng.standard_normal(n))
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
        actions.append(np.full(len(row), ACTIONS[name], dtype=object))
        times.append(at[name][row])
        values.append(value[name][row] if name in value else np.full(len(row), np.nan))
    events = Events(
        row_M=np.concatenate(rows),
        action_M=np.concatenate(actions),
        at_M=np.concatenate(times),
        value_M=np.concatenate(values),
    )
    return Outcome(happened_N=happened, stay_N=np.where(happened["click"], seconds, 0.0), events=events)
