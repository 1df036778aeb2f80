"""Checks a log in one pass, and leaves `report.html` and `check.json`."""

import json
import time
from pathlib import Path

from models.config import to_dict
from models.schema import Schema
from pipelines.check.config import Calendar, CheckConfig
from pipelines.check.facts import SEVERITIES, Checked
from pipelines.check.findings import findings
from pipelines.check.page import write_page
from pipelines.check.read import read
from pipelines.logs.canonical import CanonicalLogs
from pipelines.runs import write_text

_PAGE, _NUMBERS = "report.html", "check.json"


def check_logs(
    logs: CanonicalLogs,
    schema: Schema,
    calendar: Calendar,
    config: CheckConfig,
    output: Path,
    *,
    run: str = "",
    now: int | None = None,
) -> Checked:
    """Reads all rows of a log once, says what is strange about them, and writes a page and its numbers.

    Args:
        output: the folder for both; what an earlier check left there is replaced.
        run: name of the experiment.
        now: ms since 1970; what comes later is of the future. None asks the clock.

    Raises:
        ConfigError: a file of the log is damaged.
    """
    started = time.monotonic()
    print(f"Check: reading {logs.path}", flush=True)
    facts = read(logs, schema, calendar, config, now=round(time.time() * 1000) if now is None else now)
    found, accepted = findings(facts, schema, calendar, config)
    seconds = round(time.monotonic() - started, 1)
    checked = Checked(run=run, facts=facts, findings=found, accepted=accepted, seconds=seconds)
    write_text(output / _NUMBERS, json.dumps(to_dict(checked), indent=1, allow_nan=False) + "\n")
    write_page(checked, calendar, output / _PAGE)
    for line in lines_of(checked):
        print(line, flush=True)
    rows = sum(facts.rows.values())
    print(f"Check: {output / _PAGE}: {rows:,} rows in {seconds} s, {rows / max(seconds, 0.1):,.0f} rows/s", flush=True)
    return checked


def lines_of(checked: Checked) -> list[str]:
    """The log in a few lines, then every warning with its way out, the heaviest first."""
    facts = checked.facts
    lines = ["  " + ", ".join(f"{table} {rows:,}" for table, rows in facts.rows.items())]
    days = [day for day in facts.days if day.split is not None]
    if days:
        lines.append(f"  {len(days)} days from {days[0].date} to {days[-1].date}; {facts.users:,} users")
    answers = facts.answers
    if answers.asked:
        share = "" if answers.user_share == 1 else f" (of one in {round(1 / answers.user_share)} users)"
        lines.append(f"  {answers.credited:,} of {answers.asked:,} engagements{share} answer an impression in time")
    for finding in checked.findings:
        lines.append(f"  {finding.severity:>6}: {finding.subject}: {finding.told} -> {finding.way_out} [{finding.kind}]")
    count = ", ".join(f"{sum(item.severity == severity for item in checked.findings)} {severity}" for severity in SEVERITIES)
    accepted = f"; {len(checked.accepted)} accepted by check.accepted" if checked.accepted else ""
    lines.append(f"  {len(checked.findings)} warnings ({count}){accepted}")
    return lines
