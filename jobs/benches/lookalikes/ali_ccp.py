"""Files that look like those of Ali-CCP."""

from pathlib import Path

import numpy as np
import polars as pl

from jobs.benches.lookalikes.shared import GrowingCsv, chance, liking, popular, scaled

_PAGES_AT_ONCE = 5_000
_OF_PAGE = (101, 121, 122, 124, 125, 126, 127, 128, 129)
_OF_SAMPLE = (205, 206, 207, 216, 301, 508, 509, 702, 853)


def ali_ccp(folder: Path, share: float, *, seed: int = 0, days: int = 0) -> dict[str, int]:
    """Samples and page views of both parts; a share of 1 has 42 M samples of 730 k page views to train on, 43 M to test.

    Args:
        days: there are none.
    """
    rng = np.random.default_rng(seed)
    users, items = scaled(238_635, share, 200), scaled(467_298, share, 300)
    counts: dict[str, int] = {}
    for split, samples, pages in (("train", 42_300_135, 730_600), ("test", 43_016_840, 884_212)):
        skeleton = GrowingCsv(folder / f"sample_skeleton_{split}.csv", header=False)
        common = GrowingCsv(folder / f"common_features_{split}.csv", header=False)
        wanted, per_page = scaled(pages, share, 300), samples / pages * min(1.0, share * 1e4 / 4)  # short feeds where few
        done = 0
        while done < wanted:
            some = min(_PAGES_AT_ONCE, wanted - done)
            user_P = 1 + (users * rng.random(some) ** 2).astype(np.int64)
            index_P = np.char.add(f"{split[0]}{seed:x}", (np.arange(done, done + some)).astype(str))
            of_page = {101: user_P, **{field: 10 * field + user_P % (field - 118) for field in _OF_PAGE[1:]}}
            visited = 1_000_000 + rng.integers(0, 500_000, (some, 60))
            common.write(
                pl.DataFrame({"index": index_P, "count": np.full(some, len(of_page) + 60)}).with_columns(
                    list=_listed(of_page, {"109_14": visited[:, :30], "150_14": visited[:, 30:]})
                )
            )
            size_P = 1 + rng.poisson(max(per_page - 1, 3.0), some)
            page_S = np.repeat(np.arange(some), size_P)
            item_S = popular(rng, items, len(page_S))
            once = np.unique(page_S * (items + 1) + item_S, return_index=True)[1]  # an item stands once on a page
            page_S, item_S = page_S[once], item_S[once]
            like_S = liking(user_P[page_S], item_S, 1)
            clicked = chance(rng, -2.6 + 1.5 * like_S)
            bought = clicked & chance(rng, -2.2 + 1.5 * like_S)
            of_sample = {205: item_S, **{field: 100_000 * field + item_S % (field - 100) for field in _OF_SAMPLE[1:]}}
            of_sample[301] = 9_351_665 + user_P[page_S] % 3
            rows = pl.DataFrame(
                {
                    "sample": np.arange(len(page_S)) + skeleton.rows,
                    "click": clicked.astype(np.int64),
                    "purchase": bought.astype(np.int64),
                    "index": index_P[page_S],
                    "count": np.full(len(page_S), len(of_sample)),
                }
            )
            skeleton.write(rows.with_columns(list=_listed(of_sample, {})))
            done += some
        for name, file in (("sample_skeleton", skeleton), ("common_features", common)):
            file.__exit__(None)
            counts[f"{name}_{split}"] = file.rows
    return counts


def _listed(fields: dict[int, np.ndarray], several: dict[str, np.ndarray]) -> pl.Series:
    """Lists of features as the files have them; those of `several` fields have many values, with weights."""
    single = [(str(field), ids, "1.0") for field, ids in fields.items()]
    many = [(field, ids[:, place], "0.69315") for field, ids in several.items() for place in range(ids.shape[1])]
    parts = [
        pl.lit(f"{field}\x02") + pl.lit(pl.Series(ids)).cast(pl.String) + pl.lit(f"\x03{weight}")
        for field, ids, weight in (*single, *many)
    ]
    return pl.select(pl.concat_str(parts, separator="\x01")).to_series()
