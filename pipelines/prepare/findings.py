"""What the steps found in the rows of a log, added up over all tasks; and the lines that tell of it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pipelines.prepared import Findings, LongUsers, SharedIds, UsedAgain

_NAMED = 3  # ids or spellings in a line


def findings(
    attributes: Mapping[str, Mapping[str, Any]],
    cleaned: Iterable[tuple[str, Mapping[str, Any]]],
    cuts: Iterable[Mapping[str, Any]],
) -> Findings:
    """
    Args:
        attributes: what sorting an attribute table gave, by table.
        cleaned: table of every chunk, and what cleaning it gave.
        cuts: what cutting every bucket gave.
    """
    missing: dict[str, dict[str, Counter[str]]] = {}
    placeholders: dict[str, dict[str, Counter[str]]] = {}
    names: dict[str, str] = {}
    for table, counts in (*attributes.items(), *cleaned):
        for into, what in ((missing, "missing"), (placeholders, "placeholders")):
            for column, found in counts.get(what, {}).items():
                into.setdefault(table, {}).setdefault(column, Counter()).update(found)
        names |= counts.get("names", {})
    alike = requests = feeds = ids = long = 0
    most_rows: Counter[str] = Counter()
    again: Counter[str] = Counter()
    shared: Counter[str] = Counter()
    apart: Counter[str] = Counter()
    # of ids that are texts only the commonest are known by name; the hash of another one would name nothing in the log
    named = lambda most: {
        names.get(str(number), str(number)): count for number, count in most if not names or str(number) in names
    }
    for counts in cuts:
        alike += counts["alike"]
        apart.update(counts["apart"])
        long += len(counts["long"])
        most_rows.update({str(user): rows for user, rows in counts["long"]})
        requests += counts["again"]["requests"]
        feeds += counts["again"]["feeds"]
        ids = max(ids, counts["shared"]["ids"])  # one id may be of users in many buckets
        again.update(named(counts["again"]["most"]))
        shared.update(named(counts["shared"]["most"]))
    return Findings(
        missing=_plain(missing),
        placeholders=_plain(placeholders),
        alike_engagements=alike,
        events_apart={table: count for table, count in apart.items() if count},
        requests_again=UsedAgain(requests=requests, feeds=feeds, most=dict(again.most_common(_NAMED))),
        requests_shared=SharedIds(ids=ids, most=dict(shared.most_common(_NAMED))),
        long_users=LongUsers(users=long, most=dict(most_rows.most_common(_NAMED))),
    )


def _plain(counts: Mapping[str, Mapping[str, Counter[str]]]) -> dict[str, dict[str, dict[str, int]]]:
    return {table: {column: dict(kinds) for column, kinds in columns.items()} for table, columns in counts.items()}


def remarks(found: Findings) -> list[str]:
    """A line for everything that was found."""
    lines = []
    for table, columns in found.placeholders.items():
        for column, spelled in columns.items():
            what = _listed(Counter(spelled), "rows")
            lines.append(
                f"`{column}` of {sum(spelled.values()):,} rows of `{table}` names nothing and is taken for missing: {what}"
            )
    again, shared = found.requests_again, found.requests_shared
    if again.requests:
        lines.append(
            f"request ids are used again: {again.requests:,} requests of one user and id have rows further apart than the "
            f"feed gap and became {again.feeds:,} feeds{_most(again.most, 'feeds')}"
        )
    if shared.ids:
        lines.append(
            f"request ids are shared by users ({shared.ids:,} or more), who have their own feeds all the same"
            f"{_most(shared.most, 'users')}"
        )
    if found.long_users.users:
        lines.append(
            f"users with more than prepare.user_most rows: {found.long_users.users:,}; what they did then is left out; "
            f"most: {_listed(found.long_users.most, 'rows')}. Take a bot out of the log; give each of many people under one id "
            "(traffic without login) their own"
        )
    if found.alike_engagements:
        lines.append(
            f"{found.alike_engagements:,} engagements are as another in user, room, action and instant, but not in value, "
            "request or event id; all of them count"
        )
    for target, count in found.too_late.items():
        lines.append(
            f"target `{target}`: {count:,} engagements happened within its window and arrived after it; they count for "
            "histories and counters, not for labels. Where that is much, give it longer `attribution_seconds`"
        )
    for table, count in found.events_apart.items():
        lines.append(
            f"`event_id` of {count:,} rows of `{table}` is that of an earlier row of their user at another time: they count as "
            "delivered twice. If events are numbered anew, by day or session, leave `event_id` out"
        )
    for table, columns in found.missing.items():
        for column, kinds in columns.items():
            told = ", ".join(f"{kind}: {count:,}" for kind, count in kinds.items())
            lines.append(f"`{table}`, column `{column}`: values that count as missing ({told})")
    for field, count in found.wild.items():
        lines.append(
            f"field `{field}`: {count:,} values on training days are over 65,536 times as large as 99 of 100 others; they "
            "count as missing"
        )
    for table, count in found.early.items():
        if count:
            what, of = ("feeds", "user") if table == "users" else ("candidates", table.removesuffix("s"))
            lines.append(
                f"`{table}`: {count:,} {what} are of a time before the first `valid_from` of their {of}; its attributes are "
                "missing there"
            )
    for table, latest in found.future.items():
        moment = np.datetime64(latest, "ms").astype("datetime64[s]")
        lines.append(
            f"`{table}`: some rows hold only from after the end of the log (the last from {moment} UTC on); no feed sees them, "
            "nor does the store"
        )
    return lines


def _most(counts: Mapping[str, int], what: str) -> str:
    return f"; most: {_listed(counts, what)}" if counts else ""


def _listed(counts: Mapping[str, int], what: str) -> str:
    most = Counter(counts).most_common(_NAMED)
    more = ", ..." if len(counts) > len(most) else ""
    return ", ".join(f"{name} ({count:,} {what})" for name, count in most) + more
