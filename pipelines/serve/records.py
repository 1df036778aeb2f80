"""How what is known of users, rooms, streamers and products is written as bytes, so that reading it needs no parsing.

Every column is int64, or float64 in the same eight bytes; texts are ids, as the encoder makes them. A user has lists
besides: those of one family (a history, or the pairs with streamers) are of one length.

# N rows, C columns, E entries of a list
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from models.catalogue import PAIRS
from pipelines.encode.arrays import flat, is_list, lengths
from pipelines.logs.ids import as_ids


@dataclass(frozen=True)
class Layout:
    """Columns in order: names, and whether each is float64."""

    names: tuple[str, ...]
    is_float: tuple[bool, ...]

    @classmethod
    def of(cls, fields: Iterable[pa.Field]) -> "Layout":
        kinds = {field.name: field.type.value_type if is_list(field.type) else field.type for field in fields}
        return cls(tuple(kinds), tuple(map(pa.types.is_floating, kinds.values())))

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Of each column, by its name."""
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def record(self) -> np.dtype:
        """One row."""
        return np.dtype([("value", np.int64, (len(self.names),)), ("known", np.bool_, (len(self.names),))])

    def block(self, columns: Sequence[pa.Array], count: int) -> "Block":
        """Arrow columns of `count` values."""
        made = Block(self, np.zeros((len(self.names), count), np.int64), np.zeros((len(self.names), count), np.bool_))
        for place, column in enumerate(columns):
            made.values_CN[place], made.known_CN[place] = _values(column, self.is_float[place])
        return made

    def spelling(self) -> list[list[Any]]:
        return [list(self.names), list(self.is_float)]

    @classmethod
    def spelled(cls, spelling: Sequence[Sequence[Any]]) -> "Layout":
        names, floats = spelling
        return cls(tuple(names), tuple(floats))


@dataclass(frozen=True)
class Block:
    """Columns of N rows.

    Attributes:
        values_CN: int64; of a float64 column its bits; 0 where missing.
        known_CN: whether there is a value.
    """

    layout: Layout
    values_CN: np.ndarray
    known_CN: np.ndarray

    def column(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Values [N], int64 or float64 (0 where missing), and whether each is known [N]."""
        place = self.layout.place[name]
        values_N = self.values_CN[place]
        return values_N.view(np.float64) if self.layout.is_float[place] else values_N, self.known_CN[place]

    def rows(self) -> list[bytes]:
        """One record a row."""
        records = np.zeros(self.values_CN.shape[1], self.layout.record)
        records["value"], records["known"] = self.values_CN.T, self.known_CN.T
        return [record.tobytes() for record in records]


@dataclass(frozen=True)
class Records:
    """Some rooms, streamers or products.

    Attributes:
        found_N: False where the store does not know the id; all its values are missing then.
    """

    block: Block
    found_N: np.ndarray

    @classmethod
    def of(cls, layout: Layout, values: Sequence[bytes | None]) -> "Records":
        blank = bytes(layout.record.itemsize)
        packed = np.frombuffer(b"".join([blank if value is None else value for value in values]), layout.record)
        block = Block(layout, np.ascontiguousarray(packed["value"].T), np.ascontiguousarray(packed["known"].T))
        return cls(block, np.array([value is not None for value in values], np.bool_))

    def has(self, name: str) -> bool:
        return name in self.block.layout.place

    def column(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Values [N], int64 or float64 (0 where missing), and whether each is known [N]."""
        return self.block.column(name)


@dataclass(frozen=True)
class User:
    """One user.

    Attributes:
        plain: one row of what has one value.
        lists: by family, their entries.
    """

    plain: Block
    lists: Mapping[str, Block]


@dataclass(frozen=True)
class UserLayout:
    """Columns of a user.

    Attributes:
        plain: those of one value.
        lists: by family; columns by full name.
    """

    plain: Layout
    lists: Mapping[str, Layout]

    @classmethod
    def of(cls, schema: pa.Schema) -> "UserLayout":
        families: dict[str, list[pa.Field]] = {}
        for field in schema:
            if is_list(field.type):
                families.setdefault(family(field.name), []).append(field)
        plain = Layout.of(field for field in schema if not is_list(field.type))
        return cls(plain, {name: Layout.of(fields) for name, fields in families.items()})

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.plain.names).union(*(layout.names for layout in self.lists.values()))

    def pack(self, batch: pa.RecordBatch) -> list[bytes]:
        """One record a row: lengths of the families, all values, then whether each is known.

        Raises:
            ValueError: lists of one family differ in length.
        """
        count = batch.num_rows
        plain = self.plain.block([batch[name] for name in self.plain.names], count)
        blocks, starts = [], []
        for layout in self.lists.values():
            found = np.stack([lengths(batch[name]) for name in layout.names])  # 0 of a list that is missing
            longest = found.max(axis=0)
            starts.append(np.concatenate([[0], np.cumsum(longest)]))
            block = layout.block([], int(longest.sum()))
            for place, name in enumerate(layout.names):
                if ((found[place] != longest) & (found[place] > 0)).any():
                    raise ValueError(f"lists of `{name}` differ in length from others of {', '.join(layout.names)}.")
                there = np.repeat(found[place] == longest, longest)
                block.values_CN[place, there], block.known_CN[place, there] = _values(flat(batch[name]), layout.is_float[place])
            blocks.append(block)
        sizes = np.diff(np.array(starts), axis=1).T if starts else np.zeros((count, 0), np.int64)  # [N, families]
        values, known = np.ascontiguousarray(plain.values_CN.T), np.ascontiguousarray(plain.known_CN.T)
        records = []
        for row in range(count):
            cut = [(block, slice(start[row], start[row + 1])) for block, start in zip(blocks, starts, strict=True)]
            parts = [
                sizes[row].tobytes(),
                values[row].tobytes(),
                *(block.values_CN[:, where].tobytes() for block, where in cut),
            ]
            records.append(
                b"".join([*parts, known[row].tobytes(), *(block.known_CN[:, where].tobytes() for block, where in cut)])
            )
        return records

    def read(self, record: bytes) -> User:
        families, columns = len(self.lists), len(self.plain.names)
        sizes = np.frombuffer(record, np.int64, families).tolist()
        count = columns + sum(size * len(layout.names) for size, layout in zip(sizes, self.lists.values(), strict=True))
        values = np.frombuffer(record, np.int64, count, 8 * families)
        known = np.frombuffer(record, np.bool_, count, 8 * (families + count))
        lists, start = {}, columns
        for (name, layout), size in zip(self.lists.items(), sizes, strict=True):
            end = start + size * len(layout.names)
            shape = (len(layout.names), size)
            lists[name] = Block(layout, values[start:end].reshape(shape), known[start:end].reshape(shape))
            start = end
        return User(Block(self.plain, values[:columns, None], known[:columns, None]), lists)


def family(name: str) -> str:
    """Of a list column: its history, or the pairs that it belongs to."""
    return next((pairs for other in PAIRS if name.startswith(f"{(pairs := f'pair.{other}')}_")), name.partition(".")[0])


def _values(column: pa.Array, is_float: bool) -> tuple[np.ndarray, np.ndarray]:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    numbers = column.cast(pa.float64()).fill_null(0.0) if is_float else as_ids(column).fill_null(0)
    return numbers.to_numpy().view(np.int64), column.is_valid().to_numpy(zero_copy_only=False)
