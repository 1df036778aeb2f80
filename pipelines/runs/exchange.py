"""Files between steps: rows sorted into buckets on disk, so that nothing is shuffled through memory.

A task writes one file with one record batch per bucket (several rounds of them when it works in parts); the task of a
bucket maps the files of all writers and touches only its own batches. The number of files grows with the number of tasks,
not with tasks times buckets, and what a reader holds is its bucket.

Such a file is a row of Arrow's messages and an index of them: where each lies, its rows, its digest. The file's note has
the digest of the index, so whoever reads a bucket knows every byte of it to be what was written, and reads no other.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import xxhash

from models.hashing import splitmix64
from pipelines.places import Object, Remote, mapped, side_by_side
from pipelines.runs import FileNote, written
from pipelines.runs.noted import damaged, reading, there
from pipelines.runs.order import stable_order

_ALIGNED = 64  # as Arrow has its buffers
_AT_END = 1 << 16  # bytes read at once at the end of a file in a store: the whole index, of up to some two thousand batches
_TAIL = 2  # the last numbers of a file: batches, bytes of the schema


def bucket_of(ids: np.ndarray, buckets: int) -> np.ndarray:
    """The bucket of every id, int64."""
    return (splitmix64(ids) % np.uint64(buckets)).astype(np.int64)


class ExchangeWriter:
    """Writes rounds of one record batch per bucket."""

    def __init__(self, path: Path, schema: pa.Schema, buckets: int) -> None:
        self.buckets = buckets
        self._schema = schema
        self._file = path.open("wb")
        self._at = 0
        self._index: list[tuple[int, int, int, int]] = []
        self._index_digest = ""

    def write(self, table: pa.Table, bucket: np.ndarray) -> None:
        """One round: the rows of `table`, each to its bucket, in the order in which they stand."""
        table = table.take(pa.array(stable_order(bucket))) if self.buckets > 1 else table
        table = table.combine_chunks()
        borders = np.r_[0, np.cumsum(np.bincount(bucket, minlength=self.buckets))]
        for start, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            self.write_sorted(table.slice(start, end - start))

    def write_sorted(self, table: pa.Table) -> None:
        """The rows of the next bucket."""
        batches = table.combine_chunks().to_batches()
        batch = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
        message = memoryview(batch.serialize())
        self._file.write(message)
        self._file.write(bytes(-len(message) % _ALIGNED))
        self._index.append((self._at, len(message), len(batch), xxhash.xxh3_64_intdigest(message)))
        self._at += len(message) + -len(message) % _ALIGNED

    @property
    def rows(self) -> int:
        return sum(rows for _, _, rows, _ in self._index)

    def note(self, path: Path, folder: Path) -> FileNote:
        """The note of the closed file, wherever it lies by now."""
        return FileNote(path.relative_to(folder).as_posix(), self.rows, self._at, self._index_digest)

    def close(self) -> None:
        index = np.array(self._index, np.uint64).tobytes()
        schema = self._schema.serialize().to_pybytes()
        end = index + schema + np.array([len(self._index), len(schema)], np.uint64).tobytes()
        self._file.write(end)
        self._file.close()
        self._at += len(end)
        self._index_digest = xxhash.xxh3_64_hexdigest(end)

    def __enter__(self) -> "ExchangeWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


def open_batches(files: Sequence[FileNote], folder: Path, bucket: int, buckets: int) -> list[pa.RecordBatch]:
    """The batches of one bucket, file by file in the order given, memory-mapped; from a store read alone, many files at once.

    Raises:
        DamagedFile: a file is gone, or is not what was written.
    """
    read = lambda note: _open_batches(note, folder, bucket, buckets)
    found = side_by_side(read, files) if isinstance(folder, Remote) else map(read, files)
    return [batch for batches in found for batch in batches]


def _open_batches(note: FileNote, folder: Path, bucket: int, buckets: int) -> list[pa.RecordBatch]:
    batches = []
    with reading(note, folder):
        file = mapped(folder / note.path if isinstance(folder, Remote) else there(note, folder))
    if isinstance(file, Object) and file.size != note.bytes:
        raise damaged(note, folder, f"has {file.size:,} bytes, not {note.bytes:,}")
    index, schema = _index(file, note, folder)
    for at, size, rows, digest in index[bucket::buckets].tolist():
        message = _read(file, at, size)
        if xxhash.xxh3_64_intdigest(message) != digest:
            raise damaged(note, folder, "does not hold what was written to it")
        batches.append(pa.ipc.read_record_batch(message, schema))
        assert len(batches[-1]) == rows, (note, bucket)
    return batches


def _index(file: pa.MemoryMappedFile | Object, note: FileNote, folder: Path) -> tuple[np.ndarray, pa.Schema]:
    """Start, length, rows and digest of every batch, uint64 [batches, 4]; and their schema."""
    wrong = damaged(note, folder, "does not hold what was written to it")
    if note.bytes < 8 * _TAIL:
        raise wrong
    if isinstance(file, Object):
        file.hold(max(0, note.bytes - _AT_END), note.bytes)
    batches, length = np.frombuffer(_read(file, note.bytes - 8 * _TAIL, 8 * _TAIL), np.uint64).tolist()
    begin = note.bytes - 8 * _TAIL - length - 32 * batches
    if begin < 0:
        raise wrong
    end = _read(file, begin, note.bytes - begin)
    if xxhash.xxh3_64_hexdigest(end) != note.digest:
        raise wrong
    schema = pa.ipc.read_schema(end.slice(32 * batches, length))
    return np.frombuffer(end, np.uint64, 4 * batches).reshape(-1, 4), schema


def _read(file: pa.MemoryMappedFile | Object, at: int, size: int) -> pa.Buffer:
    """A part of a mapped file, without a copy."""
    file.seek(at)
    return file.read_buffer(size)


def read_bucket(
    files: Sequence[FileNote], folder: Path, bucket: int, buckets: int, *, schema: pa.Schema | None = None
) -> pa.Table:
    """All rows of one bucket, memory-mapped until something copies them. `schema` is needed where there may be no file.

    Raises:
        DamagedFile: as `open_batches`.
    """
    batches = open_batches(files, folder, bucket, buckets)
    return pa.Table.from_batches(batches, batches[0].schema if batches else schema)


def write_table(path: Path, table: pa.Table) -> None:
    """A whole table as one Arrow file with one batch."""
    with written(path, durable=False) as draft, pa.ipc.new_file(str(draft), table.schema) as file:
        file.write_table(table.combine_chunks())


def read_table(path: Path) -> pa.Table:
    """Memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
