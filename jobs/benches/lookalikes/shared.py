"""What look-alikes have in common: sessions of users, popularity, liking, and files that grow."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipelines.logs.files import GrowingFile

DAY = 86_400_000
_SESSIONS_AT_ONCE = 200_000


def scaled(count: int, share: float, least: int) -> int:
    return max(least, round(count * share))


class GrowingCsv:
    """A CSV file that is written part by part."""

    def __init__(self, file: Path, *, header: bool = True) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._stream, self._header = file.open("wb"), header
        self.rows = 0

    def write(self, rows: pl.DataFrame) -> None:
        rows.write_csv(self._stream, include_header=self._header)
        self._header = False
        self.rows += len(rows)

    def __enter__(self) -> "GrowingCsv":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


@dataclass(frozen=True)
class Shows:
    """What users were shown in one go.

    Attributes:
        user_N, session_N, at_N: who, within which session, when; sessions in order of time.
    """

    user_N: np.ndarray
    session_N: np.ndarray
    at_N: np.ndarray

    def __len__(self) -> int:
        return len(self.user_N)


def shows(rng: np.random.Generator, users: int, rows: int, begin: int, days: int, per_session: float) -> Iterator[Shows]:
    """About so many rows in sessions; a tenth of the users has a third of them."""
    sessions = max(1, round(rows / per_session))
    done = 0
    while done < sessions:
        some = min(_SESSIONS_AT_ONCE, sessions - done)
        at_S = np.sort(begin + ((done + some * rng.random(some)) / sessions * days * DAY).astype(np.int64))
        user_S = 1 + (users * rng.random(some) ** 2).astype(np.int64)
        size_S = 1 + rng.poisson(per_session - 1, some)
        session_N = np.repeat(np.arange(some), size_S)
        place_N = np.arange(len(session_N)) - np.repeat(np.cumsum(size_S) - size_S, size_S)
        yield Shows(
            user_S[session_N], session_N + done, at_S[session_N] + place_N * 3_000 + rng.integers(0, 900, len(session_N))
        )
        done += some


def popular(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Some of the ids 1 to `count`, the first ones far more often."""
    return 1 + (count * rng.random(size) ** 3).astype(np.int64)


def liking(user: np.ndarray, thing: np.ndarray, salt: int) -> np.ndarray:
    """How much every user likes a thing, -1 to 1: by what group each of them is of."""
    return (((user * 7 + salt) % 5 == (thing * 3 + salt) % 5) * 1.4 - 0.4) * (0.5 + ((thing * 13 + salt) % 10) / 20)


def chance(rng: np.random.Generator, logit: np.ndarray) -> np.ndarray:
    """Whether each thing happens."""
    return rng.random(len(logit)) < 1 / (1 + np.exp(-logit))


def moment_of(column: str) -> pl.Expr:
    return pl.from_epoch(column, "ms").dt.replace_time_zone("UTC")


class GrowingParquet(GrowingFile):
    """A Parquet file that is written part by part."""

    def write(self, rows: pl.DataFrame) -> None:  # type: ignore[override]
        super().write(rows.to_arrow())
