"""Systems x seeds on one prepared table, side by side, as the table of a paper."""

from pipelines.compare.config import CompareConfig

__all__ = ["CompareConfig"]
