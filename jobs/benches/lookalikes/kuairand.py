"""Files that look like those of KuaiRand-27K."""

from pathlib import Path

import numpy as np
import polars as pl

from jobs.benches.lookalikes.shared import DAY, GrowingCsv, chance, liking, popular, scaled, shows

_RARE = {"is_like": -3.6, "is_follow": -5.0, "is_comment": -4.6, "is_forward": -5.0, "is_hate": -5.0}


def kuairand(folder: Path, share: float, *, seed: int = 0, days: int = 31) -> dict[str, int]:
    """The files of KuaiRand-27K; a share of 1 has 322 M interactions of 27 k users with 32 M videos."""
    rng, begin = np.random.default_rng(seed), 1_649_347_200_000  # 2022-04-08 00:00 in China
    users, videos = scaled(27_285, share, 150), scaled(32_038_725, share, 500)
    pick = lambda count, *values: np.array(values)[rng.integers(0, len(values), count)]
    ranges = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
    numbers = {name: rng.integers(0, 1000, users) for name in ranges}
    texts = {f"{name}_range": pick(users, "0", "500+") for name in ranges}
    pl.DataFrame(
        {
            "user_id": np.arange(users),
            "user_active_degree": pick(users, "high_active", "full_active", "middle_active", "UNKNOWN"),
            **{name: rng.integers(0, 2, users) for name in ("is_lowactive_period", "is_live_streamer", "is_video_author")},
            **numbers,
            **texts,
            **{f"onehot_feat{number}": rng.integers(0, 2 + number, users) for number in range(18)},
        }
    ).write_csv(folder / "user_features_27k.csv")
    day = (np.datetime64("2022-03-01") + rng.integers(0, 38, videos)).astype(str)
    pl.DataFrame(
        {
            "video_id": np.arange(1, videos + 1),
            "author_id": popular(rng, max(60, videos // 4), videos),
            "video_type": pick(videos, "NORMAL", "NORMAL", "AD"),
            "upload_dt": day,
            "upload_type": pick(videos, "ShortImport", "ShortCamera"),
            "visible_status": 1,
            "video_duration": (5_000 + rng.integers(0, 60_000, videos)).astype(np.float64),
            "server_width": 720,
            "server_height": 1280,
            "music_id": rng.integers(1, 10**9, videos),
            "music_type": rng.integers(0, 10, videos),
            "tag": (np.arange(1, videos + 1) % 60).astype(str),
        }
    ).write_csv(folder / "video_features_basic_27k.csv")
    names = {"early": "log_standard_4_08_to_4_21_27k_part1", "late": "log_standard_4_22_to_5_08_27k_part1"}
    files = {
        name: GrowingCsv(folder / f"{file}.csv") for name, file in (*names.items(), ("random", "log_random_4_22_to_5_08_27k"))
    }
    for some in shows(rng, users, scaled(323_500_000, share, 4000), begin, days, 8.0):
        video_N = popular(rng, videos, len(some))
        like = liking(some.user_N - 1, video_N, 1)
        length = 5_000 + (video_N * 7919) % 60_000
        played = np.where(chance(rng, like - 0.4), rng.lognormal(9.7, 0.8, len(some)), rng.lognormal(7, 0.8, len(some))).astype(
            np.int64
        )
        does = {name: chance(rng, at + 1.2 * like).astype(np.int64) for name, at in _RARE.items()}
        at_random = rng.random(len(some)) < 0.004
        rows = pl.DataFrame(
            {
                "user_id": some.user_N - 1,
                "video_id": video_N,
                "date": 20220421,
                "hourmin": 400,
                "time_ms": some.at_N,
                "is_click": (played > np.minimum(7_000, length)).astype(np.int64),
                **does,
                "long_view": (played >= np.minimum(18_000, length)).astype(np.int64),
                "play_time_ms": played,
                "duration_ms": length,
                "profile_stay_time": does["is_follow"] * 2_000,
                "comment_stay_time": does["is_comment"] * 9_000,
                "is_profile_enter": does["is_follow"],
                "is_rand": at_random.astype(np.int64),
                "tab": some.user_N % 3,
            }
        )
        early = some.at_N < begin + days * DAY * 14 // 31
        for name, which in (("early", early & ~at_random), ("late", ~early & ~at_random), ("random", at_random)):
            files[name].write(rows.filter(which))
    for file in files.values():
        file.__exit__(None)
    return {**{name: file.rows for name, file in files.items()}, "user_features": users, "video_features_basic": videos}
