"""Prepare: from canonical logs to encoded feeds; see `build.prepare`."""

from pipelines.prepare.build import prepare
from pipelines.prepare.config import PrepareConfig

__all__ = ["PrepareConfig", "prepare"]
