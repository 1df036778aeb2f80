"""Ranking among what was live: whom a user entered, beside every other room that was live at that second."""

from pipelines.live.build import live_feeds

__all__ = ["live_feeds"]
