"""Warnings: what experience knows of logs that train badly, asked of the counts of a log.

Every function here looks for one kind of fault and is silent on a log without it. Shares and counts have to be large enough
that chance alone does not explain them: where fewer than `_ENOUGH` rows are to be expected, nothing is said.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from itertools import pairwise
from statistics import median

import numpy as np

from models.schema import Schema
from pipelines.check.config import Calendar, CheckConfig, date_of
from pipelines.check.days import OTHERS
from pipelines.check.facts import SEVERITIES, CheckFacts, ColumnFacts, DayFacts, Finding, Severity
from pipelines.encode.clock import HOUR_MS
from pipelines.logs.canonical import VALID_FROM

_ENOUGH = 20
_NOTABLE, _MANY = 0.001, 0.01  # shares of rows from which on a fault is told, and told louder
_NOBODY = {"", "-1", "null", "none", "nan", "na", "n/a", "nil", "undefined", "unknown", "anonymous", "-"}


class _Case:
    """The facts with what the questions ask them for.

    Attributes:
        days: with impressions, in order, none of the future.
    """

    def __init__(self, facts: CheckFacts, schema: Schema, calendar: Calendar, config: CheckConfig) -> None:
        self.facts, self.schema, self.calendar, self.config = facts, schema, calendar, config
        today = date_of(int(calendar.clock.day(np.array(facts.now))))
        self.days = [day for day in facts.days if day.rows.get("impressions") and day.date <= today]
        self.training = {day.date for day in self.days if day.split == "train"}
        self.actions_read = {target.action for target in schema.targets}
        self.thin = {day.date for day in self.days if self.is_thin(day)}  # what else is odd about them follows from that

    def shown(self, day: DayFacts) -> int:
        return day.rows["impressions"]

    def others(self, day: DayFacts) -> list[DayFacts]:
        return [other for other in self.days if other is not day]

    def is_thin(self, day: DayFacts) -> bool:
        """Has it far fewer impressions than the other days?"""
        usual = [self.shown(other) for other in self.others(day)]
        return len(usual) > 1 and median(usual) >= _ENOUGH and self.shown(day) < median(usual) / self.config.jump

    def column(self, table: str, name: str) -> ColumnFacts | None:
        return next((column for column in self.facts.columns if (column.table, column.name) == (table, name)), None)

    def events(self) -> list[ColumnFacts]:
        return [column for column in self.facts.columns if column.table in ("impressions", "engagements", "product_clicks")]

    def things(self) -> list[ColumnFacts]:
        """Of attribute tables the ids, and from when on the rows hold."""
        named = {(table, f"{table[:-1]}_id") for table in ("users", "rooms", "streamers", "products")}
        return [each for each in self.facts.columns if (each.table, each.name) in named or each.name == VALID_FROM]

    def actions(self) -> dict[str, int]:
        """Engagements by action, on all days."""
        total: dict[str, int] = {}
        for day in self.facts.days:
            for action, rows in day.actions.items():
                total[action] = total.get(action, 0) + rows
        return total


def findings(
    facts: CheckFacts, schema: Schema, calendar: Calendar, config: CheckConfig
) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Warnings, the heaviest first, and the names of those that `config.accepted` takes for granted."""
    case = _Case(facts, schema, calendar, config)
    found = [finding for question in _QUESTIONS for finding in question(case)]
    is_accepted = lambda finding: finding.kind in config.accepted or finding.name in config.accepted
    told = sorted((item for item in found if not is_accepted(item)), key=lambda item: SEVERITIES.index(item.severity))
    return tuple(told), tuple(item.name for item in found if is_accepted(item))


# -- times and days --------------------------------------------------------------------------------------------


def _future(case: _Case) -> Iterator[Finding]:
    for column in case.events():
        if column.holds == "time" and column.future:
            yield Finding(
                severity="high",
                kind="future",
                subject=f"{column.table}.{column.name}",
                told=f"{column.future:,} of {column.rows:,} rows are later than now, up to "
                f"{case.calendar.local(int(column.high or 0))}",
                way_out="the last days of a log test and validate, so these rows decide the splits: mend them, or set "
                "`prepare.latest`",
            )


