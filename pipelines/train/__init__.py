"""Training takes prepared feeds and a system's config, and leaves a bundle with the best epoch's weights (`training.train`)."""

from pipelines.train.config import TrainConfig
from pipelines.train.training import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "train"]
