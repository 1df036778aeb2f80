"""The log of the WeChat Big Data Challenge 2021 (short videos), as canonical logs.

Reads from the folder the user names: `user_action.csv` and, if it is there, `feed_info.csv`. A video that was watched is a
feed of one room; its author is the streamer.

| canonical | from |
| --- | --- |
| impressions | one a row of `user_action`: `room_id` = `feedid`, `request_id` = number of the row, |
|  | `context.device` = `device` |
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

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, cast

import polars as pl
import pyarrow as pa
import pyarrow.csv as csv

from models.config import ConfigError, config
from pipelines.logs.account import Converted
from pipelines.logs.files import GrowingFolder
from pipelines.paths import LocalPath

ACTIONS = ("read_comment", "comment", "like", "click_avatar", "forward", "follow", "favorite")
_DAY_1, _DAY_MS = 1_609_459_200_000, 86_400_000
_SHORTEST, _LONGEST, _PAUSE = 1_000, 60_000, 1_000  # ms of a stay on the clock of a day, and between two
_BLOCK = 16 << 20  # bytes of CSV at a time
_INT = pa.int64()
_USER_ACTION = {name: _INT for name in ("userid", "feedid", "date_", "device", "play", "stay", *ACTIONS)}
_FEED_INFO = {
    "feedid": _INT,
    "authorid": _INT,
    "videoplayseconds": pa.float64(),
    "bgm_song_id": pa.float64(),  # as pandas writes integers with gaps
    "bgm_singer_id": pa.float64(),
    "manual_tag_list": pa.string(),
    "machine_tag_list": pa.string(),
}


@config
class Wechat2021Config:
    """Short videos of the WeChat Big Data Challenge 2021, as they were published.

    Attributes:
        path: the folder that holds `user_action.csv` and, maybe, `feed_info.csv`.
    """

    kind: Literal["wechat2021"] = "wechat2021"
    path: LocalPath

    def inputs(self) -> list[Path]:
        """The files that will be read.

        Raises:
            ConfigError: `user_action.csv` is missing.
        """
        actions, videos = self.path / "user_action.csv", self.path / "feed_info.csv"
        if not actions.is_file():
            raise ConfigError(
                f"logs.path: {actions} does not exist. The challenge's user_action.csv is expected there, and feed_info.csv "
                "beside it where you have it."
            )
        return [actions, videos] if videos.is_file() else [actions]


def convert(source: Wechat2021Config, output: Path) -> list[Converted]:
    """Writes the canonical tables of `source` into the folder `output/logs`, block by block; returns what became of its rows.

    Raises:
        ConfigError: a file has no such column, is cut short, or holds what is no number where there should be one.
    """
    logs = output / "logs"
    actions_file, *videos_file = source.inputs()
    clock = _Clock()
    rows = marks = 0
    made: Counter[str] = Counter()
    with GrowingFolder(logs / "impressions", "part") as impressions, GrowingFolder(logs / "engagements", "part") as events:
        for block in _read(actions_file, _USER_ACTION):
            views = block.with_columns(at=clock.times(block), row=pl.int_range(rows + 1, rows + block.height + 1))
            impressions.write(impressions_of(views).to_arrow())
            done = engagements_of(views)
            events.write(done.to_arrow())
            made.update(dict(done.group_by("action").len().iter_rows()))
            marks += sum(int((block[name] > 0).sum()) for name in ACTIONS)
            rows += block.height
            print(f"  {rows:,} rows", flush=True)
    of_rows = lambda what, read, made: Converted(what=f"user_action.csv, {what}", read=read, made=made, left_out={})
    found = [
        of_rows("rows", rows, {"impressions": rows}),
        of_rows("stays", rows, {"engagements (`enter`)": made["enter"]}),
        of_rows("plays", rows, {"engagements (`play`)": made["play"]}),
        of_rows("actions above 0", marks, {f"engagements (`{name}`)": made[name] for name in ACTIONS}),
    ]
    if videos_file:
        videos = 0
        with GrowingFolder(logs / "rooms", "part") as rooms:
            for block in _read(videos_file[0], _FEED_INFO):
                rooms.write(rooms_of(block).to_arrow())
                videos += block.height
        found.append(Converted(what="feed_info.csv, rows", read=videos, made={"rooms": videos}, left_out={}))
    return found


class _Clock:
    """Moments of rows on the nominal clock of each user's day; keeps where each of these days has come to."""

    def __init__(self) -> None:
        self._passed = pl.DataFrame(schema={"userid": pl.Int64, "date_": pl.Int64, "passed": pl.Int64})

    def times(self, block: pl.DataFrame) -> pl.Series:
        """Unix ms of the rows, which follow those of earlier calls; null where the day is missing."""
        day = ["userid", "date_"]
        took = pl.col("stay").fill_null(0).clip(_SHORTEST, _LONGEST) + _PAUSE
        rows = block.select(*day, took=took).join(self._passed, on=day, how="left", maintain_order="left", nulls_equal=True)
        before = pl.col("passed").fill_null(0) + pl.col("took").cum_sum().over(day) - pl.col("took")
        here = rows.select(passed=before)
        both = pl.concat([self._passed, rows.select(*day, pl.col("took").alias("passed"))])
        self._passed = both.group_by(day).agg(pl.col("passed").sum().clip(0, _DAY_MS))
        begins = _DAY_1 + (block["date_"] - 1) * _DAY_MS
        return begins + here["passed"].clip(0, _DAY_MS - 1)


