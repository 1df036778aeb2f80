"""When what happened arrives, and in which day's file of the log it lies then."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.logs.files import GrowingFolder
from pipelines.logs.simulator.clock import DAY_MS, EPOCH_MS
from pipelines.logs.simulator.config import Delays

ARRIVED_AT = "arrived_at"
TABLES = ("impressions", "engagements", "product_clicks")


class Delivery:
    """Brings rows to the file of the day on which they arrive.

    Attributes:
        pending: by table, rows that arrive on a later day.
    """

    def __init__(self, delays: Delays | None, pending: dict[str, pa.Table] | None = None) -> None:
        self.delays = delays
        self.pending: dict[str, list[pa.Table]] = {table: [] for table in TABLES}
        for table, rows in (pending or {}).items():
            self.pending[table].append(rows)

    def waiting(self) -> dict[str, pa.Table]:
        """The rows that have not arrived, by table; without tables of none."""
        joined = {table: pa.concat_tables(rows) for table, rows in self.pending.items() if rows}
        return {table: rows for table, rows in joined.items() if len(rows)}

    def begin_day(self, day: int, files: dict[str, GrowingFolder]) -> None:
        """Writes what was late until this day, in the order of arrival."""
        for table, rows in self.waiting().items():
            today = pc.less(rows[ARRIVED_AT], _end_of(day))
            arriving = rows.filter(today).sort_by(ARRIVED_AT)
            if len(arriving):
                files[table].write(arriving)
            self.pending[table] = [rows.filter(pc.invert(today))]

    def write(self, table: str, rows: pa.Table, day: int, file: GrowingFolder) -> None:
        """Writes what arrives on the day it happens, and keeps the others."""
        if self.delays is None:
            file.write(rows)
            return
        today = pc.less(rows[ARRIVED_AT], _end_of(day))
        file.write(rows.filter(today))
        if not pc.all(today).as_py():
            self.pending[table].append(rows.filter(pc.invert(today)))

    def impressions(self, rng: np.random.Generator, rows: pa.Table) -> pa.Table:
        return rows if self.delays is None else _arriving(rng, rows, "shown_at", self.delays.impression, 0.0)

    def engagements(self, rng: np.random.Generator, rows: pa.Table) -> pa.Table:
        """A stay is known when it is over."""
        if self.delays is None:
            return rows
        action = rows["action"].to_numpy()
        mean_E = np.zeros(len(rows))
        for name in np.unique(action):
            mean_E[action == name] = getattr(self.delays, name)
        stay_E = np.where(action == "enter", np.nan_to_num(rows["value"].to_numpy()), 0.0)
        return _arriving(rng, rows, "at", mean_E, stay_E)

    def shop(self, rng: np.random.Generator, rows: pa.Table) -> pa.Table:
        return rows if self.delays is None else _arriving(rng, rows, "at", self.delays.shop, 0.0)


def _arriving(
    rng: np.random.Generator, rows: pa.Table, time: str, mean_E: np.ndarray | float, after_E: np.ndarray | float
) -> pa.Table:
    """With arrivals: so many seconds after the time, and a delay with that mean."""
    seconds = after_E + mean_E * rng.standard_exponential(len(rows))
    arrived = rows[time].to_numpy() + np.ceil(seconds * 1000).astype(np.int64)
    return rows.append_column(ARRIVED_AT, pa.array(arrived))


def _end_of(day: int) -> int:
    return EPOCH_MS + (day + 1) * DAY_MS
