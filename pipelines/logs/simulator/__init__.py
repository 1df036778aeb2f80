"""A small live-stream world with known truth, as canonical logs.

`config` says what a world is made of: its size, and the premises of papers that it carries; `people` and `rooms` who lives
in it; `visits` when users come; `shows` what they are shown; `chances` with which probability they act; `acts` what they do.
`life` lets it live and writes the logs and the truth; `delivery` when rows arrive, and in which day's file; `state` what is
needed to go on another day.

Legend of all of them: U users, S streamers, P products, R rooms, T ten-minute slots, F feeds, C rooms considered for a feed,
N impressions, K width of a taste.
"""

from pipelines.logs.simulator.chances import ACTIONS, STAY_CAP, STAY_MEAN, moments_of_log_stay
from pipelines.logs.simulator.config import Chain, Delays, Intentions, Levels, SimulateConfig, Stages
from pipelines.logs.simulator.life import goes_on, simulate

__all__ = [
    "ACTIONS",
    "STAY_CAP",
    "STAY_MEAN",
    "Chain",
    "Delays",
    "Intentions",
    "Levels",
    "SimulateConfig",
    "Stages",
    "goes_on",
    "moments_of_log_stay",
    "simulate",
]
