"""Files in the formats of public data sets, of any size: made up, with the columns, types and counts of the real ones.

What is in them is no data set's: users come back, rooms are live for hours, some streamers draw more than others and are
liked more by some. It is enough to measure conversions on, and for a training to find something.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

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
    """About so many rows in sessions; a tenth of the users has half of them."""
    sessions = max(1, round(rows / per_session))
    done = 0
    while done < sessions:
        some = min(_SESSIONS_AT_ONCE, sessions - done)
        at_S = np.sort(begin + ((done + some * rng.random(some)) / sessions * days * DAY).astype(np.int64))
        user_S = 1 + (users * rng.random(some) ** 3.3).astype(np.int64)
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


# -- KuaiLive ----------------------------------------------------------------------------------------------------------

_RANGES = np.array(["0-10", "10-100", "100-1000", "1000-10000", "10000-100000"])


def _profile(rng: np.random.Generator, key: str, count: int, ranges: tuple[str, ...], days: tuple[str, ...]) -> pl.DataFrame:
    day = lambda: (np.datetime64("2014-01-01") + rng.integers(0, 4000, count)).astype(str)
    pick = lambda *values: np.array(values)[rng.integers(0, len(values), count)]
    return pl.DataFrame(
        {
            key: np.arange(1, count + 1),
            "gender": pick("M", "F"),
            "age": pick("0-12", "12-17", "18-23", "24-30", "31-40", "41-49", "50+"),
            "country": pick("China", "China", "China", "other"),
            "device_brand": pick("APPLE", "HUAWEI", "XIAOMI", "DESKTOP"),
            "device_price": pick("0", "0-1000", "1000-3000", "5000+"),
            **{name: _RANGES[rng.integers(0, 5, count)] for name in ranges},
            **{name: day() for name in days},
            **{f"onehot_feat{number}": rng.integers(0, 2, count) for number in range(7)},
        }
    )


def kuailive(folder: Path, share: float, *, seed: int = 0, days: int = 21) -> dict[str, int]:
    """The eight files of KuaiLive; a share of 1 has 11.6 M rooms, 4.9 M clicks and 12 M negatives. Returns rows by file."""
    rng, begin = np.random.default_rng(seed), 1_746_374_400_000
    users, streamers, rooms = scaled(23_772, share, 40), scaled(452_621, share, 60), scaled(11_613_708, share, 1500)
    written: dict[str, int] = {}
    user = _profile(
        rng,
        "user_id",
        users,
        ("fans_num", "follow_num", "accu_watch_live_cnt", "accu_watch_live_duration"),
        ("reg_timestamp", "first_watch_live_timestamp"),
    )
    is_one = lambda each: pl.Series(rng.integers(0, each, users) == 0).cast(pl.Int64)
    user.with_columns(is_live_streamer=is_one(20), is_photo_author=is_one(2)).write_csv(folder / "user.csv")
    ranges = ("fans_user_num", "fans_group_fans_num", "follow_user_num")
    ranges += ("accu_live_cnt", "accu_live_duration", "accu_play_cnt", "accu_play_duration")
    streamer = _profile(rng, "streamer_id", streamers, ranges, ("first_live_timestamp", "reg_timestamp"))
    tags = pl.Series(["Relationship", "Talent", "Game"])
    streamer.with_columns(live_operation_tag=tags.gather(rng.integers(0, 3, streamers))).write_csv(folder / "streamer.csv")
    start_M = np.sort(begin - DAY // 4 + (rng.random(rooms) * (days * DAY + DAY // 4)).astype(np.int64))
    streamer_M = popular(rng, streamers, rooms)
    end_M = start_M + 3_600_000 + rng.exponential(10_800_000, rooms).astype(np.int64)
    category = np.array(["shop", "game", "chat", "dance", ""])
    pl.DataFrame(
        {
            "p_date": np.strings.replace(
                ((start_M + DAY // 3) // 1000).astype("datetime64[s]").astype("datetime64[D]").astype(str), "-", ""
            ),
            "live_id": np.arange(1, rooms + 1),
            "live_type": streamer_M % 4,
            "streamer_id": streamer_M,
            "start_timestamp": start_M,
            "end_timestamp": end_M,
            "live_content_category": category[streamer_M % 5],
            "live_name_id": rng.integers(0, max(2, rooms // 5), rooms),
        }
    ).write_csv(folder / "room.csv")
    names = ("click", "negative", "comment", "like", "gift")
    files = {name: GrowingCsv(folder / f"{name}.csv") for name in names}
    for some in shows(rng, users, scaled(16_900_000, share, 3000), begin, days, 6.0):
        newest = np.searchsorted(start_M, some.at_N) - 1
        back = rng.exponential(max(1.0, rooms / days / 24), len(some)).astype(np.int64)  # about an hour
        width = 1 << rng.integers(0, 6, len(some))
        room_N = np.maximum((newest - back) // width * width, 0)
        streamer_N = streamer_M[room_N]
        clicked = chance(rng, -1.2 + 1.5 * liking(some.user_N, streamer_N, 1))
        rows = pl.DataFrame({"user_id": some.user_N, "live_id": room_N + 1, "streamer_id": streamer_N, "timestamp": some.at_N})
        files["negative"].write(rows.filter(~clicked))
        stay = (rng.lognormal(9.5 + liking(some.user_N, streamer_N, 2), 1.3)).astype(np.int64)
        entered = rows.with_columns(watch_live_time=stay).filter(clicked)
        files["click"].write(entered)
        for name, logit in (("comment", -3.4), ("like", -3.5), ("gift", -4.4)):
            did = chance(rng, logit + 1.2 * liking(entered["user_id"].to_numpy(), entered["streamer_id"].to_numpy(), len(name)))
            then = pl.col("timestamp") + (pl.col("watch_live_time") * 0.6).cast(pl.Int64)
            acts = entered.filter(did).with_columns(timestamp=then).drop("watch_live_time")
            price = np.ceil(rng.lognormal(1.5, 1.8, len(acts))).astype(np.int64)
            files[name].write(acts.with_columns(gift_price=price) if name == "gift" else acts)
    for name, file in files.items():
        file.__exit__()
        written[name] = file.rows
    return {**written, "room": rooms, "user": users, "streamer": streamers}


LOOKALIKES: dict[str, Callable[..., dict[str, int]]] = {"kuailive": kuailive}