def _implausible(case: _Case) -> Iterator[Finding]:
    for column in [*case.events(), *case.things()]:
        bad = column.implausible
        if column.holds == "time" and bad:
            yield Finding(
                severity=_louder(bad, column.rows),
                kind="implausible",
                subject=f"{column.table}.{column.name}",
                told=f"{bad:,} of {column.rows:,} rows lie outside of {case.calendar.earliest} to {case.calendar.latest}",
                way_out="they go to quarantine; mend the times, or set `prepare.earliest` and `latest`",
            )


def _midnight(case: _Case) -> Iterator[Finding]:
    for column in case.events():
        known = column.rows - column.missing
        if column.holds != "time" or known < _ENOUGH:
            continue
        for count, kind, where, severity in (
            (column.midnights, "midnight", "at midnight", "high"),
            (column.whole_hours, "whole_hours", "at a whole hour", "medium"),
        ):
            if count >= known / 2:
                yield Finding(
                    severity=severity,  # type: ignore[arg-type]  # one of the literals above
                    kind=kind,
                    subject=f"{column.table}.{column.name}",
                    told=f"{count / known:.1%} of {known:,} rows are exactly {where}",
                    way_out="dates without a time of day lose what came before what: write the moment itself, in ms",
                )
                break


def _missing_days(case: _Case) -> Iterator[Finding]:
    numbers = [_number(day) for day in case.days]
    for before, after in pairwise(numbers):
        if after - before > 1:
            first, last = date_of(before + 1), date_of(after - 1)
            whole = first if first == last else f"{first} to {last} ({after - before - 1} days)"
            yield Finding(
                severity="high",
                kind="missing_day",
                subject=whole,
                told=f"no impressions on {whole}, between {date_of(before)} and {date_of(after)}",
                way_out="fetch the missing files; counters and histories run over the gap as if nobody had come",
            )


def _short_days(case: _Case) -> Iterator[Finding]:
    spans = {day.date: (day.last["impressions"] - day.first["impressions"]) / HOUR_MS for day in case.days}
    for day in case.days:
        others = case.others(day)
        if len(others) < 2:
            return
        usual, rows = median(spans[other.date] for other in others), median(case.shown(other) for other in others)
        if rows < _ENOUGH:
            continue
        role = {"test": "it is a test day", "valid": "it is a validation day"}.get(day.split or "", "it is a training day")
        # many rows reach from one end of the day to the other; few may lie together by chance
        is_short = case.shown(day) >= 10 and spans[day.date] < usual * (0.7 if case.shown(day) >= 5 * _ENOUGH else 0.5)
        if is_short:
            first, last = (case.calendar.local(moments["impressions"])[11:] for moments in (day.first, day.last))
            yield Finding(
                severity="medium",
                kind="short_day",
                subject=day.date,
                told=f"impressions from {first} to {last} only, {spans[day.date]:.1f} h; other days span {usual:.1f} h; {role}",
                way_out="take the day out or fetch the rest of it; where all days are cut alike, set "
                "`prepare.clock.day_starts_hour`",
            )
        elif day.date in case.thin:
            yield Finding(
                severity="medium",
                kind="few_rows",
                subject=day.date,
                told=f"{case.shown(day):,} impressions; other days have {rows:,.0f}; {role}",
                way_out="fetch the missing files, or take the day out",
            )


# -- actions and labels ----------------------------------------------------------------------------------------


