"""Writing Parquet so that memory does not grow with the log."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_A_GROUP, ROWS_A_FILE = 125_000, 500_000


def write(table: pa.Table, file: Path) -> None:
    """Writes a small table as one file."""
    with GrowingFile(file) as growing:
        growing.write(table)


class GrowingFile:
    """One Parquet file that grows by tables of the same columns; it is made with the first row group.

    Args:
        repeated: columns whose values come again and again, so that a dictionary of them pays; None for all columns.
    """

    def __init__(self, file: Path, repeated: Sequence[str] | None = None) -> None:
        self._file = file
        self._use_dictionary: bool | list[str] = True if repeated is None else list(repeated)
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self.rows = 0
        self._unwritten = 0

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        self.rows += table.num_rows
        self._unwritten += table.num_rows
        if self._unwritten >= ROWS_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        if self._writer is None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._file, table.schema, compression="zstd", use_dictionary=self._use_dictionary)
        self._writer.write_table(table)
        self._waiting, self._unwritten = [], 0

    def __enter__(self) -> "GrowingFile":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()


class GrowingFolder:
    """One table as files of about `ROWS_A_FILE` rows at most: `FOLDER/PREFIX-00.parquet` and so on.

    A table is never cut, so a file is larger only where one written table is.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        self._part = 0
        self._file = self._next()

    def _next(self) -> GrowingFile:
        return GrowingFile(self._folder / f"{self._prefix}-{self._part:02d}.parquet")

    def write(self, table: pa.Table) -> None:
        if self._file.rows and self._file.rows + table.num_rows > ROWS_A_FILE:
            self._file.__exit__(None)
            self._part += 1
            self._file = self._next()
        self._file.write(table)

    def __enter__(self) -> "GrowingFolder":
        return self

    def __exit__(self, kind: type | None, *error: object) -> None:
        self._file.__exit__(kind, *error)
