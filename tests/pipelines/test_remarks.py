"""What of encoded tables says nothing, in lines."""

import json
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest

from models.config import from_dict
from models.schema import Schema
from pipelines.encode.remarks import Seen, silent_parts

SCHEMA = from_dict(
    Schema,
    {
        "fields": [
            {"name": "device", "of": "feed", "column": "context.device"},
            {"name": "viewers", "of": "candidate", "column": "state.viewers", "encoding": {"kind": "number"}},
            {"name": "room", "of": "candidate", "column": "room_id"},
        ],
        "histories": [{"name": "past", "events": "engagements", "fields": [{"name": "room", "column": "room_id"}]}],
        "targets": [{"name": "click", "action": "enter"}, {"name": "order", "action": "order", "parents": ["click"]}],
    },
)
DATES = {str(day): f"day {day}" for day in range(9)}


def feeds(first: int, last: int, **changed) -> pa.Table:
    """Ten feeds of three candidates a day; every value differs from its neighbour and none is 0 everywhere."""
    days = np.repeat(np.arange(first, last + 1), 10)
    rows, place = len(days), np.arange(3 * len(days))
    columns = {
        "day": days.astype(np.int32),
        "room_id": _cut(place, 3),
        "level": _cut((place % 3).astype(np.int8), 3),
        "device": (1 + np.arange(rows) % 2).astype(np.int32),
        "viewers": _cut((place % 7 - 2.5).astype(np.float32), 3),
        "room": _cut((place % 5).astype(np.int32), 3),
        "past.room": _cut((np.arange(2 * rows) % 4).astype(np.int32), 2),
        "label.click": _cut((place % 2).astype(np.float32), 3),
        "label.order": _cut((place % 10 == 0).astype(np.float32), 3),
    }
    return pa.table({**columns, **{name: change(columns[name], days) for name, change in changed.items()}})


def _cut(values, length):
    return pa.ListArray.from_arrays(np.arange(0, len(values) + 1, length, dtype=np.int32), pa.array(values))


def values(function):
    """Changes the values of a list column: given them and the day of each."""

    def change(column, days):
        flat = column.flatten().to_numpy()
        length = len(flat) // len(days)
        return _cut(function(flat, np.repeat(days, length)).astype(flat.dtype), length)

    return change


def empty(column, days):
    return pa.array([[] for _ in days], column.type)


def lines(**changed) -> list[str]:
    seen = {
        split: Seen.of(feeds(*days, **changed), SCHEMA)
        for split, days in {"train": (1, 4), "valid": (5, 5), "test": (6, 6)}.items()
    }
    return silent_parts(seen, SCHEMA, DATES)


def test_a_table_that_says_something_has_no_lines():
    assert lines() == []


@pytest.mark.parametrize(
    ("column", "change", "told"),
    [
        ("level", values(lambda flat, _: flat * 0 + 1), "levels: all 120 candidates of training days are `medium`"),
        ("device", lambda column, _: column * 0, "field `device` (column `context.device`): no value that training kept"),
        ("device", lambda column, _: column * 0 + 2, "field `device` (column `context.device`): one value in all 40 feeds"),
        (
            "viewers",
            values(lambda flat, _: flat * 0),
            "field `viewers` (column `state.viewers`): its one value, or none at all,",
        ),
        (
            "room",
            values(lambda flat, day: np.where(day == 6, 0, flat)),
            "field `room` (column `room_id`): nothing that training days have shown on day 6;",
        ),
        (
            "viewers",
            values(lambda flat, day: np.where(day < 4, 0, flat)),
            "field `viewers` (column `state.viewers`): the mean or nothing on 3 days from day 1 to day 3;",
        ),
        ("past.room", empty, "history `past`: empty in all 40 feeds of training days"),
    ],
)
def test_what_says_nothing_is_told_in_a_line(column, change, told):
    (line,) = lines(**{column: change})
    assert line.startswith(told)


def test_a_target_without_positives_is_told_for_the_days_that_lack_them():
    assert lines(**{"label.order": values(lambda flat, day: np.where(day > 4, 0, flat))}) == [
        "target `order`: no positive label on validation days (action `order`)",
        "target `order`: no positive label on test days (action `order`)",
    ]


def test_few_rows_are_no_proof():
    """Of 30 candidates a day, one in two would have a value: 15 are not enough to miss them."""
    half = values(lambda flat, day: np.where((day == 6) | (np.arange(len(flat)) % 2 == 0), 0, flat))
    assert lines(viewers=half) == []


def test_counts_of_files_add_up_and_survive_json():
    whole = Seen.of(feeds(1, 4), SCHEMA)
    parts = [Seen.of(feeds(1, 4).slice(first, 10), SCHEMA) for first in (0, 10, 20, 30)]
    merged = Seen.merged([Seen(**json.loads(json.dumps(asdict(part)))) for part in parts])
    assert merged == whole
    assert whole.candidates == {"1": 30, "2": 30, "3": 30, "4": 30} and whole.candidates_by_level == [40, 40, 40]
