"""Files that fit `jobs/configs/csv.yaml`: those of anybody's live-stream shop."""

from pathlib import Path

import numpy as np
import polars as pl

from jobs.benches.lookalikes.shared import DAY, GrowingCsv, chance, liking, popular, scaled, shows


def csv(folder: Path, share: float, *, seed: int = 0, days: int = 14) -> dict[str, int]:
    """Shows, visits, purchases, rooms and viewers; a share of 1 has 10 M shows. Returns rows by file."""
    rng, begin = np.random.default_rng(seed), 1_756_684_800_000
    users, hosts, rooms = scaled(100_000, share, 150), scaled(20_000, share, 60), scaled(400_000, share, 400)
    ages = pl.Series(rng.integers(14, 80, users))
    cities = np.array(["Rome", "Lima", "Oslo"])[rng.integers(0, 3, users)]
    pl.DataFrame({"viewer": np.arange(1, users + 1), "age": ages, "city": cities}).write_csv(folder / "viewers.csv")
    begun_M = np.sort(begin // 1000 - 20_000 + (rng.random(rooms) * days * DAY / 1000).astype(np.int64))
    host_M = popular(rng, hosts, rooms)
    pl.DataFrame(
        {
            "live": np.arange(1, rooms + 1),
            "host": host_M,
            "begun": begun_M,
            "ended": begun_M + 3 * 86_400,
            "category": np.array(["shoes", "tea", "toys"])[host_M % 3],
        }
    ).write_parquet(folder / "lives.parquet")
    shown, visits, shop = (GrowingCsv(folder / f"{name}.csv") for name in ("shows", "visits", "shop"))
    for some in shows(rng, users, scaled(10_000_000, share, 3000), begin, days, 6.0):
        at_N = some.at_N // 1000
        newest = np.searchsorted(begun_M, at_N) - 1
        room_N = np.maximum(newest - rng.integers(0, max(2, rooms // days // 4), len(some)), 0)
        place_N = np.arange(len(some)) - np.searchsorted(some.session_N, some.session_N)
        rows = pl.DataFrame(
            {
                "request": np.char.add("r", some.session_N.astype(str)),
                "viewer": some.user_N,
                "live": room_N + 1,
                "time": at_N,
                "place": place_N,
                "device": np.array(["ios", "android"])[some.user_N % 2],
            }
        ).unique(["request", "live"], keep="first", maintain_order=True)
        shown.write(rows)
        like_N = liking(rows["viewer"].to_numpy(), host_M[rows["live"].to_numpy() - 1], 1)
        entered = chance(rng, -0.8 + 1.5 * like_N)
        mine, like = rows.filter(entered).drop("place", "device"), like_N[entered]
        does = lambda logit, like=like: chance(rng, logit + like)
        marks = {"liked": does(-2.5).astype(np.int64), "followed": does(-3.0).astype(np.int64)}
        stay = (rng.lognormal(10, 1, len(mine))).astype(np.int64)
        visits.write(mine.with_columns(stay_ms=pl.Series(stay), **{name: pl.Series(mark) for name, mark in marks.items()}))
        looked = does(-1.0)
        bag = mine.filter(looked).select("viewer", "live", pl.col("time") + 5, what=pl.lit("bag"), price=pl.lit(0.0))
        bought = chance(rng, np.full(len(bag), -1.0))
        prices = pl.Series(np.round(rng.lognormal(3, 1, int(bought.sum())), 2))
        buy = bag.filter(bought).with_columns(pl.col("time") + 30, what=pl.lit("buy"), price=prices)
        shop.write(pl.concat([bag, buy, bag.head(1).with_columns(what=pl.lit("share"))]))
    for file in (shown, visits, shop):
        file.__exit__(None)
    return {"shows": shown.rows, "visits": visits.rows, "shop": shop.rows, "lives": rooms, "viewers": users}
