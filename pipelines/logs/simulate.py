from pathlib import Path
from typing import Literal

from models.config import config


@config
class SimulateConfig:
    kind: Literal["simulate"] = "simulate"
    users: int = 2000
    days: int = 8
    seed: int = 0


def simulate(source, logs, truth):
    raise ValueError
