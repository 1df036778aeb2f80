"""Files that look like those of KuaiLive-M3."""

from pathlib import Path

import numpy as np
import polars as pl

from jobs.benches.lookalikes.shared import DAY, GrowingCsv, GrowingParquet, chance, liking, moment_of, popular, scaled, shows

_CATEGORIES = (("first", 8), ("second", 40), ("third", 120), ("fourth", 300))


def kuailive_m3(folder: Path, share: float, *, seed: int = 0, days: int = 30) -> dict[str, int]:
    """The files of KuaiLive-M3; a share of 1 has 6.56 M rooms, 35 M plays of rooms, 92 M shows and 111 M plays of videos."""
    rng, begin = np.random.default_rng(seed), 1_746_374_400_000
    users, authors, rooms = scaled(22_000, share, 150), scaled(500_000, share, 60), scaled(6_560_000, share, 1500)
    photos = scaled(6_740_000, share, 400)
    start_M = np.sort(begin - DAY // 4 + (rng.random(rooms) * (days * DAY + DAY // 4)).astype(np.int64))
    author_M = popular(rng, authors, rooms)
    length_M = 3_600_000 + rng.exponential(10_800_000, rooms).astype(np.int64)
    moment = lambda at: pl.Series(at, dtype=pl.Datetime("ms")).dt.replace_time_zone("UTC")
    pl.DataFrame(
        {
            "live_id": np.arange(1, rooms + 1),
            "author_id": author_M,
            "live_name": np.array(["songs", "games", "talk", ""])[author_M % 4],
            "start_timestamp": moment(start_M),
            "end_timestamp": moment(start_M + length_M),
            "live_duration": length_M,
        }
    ).write_parquet(folder / "live_room_meta.parquet")
    fans = np.array(["0-1k", "1k-1w", "1w-10w", "10w-100w"])[rng.integers(0, 4, authors)]
    ages = np.array(["18-23", "24-30", "31-40", "41-49"])[rng.integers(0, 4, authors)]
    author = {"author_id": np.arange(1, authors + 1), "is_photo_author": 1, "is_live_author": rng.integers(0, 2, authors)}
    genders = np.array(["M", "F", "U"])[rng.integers(0, 3, authors)]
    pl.DataFrame({**author, "gender": genders, "age_segment": ages, "fans_user_num": fans}).write_csv(
        folder / "author_profile.csv"
    )
    tags = np.arange(1, photos + 1)
    levels = {f"{name}_level_category_name": np.char.add(name[0], (tags % many).astype(str)) for name, many in _CATEGORIES}
    pl.DataFrame({"photo_id": tags, **levels}).write_csv(folder / "photo_tag.csv")
    pl.DataFrame(
        {
            "photo_id": tags,
            "author_id": popular(rng, authors, photos),
            "duration": 5_000 + rng.integers(0, 60_000, photos),
            "display_type": rng.integers(1, 4, photos),
            "cover_title": "a title",
            "video_texts": "some words",
        }
    ).write_parquet(folder / "photo_meta.parquet")
    interactions = GrowingCsv(folder / "live_interaction.csv")
    acts = {name: GrowingCsv(folder / f"live_{name}.csv") for name in ("like", "comment", "share")}
    shown = GrowingParquet(folder / "live_show.parquet")
    for some in shows(rng, users, scaled(127_000_000, share, 3000), begin, days, 6.0):
        newest = np.searchsorted(start_M, some.at_N) - 1
        back = rng.exponential(max(1.0, rooms / days / 24), len(some)).astype(np.int64)
        width = 1 << rng.integers(0, 6, len(some))
        room_N = np.maximum((newest - back) // width * width, 0)
        room_N = np.where((start_M + length_M)[room_N] > some.at_N, room_N, np.maximum(newest, 0))
        author_N = author_M[room_N]
        entered = chance(rng, -1.2 + 1.5 * liking(some.user_N, author_N, 1))
        rows = pl.DataFrame({"user_id": some.user_N, "author_id": author_N, "live_id": room_N + 1, "at": some.at_N})
        shown.write(rows.filter(~entered).select("live_id", "user_id", "author_id", show_timestamp=moment_of("at")))
        mine = rows.filter(entered)
        count = lambda logit, salt, mine=mine: chance(
            rng, logit + 1.2 * liking(mine["user_id"].to_numpy(), mine["author_id"].to_numpy(), salt)
        ).astype(np.int64)
        stay = rng.lognormal(9.5, 1.3, len(mine)).astype(np.int64)
        zero, of_play = np.zeros(len(mine), np.int64), {"like": count(-3, 3), "comment": count(-3.4, 4), "share": count(-5, 5)}
        gifts, follows = count(-4.4, 6), count(-3.8, 7)
        spelled = lambda at: pl.from_epoch(pl.col("at") + at + 8 * 3_600_000, "ms").dt.strftime("%Y-%m-%d %H:%M:%S%.3f")
        interactions.write(
            mine.select(
                "user_id",
                "author_id",
                "live_id",
                spelled(pl.lit(0)).alias("live_play_start_timestamp"),
                spelled(pl.lit(pl.Series(stay))).alias("live_play_end_timestamp"),
                pl.lit("20250505").alias("p_date"),
                pl.lit("feed").alias("live_source_category"),
                pl.lit("click").alias("enter_live_action"),
                pl.lit(0).alias("is_auto_play"),
                pl.lit(0).alias("is_follow_enter"),
                pl.Series("is_follow_leave", follows),
                pl.Series("play_duration", stay),
                pl.Series("like_cnt", of_play["like"] * 3),
                pl.Series("comment_cnt", of_play["comment"]),
                pl.Series("send_gift_cnt", gifts),
                pl.Series("send_gift_num", gifts * 10),
                pl.Series("follow_author_cnt", follows),
                pl.Series("cancel_follow_author_cnt", zero),
                pl.Series("share_cnt", of_play["share"]),
                pl.Series("report_live_cnt", zero),
            )
        )
        then = mine.with_columns(pl.Series("then", mine["at"].to_numpy() + stay // 2))
        of = {name: then.filter(pl.Series(happened == 1)) for name, happened in of_play.items()}
        acts["like"].write(of["like"].select("user_id", "live_id", like_timestamp="then"))
        comment = of["comment"].select(live_stream_id="live_id", user_id="user_id", author_id="author_id", comment_ts="then")
        acts["comment"].write(comment.with_columns(content=pl.lit("hello, there")))
        share_of = of["share"].select("user_id", "live_id", "author_id", share_timestamp="then")
        acts["share"].write(share_of.with_columns(is_share_success=pl.lit(1)))
    played = GrowingParquet(folder / "photo_play.parquet")
    for some in shows(rng, users, scaled(111_000_000, share, 4000), begin, days, 20.0):
        photo_N = popular(rng, photos, len(some))
        lasted = np.where(chance(rng, liking(some.user_N, photo_N, 1)), 8_000, 900) + rng.integers(0, 2_000, len(some))
        rows = pl.DataFrame({"user_id": some.user_N, "photo_id": photo_N, "at": some.at_N, "then": some.at_N + lasted})
        fixed = {"author_id": pl.col("photo_id") % authors + 1, "enter_play_type": pl.lit("slide")}
        flags = {name: pl.lit(0) for name in ("is_complete_play", "like_status_type", "is_follow_before_play")}
        times = {"enter_timestamp": moment_of("at"), "leave_timestamp": moment_of("then")}
        played.write(rows.select("user_id", "photo_id", **fixed, **times, **flags, is_follow_after_play=pl.lit(0)))
    for csv in (interactions, *acts.values()):
        csv.__exit__(None)
    for parquet in (shown, played):
        parquet.__exit__(None)
    counts = {"live_interaction": interactions.rows, "live_show": shown.rows, "photo_play": played.rows}
    counts |= {f"live_{name}": file.rows for name, file in acts.items()}
    return {**counts, "live_room_meta": rooms, "photo_meta": photos}