def _never(case: _Case) -> Iterator[Finding]:
    there = case.actions()
    for action in sorted(case.actions_read - there.keys()):
        readers = ", ".join(target.name for target in case.schema.targets if target.action == action)
        known = ", ".join(sorted(there)) or "none"
        yield Finding(
            severity="high",
            kind="action_never",
            subject=action,
            told=f"target `{readers}` reads action `{action}`, which never occurs; there are: {known}",
            way_out="correct `action` in the schema, or take the target out",
        )
    for target in case.schema.targets:
        if target.action not in there:
            continue
        if target.at_least is not None and not any(day.reached.get(target.name) for day in case.facts.days):
            yield Finding(
                severity="high",
                kind="action_never",
                subject=target.name,
                told=f"none of {there[target.action]:,} engagements `{target.action}` reaches the {target.at_least:g} that "
                f"target `{target.name}` asks for",
                way_out="look at the unit of `engagements.value`, or correct `at_least`",
            )


def _unread(case: _Case) -> Iterator[Finding]:
    read = case.actions_read | {"enter"}  # histories and counters hold what was entered
    unread = {action: rows for action, rows in case.actions().items() if action not in read and action != OTHERS}
    if unread:
        told = ", ".join(f"`{action}` ({rows:,})" for action, rows in sorted(unread.items(), key=lambda item: -item[1]))
        yield Finding(
            severity="low",
            kind="unread_action",
            subject=next(iter(sorted(unread))) if len(unread) == 1 else "engagements.action",
            told=f"no target reads the action {told}" if len(unread) == 1 else f"no target reads the actions {told}",
            way_out="add targets for them, or leave these rows out of the log",
        )


def _rate_jumps(case: _Case) -> Iterator[Finding]:
    by_action = {
        action: {day.date: day.actions.get(action, 0) for day in case.days} for action in case.actions() if action != OTHERS
    }
    jumps = {action: _jumps(case, count) for action, count in by_action.items()}
    for action, days in jumps.items():
        if days:
            severity: Severity = "high" if action in case.actions_read else "low"
            yield _jump(severity, action, f"action `{action}`", days)
    for target in case.schema.targets:
        if target.at_least is None:
            continue
        days = _jumps(case, {day.date: day.reached.get(target.name, 0) for day in case.days})
        if days and [day for day, _, _ in days] != [day for day, _, _ in jumps.get(target.action, [])]:
            yield _jump("high", target.name, f"target `{target.name}`", days)  # no jump of the action itself


def _jump(severity: Severity, subject: str, what: str, days: Sequence[tuple[str, float, float]]) -> Finding:
    told = ", ".join(f"{rate:.3g} on {day}" for day, rate, _ in days[:3]) + (f", {len(days)} days" if days[3:] else "")
    return Finding(
        severity=severity,
        kind="rate_jump",
        subject=subject,
        told=f"{what} per impression: {told}; on other days {days[0][2]:.3g}",
        way_out="find out what was logged otherwise on these days; mend them or take them out",
    )


def _jumps(case: _Case, count: Mapping[str, int]) -> list[tuple[str, float, float]]:
    """Days whose rate lies too far from that of the other days on which there was any: day, its rate, theirs."""
    shown = {day.date: case.shown(day) for day in case.days if day.date not in case.thin}
    rate = {day: count[day] / shown[day] for day in shown}
    found = []
    for day in shown:
        others = [rate[other] for other in shown if other != day and rate[other]]
        if not others:
            continue
        usual = median(others)
        expected = usual * shown[day]
        is_drop = expected >= _ENOUGH and count[day] <= expected / case.config.jump
        is_rise = count[day] >= _ENOUGH and count[day] >= expected * case.config.jump
        if is_drop or is_rise:
            found.append((day, rate[day], usual))
    return found


def _value_jumps(case: _Case) -> Iterator[Finding]:
    for target in case.schema.targets:
        if target.is_binary:
            continue
        mean = {day.date: day.means[target.name] for day in case.days if day.valued.get(target.name, 0) >= _ENOUGH}
        found = []
        for day, value in mean.items():
            others = [mean[other] for other in mean if other != day]
            usual = median(others) if others else 0.0
            if usual > 0 and (value >= usual * case.config.jump or value <= usual / case.config.jump):
                found.append((day, value, usual))
        if found:
            told = ", ".join(f"{value:,.4g} on {day}" for day, value, _ in found[:3])
            yield Finding(
                severity="high",
                kind="value_jump",
                subject=target.name,
                told=f"mean value of action `{target.action}`: {told}; on other days {found[0][2]:,.4g}",
                way_out="look for another unit (ms for seconds, cents for euros) and write one unit on all days",
            )


