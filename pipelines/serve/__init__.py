"""The endpoint: which rooms, for this user, now."""

from pipelines.serve.config import ServeConfig

__all__ = ["ServeConfig"]
