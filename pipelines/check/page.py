"""The page of a check: warnings, days as small lines, columns as small bars; pictures are drawn as SVG in the page."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pipelines.check.config import Calendar
from pipelines.check.facts import QUANTILES, Checked, ColumnFacts, DayFacts
from pipelines.encode.clock import HOUR_MS
from pipelines.report.page import page
from pipelines.runs import write_text

_WIDTH, _HEIGHT, _EDGE = 240, 40, 4


def write_page(checked: Checked, calendar: Calendar, file: Path) -> None:
    """Writes the page, self-contained."""
    facts = checked.facts
    days = [day for day in facts.days if day.split is not None]
    about = {
        "Checked": datetime.fromtimestamp(facts.now / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Days": f"{days[0].date} to {days[-1].date} ({len(days)})" if days else "none",
        "Users seen": f"{facts.users:,}",
        **{table.replace("_", " "): f"{rows:,}" for table, rows in facts.rows.items()},
    }
    tables = {table: [_column(column) for column in facts.columns if column.table == table] for table in facts.rows}
    order = [table for table in ("impressions", "engagements", "product_clicks") if table in tables]
    text = page(
        "check.html.j2",
        run=checked.run,
        about=about,
        findings=checked.findings,
        accepted=checked.accepted,
        lines=_lines(days),
        days=[_day(day, calendar) for day in facts.days],
        tables={table: tables[table] for table in [*order, *(table for table in tables if table not in order)]},
        heavy=facts.heavy,
        facts=facts,
        quantile_names=" / ".join(f"{share:.0%}" for share in QUANTILES),
        seconds=checked.seconds,
    )
    write_text(file, text)


def _lines(days: Sequence[DayFacts]) -> list[dict[str, Any]]:
    """A small line over the days for every number that has one."""
    hours = [(day.last["impressions"] - day.first["impressions"]) / HOUR_MS for day in days]
    found = [
        _line("impressions", [day.rows["impressions"] for day in days], _count),
        _line("engagements", [day.rows.get("engagements", 0) for day in days], _count),
        _line("new users", [day.new_users for day in days], _count),
        _line("new rooms", [day.new_rooms for day in days], _count),
        _line("hours from first to last impression", hours, "{:.1f}".format),
        _line("engagements credited", [day.credited / day.asked if day.asked else None for day in days], "{:.1%}".format),
    ]
    for action in dict.fromkeys(action for day in days for action in day.actions):
        found.append(_line(f"{action} per impression", [day.rates.get(action, 0.0) for day in days], "{:.3g}".format))
    for target in dict.fromkeys(target for day in days for target in day.means):
        found.append(_line(f"mean {target}", [day.means.get(target) for day in days], "{:,.4g}".format))
    return [line for line in found if line]


def _line(name: str, values: Sequence[float | None], spelled: Callable[[float], str]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    if not known:
        return {}
    low, high, last = (spelled(value) for value in (min(known), max(known), known[-1]))
    return {"name": name, "picture": sparkline(values), "low": low, "high": high, "last": last}


def sparkline(values: Sequence[float | None]) -> Markup:
    """Values from left to right over a baseline of 0, as SVG; None leaves a gap."""
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    step = (_WIDTH - 2 * _EDGE) / max(len(values) - 1, 1)
    points = [
        (_EDGE + step * place, _HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * value / top)
        for place, value in enumerate(values)
        if value is not None
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in points) if len(points) <= 40 else ""
    base = _HEIGHT - _EDGE
    return Markup(
        f'<svg class="line" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img">'
        f'<line x1="{_EDGE}" x2="{_WIDTH - _EDGE}" y1="{base}" y2="{base}"/><polyline points="{path}"/>{dots}</svg>'
    )


def _day(day: DayFacts, calendar: Calendar) -> Mapping[str, Any]:
    table = "impressions" if "impressions" in day.first else next(iter(day.first), None)
    return {
        "date": day.date,
        "split": day.split or "outside",
        "rows": day.rows,
        "first": calendar.local(day.first[table])[11:] if table else "",
        "last": calendar.local(day.last[table])[11:] if table else "",
        "credited": f"{day.credited / day.asked:.1%}" if day.asked else "",
        "new_users": day.new_users,
        "new_rooms": day.new_rooms,
    }


def _column(column: ColumnFacts) -> Mapping[str, Any]:
    known = column.rows - column.missing
    missing = (column.missing + column.nan) / column.rows if column.rows else 0.0
    approximate = "" if column.distinct_is_exact else "~"
    top = column.commonest[0] if column.commonest else None
    odd = {"NaN": column.nan, "infinite": column.infinite, "negative": column.negative, **column.sentinels}
    return {
        "name": column.name,
        "kind": " / ".join(column.types),
        "is_read": column.is_read,
        "missing": missing,
        "missing_text": f"{missing:.1%}" if column.missing + column.nan else "",
        "distinct": f"{approximate}{column.distinct:,}" if column.examined else "not looked at",
        "common": f"{_short(top.value)} ({top.rows / known:.1%})" if top and known and column.holds != "time" else "",
        "range": _range(column),
        "quantiles": " / ".join(f"{number:.6g}" for number in column.quantiles),
        "odd": ", ".join(f"{name}: {rows:,}" for name, rows in odd.items() if rows),
    }


def _range(column: ColumnFacts) -> str:
    if column.low is None or column.high is None:
        return ""
    if column.holds == "time":
        low, high = (_moment(number) for number in (column.low, column.high))
        return f"{low} to {high} UTC"
    whole = column.holds == "id"
    return " to ".join(f"{number:.0f}" if whole else f"{number:.6g}" for number in (column.low, column.high))


def _moment(at: float) -> str:
    try:
        return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):  # beyond the years that a calendar knows
        return f"{at:.0f} ms"


def _short(value: str) -> str:
    return value if len(value) <= 24 else value[:23] + "…"


def _count(number: float) -> str:
    return f"{number:,.0f}"
