"""Feature files: the answers of all parts side by side, one row a feed, written in slices of bounded size."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from models.catalogue import PRODUCT, Attribute, find
from models.schema import History, Schema
from pipelines.encode.arrays import integers, present
from pipelines.encode.columns import declared, history_column
from pipelines.encode.feeds import LABEL_PREFIX, META
from pipelines.logs.ids import as_ids
from pipelines.prepare.room_counters import Rooms
from pipelines.prepare.tables import FAMILIES, KEYS, Attributes
from pipelines.prepare.timeline import codes
from pipelines.prepare.user_counters import Log, UserSide
from pipelines.runs import written
from pipelines.runs.order import spread


def attribute_columns(columns: Collection[str], schema: Schema) -> dict[str, list[str]]:
    """Attributes that the asked columns read, by table and without the family's name, those of histories as well."""
    found: dict[str, set[str]] = {table: set() for table in KEYS}
    for name in columns:
        column = declared(name, schema)
        if column is not None and isinstance(column.how, Attribute):
            found[column.how.table].add(column.member)
    return {table: sorted(names) for table, names in found.items()}


@dataclass(frozen=True)
class AttributeTables:
    """The attribute tables of the log, and which of their columns are asked for."""

    tables: Mapping[str, Attributes]
    columns: Mapping[str, Sequence[str]]

    def frame(self, table: str, ids: np.ndarray, at: np.ndarray | None, missing: np.ndarray | None = None) -> pl.DataFrame:
        """The asked attributes of every id as of each moment, as columns of their family; see `Attributes.of`."""
        found = self.tables[table].of(ids, at, self.columns[table], missing)
        family = FAMILIES[table]
        return frame({family.column(name).name: found[name] for name in found.column_names}, len(ids))

    def changes(self, *tables: str) -> bool:
        """Whether what one of the tables says of an id depends on the moment."""
        return any(self.tables[table].changes for table in tables)


def frame(columns: Mapping[str, pa.Array | pa.ChunkedArray | np.ndarray], rows: int) -> pl.DataFrame:
    """Arrow and NumPy columns as a polars frame; `rows` because there may be no column at all."""
    if not columns:
        return pl.DataFrame(height=rows)
    return pl.from_arrow(pa.table(dict(columns)), rechunk=True)  # type: ignore[return-value]


def picked(table: pl.DataFrame, rows: np.ndarray) -> pl.DataFrame:
    """The rows in the order given."""
    if not table.width:
        return pl.DataFrame(height=len(rows))
    return table.select(pl.all().gather(pl.Series(rows.astype(np.uint32))))


def lists_of(table: pl.DataFrame, offsets: np.ndarray) -> dict[str, pa.Array]:
    """Every column cut into lists at the offsets."""
    cuts = pa.array(offsets, pa.int64())
    newest = pl.CompatLevel.newest()
    return {column.name: pa.LargeListArray.from_arrays(cuts, _one(column.to_arrow(compat_level=newest))) for column in table}