def impressions_of(views: pl.DataFrame) -> pl.DataFrame:
    """One row a view; nothing of what came of it."""
    return views.select(
        pl.col("row").alias("request_id"),
        pl.col("userid").alias("user_id"),
        pl.col("feedid").alias("room_id"),
        pl.col("at").alias("shown_at"),
        pl.col("device").alias("context.device"),
    )


def engagements_of(views: pl.DataFrame) -> pl.DataFrame:
    """`enter` and `play` of every view, and an engagement for each action that is there."""
    seconds = {"enter": "stay", "play": "play"}
    of = lambda rows, action, value: rows.select(
        pl.col("userid").alias("user_id"),
        pl.col("feedid").alias("room_id"),
        "at",
        pl.lit(action).alias("action"),
        value.cast(pl.Float64).alias("value"),
        pl.col("row").alias("request_id"),
    )
    parts = [of(views, action, pl.col(column) / 1000) for action, column in seconds.items()]
    return pl.concat([*parts, *(of(views.filter(pl.col(name) > 0), name, pl.lit(None)) for name in ACTIONS)])


def rooms_of(videos: pl.DataFrame) -> pl.DataFrame:
    """Attributes of the videos. A machine's tag is written `tag likelihood`, tags are parted by `;`."""
    likely = pl.element().str.split(" ").list.get(1, null_on_oob=True).cast(pl.Float64, strict=False)
    tags = pl.col("machine_tag_list").str.split(";")
    best = tags.list.get(tags.list.eval(likely).list.arg_max()).str.split(" ").list.first()
    whole = lambda column: pl.col(column).cast(pl.Int64, strict=False)
    return videos.select(
        pl.col("feedid").alias("room_id"),
        pl.col("authorid").alias("streamer_id"),
        pl.col("videoplayseconds").alias("seconds"),
        whole("bgm_song_id").alias("song"),
        whole("bgm_singer_id").alias("singer"),
        pl.col("manual_tag_list").str.split(";").list.first().cast(pl.Int64, strict=False).alias("tag"),
        best.cast(pl.Int64, strict=False).alias("machine_tag"),
    )


def _read(file: Path, columns: Mapping[str, pa.DataType]) -> Iterator[pl.DataFrame]:
    """The named columns, block by block; others are passed over, in whatever order they stand."""
    options = csv.ConvertOptions(column_types=dict(columns), include_columns=list(columns), strings_can_be_null=True)
    try:
        with csv.open_csv(file, csv.ReadOptions(block_size=_BLOCK), convert_options=options) as reader:
            for batch in reader:
                yield cast(pl.DataFrame, pl.from_arrow(pa.Table.from_batches([batch])))
    except (pa.ArrowException, OSError) as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise ConfigError(f"{file} cannot be read ({why}). Needed columns: {', '.join(columns)}. Fetch it again.") from None
