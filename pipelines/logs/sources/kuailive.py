"""KuaiLive, the log of live streaming of Kuaishou (Qu et al. 2025, arXiv 2508.05633), as canonical logs.

| canonical | from |
| --- | --- |
| impressions | `click.csv` and `negative.csv`, a row each: `room_id` = `live_id`, `shown_at` = `timestamp` |
| engagements `enter` | `click.csv`, `value` = `watch_live_time` in seconds |
| engagements `comment`, `like` | `comment.csv`, `like.csv`, without a value |
| engagements `gift` | `gift.csv`, `value` = `gift_price` |
| rooms | `room.csv`: `streamer_id`, `start_at`, `end_at`, `live_type`, `live_content_category`, `live_name_id` |
| users, streamers | `user.csv`, `streamer.csv`, all columns under their own names; days as Unix milliseconds |

Decisions:

* There is no request id: impressions of a user that follow each other closely are a feed (`prepare.feed_gap_seconds`).
* A click is an impression at the moment of the click: when the room had been shown before is not in the log.
* An unknown watch time is left unknown: the click counts as entering, and reached no threshold of staying.
* A room that goes on over midnight may have a row a day (`p_date`): the earliest start and the latest end count.
* Days (`reg_timestamp`, `first_live_timestamp`, ...) are days in China.
* Ranges of users and streamers (`fans_user_num`, `accu_play_cnt`, ...) stay text, and are as of the end of the window: what
  is learnt from them knows a little of what came later.
"""

from typing import Literal

import polars as pl

from models.config import config
from pipelines.logs.convert import DataSet, Kind, Made
from pipelines.logs.raw import DAY, INTEGER, NUMBER, TEXT, TIME, Layout, Raw, key, maybe, value
from pipelines.logs.sources.shared import attributes, engagements, impressions, only
from pipelines.places import Place

_CHINA = 8.0  # hours before UTC
_EVENT: dict[str, Raw] = {"user_id": key(INTEGER), "live_id": key(INTEGER), "timestamp": key(TIME)}
_ENCRYPTED: dict[str, Raw] = {f"onehot_feat{number}": maybe(INTEGER) for number in range(7)}
_ROOM: dict[str, Raw] = {
    "live_id": key(INTEGER),
    "streamer_id": key(INTEGER),
    "start_timestamp": value(TIME),
    "end_timestamp": value(TIME),
    "live_type": maybe(INTEGER),
    "live_content_category": maybe(TEXT),
    "live_name_id": maybe(INTEGER),
}
_USER: dict[str, Raw] = {
    "user_id": key(INTEGER),
    **{name: maybe(TEXT) for name in ("age", "gender", "country", "device_brand", "device_price")},
    "reg_timestamp": maybe(DAY),
    **{name: maybe(TEXT) for name in ("fans_num", "follow_num")},
    "first_watch_live_timestamp": maybe(DAY),
    **{name: maybe(TEXT) for name in ("accu_watch_live_cnt", "accu_watch_live_duration")},
    "is_live_streamer": maybe(INTEGER),
    "is_photo_author": maybe(INTEGER),
    **_ENCRYPTED,
}
_STREAMER: dict[str, Raw] = {
    "streamer_id": key(INTEGER),
    **{name: maybe(TEXT) for name in ("gender", "age", "country", "device_brand", "device_price", "live_operation_tag")},
    **{name: maybe(TEXT) for name in ("fans_user_num", "fans_group_fans_num", "follow_user_num")},
    "first_live_timestamp": maybe(DAY),
    **{name: maybe(TEXT) for name in ("accu_live_cnt", "accu_live_duration", "accu_play_cnt", "accu_play_duration")},
    "reg_timestamp": maybe(DAY),
    **_ENCRYPTED,
}


@config
class KuaiLiveConfig:
    """Live rooms of the KuaiLive data set, as it was published.

    Attributes:
        path: the folder that holds its CSV files, packed (.gz, .zst) or not, or its zip.
    """

    kind: Literal["kuailive"] = "kuailive"
    path: Place


def _clicks(rows: pl.DataFrame, source: KuaiLiveConfig) -> Made:
    entered = engagements(rows, "enter", room="live_id", at=pl.col("timestamp"), value=pl.col("watch_live_time") / 1000)
    return Made({"impressions": impressions(rows, room="live_id", at="timestamp"), "engagements": entered})


def _negatives(rows: pl.DataFrame, source: KuaiLiveConfig) -> Made:
    return only("impressions", impressions(rows, room="live_id", at="timestamp"))


def _comments(rows: pl.DataFrame, source: KuaiLiveConfig) -> Made:
    return only("engagements", engagements(rows, "comment", room="live_id", at=pl.col("timestamp")))


def _likes(rows: pl.DataFrame, source: KuaiLiveConfig) -> Made:
    return only("engagements", engagements(rows, "like", room="live_id", at=pl.col("timestamp")))


def _gifts(rows: pl.DataFrame, source: KuaiLiveConfig) -> Made:
    gifts = engagements(rows, "gift", room="live_id", at=pl.col("timestamp"), value=pl.col("gift_price"))
    return only("engagements", gifts)


def _rooms(rows: pl.DataFrame, source: KuaiLiveConfig) -> Made:
    return only("rooms", attributes(rows, room_id="live_id", start_at="start_timestamp", end_at="end_timestamp"))


def _users(rows: pl.DataFrame, source: KuaiLiveConfig) -> Made:
    return only("users", rows)


def _streamers(rows: pl.DataFrame, source: KuaiLiveConfig) -> Made:
    return only("streamers", rows)


DATA = DataSet(
    "KuaiLive",
    (
        Kind("click", Layout({**_EVENT, "watch_live_time": value(NUMBER)}, ("streamer_id",)), _clicks),
        Kind("negative", Layout(_EVENT, ("streamer_id",)), _negatives),
        Kind("comment", Layout(_EVENT, ("streamer_id",)), _comments, needed=False, gives="comments"),
        Kind("like", Layout(_EVENT, ("streamer_id",)), _likes, needed=False, gives="likes"),
        Kind("gift", Layout({**_EVENT, "gift_price": key(NUMBER)}, ("streamer_id",)), _gifts, needed=False, gives="gifts"),
        Kind("room", Layout(_ROOM, ("p_date",)), _rooms),
        Kind("user", Layout(_USER, utc_offset_hours=_CHINA), _users, needed=False, gives="attributes of users"),
        Kind("streamer", Layout(_STREAMER, utc_offset_hours=_CHINA), _streamers, needed=False, gives="attributes of streamers"),
    ),
)


def data_set(source: KuaiLiveConfig) -> DataSet:
    return DATA