def _answers(case: _Case) -> Iterator[Finding]:
    answers = case.facts.answers
    if answers.asked < _ENOUGH:
        return
    sample = "" if answers.user_share == 1 else f" (of one in {round(1 / answers.user_share)} users)"
    lag = answers.median_seconds
    if lag is not None and abs(lag) >= 2700 and abs(lag / 1800 - round(lag / 1800)) < 0.05:
        yield Finding(
            severity="high",
            kind="time_zone",
            subject="engagements.at",
            told=f"the middle engagement comes {lag / 3600:+.2f} h after its impression{sample}, near a whole half hour: "
            "two time zones?",
            way_out="write `engagements.at` and `impressions.shown_at` both in UTC",
        )
        return
    share = answers.credited / answers.asked
    if share < case.config.credited:
        yield Finding(
            severity="high",
            kind="not_credited",
            subject="engagements",
            told=f"{answers.credited:,} of {answers.asked:,} engagements{sample} answer an impression in time ({share:.1%}); "
            f"{answers.by_request:.0%} have a request id",
            way_out="the others are no labels: compare the ids of both tables, add request ids, or raise `attribution_seconds`",
        )
        return
    if answers.early / answers.asked >= _MANY:
        yield Finding(
            severity="high" if answers.early / answers.asked >= 0.1 else "medium",
            kind="early_labels",
            subject="engagements.at",
            told=f"{answers.early:,} of {answers.asked:,} engagements{sample} come before their impression",
            way_out="compare the clocks that write both; is `impressions.shown_at` the moment of logging?",
        )
    for day in case.days:
        others = [other.credited / other.asked for other in case.others(day) if other.asked >= _ENOUGH]
        if day.asked < 2 * _ENOUGH or not others or day.date in case.thin:
            continue
        if day.credited / day.asked < median(others) / 2:
            yield Finding(
                severity="medium",
                kind="not_credited",
                subject=day.date,
                told=f"{day.credited:,} of {day.asked:,} engagements answer an impression in time "
                f"({day.credited / day.asked:.1%}); on other days {median(others):.1%}",
                way_out="are impressions of this day missing, or its ids written otherwise?",
            )


# -- ids -------------------------------------------------------------------------------------------------------


def _placeholders(case: _Case) -> Iterator[Finding]:
    requests = case.facts.requests
    if requests.rows and requests.shared_rows / requests.rows >= _NOTABLE:
        share = requests.shared_rows / requests.rows
        yield Finding(
            severity="high",
            kind="placeholder",
            subject="impressions.request_id",
            told=f"several users have the same request id, {requests.most_users:,} of them {requests.example!r}; such ids: "
            f"{requests.shared_ids:,}, in {share:.1%} of {requests.rows:,} impressions",
            way_out="write no id (null) where there is none, and ids that no other user has",
        )
    elif requests.rows and requests.reused_rows / requests.rows >= _NOTABLE:
        yield Finding(
            severity="medium",
            kind="reused_request",
            subject="impressions.request_id",
            told=f"{requests.reused_rows:,} of {requests.rows:,} impressions have a request id that their user has again more "
            "than 6 hours away",
            way_out="ids that start anew join feeds that have nothing to do with each other: make them unique, say by the date",
        )
    for column in case.facts.columns:
        if column.holds != "id" or column.name == "request_id" or column.rows < _ENOUGH or not column.distinct:
            continue
        for common in column.commonest:
            word = common.value.strip().lower()
            is_nobody = word in _NOBODY or (word == "0" and common.rows >= 10 * column.rows / column.distinct)
            if is_nobody and common.rows >= _NOTABLE * column.rows:
                yield Finding(
                    severity="high",
                    kind="placeholder",
                    subject=f"{column.table}.{column.name}",
                    told=f"{common.value!r} stands for an id in {common.rows:,} of {column.rows:,} rows",
                    way_out="all these rows become one and the same: leave them out, or write what they belong to",
                )


