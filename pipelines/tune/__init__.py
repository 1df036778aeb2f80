"""Search over an experiment's model and training with Ray Tune; the winner becomes a registered bundle."""

from pipelines.tune.config import TuneConfig
from pipelines.tune.registry import latest, register
from pipelines.tune.search import SearchResult, Trial, search

__all__ = ["SearchResult", "Trial", "TuneConfig", "latest", "register", "search"]
