"""KuaiLive-M3, the log of live streams and short videos of one population of users, as canonical logs.

Short videos that a user played are the second domain: they take the place of clicked products.

| canonical | from |
| --- | --- |
| impressions | `live_interaction`, at the start of the play, and `live_show` (shown, not entered): `room_id` = `live_id` |
| engagements `enter` | `live_interaction`: at the start of the play, `value` = `play_duration` in seconds |
| engagements `gift` | `live_interaction` with `send_gift_cnt`: `value` = `send_gift_num`, gifts that were sent |
| engagements `follow`, | `live_interaction` with `follow_author_cnt`, `cancel_follow_author_cnt`, `report_live_cnt` |
| `unfollow`, `report` | |
| engagements `like`, | `live_like`, `live_comment`, `live_share`; where such a file is not there, the counts of |
| `comment`, `share` | `live_interaction` |
| rooms | `live_room_meta`: `streamer_id` = `author_id`, `start_at`, `end_at`, `live_name` |
| streamers | `author_profile`: `streamer_id` = `author_id`, all others under their own names |
| product_clicks | `photo_play`: `product_id` = `photo_id`, `at` = `leave_timestamp` |
| products | `photo_tag` and `photo_meta`: four levels of category, `author_id`, `duration`, `display_type`, `cover_title` |

Decisions:

* There is no request id: impressions of a user that follow each other closely are a feed (`prepare.feed_gap_seconds`).
* What is only counted over a play (gifts, follows, reports) was known at the latest at its end, so that is its time.
* A play of a short video counts once it is over, and if it lasted for `min_play_seconds`: videos play by themselves.
* The way of entering (`live_source_category`, `enter_live_action`, `is_auto_play`, `is_follow_enter`) is known of rooms that
  were entered alone. As a column it would give the click away, so it is left alone; so is `live_duration`, which knows a
  room's end from its start.
* A room that goes on over midnight may have a row a day: the earliest start and the latest end count.
* Times are Unix milliseconds, or dates with a time: those without a zone are taken as `utc_offset_hours` says.
"""

from dataclasses import replace
from functools import partial
from typing import Literal

import polars as pl

from models.config import config
from pipelines.logs.convert import DataSet, Kind, Made
from pipelines.logs.raw import INTEGER, NUMBER, TEXT, TIME, Layout, Raw, key, maybe, value
from pipelines.logs.sources.shared import attributes, engagements, impressions, only
from pipelines.places import Place

_COUNTED = {"like": "like_cnt", "comment": "comment_cnt", "share": "share_cnt"}  # in files of their own too
_ALONE = {"follow": "follow_author_cnt", "unfollow": "cancel_follow_author_cnt", "report": "report_live_cnt"}
_ENTERED = ("p_date", "live_source_category", "enter_live_action", "is_auto_play", "is_follow_enter", "is_follow_leave")
_INTERACTION: dict[str, Raw] = {
    "user_id": key(INTEGER),
    "live_id": key(INTEGER),
    "live_play_start_timestamp": key(TIME),
    "live_play_end_timestamp": value(TIME),
    "play_duration": value(NUMBER),
    **{column: value(INTEGER) for column in _COUNTED.values()},
    "send_gift_cnt": value(INTEGER),
    "send_gift_num": value(INTEGER),
    **{column: value(INTEGER) for column in _ALONE.values()},
}
_PLAY: dict[str, Raw] = {
    "user_id": key(INTEGER),
    "photo_id": key(INTEGER),
    "enter_timestamp": key(TIME),
    "leave_timestamp": key(TIME),
}
_TYPES_OF_PLAY = (
    "author_id",
    "enter_play_type",
    "is_complete_play",
    "like_status_type",
    "is_follow_before_play",
    "is_follow_after_play",
)
_LEVELS = tuple(f"{level}_level_category_name" for level in ("first", "second", "third", "fourth"))


@config
class KuaiLiveM3Config:
    """Live rooms and short videos of the KuaiLive-M3 data set, as it was published.

    Attributes:
        path: the folder that holds its files, packed (.gz, .zst) or not, or a zip of them.
        min_play_seconds: a short video counts as clicked once it has played for so long.
        utc_offset_hours: of times that are written as dates without a zone; China's by default.
    """

    kind: Literal["kuailive_m3"] = "kuailive_m3"
    path: Place
    min_play_seconds: float = 3.0
    utc_offset_hours: float = 8.0


def _interactions(rows: pl.DataFrame, source: KuaiLiveM3Config, *, counted: tuple[str, ...]) -> Made:
    """
    Args:
        counted: actions whose counts are taken, since no file says when each of them happened.
    """
    begun = pl.col("live_play_start_timestamp")
    lasted = pl.col("play_duration").fill_null(0).clip(0, 86_400_000).cast(pl.Int64)
    over = pl.max_horizontal(pl.coalesce(pl.col("live_play_end_timestamp"), begun + lasted), begun)
    some = lambda action, count, many: engagements(
        rows.filter(pl.col(count) > 0), action, room="live_id", at=over, value=pl.col(many)
    )
    acts = [
        engagements(rows, "enter", room="live_id", at=begun, value=pl.col("play_duration") / 1000),
        some("gift", "send_gift_cnt", "send_gift_num"),
        *(some(action, column, column) for action, column in _ALONE.items()),
        *(some(action, _COUNTED[action], _COUNTED[action]) for action in counted),
    ]
    shown = impressions(rows, room="live_id", at="live_play_start_timestamp")
    return Made({"impressions": shown, "engagements": pl.concat(acts)})