def _heavy_users(case: _Case) -> Iterator[Finding]:
    told = set()
    for column in case.events():
        if column.name != "user_id" or not column.distinct or column.rows < _ENOUGH:
            continue
        for common in column.commonest:
            is_placeholder = common.value.strip().lower() in _NOBODY | {"0"}
            far_above = common.rows >= 10 * column.rows / column.distinct
            if common.rows / column.rows >= case.config.user_share and far_above and not is_placeholder:
                told.add(common.value)
                yield Finding(
                    severity="high",
                    kind="heavy_user",
                    subject=f"{column.table}.user_id",
                    told=f"user {common.value} has {common.rows:,} of {column.rows:,} rows ({common.rows / column.rows:.1%}); "
                    f"there are {column.distinct:,} users",
                    way_out="a bot, or traffic of many without login under one id: take it out, or give each its own id",
                )
    for user in case.facts.heavy:
        if user.rows > case.config.user_rows and user.user not in told:
            yield Finding(
                severity="medium",
                kind="long_user",
                subject=user.user,
                told=f"user {user.user} has {user.rows:,} rows ({user.share:.2%} of all), above check.user_rows = "
                f"{case.config.user_rows:,}",
                way_out="take a bot out, and give each of many people under one id their own; what a user does after "
                "`prepare.user_most` rows is left out",
            )


def _missing_ids(case: _Case) -> Iterator[Finding]:
    for column in [*case.events(), *case.things()]:
        if column.missing and ((column.holds in ("id", "time") and column.name != "request_id") or column.name == "action"):
            yield Finding(
                severity=_louder(column.missing, column.rows),
                kind="missing_id",
                subject=f"{column.table}.{column.name}",
                told=f"{column.missing:,} of {column.rows:,} rows have none",
                way_out="they go to quarantine; mend the log where they are many",
            )


def _coverage(case: _Case) -> Iterator[Finding]:
    for covered in case.facts.coverage:
        if covered.rows < _ENOUGH or covered.known_rows / covered.rows >= case.config.covered:
            continue
        nothing = covered.known_rows == 0
        yield Finding(
            severity="high" if nothing else "medium",
            kind="coverage",
            subject=f"{covered.table}:{covered.column}",
            told=f"table `{covered.table}` knows {covered.known_ids:,} of {covered.ids:,} ids of {covered.column}, in "
            f"{covered.known_rows / covered.rows:.1%} of the rows",
            way_out="are ids written otherwise in the two tables?"
            if nothing
            else "the attributes of the others will be missing",
        )


def _repeats(case: _Case) -> Iterator[Finding]:
    coarse = {finding.subject.split(".")[0] for finding in _midnight(case)}  # where equal rows are no wonder
    for again in case.facts.repeats:
        if not again.repeated:
            continue
        if again.table in ("users", "rooms", "streamers", "products"):
            dated = any((column.table, column.name) == (again.table, VALID_FROM) for column in case.facts.columns)
            what = f"an id and `{VALID_FROM}`" if dated else "an id"
            told = f"{again.repeated:,} of {again.rows:,} rows give {what} that another row of the table gives too"
            if again.differing:
                told += f", and {again.differing:,} times they differ: such a table is not prepared"
            say = f"say in `{VALID_FROM}` from when each row holds" if dated else f"give all rows a column `{VALID_FROM}`"
            yield Finding(
                severity="high" if again.differing else "low",
                kind="differing_rows" if again.differing else "repeated_ids",
                subject=again.table,
                told=told,
                way_out=f"leave one of them, or {say}" if again.differing else "they say the same, and count once",
            )
        elif again.repeated / again.rows >= _NOTABLE and again.table not in coarse:
            yield Finding(
                severity="high" if again.repeated / again.rows >= 0.05 else "medium",
                kind="duplicates",
                subject=again.table,
                told=f"{again.repeated:,} of {again.rows:,} rows compared repeat another one in all columns "
                f"({again.repeated / again.rows:.2%})",
                way_out="a part of the log was delivered twice: take it out",
            )


