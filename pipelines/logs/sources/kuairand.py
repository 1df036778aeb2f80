"""KuaiRand, the log of short videos of Kuaishou (Gao et al. 2022, CIKM), as canonical logs: its versions 1K, 27K and Pure.

All files of a folder are read, whichever version they are of: `log_standard_*`, `log_random_*`, `user_features_*`,
`video_features_basic_*`.

| canonical | from |
| --- | --- |
| impressions | a row each: `room_id` = `video_id`, `shown_at` = `time_ms`, with `context.tab`, `state.duration_ms` |
|  | and `state.is_rand` |
| engagements `enter` | rows with `is_click`, `value` = `play_time_ms` in seconds |
| engagements `play` | rows with a `play_time_ms` above 0, clicked or not, `value` = seconds |
| engagements `long_view`, `like`, `follow`, `comment`, `forward`, `hate` | rows with that mark |
| engagements `profile` | rows with `is_profile_enter`, `value` = `profile_stay_time` in seconds |
| engagements `read_comments` | rows with a `comment_stay_time` above 0, `value` = seconds |
| users | `user_features_*`, all columns under their own names |
| rooms | `video_features_basic_*`: `streamer_id` = `author_id`, `start_at` = `upload_dt`, all others under their own names |

Decisions:

* There is no request id: impressions of a user that follow each other closely are a feed (`prepare.feed_gap_seconds`).
* A click begins with the impression. When all else happened is not in the log; it was known at the latest when the play was
  over, so that is its time.
* `video_features_statistic_*` are means over the whole month, days after the feed included, and are left alone.
* A video's upload is a day in China; `date` and `hourmin` say again what `time_ms` says.
"""

from typing import Literal

import polars as pl

from models.config import config
from pipelines.logs.convert import DataSet, Kind, Made
from pipelines.logs.raw import DAY, INTEGER, NUMBER, TEXT, TIME, Layout, Raw, key, maybe, value
from pipelines.logs.sources.shared import attributes, engagements, impressions, only
from pipelines.places import Place

_CHINA = 8.0  # hours before UTC
_MARKS = {  # columns that say whether an action happened, in the order of the actions
    "long_view": "long_view",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "hate": "is_hate",
}
_LOG: dict[str, Raw] = {
    "user_id": key(INTEGER),
    "video_id": key(INTEGER),
    "time_ms": key(TIME),
    "is_click": key(INTEGER),
    **{column: key(INTEGER) for column in _MARKS.values()},
    "play_time_ms": value(NUMBER),
    "duration_ms": value(NUMBER),
    "profile_stay_time": value(NUMBER),
    "comment_stay_time": value(NUMBER),
    "is_profile_enter": key(INTEGER),
    "is_rand": value(INTEGER),
    "tab": value(INTEGER),
}
_RANGES = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_USER: dict[str, Raw] = {
    "user_id": key(INTEGER),
    "user_active_degree": maybe(TEXT),
    **{name: maybe(INTEGER) for name in ("is_lowactive_period", "is_live_streamer", "is_video_author")},
    **{column: maybe(holds) for name in _RANGES for column, holds in ((name, INTEGER), (f"{name}_range", TEXT))},
    **{f"onehot_feat{number}": maybe(INTEGER) for number in range(18)},
}
_VIDEO: dict[str, Raw] = {
    "video_id": key(INTEGER),
    "author_id": value(INTEGER),
    "video_type": maybe(TEXT),
    "upload_dt": maybe(DAY),
    "upload_type": maybe(TEXT),
    "visible_status": maybe(TEXT),
    **{name: maybe(NUMBER) for name in ("video_duration", "server_width", "server_height")},
    "music_id": maybe(INTEGER),
    "music_type": maybe(INTEGER),
    "tag": maybe(TEXT),
}


@config
class KuaiRandConfig:
    """Short videos of the KuaiRand data set, as it was published.

    Attributes:
        path: the folder that holds the CSV files of one version, packed (.gz, .zst) or not, or a zip of them.
    """

    kind: Literal["kuairand"] = "kuairand"
    path: Place


def _log(rows: pl.DataFrame, source: KuaiRandConfig) -> Made:
    shown = impressions(
        rows,
        room="video_id",
        at="time_ms",
        context__tab=pl.col("tab"),
        state__duration_ms=pl.col("duration_ms"),
        state__is_rand=pl.col("is_rand"),
    )
    begun = pl.col("time_ms")
    over = begun + pl.col("play_time_ms").fill_null(0).clip(0, 86_400_000).cast(pl.Int64)
    done = lambda action, happened, at, seconds=None: engagements(
        rows.filter(happened), action, room="video_id", at=at, value=None if seconds is None else pl.col(seconds) / 1000
    )
    acts = [
        done("enter", pl.col("is_click") == 1, begun, "play_time_ms"),
        done("play", pl.col("play_time_ms") > 0, begun, "play_time_ms"),
        *(done(action, pl.col(column) == 1, over) for action, column in _MARKS.items()),
        done("profile", pl.col("is_profile_enter") == 1, over, "profile_stay_time"),
        done("read_comments", pl.col("comment_stay_time") > 0, over, "comment_stay_time"),
    ]
    return Made({"impressions": shown, "engagements": pl.concat(acts)})


def _users(rows: pl.DataFrame, source: KuaiRandConfig) -> Made:
    return only("users", rows)


def _videos(rows: pl.DataFrame, source: KuaiRandConfig) -> Made:
    return only("rooms", attributes(rows, room_id="video_id", streamer_id="author_id", start_at="upload_dt"))


DATA = DataSet(
    "KuaiRand",
    (
        Kind("standard", Layout(_LOG, ("date", "hourmin")), _log, ("log_standard_*",)),
        Kind(
            "random",
            Layout(_LOG, ("date", "hourmin")),
            _log,
            ("log_random_*",),
            needed=False,
            gives="impressions of videos at random",
        ),
        Kind("users", Layout(_USER), _users, ("user_features_*",), needed=False, gives="attributes of users"),
        Kind(
            "videos",
            Layout(_VIDEO, utc_offset_hours=_CHINA),
            _videos,
            ("video_features_basic_*",),
            needed=False,
            gives="authors and attributes of videos",
        ),
    ),
)


def data_set(source: KuaiRandConfig) -> DataSet:
    return DATA