def _shows(rows: pl.DataFrame, source: KuaiLiveM3Config) -> Made:
    return only("impressions", impressions(rows, room="live_id", at="show_timestamp"))


def _acts(rows: pl.DataFrame, source: KuaiLiveM3Config, *, action: str, room: str, at: str) -> Made:
    return only("engagements", engagements(rows, action, room=room, at=pl.col(at)))


def _rooms(rows: pl.DataFrame, source: KuaiLiveM3Config) -> Made:
    renamed = {"room_id": "live_id", "streamer_id": "author_id", "start_at": "start_timestamp", "end_at": "end_timestamp"}
    return only("rooms", attributes(rows, **renamed))


def _streamers(rows: pl.DataFrame, source: KuaiLiveM3Config) -> Made:
    return only("streamers", attributes(rows, streamer_id="author_id"))


def _plays(rows: pl.DataFrame, source: KuaiLiveM3Config) -> Made:
    lasted = pl.col("leave_timestamp") - pl.col("enter_timestamp")
    long_enough = rows.filter(lasted >= round(source.min_play_seconds * 1000))
    clicks = long_enough.select("user_id", pl.col("photo_id").alias("product_id"), pl.col("leave_timestamp").alias("at"))
    return Made({"product_clicks": clicks}, {f"played for less than {source.min_play_seconds:g} s": len(rows) - len(clicks)})


def _photos(rows: pl.DataFrame, source: KuaiLiveM3Config) -> Made:
    return only("products", attributes(rows, product_id="photo_id"))


_EVENTS = {  # files of actions: columns of their room and time
    "like": ("live_id", "like_timestamp", ()),
    "comment": ("live_stream_id", "comment_ts", ("content", "author_id")),
    "share": ("live_id", "share_timestamp", ("author_id", "is_share_success")),
}
_META: dict[str, Raw] = {
    "live_id": key(INTEGER),
    "author_id": key(INTEGER),
    "start_timestamp": value(TIME),
    "end_timestamp": value(TIME),
    "live_name": maybe(TEXT),
}
_AUTHOR: dict[str, Raw] = {
    "author_id": key(INTEGER),
    **{name: maybe(INTEGER) for name in ("is_photo_author", "is_live_author")},
    **{name: maybe(TEXT) for name in ("gender", "age_segment", "fans_user_num")},
}
_PHOTO: dict[str, Raw] = {
    "photo_id": key(INTEGER),
    "author_id": maybe(INTEGER),
    "duration": maybe(NUMBER),
    "display_type": maybe(TEXT),
    "cover_title": maybe(TEXT),
}
_SHOW: dict[str, Raw] = {"user_id": key(INTEGER), "live_id": key(INTEGER), "show_timestamp": key(TIME)}
DATA = DataSet(
    "KuaiLive-M3",
    (
        Kind("live_interaction", Layout(_INTERACTION, ("author_id", *_ENTERED)), partial(_interactions, counted=())),
        Kind("live_show", Layout(_SHOW, ("author_id",)), _shows, form="parquet"),
        *(
            Kind(
                f"live_{action}",
                Layout({"user_id": key(INTEGER), room: key(INTEGER), at: key(TIME)}, passed),
                partial(_acts, action=action, room=room, at=at),
                needed=False,
                gives=f"moments of {action}s, so they are counted by play, at its end",
            )
            for action, (room, at, passed) in _EVENTS.items()
        ),
        Kind("live_room_meta", Layout(_META, ("live_duration",)), _rooms, form="parquet"),
        Kind("author_profile", Layout(_AUTHOR), _streamers, needed=False, gives="attributes of streamers"),
        Kind("photo_play", Layout(_PLAY, _TYPES_OF_PLAY), _plays, needed=False, gives="second domain", form="parquet"),
        Kind(
            "photo_tag",
            Layout({"photo_id": key(INTEGER), **{level: maybe(TEXT) for level in _LEVELS}}),
            _photos,
            needed=False,
            gives="categories of short videos",
        ),
        Kind(
            "photo_meta", Layout(_PHOTO, ("video_texts",)), _photos, needed=False, gives="authors and lengths of short videos"
        ),
    ),
)


def data_set(source: KuaiLiveM3Config) -> DataSet:
    there = {each.kind for each in DATA.find(source.path).inputs}
    counted = tuple(action for action in _COUNTED if f"live_{action}" not in there)
    first, *others = DATA.kinds
    kinds = (replace(first, make=partial(_interactions, counted=counted)), *others)
    of_here = [replace(kind, layout=replace(kind.layout, utc_offset_hours=source.utc_offset_hours)) for kind in kinds]
    return replace(DATA, kinds=tuple(of_here))
