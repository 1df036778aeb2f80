"""Search over an experiment's model and training, or over its graph of targets, with Ray Tune; the winner becomes a
registered bundle."""

from pipelines.tune.config import TuneConfig
from pipelines.tune.registry import latest, register
from pipelines.tune.search import search
from pipelines.tune.structure.search import search_structure

__all__ = ["TuneConfig", "latest", "register", "search", "search_structure"]
