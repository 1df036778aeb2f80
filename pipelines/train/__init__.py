"""Training: prepared feeds and a system's config in, a bundle with the best epoch's weights out; see `training.train`."""

from pipelines.train.config import TrainConfig
from pipelines.train.training import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "train"]