def _handed_on(case: _Case) -> Iterator[Finding]:
    if case.facts.rooms_handed_on and case.column("rooms", VALID_FROM):  # without times they are told as rows that differ
        yield Finding(
            severity="high",
            kind="several_streamers",
            subject="rooms.streamer_id",
            told=f"{case.facts.rooms_handed_on:,} rooms are of one streamer first, and of another one later: such a table is "
            "not prepared",
            way_out="what happens in a room counts for one streamer: where another one takes over, give the room another id",
        )


def _lives(case: _Case) -> Iterator[Finding]:
    lives = case.facts.lives
    if lives.rows and lives.before / lives.rows >= _NOTABLE:
        yield Finding(
            severity="high" if lives.before / lives.rows >= 0.1 else "medium",
            kind="before_start",
            subject="rooms.start_at",
            told=f"{lives.before:,} of {lives.rows:,} impressions come before the start of their room, say {lives.example}",
            way_out="the age of these rooms is unknown to the model; compare the clocks and the time zones of both tables",
        )
    if lives.ended_rows and lives.after / lives.ended_rows >= _MANY:
        yield Finding(
            severity="medium",
            kind="after_end",
            subject="rooms.end_at",
            told=f"{lives.after:,} of {lives.ended_rows:,} impressions come after the end of their room",
            way_out="compare the clocks and the time zones of both tables",
        )


# -- columns ---------------------------------------------------------------------------------------------------


def _values(case: _Case) -> list[ColumnFacts]:
    """Columns that say something of a row, beside ids, times and actions."""
    others = [column for column in case.facts.columns if column.holds not in ("id", "time", "string")]
    return [column for column in others if column.rows >= _ENOUGH and column.examined and column.holds]


def _constant(case: _Case) -> Iterator[Finding]:
    for column in _values(case):
        if column.distinct != 1 or not column.distinct_is_exact or column.missing:
            continue
        value = column.commonest[0].value
        if (column.table, column.name) == ("impressions", "position"):
            yield Finding(
                severity="medium",
                kind="position",
                subject="impressions.position",
                told=f"all {column.rows:,} rows are at position {value}",
                way_out="write the place within the feed, or leave the column out: as it is, no bias of position can be seen",
            )
            continue
        yield Finding(
            severity=_if_read(column, "medium"),
            kind="constant",
            subject=f"{column.table}.{column.name}",
            told=f"all {column.rows:,} rows hold {value!r}",
            way_out="it tells a model nothing: look where it comes from, or take it out of the schema",
        )


def _presence(case: _Case) -> Iterator[Finding]:
    """Columns without a value at all, on training days, or on some days only."""
    times = [column for column in case.facts.columns if column.holds == "time" and column.table == "rooms"]
    gone_of: dict[tuple[str, str], frozenset[str]] = {}
    for column in [*_values(case), *times]:
        if column.missing + column.nan == column.rows:
            yield Finding(
                severity=_if_read(column, "high"),
                kind="all_null",
                subject=f"{column.table}.{column.name}",
                told=f"none of {column.rows:,} rows has a value",
                way_out="look where it comes from, or take it out of the schema",
            )
        elif gone := _gone(case, column):
            gone_of[column.table, column.name] = gone
    for (table, name), gone in gone_of.items():
        described = case.column(table, name)
        days = frozenset(day.date for day in case.days if day.rows.get(table))
        there = sorted(days - gone)
        twins = [other for (where, other), missing in gone_of.items() if where == table and days - missing == gone]
        renamed = f"; where it is missing `{twins[0]}` is there, and nowhere else" if twins else ""
        on_training = bool(case.training) and case.training & days <= gone
        asked = "was it renamed? Write one name on all days" if twins else "was it renamed, or begun later?"
        yield Finding(
            severity="low" if described is None else _if_read(described, "high"),
            kind="null_on_training" if on_training else "some_days_only",
            subject=f"{table}.{name}",
            told=f"no value on {_days(gone)}{', which are all training days' if on_training else ''}, but on "
            f"{_days(there)}{renamed}",
            way_out=f"nothing can be learned of it: {asked}" if on_training else asked,
        )