def _one(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


class Features:
    """All columns of a bucket's feeds, to be taken slice by slice."""

    def __init__(
        self,
        log: Log,
        side: UserSide,
        schema: Schema,
        columns: Collection[str],
        attributes: AttributeTables,
        feeds: pa.Table,
        impressions: pa.Table,
        counters: pl.DataFrame,
        open_at: int | None,
    ) -> None:
        """`open_at`: the moment at which labels are asked whether they are open; None where none is."""
        self.log, self.side, self.columns, self.attributes = log, side, columns, attributes
        at_N = log.at_R[log.feed_N]
        # What does not change is looked up once a user and room, and picked from there; else once a feed and candidate.
        everyone, rooms = np.arange(len(log.users)), np.arange(len(log.rooms.ids))
        if attributes.changes("users"):
            self.of_user, self.user_R = self.users(log.user_R, log.at_R), np.arange(len(feeds))
        else:
            self.of_user, self.user_R = self.users(everyone, None), log.user_R
        self.rooms_change = attributes.changes("rooms", "streamers")
        if self.rooms_change:
            self.of_room, self.room_N = rooms_frame(log.rooms, attributes, log.room_N, at_N), np.arange(len(impressions))
        else:
            self.of_room, self.room_N = rooms_frame(log.rooms, attributes, rooms, rooms), log.room_N
        self.of_feed = pl.concat(
            [
                frame({name: feeds[name] for name in META.names if name in feeds.column_names}, len(feeds)),
                frame({name: feeds[name] for name in feeds.column_names if name in columns}, len(feeds)),
                frame(side.feed_columns(log.user_R, log.at_R, columns), len(feeds)),
            ],
            how="horizontal",
        )
        labels = {LABEL_PREFIX + target.name: log.credits.written(target, open_at) for target in schema.targets}
        own = {name: impressions[name] for name in impressions.column_names if name in columns}
        self.of_candidate = pl.concat(
            [
                frame(own, len(impressions)),
                frame(side.pair_columns(), len(impressions)),
                counters,
                shown_products(impressions, columns, attributes, at_N),
                frame(labels, len(impressions)),
            ],
            how="horizontal",
        )
        self.of_entry = {history.name: self._entries(history, attributes) for history in schema.histories}

    def table(self, feeds: np.ndarray) -> pa.Table:
        """The feeds at these positions, `META` first, all other columns in order of their names."""
        log = self.log
        starts, stops = log.offsets_R[feeds], log.offsets_R[feeds + 1]
        rows, offsets = spread(starts, stops - starts)
        of_room = self.of_room.select([name for name in self.of_room.columns if name == "room_id" or name in self.columns])
        found: dict[str, pa.Array] = {
            **_arrow(picked(self.of_feed, feeds)),
            **_arrow(picked(self.of_user, self.user_R[feeds])),
            **lists_of(picked(of_room, self.room_N[rows]), offsets),
            **lists_of(picked(self.of_candidate, rows), offsets),
            **self.histories(log.user_R[feeds], log.at_R[feeds]),
        }
        return pa.table({name: found[name] for name in [*META.names, *sorted(found.keys() - set(META.names))]})

    def early(self) -> dict[str, int]:
        """Feeds whose user, and candidates whose room or streamer, its table knows only from a later moment on."""
        log, at_N = self.log, self.log.at_R[self.log.feed_N]
        streamer_N = log.rooms.streamer_of_room[log.room_N]
        named = np.flatnonzero(streamer_N >= 0)
        asked = {
            "users": (log.users[log.user_R], log.at_R),
            "rooms": (log.rooms.ids[log.room_N], at_N),
            "streamers": (log.rooms.streamer_ids[streamer_N[named]], at_N[named]),
        }
        tables = self.attributes.tables
        return {table: int(tables[table].early(*ids).sum()) for table, ids in asked.items() if tables[table].changes}

    def users(self, user_Q: np.ndarray, at_Q: np.ndarray | None) -> pl.DataFrame:
        """Attributes of users as of a moment each."""
        return self.attributes.frame("users", self.log.users[user_Q], at_Q)

    def histories(self, user_Q: np.ndarray, at_Q: np.ndarray) -> dict[str, pa.Array]:
        """Columns of all histories as a user at a moment may see them."""
        found: dict[str, pa.Array] = {}
        for name, entries in self.side.entries.items():
            rows, offsets = spread(*entries.before(user_Q, at_Q))
            found.update(lists_of(picked(self.of_entry[name], rows), offsets))
        return found

    def _entries(self, history: History, attributes: AttributeTables) -> pl.DataFrame:
        """The asked columns of all entries, in the order of `Entries.order_E`; attributes are those as of the entry."""
        log, source = self.log, self.side.source[history.name]
        of_history = {name: history_column(name, self.side.schema) for name in self.columns}
        asked = {name: known[1] for name, known in of_history.items() if known is not None and known[0] == history.name}
        if history.events == "engagements":
            stay = log.credits.value_E[source].astype(np.float32)
            own = {"at": log.at_E[source], "stay_seconds": pa.array(stay, mask=np.isnan(stay))}
            room_E, at_E = log.room_E[source], log.at_E[source]
            of_room = rooms_frame(log.rooms, attributes, room_E, at_E) if self.rooms_change else picked(self.of_room, room_E)
            known = pl.concat([frame(own, len(source)), of_room], how="horizontal")
        else:
            own = {"at": log.at_C[source], "product_id": log.product_C[source]}
            of_product = products_frame(attributes, log.product_C[source], log.at_C[source])
            known = pl.concat([frame(own, len(source)), of_product], how="horizontal")
        return known.select(pl.col(asked[name]).alias(name) for name in sorted(asked))


def rooms_frame(rooms: Rooms, attributes: AttributeTables, room_Q: np.ndarray, at_Q: np.ndarray) -> pl.DataFrame:
    """room_id, streamer_id and the asked attributes of both, of rooms as of a moment each.

    Args:
        room_Q: places in `rooms.ids`.
    """
    place = rooms.streamer(room_Q, at_Q)
    unknown = place < 0
    room, streamer = rooms.ids[room_Q], np.append(rooms.streamer_ids, 0)[place]
    ids = frame({"room_id": room, "streamer_id": pa.array(streamer, mask=unknown)}, len(room))
    more = [attributes.frame("rooms", room, at_Q), attributes.frame("streamers", streamer, at_Q, unknown)]
    return pl.concat([ids, *more], how="horizontal")


def products_frame(
    attributes: AttributeTables, products: np.ndarray, at_Q: np.ndarray, missing: np.ndarray | None = None
) -> pl.DataFrame:
    """The asked attributes of products, many of them alike, as of a moment each; null where one is missing."""
    if attributes.changes("products"):
        return attributes.frame("products", products, at_Q, missing)
    distinct, code = codes(products)
    found = attributes.frame("products", distinct, None)
    if missing is None:
        return picked(found, code)
    return picked(pl.concat([found, found.clear(1)]), np.where(missing, len(distinct), code))  # one row of nulls stands last


def shown_products(
    impressions: pa.Table, columns: Collection[str], attributes: AttributeTables, at_N: np.ndarray
) -> pl.DataFrame:
    """Attributes of the product on a candidate's screen, as of a moment each."""
    asked = [name for name in columns if (column := find(name)) is not None and column.of == PRODUCT]
    if not asked:
        return pl.DataFrame(height=len(impressions))
    shown = as_ids(impressions[PRODUCT.key])
    return products_frame(attributes, integers(shown), at_N, ~present(shown)).select(sorted(asked))


def _arrow(table: pl.DataFrame) -> dict[str, pa.Array]:
    return {column.name: _one(column.to_arrow()) for column in table}


def slices(user: np.ndarray, most: int) -> Iterator[slice]:
    """Cuts rows in order of user into slices of at most `most`, at borders between users where that is possible."""
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    begin = 0
    while begin < len(user):
        end = min(begin + most, len(user))
        if end < len(user):
            border = starts[np.searchsorted(starts, end, side="right") - 1]
            end = int(border) if border > begin else end
        yield slice(begin, end)
        begin = end


def write_parquet(table: pa.Table, path: Path, rows_per_group: int) -> None:
    """Polars writes lists several times as fast as Arrow does; histories overlap, so a light compression is enough."""
    with written(path) as draft:
        pl.from_arrow(table).write_parquet(draft, compression="lz4", row_group_size=rows_per_group, statistics=False)  # type: ignore[union-attr]
