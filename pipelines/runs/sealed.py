"""Parquet whose row groups are recognised again: what is read of one is what was written, or its reader is told.

Parquet's own checksums leave out the headers of pages, and a bit that flips there may change what is read. So the footer
of a sealed file holds a digest of every row group, and the file's note (`pipelines.runs.noted`) one of the footer.
Whoever reads some row groups hashes these alone, at several GB/s.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from models.config import ConfigError
from pipelines.places import Object, Remote, mapped, place
from pipelines.runs.noted import FileNote

_SEALS = b"row group digests"  # in the footer: begin, end and 16 hex digits of every row group
_FOOTER = 1 << 16  # bytes read at once at the end of a file
_MAGIC = 8  # bytes at the end of a file: the length of its footer, and `PAR1`


class SealedWriter:
    """Writes a table row group by row group."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pq.ParquetWriter(self._sink, schema, compression="lz4", use_dictionary=False, write_statistics=False)
        self._ends = [0]
        self.rows = 0

    def write(self, table: pa.Table, rows_per_group: int) -> None:
        for start in range(0, len(table), rows_per_group):
            self._writer.write_table(table.slice(start, rows_per_group), row_group_size=rows_per_group)
            self._ends.append(self._sink.tell())
        self.rows += len(table)

    def close(self) -> None:
        with pa.memory_map(str(self._path)) as written:
            seals = [
                (begin, end, xxhash.xxh3_64_hexdigest(written.read_buffer(end - begin)))
                for begin, end in zip(self._ends[:-1], self._ends[1:], strict=True)
            ]
        self._writer.add_key_value_metadata({_SEALS: json.dumps(seals)})
        self._writer.close()
        self._sink.close()
        self._is = self._path.stat().st_size, footer_digest(self._path)

    def note(self, path: Path, folder: Path) -> FileNote:
        """The note of the closed file, wherever it lies by now."""
        return FileNote(path.relative_to(folder).as_posix(), self.rows, *self._is)

    def __enter__(self) -> "SealedWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self._writer.is_open = False  # one that is not closed would try once more when it is collected, and print a trace
            with suppress(OSError):
                self._sink.close()


def footer_digest(path: Path) -> str:
    """16 hex digits of a Parquet file's footer; of nothing where the file cannot have one."""
    with contextlib.closing(Object(path)) if isinstance(path, Remote) else path.open("rb") as file:
        if isinstance(file, Object):
            file.hold(max(0, file.size - _FOOTER), file.size)
        size = file.seek(0, 2)
        file.seek(max(0, size - _MAGIC))
        length = int.from_bytes(file.read(4), "little") + _MAGIC
        file.seek(max(0, size - length))
        return xxhash.xxh3_64_hexdigest(file.read(length))


class SealedFile:
    """A Parquet file to be read; one without seals (of another writer) is read as it is.

    Attributes:
        names: of its columns.
        rows: in each row group.

    Raises:
        ConfigError: when it is opened or read, it is not what was written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = place(path)
        with self._telling():
            self._map = mapped(self.path)
            if isinstance(self._map, Object):
                self._map.hold(max(0, self._map.size - _FOOTER), self._map.size)
            self._file = pq.ParquetFile(pa.PythonFile(self._map, mode="r") if isinstance(self._map, Object) else self._map)
            seals = (self._file.metadata.metadata or {}).get(_SEALS)
            self._seals: list[tuple[int, int, str]] | None = json.loads(seals) if seals else None
        footer = self._file.metadata
        self.names: list[str] = self._file.schema_arrow.names
        self.rows = [footer.row_group(index).num_rows for index in range(footer.num_row_groups)]
        self._sound: set[int] = set()

    def read_row_group(self, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """On one thread."""
        self._check(index)
        with self._telling():
            return self._file.read_row_group(index, columns=_listed(columns), use_threads=False)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        self._check_all()
        with self._telling():
            return self._file.read(columns=_listed(columns))

    def batches(self, rows: int, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """As many rows at a time, whatever row group they are of."""
        self._check_all()
        with self._telling():
            yield from self._file.iter_batches(batch_size=rows, columns=_listed(columns))

    def close(self) -> None:
        self._file.close()
        self._map.close()

    def __enter__(self) -> "SealedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_all(self) -> None:
        if isinstance(self._map, Object):
            self._map.hold(0, self._map.size)
        for index in range(len(self.rows)):
            self._check(index)

    def _check(self, index: int) -> None:
        """Of a file in a store the row group is held, so that what is read is what was looked at."""
        if self._seals is None or (index in self._sound and not isinstance(self._map, Object)):
            return
        begin, end, digest = self._seals[index]
        if isinstance(self._map, Object):
            found = self._map.hold(begin, end)
        else:
            self._map.seek(begin)
            found = self._map.read_buffer(end - begin)
        if xxhash.xxh3_64_hexdigest(found) != digest:
            raise damaged_table(self.path, "it does not hold what was written to it")
        self._sound.add(index)

    def _telling(self) -> "_Telling":
        return _Telling(self.path)


class _Telling:
    """Errors of Arrow as one line that names the file."""

    def __init__(self, path: Path | str) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, FileNotFoundError):
            raise damaged_table(self.path, "it is not there") from None
        if isinstance(error, pa.ArrowException | OSError) and getattr(error, "errno", None) is None:
            raise damaged_table(self.path, " ".join(str(error).split()).rstrip(".")) from None


def damaged_table(path: Path | str, why: str) -> ConfigError:
    return ConfigError(f"{path} is damaged ({why}). Delete the prepared folder and prepare again.")


def read_sealed(path: Path | str, columns: Sequence[str] | None = None) -> pa.Table:
    """Some columns of a whole file.

    Raises:
        ConfigError: it is not what was written.
    """
    with SealedFile(path) as file:
        return file.read(columns)


def _listed(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(columns)