def _gone(case: _Case, column: ColumnFacts) -> frozenset[str]:
    """Days on which a column of an event table has no value, where the share of the others would have made some."""
    rows = {day.date: day.rows[column.table] for day in case.days if day.rows.get(column.table)}
    there = [day for day in rows if column.known_by_day.get(day)]
    share = sum(column.known_by_day[day] for day in there) / max(sum(rows[day] for day in there), 1)
    return frozenset(day for day in rows if day not in there and rows[day] * share >= _ENOUGH)


def _numbers(case: _Case) -> Iterator[Finding]:
    for column in _values(case):
        subject, known = f"{column.table}.{column.name}", column.rows - column.missing
        largest = sum(rows for name, rows in column.sentinels.items() if name in ("largest of float", "largest of double"))
        if column.infinite or largest:
            what = [f"{column.infinite:,} infinite"] if column.infinite else []
            what += [f"{largest:,} the largest that a float can hold"] if largest else []
            yield Finding(
                severity=_if_read(column, "high"),
                kind="not_finite",
                subject=subject,
                told=f"of {known:,} values, {' and '.join(what)}",
                way_out="write no value (null) where there is none",
            )
        marks = [f"{name}: {rows:,} rows" for name, rows in _marks(column)]
        if marks:
            yield Finding(
                severity=_if_read(column, "medium"),
                kind="sentinel",
                subject=subject,
                told=f'{", ".join(marks)} of {known:,}, apart from all other values: does it stand for "unknown"?',
                way_out="write no value (null) where there is none; a mark shifts the mean, and may have no logarithm",
            )


def _marks(column: ColumnFacts) -> Iterator[tuple[str, int]]:
    """Sentinels that lie apart from the other values: the only negative ones, or far above the largest of the others."""
    negative = {name: column.sentinels.get(name, 0) for name in ("-1", "-99.. / -999..")}
    if column.low is not None and column.high is not None and column.high > 0 and column.negative == sum(negative.values()):
        yield from ((name, rows) for name, rows in negative.items() if rows)
    highest = column.high_without_sentinels
    for name in ("9999..", "largest of int32", "largest of int64"):
        rows = column.sentinels.get(name, 0)
        if rows > 1 and column.high is not None and (highest is None or column.high >= 5 * max(highest, 1)):
            yield name, rows


# -- words -----------------------------------------------------------------------------------------------------


def _louder(bad: int, rows: int) -> Severity:
    return "high" if bad / rows >= _MANY else "medium"


def _if_read(column: ColumnFacts, severity: Severity) -> Severity:
    return severity if column.is_read else "low"


def _number(day: DayFacts) -> int:
    return (date.fromisoformat(day.date) - date(1970, 1, 1)).days


def _days(dates: Iterable[str]) -> str:
    """Days in words: one, two, or from the first to the last."""
    ordered = sorted(dates)
    return " and ".join(ordered) if len(ordered) < 3 else f"{len(ordered)} days from {ordered[0]} to {ordered[-1]}"


_QUESTIONS: Sequence[Callable[[_Case], Iterator[Finding]]] = (
    _future,
    _implausible,
    _midnight,
    _missing_days,
    _short_days,
    _never,
    _unread,
    _rate_jumps,
    _value_jumps,
    _answers,
    _placeholders,
    _heavy_users,
    _missing_ids,
    _coverage,
    _repeats,
    _handed_on,
    _lives,
    _constant,
    _presence,
    _numbers,
)
