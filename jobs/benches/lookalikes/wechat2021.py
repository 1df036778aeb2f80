"""Files that look like those of the WeChat Big Data Challenge 2021."""

from pathlib import Path

import numpy as np
import polars as pl

from jobs.benches.lookalikes.shared import DAY, GrowingCsv, chance, liking, popular, scaled, shows

_LOGITS = {"read_comment": -2.5, "comment": -5, "like": -2.6, "click_avatar": -3, "forward": -3.4, "follow": -5, "favorite": -5}


def wechat2021(folder: Path, share: float, *, seed: int = 0, days: int = 14) -> dict[str, int]:
    """Both files; a share of 1 has 7.3 M views of 20 k users with 106 k videos of 19 k authors."""
    rng = np.random.default_rng(seed)
    users, videos, authors = scaled(20_000, share, 200), scaled(106_444, share, 300), scaled(18_789, share, 60)
    with GrowingCsv(folder / "user_action.csv") as actions:
        for some in shows(rng, users, scaled(7_317_882, share, 6000), 0, days, 12.0):
            video_N = popular(rng, videos, len(some))
            like = liking(some.user_N, video_N % authors, 1)
            stay_N = np.exp(8.5 + like + 0.8 * rng.standard_normal(len(some))).astype(np.int64)
            marks = {name: chance(rng, logit + 1.2 * like).astype(np.int64) for name, logit in _LOGITS.items()}
            rows = {
                "userid": some.user_N,
                "feedid": video_N,
                "date_": 1 + np.minimum(some.at_N // DAY, days - 1),
                "device": 1 + some.user_N % 2,
                "read_comment": marks["read_comment"],
                "comment": marks["comment"],
                "like": marks["like"],
                "play": stay_N * 9 // 10,
                "stay": stay_N,
                **{name: marks[name] for name in ("click_avatar", "forward", "follow", "favorite")},
            }
            actions.write(pl.DataFrame(rows))
    ids = np.arange(1, videos + 1)
    tags = pl.Series("tag", ids % 40)
    with GrowingCsv(folder / "feed_info.csv") as info:
        info.write(
            pl.DataFrame(
                {
                    "feedid": ids,
                    "authorid": ids % authors,
                    "videoplayseconds": 5 + ids % 55,
                    **{name: [""] * videos for name in ("description", "ocr", "asr")},
                    "bgm_song_id": (ids % 500).astype(float),
                    "bgm_singer_id": (ids % 200).astype(float),
                    **{name: [""] * videos for name in ("manual_keyword_list", "machine_keyword_list")},
                    "manual_tag_list": tags.cast(pl.String),
                    "machine_tag_list": tags.cast(pl.String) + " 0.75;" + ((tags + 1) % 40).cast(pl.String) + " 0.25",
                    **{name: [""] * videos for name in ("description_char", "ocr_char", "asr_char")},
                }
            )
        )
    return {"user_action": actions.rows, "feed_info": info.rows}
