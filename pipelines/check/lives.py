"""Start and end of rooms, to be held beside the moments at which they were shown."""

import numpy as np

from pipelines.check.sketches import sampled
from pipelines.runs.order import run_starts

_NEVER, _ALWAYS = np.iinfo(np.int64).min, np.iinfo(np.int64).max


class RoomLives:
    """Lives of rooms, sorted by id; beyond `most` rooms of a sample of them.

    Attributes:
        rows, before, ended_rows, after: as in `facts.Lives`.
        earliest: room, moment and ms of the impression that came the longest before the start of its room.
    """

    def __init__(self, most: int = 1_000_000) -> None:
        self._most = most
        self._parts: list[np.ndarray] = []
        self._rows = 0
        self._level = 0
        self._sorted: np.ndarray | None = None
        self.rows = self.before = self.ended_rows = self.after = 0
        self.earliest: tuple[int, int, int] | None = None

    def add(self, room: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
        """Takes in rooms; a start of the least int64 and an end of the largest are unknown."""
        self._parts.append(self._chosen(np.stack([room, start, end])))
        self._rows += self._parts[-1].shape[1]
        while self._rows > self._most:
            self._level += 1
            self._parts = [self._chosen(np.concatenate(self._parts, axis=1))]
            self._rows = self._parts[0].shape[1]

    def _chosen(self, rooms: np.ndarray) -> np.ndarray:
        return rooms[:, sampled(rooms[0], self._level)]

    def compare(self, room: np.ndarray, at: np.ndarray) -> None:
        """Takes in impressions, once all rooms are known. Of several rows of a room the first start and the last end count."""
        if not self._parts:
            return
        if self._sorted is None:
            rooms = np.concatenate(self._parts, axis=1)
            room_id, start, end = rooms[:, np.argsort(rooms[0], kind="stable")]
            heads = run_starts(room_id)
            if len(heads):
                start, end = np.minimum.reduceat(start, heads), np.maximum.reduceat(end, heads)
            self._sorted, self._parts = np.stack([room_id[heads], start, end]), [rooms[:, :0]]
        rooms, start, end = self._sorted
        if not len(rooms):
            return
        place = np.minimum(np.searchsorted(rooms, room), len(rooms) - 1)
        known = rooms[place] == room
        start, end = start[place], end[place]
        started, ended = known & (start != _NEVER), known & (end != _ALWAYS)
        before = started & (at < start)
        self.rows += int(started.sum())
        self.before += int(before.sum())
        self.ended_rows += int(ended.sum())
        self.after += int((ended & (at > end)).sum())
        if before.any():
            worst = int(np.argmax(np.where(before, start - at, 0)))
            found = int(room[worst]), int(at[worst]), int(start[worst] - at[worst])
            if self.earliest is None or found[2] > self.earliest[2]:
                self.earliest = found
