"""The log of the WeChat Big Data Challenge 2021 (short videos), STAN's public set, as canonical logs.

A video that was watched is a feed of one room; its author is the streamer.

| canonical | from |
| --- | --- |
| impressions | one a row of `user_action`: `room_id` = `feedid`, `context.device` = `device`, a `request_id` of its own |
| engagements `enter` | one a row, `value` = `stay` in seconds |
| engagements `play` | one a row, `value` = `play` in seconds |
| engagements `read_comment`, ..., `favorite` | one a row where the column of that name is above 0 |
| rooms | one a row of `feed_info`: `streamer_id` = `authorid`, `seconds` = `videoplayseconds`, `song` and |
|  | `singer`, `tag` = the first of the manual tags, `machine_tag` = the likeliest of the machine's |

Decisions:

* The log knows the day and, in the order of the rows, what came before what. So a user's day begins at midnight, and each
  row follows when the stay of the one before is over: stays count there for a second at least and a minute at most, with a
  second in between. What would lie beyond the day lies in its last millisecond. Days count from a date that is only a name
  for them (day 1 is 2021-01-01); hours of the day mean nothing.
* Every row is a feed of its own, for one video was on the screen. All were entered, so entering is no target.
* Texts of the videos (words of description, speech and pictures, as numbers) are not read.
"""

from collections.abc import Mapping
from typing import Any, Literal

import polars as pl

from models.config import config
from pipelines.logs.convert import DataSet, Gather, Gathered, Kind, Made
from pipelines.logs.raw import INTEGER, NUMBER, TEXT, Layout, key, value
from pipelines.logs.sources.shared import only
from pipelines.places import Place

_MARKS = ("read_comment", "comment", "like", "click_avatar", "forward", "follow", "favorite")
_DAY_1, _DAY_MS = 1_609_459_200_000, 86_400_000
_SHORTEST, _LONGEST, _PAUSE = 1_000, 60_000, 1_000  # ms of a stay on the clock of a day, and between two
_BITS = 24  # of a request id that number a user's rows
_ACTIONS = {
    "userid": key(INTEGER),
    "feedid": key(INTEGER),
    "date_": key(INTEGER),
    "device": value(INTEGER),
    "play": value(NUMBER),
    "stay": value(NUMBER),
    **{name: value(INTEGER) for name in _MARKS},
}
_VIDEO = {
    "feedid": key(INTEGER),
    "authorid": value(INTEGER),
    "videoplayseconds": value(NUMBER),
    "bgm_song_id": value(NUMBER),  # as pandas writes integers with gaps
    "bgm_singer_id": value(NUMBER),
    "manual_tag_list": value(TEXT),
    "machine_tag_list": value(TEXT),
}
_TEXTS = (
    *("description", "ocr", "asr", "manual_keyword_list", "machine_keyword_list"),
    *("description_char", "ocr_char", "asr_char"),
)


@config
class Wechat2021Config:
    """Short videos of the WeChat Big Data Challenge 2021, as they were published.

    Attributes:
        path: the folder that holds user_action.csv and, maybe, feed_info.csv, packed (.gz, .zst) or not, or its zip.
    """

    kind: Literal["wechat2021"] = "wechat2021"
    path: Place


def _actions(rows: pl.DataFrame, source: Wechat2021Config) -> Made:
    return only("actions", rows.rename({"userid": "user_id"}))


def _views(parts: Mapping[str, pl.DataFrame], source: Any) -> Gathered:
    """All rows of some users, in the order of the file."""
    rows, day = parts["actions"], ["user_id", "date_"]
    took = pl.col("stay").fill_null(0).clip(_SHORTEST, _LONGEST).cast(pl.Int64) + _PAUSE
    passed = took.cum_sum().over(day) - took
    number = pl.int_range(1, pl.len() + 1).over("user_id")
    rows = rows.with_columns(
        at=_DAY_1 + (pl.col("date_") - 1) * _DAY_MS + passed.clip(0, _DAY_MS - 1),
        request_id=pl.col("user_id") * 2**_BITS + number,
    )
    shown = rows.select(
        "request_id",
        "user_id",
        pl.col("feedid").alias("room_id"),
        pl.col("at").alias("shown_at"),
        pl.col("device").alias("context.device"),
    )
    done = lambda of, action, value: of.select(
        "user_id",
        pl.col("feedid").alias("room_id"),
        "at",
        pl.lit(action).alias("action"),
        value.cast(pl.Float64).alias("value"),
        "request_id",
    )
    acts = [done(rows, "enter", pl.col("stay") / 1000), done(rows, "play", pl.col("play") / 1000)]
    acts += [done(rows.filter(pl.col(name) > 0), name, pl.lit(None)) for name in _MARKS]
    return Gathered({"impressions": shown, "engagements": pl.concat(acts)})


def _videos(rows: pl.DataFrame, source: Wechat2021Config) -> Made:
    """A machine's tag is written `tag likelihood`; tags are parted by `;`."""
    likely = pl.element().str.split(" ").list.get(1, null_on_oob=True).cast(pl.Float64, strict=False)
    tags = pl.col("machine_tag_list").str.split(";")
    best = tags.list.get(tags.list.eval(likely).list.arg_max()).str.split(" ").list.first()
    whole = lambda of: of.cast(pl.Int64, strict=False)
    videos = rows.select(
        pl.col("feedid").alias("room_id"),
        pl.col("authorid").alias("streamer_id"),
        pl.col("videoplayseconds").alias("seconds"),
        whole(pl.col("bgm_song_id")).alias("song"),
        whole(pl.col("bgm_singer_id")).alias("singer"),
        whole(pl.col("manual_tag_list").str.split(";").list.first()).alias("tag"),
        whole(best).alias("machine_tag"),
    )
    return only("rooms", videos)


DATA = DataSet(
    "the WeChat Big Data Challenge 2021",
    (
        Kind("user_action", Layout(_ACTIONS), _actions),
        Kind("feed_info", Layout(_VIDEO, _TEXTS), _videos, needed=False, gives="authors, tags and music of videos"),
    ),
    (Gather("views", "user_id", ("actions",), _views),),
)


def data_set(source: Wechat2021Config) -> DataSet:
    return DATA
