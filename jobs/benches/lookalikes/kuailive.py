"""Files that look like those of KuaiLive."""

from pathlib import Path

import numpy as np
import polars as pl

from jobs.benches.lookalikes.shared import DAY, GrowingCsv, chance, liking, popular, scaled, shows

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
    users, streamers, rooms = scaled(23_772, share, 150), scaled(452_621, share, 60), scaled(11_613_708, share, 1500)
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
    of_lives = ("accu_live_cnt", "accu_live_duration", "accu_play_cnt", "accu_play_duration")
    ranges = ("fans_user_num", "fans_group_fans_num", "follow_user_num", *of_lives)
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
        room_N = np.where(end_M[room_N] > some.at_N, room_N, np.maximum(newest, 0))
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
        file.__exit__(None)
        written[name] = file.rows
    return {**written, "room": rooms, "user": users, "streamer": streamers}
