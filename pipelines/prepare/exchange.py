"""Files between steps: rows sorted into buckets on disk, so that nothing is shuffled through memory.

A task writes one Arrow file with one record batch per bucket (several rounds of them when it works in parts); the task
of a bucket maps the files of all writers and touches only its own batches. The number of files grows with the number
of tasks, not with tasks times buckets, and what a reader holds is its bucket.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.hashing import splitmix64
from pipelines.prepare.timeline import stable_order
from pipelines.runs import written


def bucket_of(ids: np.ndarray, buckets: int) -> np.ndarray:
    """The bucket of every id, int64."""
    return (splitmix64(ids) % np.uint64(buckets)).astype(np.int64)


class ExchangeWriter:
    """Writes rounds of one record batch per bucket."""

    def __init__(self, path: Path, schema: pa.Schema, buckets: int) -> None:
        self.buckets = buckets
        self.file = pa.ipc.new_file(str(path), schema)

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
        self.file.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema))

    def __enter__(self) -> "ExchangeWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def open_batches(files: Sequence[Path], bucket: int, buckets: int) -> list[pa.RecordBatch]:
    """The batches of one bucket, file by file in the order given, memory-mapped."""
    batches = []
    for file in files:
        reader = pa.ipc.open_file(pa.memory_map(str(file)))
        batches += [reader.get_batch(index) for index in range(bucket, reader.num_record_batches, buckets)]
    return batches


def read_bucket(files: Sequence[Path], bucket: int, buckets: int, *, schema: pa.Schema | None = None) -> pa.Table:
    """All rows of one bucket, memory-mapped until something copies them. `schema` is needed where there may be no file."""
    batches = open_batches(files, bucket, buckets)
    return pa.Table.from_batches(batches, batches[0].schema if batches else schema)


def write_table(path: Path, table: pa.Table) -> None:
    """A whole table as one Arrow file with one batch."""
    with written(path) as draft, pa.ipc.new_file(str(draft), table.schema) as file:
        file.write_table(table.combine_chunks())


def read_table(path: Path) -> pa.Table:
    """Memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
