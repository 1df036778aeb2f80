"""With which probability users of a simulated world act.

Every probability is a function of what was drawn before the impression, so their product along the chain

    enter -> goods_bag -> product_click -> order,    enter -> follow, comment, like

is the truth about the impression, and no model can rank better than it in expectation.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtr

from pipelines.logs.simulator.clock import traffic
from pipelines.logs.simulator.config import STAGES, Chain, Stages
from pipelines.logs.simulator.people import PRICE_BANDS, World
from pipelines.logs.simulator.rooms import Rooms
from pipelines.logs.simulator.shows import Impressions

TARGETS = ("click", "goods_bag", "product_click", "order", "follow", "comment", "like")  # binary ones, by the truth's names
ACTIONS = {name: "enter" if name == "click" else name for name in TARGETS}  # what the log calls them
LONGEST_STAY = 7200.0  # seconds
STAY_MEAN, STAY_CAP = "stay_log_mean", "stay_cap_seconds"  # of a log-normal stay, before and by the cap; names in the truth

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
_BY_LEVEL = {name: np.array(values, dtype=np.float32) for name, values in _LEVEL.items()}
_BY_STAGE = {name: np.array(values, dtype=np.float32) for name, values in _STAGE.items()}
# The STAN paper's (Sec. 2.1): new users are known by a low CTR, their stay and CVR are like all users'; wandering ones by short
# stays, their CTR and CVR rather high; sticking ones by a low CVR, their CTR and stay high; loyal ones click, stay and buy.
_PAPER_STAGE = {
    "click": (-1.0, 0.3, 0.3, 0.3),
    "stay": (0.0, -1.0, 0.4, 0.4),
    "goods_bag": (0.0, 0.2, -0.4, 0.4),
    "product_click": (0.0, 0.1, -0.4, 0.3),
    "order": (0.0, 0.3, -1.0, 0.6),
}
_BLIND = {"click": 0, "stay": 1, "goods_bag": 2, "product_click": 2, "order": 2}  # the stage that does not care for a target
PARENTS = {
    "goods_bag": "click", "product_click": "goods_bag", "order": "product_click",
    "follow": "click", "comment": "click", "like": "click",
}  # fmt: skip
CARRIED = 0.5  # of a parent's log-odds, by what was shown, that a child's get where a chain is at full strength
_REACH = 8.0  # deviations of a normal beyond which nothing is
STAY_DEVIATION = 1.15  # of the logarithm of the stay


@dataclass(frozen=True)
class Chances:
    """Probability of each action given the one before it on the chain; the logarithm of the stay is normal."""

    given_N: dict[str, np.ndarray]
    stay_mean_N: np.ndarray  # of the logarithm of seconds, before the cap
    stay_cap_N: np.ndarray  # seconds

    def truth(self) -> dict[str, np.ndarray]:
        """Probability of every target and expected seconds of stay (0 for those who do not enter), and what decides how long
        those who enter stay (`moments_of_log_stay`), float32 [N]."""
        given = {name: values.astype(np.float64) for name, values in self.given_N.items()}
        click = given["click"]
        bag = click * given["goods_bag"]
        product = bag * given["product_click"]
        marginal = {"click": click, "goods_bag": bag, "product_click": product, "order": product * given["order"]}
        marginal |= {name: click * given[name] for name in ("follow", "comment", "like")}
        marginal["stay_seconds"] = click * self._expected_stay()
        marginal[STAY_MEAN], marginal[STAY_CAP] = self.stay_mean_N, self.stay_cap_N
        return {name: values.astype(np.float32) for name, values in marginal.items()}

    def _expected_stay(self) -> np.ndarray:
        """E[min(X, cap)] of a log-normal X."""
        mean, cap, deviation = self.stay_mean_N.astype(np.float64), self.stay_cap_N, STAY_DEVIATION
        gap = (np.log(cap) - mean) / deviation
        return np.exp(mean + deviation**2 / 2) * ndtr(gap - deviation) + cap * ndtr(-gap)


def _chained(chain: Chain, logits: dict[str, np.ndarray], drawn_by: dict[str, np.ndarray]) -> None:
    """What drew a user to one step draws them to the next as well; changes both."""
    strength, rarity = np.float32(chain.strength * CARRIED), np.float32(chain.rarity)
    for child, parent in PARENTS.items():
        logits[child] = logits[child] + strength * drawn_by[parent] - rarity
        if child in drawn_by:
            drawn_by[child] = drawn_by[child] + strength * drawn_by[parent]
    logits["stay"] = logits["stay"] + strength * drawn_by["click"]
    drawn_by["stay"] = drawn_by["stay"] + strength * drawn_by["click"]


def _staged(stages: Stages, logits: dict[str, np.ndarray], drawn_by: dict[str, np.ndarray], stage: np.ndarray) -> None:
    """From the plain world's stages towards the paper's, by the strength; changes the log-odds."""
    strength = np.float32(stages.strength)
    for name, offsets in _PAPER_STAGE.items():
        blind = (np.arange(len(STAGES)) == _BLIND[name]).astype(np.float32)
        change = strength * (np.array(offsets, dtype=np.float32) - _BY_STAGE[name])
        logits[name] = logits[name] + change[stage] - strength * blind[stage] * drawn_by[name]


def chances(world: World, rooms: Rooms, shown: Impressions) -> Chances:
    """The probabilities of everything that may follow an impression."""
    users, streamers, products = world.users, world.streamers, world.products
    user, stage, room = shown.user_N, shown.stage_N, shown.room_N
    state = shown.slot_N - rooms.first_slot_R[room]
    owner = rooms.streamer_R[room]
    level = streamers.level_S[owner]
    product = rooms.product_RT[room, state]
    heat, mood = rooms.heat_RT[room, state], rooms.mood_RT[room, state]

    suits = world.suits(user, owner)
    wanted = world.wanted(user, product, level)
    too_dear = np.abs(products.band_P[product] - np.clip(users.budget_U[user], 0, PRICE_BANDS - 1))
    quality, skill = streamers.quality_S[owner], streamers.skill_S[owner]
    ios = users.device_U[user].astype(np.float32)
    following, mall = (shown.scene_N == 1).astype(np.float32), (shown.scene_N == 2).astype(np.float32)
    evening = np.log(traffic(shown.slot_N)).astype(np.float32)
    familiar = shown.familiar_N * _BY_LEVEL["familiar"][level] * _BY_STAGE["familiar"][stage]

    def start(name: str, constant: float) -> np.ndarray:
        return np.float32(constant) + _BY_LEVEL[name][level] + _BY_STAGE[name][stage]

    logits = {
        "click": start("click", -2.45)
        + _BY_LEVEL["affinity"][level] * _BY_STAGE["affinity"][stage] * suits
        + _BY_LEVEL["heat"][level] * heat
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
    logits["stay"] = stay
    config = world.config
    if any(premise is not None for premise in (config.stages, config.chain, config.intentions)):
        drawn_by = {
            "click": _BY_LEVEL["affinity"][level] * _BY_STAGE["affinity"][stage] * suits
            + _BY_LEVEL["heat"][level] * heat
            + 0.25 * wanted
            + familiar
            + 0.4 * quality,
            "goods_bag": 0.6 * wanted + 0.35 * skill + 0.35 * mood + 0.25 * familiar + 0.2 * products.appeal_P[product],
            "product_click": 0.9 * wanted - 0.3 * too_dear + 0.35 * products.appeal_P[product],
            "order": 0.6 * wanted + 0.45 * skill + 0.5 * mood - 0.5 * too_dear + 0.3 * familiar,
            "stay": 0.45 * suits + 0.2 * quality + 0.2 * heat + 0.25 * familiar,
        }
        if config.intentions is not None:
            logits["goods_bag"] = (
                logits["goods_bag"] - np.float32(config.intentions.strength * config.intentions.contrary) * suits
            )
        if config.chain is not None:
            _chained(config.chain, logits, drawn_by)
        if config.stages is not None:
            _staged(config.stages, logits, drawn_by, stage)
    stay = logits.pop("stay")
    left = (rooms.end_at_R[room] - shown.at_N) / 1000 + 60.0  # a visit may outlast its room by the closing page
    return Chances(
        given_N={name: expit(logit) for name, logit in logits.items()},
        stay_mean_N=stay,
        stay_cap_N=np.minimum(left, LONGEST_STAY),
    )


def moments_of_log_stay(mean_N: np.ndarray, cap_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E[log(1 + X)] and E[log(1 + X)^2] of X = min(log-normal, cap) seconds, for those who enter; float64 [N].

    By Gauss-Legendre quadrature up to the cap, where the rest of the probability lies.
    """
    point_Q, weight_Q = np.polynomial.legendre.leggauss(48)
    mean_N, cap_N = mean_N.astype(np.float64), cap_N.astype(np.float64)
    top_N = np.clip((np.log(cap_N) - mean_N) / STAY_DEVIATION, -_REACH, _REACH)  # in deviations
    moments = []
    z_NQ = -_REACH + (top_N[:, None] + _REACH) / 2 * (point_Q + 1)
    density_NQ = np.exp(-np.square(z_NQ) / 2) / np.sqrt(2 * np.pi) * weight_Q * (top_N[:, None] + _REACH) / 2
    value_NQ = np.log1p(np.exp(mean_N[:, None] + STAY_DEVIATION * z_NQ))
    for power in (1, 2):
        beyond_N = np.log1p(cap_N) ** power * ndtr(-(np.log(cap_N) - mean_N) / STAY_DEVIATION)
        moments.append((value_NQ**power * density_NQ).sum(axis=1) + beyond_N)
    return moments[0], moments[1]
