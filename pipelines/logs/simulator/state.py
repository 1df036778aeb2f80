"""What is kept of a world at the end of its last day, so that it can go on.

STATE/life.npz                    what changes while the world lives
STATE/pending-engagements.parquet what happened and has not arrived; also impressions, product_clicks
"""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.logs.files import write
from pipelines.logs.simulator.delivery import TABLES
from pipelines.logs.simulator.rooms import Rooms

_LIFE = "life.npz"


def save(folder: Path, arrays: dict[str, np.ndarray], rooms: Rooms, pending: dict[str, pa.Table]) -> None:
    """Replaces what an earlier day left."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    of_rooms = {f"rooms.{field.name}": getattr(rooms, field.name) for field in fields(Rooms)}
    np.savez(folder / _LIFE, **arrays, **of_rooms)  # type: ignore[arg-type]  # the names are given
    for table, rows in pending.items():
        write(rows, folder / f"pending-{table}.parquet")


def is_there(folder: Path) -> bool:
    return (folder / _LIFE).is_file()


def load(folder: Path) -> tuple[dict[str, np.ndarray], Rooms, dict[str, pa.Table]]:
    """As `save` was given it."""
    with np.load(folder / _LIFE) as stored:
        arrays = {name: stored[name] for name in stored.files}
    rooms = Rooms(**{field.name: arrays.pop(f"rooms.{field.name}") for field in fields(Rooms)})
    files = {table: folder / f"pending-{table}.parquet" for table in TABLES}
    return arrays, rooms, {table: pq.read_table(file, partitioning=None) for table, file in files.items() if file.is_file()}
