"""What of an encoded table says nothing: counted file by file while it is written, put together, told in lines.

Row 0 of a table field stands for missing and for values that training days did not show; a missing number is 0, the mean.
So a column that was renamed, is missing on some days, or holds one value only leaves its trace in what is encoded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from models.schema import Schema
from pipelines.encode.arrays import flat, integers, lengths
from pipelines.encode.feeds import LABEL_PREFIX

_ENOUGH = 20  # values to be expected on a day before their absence is told


@dataclass
class Seen:
    """What some encoded feeds hold; written as JSON beside other counts of a task.

    Attributes:
        candidates_by_level: as many as the schema has levels.
        feeds, candidates: by day (days since 1970, as text).
        known: by field, values that are not 0, by day.
        spans: by field, its smallest and largest value.
        entries: by history, by day.
        positives: by target, labels above 0, by day.
    """

    candidates_by_level: list[int]
    feeds: dict[str, int] = field(default_factory=dict)
    candidates: dict[str, int] = field(default_factory=dict)
    known: dict[str, dict[str, int]] = field(default_factory=dict)
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    entries: dict[str, dict[str, int]] = field(default_factory=dict)
    positives: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, feeds: pa.Table, schema: Schema) -> "Seen":
        """Counts one encoded table."""
        day_R, size_R = integers(feeds["day"]), lengths(feeds["room_id"])
        first_R = np.cumsum(size_R) - size_R  # no feed is empty
        a_feed = lambda flags_N: np.add.reduceat(flags_N, first_R, dtype=np.int64) if len(flags_N) else size_R
        level_N = flat(feeds["level"]).to_numpy()
        seen = cls(
            np.bincount(level_N, minlength=len(schema.levels.names)).tolist(),
            _by_day(day_R, np.ones_like(day_R)),
            _by_day(day_R, size_R),
        )
        for item in schema.fields:
            values = flat(feeds[item.name]).to_numpy()
            if len(values):
                seen.spans[item.name] = float(values.min()), float(values.max())
            if np.count_nonzero(values) == len(values):
                seen.known[item.name] = dict(seen.feeds if item.of == "feed" else seen.candidates)
            else:
                known = values != 0
                seen.known[item.name] = _by_day(day_R, known if item.of == "feed" else a_feed(known))
        for history in schema.histories:
            seen.entries[history.name] = _by_day(day_R, lengths(feeds[f"{history.name}.{history.fields[0].name}"]))
        for name in schema.target_names:
            if LABEL_PREFIX + name in feeds.column_names:
                seen.positives[name] = _by_day(day_R, a_feed(flat(feeds[LABEL_PREFIX + name]).to_numpy() > 0))
        return seen

    @classmethod
    def merged(cls, parts: Sequence["Seen"]) -> "Seen":
        """The sum."""
        spans: dict[str, tuple[float, float]] = {}
        for part in parts:
            for name, (low, high) in part.spans.items():
                known = spans.get(name, (low, high))
                spans[name] = min(low, known[0]), max(high, known[1])
        return cls(
            [sum(counts) for counts in zip(*(part.candidates_by_level for part in parts), strict=True)],
            _summed(part.feeds for part in parts),
            _summed(part.candidates for part in parts),
            _summed_each(part.known for part in parts),
            spans,
            _summed_each(part.entries for part in parts),
            _summed_each(part.positives for part in parts),
        )


def silent_parts(seen: Mapping[str, Seen], schema: Schema, dates: Mapping[str, str]) -> list[str]:
    """Lines on levels, fields, histories and targets that tell a model nothing, or not on all days.

    Args:
        seen: by split, training days among them as `train`.
        dates: how a day is called.

    A field whose values are 0 on a day of which the other days would have let expect at least 20 others is missing there, or
    holds nothing that training days have shown.
    """
    train = seen["train"]
    lines = []
    filled = [count > 0 for count in train.candidates_by_level]
    if sum(filled) == 1 and len(filled) > 1:
        name = schema.levels.names[filled.index(True)]
        lines.append(
            f"levels: all {sum(train.candidates_by_level):,} candidates of training days are `{name}`; look at "
            f"`schema.levels` and at {schema.levels.column or f'the ids of {schema.levels.of}s'}"
        )
    everything = Seen.merged(list(seen.values()))
    for item in schema.fields:
        of = "feeds" if item.of == "feed" else "candidates"
        rows = sum(getattr(train, of).values())
        known = sum(train.known[item.name].values())
        low, high = train.spans.get(item.name, (0.0, 0.0))
        what = f"field `{item.name}` (column `{item.column}`)"
        if not known:
            why = "its one value, or none at all," if item.is_number else "no value that training kept"
            lines.append(f"{what}: {why} in all {rows:,} {of} of training days; nothing can be learned of it")
        elif low == high:
            lines.append(f"{what}: one value in all {rows:,} {of} of training days; nothing can be learned of it")
        else:
            gone = _gone(everything.known[item.name], getattr(everything, of))
            if gone:
                told = "the mean or nothing" if item.is_number else "nothing that training days have shown"
                lines.append(f"{what}: {told} on {_days(gone, dates)}; was the column renamed there, or not written?")
    for history in schema.histories:
        if not sum(train.entries[history.name].values()):
            lines.append(
                f"history `{history.name}`: empty in all {sum(train.feeds.values()):,} feeds of training days; look at "
                f"`{history.events}`, `min_stay_seconds` and the ids of users"
            )
    for target in schema.targets:
        for split, counts in seen.items():
            if target.name in counts.positives and counts.candidates and not sum(counts.positives[target.name].values()):
                days = {"train": "training", "valid": "validation", "test": "test"}[split]
                lines.append(f"target `{target.name}`: no positive label on {days} days (action `{target.action}`)")
    return lines


def _gone(known: Mapping[str, int], rows: Mapping[str, int]) -> list[str]:
    """Days without a value on which the share of the others would have made some."""
    there = [day for day in rows if known.get(day)]
    share = sum(known[day] for day in there) / max(sum(rows[day] for day in there), 1)
    return sorted((day for day in rows if day not in there and rows[day] * share >= _ENOUGH), key=int)


def _days(days: Sequence[str], dates: Mapping[str, str]) -> str:
    named = [dates[day] for day in days]
    return " and ".join(named) if len(named) < 3 else f"{len(named)} days from {named[0]} to {named[-1]}"


def _by_day(day_R: np.ndarray, count_R: np.ndarray) -> dict[str, int]:
    """Sums of what feeds count, by day; without days of none."""
    if not len(day_R):
        return {}
    low = int(day_R.min())
    sums = np.bincount(day_R - low, count_R)  # exact below 2^53
    return {str(low + place): int(sums[place]) for place in np.flatnonzero(sums).tolist()}


def _summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for key, count in part.items():
            total[key] = total.get(key, 0) + count
    return total


def _summed_each(parts: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    by_name: dict[str, list[Mapping[str, int]]] = {}
    for part in parts:
        for name, counts in part.items():
            by_name.setdefault(name, []).append(counts)
    return {name: _summed(counts) for name, counts in by_name.items()}
