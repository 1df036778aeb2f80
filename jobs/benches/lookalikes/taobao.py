"""Files that look like those of Taobao's UserBehavior."""

from pathlib import Path

import numpy as np
import polars as pl

from jobs.benches.lookalikes.shared import GrowingCsv, chance, liking, popular, scaled, shows


def taobao(folder: Path, share: float, *, seed: int = 0, days: int = 9) -> dict[str, int]:
    """UserBehavior.csv; a share of 1 has 100 M behaviours of 988 k users with 4.2 M items of 9.4 k categories."""
    rng, begin = np.random.default_rng(seed), 1_511_539_200_000  # 2017-11-25 00:00 in China
    users, items = scaled(987_994, share, 300), scaled(4_162_024, share, 400)
    with GrowingCsv(folder / "UserBehavior.csv", header=False) as file:
        for some in shows(rng, users, scaled(100_150_807, share, 4000), begin, days, 4.0):
            item_N = popular(rng, items, len(some))
            like = liking(some.user_N, item_N, 1)
            kind = np.full(len(some), "pv", "U4")
            for name, logit in (("cart", -2.6), ("fav", -3.2), ("buy", -3.6)):
                kind[chance(rng, logit + 1.2 * like)] = name
            again = np.repeat(np.arange(len(some)), np.where(kind == "pv", 1, 2))  # who buys has looked before
            second = np.r_[False, again[1:] == again[:-1]]
            what = np.where(second, kind[again], "pv")
            at = some.at_N[again] // 1000 + 20 * second
            file.write(
                pl.DataFrame(
                    {"user": some.user_N[again], "item": item_N[again], "category": item_N[again] % 300, "what": what, "at": at}
                )
            )
    return {"UserBehavior": file.rows}
