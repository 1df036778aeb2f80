"""Users with more rows than one task should hold: bots, test accounts, all traffic without login under one id.

What a user does from the moment on at which they have had `prepare.user_most` rows is left out, in all tables alike: what
came before is as it was, and the next day of the log changes nothing of it. It is found before anything of such a user is
loaded, batch by batch: memory goes by the bucket's distinct users and by `user_most`, not by rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.encode.arrays import integers
from pipelines.logs.canonical import ARRIVED_AT
from pipelines.prepare.timeline import find

TIMES = {"impressions": "shown_at", "engagements": "at", "product_clicks": "at"}
_AT_ONCE = 500_000  # rows counted together


@dataclass(frozen=True)
class LongUsers:
    """The users of a bucket that have too many rows, by id.

    Attributes:
        rows: of each, in all tables.
        until: the moment of each from which on rows are left out, ms.
    """

    ids: np.ndarray
    rows: np.ndarray
    until: np.ndarray

    def kept(self, batches: Sequence[pa.RecordBatch], table: str) -> pa.Table:
        """The rows before, batch by batch, so that the others are never held together."""
        found = []
        for batch in batches:
            user = find(self.ids, integers(batch["user_id"]))
            late = user >= 0
            late[late] = _arrivals(batch, table)[late] >= self.until[user[late]]
            found.append(batch.filter(pa.array(~late)) if late.any() else batch)
        return pa.Table.from_batches(found)


def long_users(tables: Mapping[str, Sequence[pa.RecordBatch]], most: int) -> LongUsers | None:
    """Looks through the batches of a bucket; None where nobody has more than `most` rows."""
    if sum(len(batch) for batches in tables.values() for batch in batches) <= most:
        return None
    ids, rows = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for batches in tables.values():
        for group in _groups(batches):
            found = pc.value_counts(pa.chunked_array([batch["user_id"] for batch in group]))
            both = np.concatenate([ids, integers(found.field("values"))])
            counts = np.concatenate([rows, integers(found.field("counts"))])
            ids, place = np.unique(both, return_inverse=True)
            rows = np.bincount(place, counts).astype(np.int64)
    is_long = rows > most
    if not is_long.any():
        return None
    ids, rows = ids[is_long], rows[is_long]
    return LongUsers(ids, rows, _untils(tables, ids, most))


def _untils(tables: Mapping[str, Sequence[pa.RecordBatch]], ids: np.ndarray, most: int) -> np.ndarray:
    """The time of the row that comes after the first `most` of each user."""
    earliest = [np.zeros(0, np.int64) for _ in ids]  # of each, the times of `most` + 1 rows or more, once it has them
    for table, batches in tables.items():
        for batch in batches:
            user, at = find(ids, integers(batch["user_id"])), _arrivals(batch, table)
            for place in np.unique(user[user >= 0]).tolist():
                times = np.concatenate([earliest[place], at[user == place]])
                if len(times) > 2 * (most + 1):
                    times = np.partition(times, most)[: most + 1]
                earliest[place] = times
    return np.array([np.partition(times, most)[most] for times in earliest])


def _arrivals(batch: pa.RecordBatch, table: str) -> np.ndarray:
    return integers(batch[ARRIVED_AT if ARRIVED_AT in batch.schema.names else TIMES[table]])


def _groups(batches: Sequence[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Batches in a row, about so many rows together: those of a bucket are many and small."""
    group: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        group.append(batch)
        rows += len(batch)
        if rows >= _AT_ONCE:
            yield group
            group, rows = [], 0
    if group:
        yield group
