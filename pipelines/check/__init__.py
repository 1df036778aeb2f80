"""Data checks: what a team would want to know of its logs before it trains."""

from pipelines.check.check import check_logs
from pipelines.check.config import Calendar, CheckConfig
from pipelines.check.facts import Checked

__all__ = ["Calendar", "CheckConfig", "Checked", "check_logs"]
