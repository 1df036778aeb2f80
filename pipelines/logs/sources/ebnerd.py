"""EB-NeRD, the news log of the RecSys Challenge 2024, as canonical logs.

Reads from the folder the user names: `behaviors.parquet`, `history.parquet` and, if it is there, `articles.parquet`.
A slate is a feed, an article a room, its click the entering.

| canonical | from |
| --- | --- |
| impressions | one row per article in view: `request_id` = `impression_id`, `shown_at` = `impression_time`, |
|  | `position` = place in the slate (shuffled by the publisher), `context.device` = `device_type`, |
|  | `context.page` = `article` if the slate was shown on one, else `front` |
| engagements `enter` | one per clicked article at `impression_time`, `value` = `next_read_time` in seconds |
| engagements `scroll` | one per click whose `next_scroll_percentage` is known, `value` = percent |
| engagements before the window | `history.parquet`, the same two actions without request id |
| users | `is_subscriber`, `is_sso_user`, `gender`, `postcode`, `age` |
| rooms | with `articles.parquet` only: `start_at` = `published_time`, `category`, `article_type`, `premium` |

Decisions:

* An unknown read time is 0 seconds: the click counts as entering, and it did not reach any threshold of reading.
* A slate has one read time. Where several articles of it were clicked (0.3 % of slates) the log does not say whose it
  is; it goes to the one listed last, the others get 0. An article listed twice in one slate's clicks counts once.
* `scroll` is known when the reading is over, so its `at` is the click plus the read time.
* `read_time` and `scroll_percentage` of a behaviour tell how the page itself was read, after the slate was shown on
  it. They are not used; nor are the articles' totals of views and read time, which count until after the window.
* Of a user the earliest known attributes count.
* Times in the files are UTC.
"""

from collections.abc import Mapping
from typing import Literal

import polars as pl

from models.config import config
from pipelines.logs.convert import DataSet, Gather, Gathered, Kind, Made
from pipelines.logs.raw import ANY, IDS, INTEGER, NUMBER, NUMBERS, TIME, TIMES, Layout, Raw, key, value
from pipelines.logs.sources.shared import attributes, only
from pipelines.places import Place

_USER_ATTRIBUTES = ("is_subscriber", "is_sso_user", "gender", "postcode", "age")
_BEHAVIORS: dict[str, Raw] = {
    "impression_id": key(INTEGER),
    "impression_time": key(TIME),
    "user_id": key(INTEGER),
    "article_id": value(INTEGER),
    "device_type": value(INTEGER),
    "article_ids_inview": value(IDS),
    "article_ids_clicked": value(IDS),
    "next_read_time": value(NUMBER),
    "next_scroll_percentage": value(NUMBER),
    **{name: value(ANY) for name in _USER_ATTRIBUTES},
}
_PASSED = ("read_time", "scroll_percentage", "session_id")
_READING: dict[str, Raw] = {
    "impression_time_fixed": value(TIMES),
    "scroll_percentage_fixed": value(NUMBERS),
    "article_id_fixed": value(IDS),
    "read_time_fixed": value(NUMBERS),
}
_HISTORY: dict[str, Raw] = {"user_id": key(INTEGER), **_READING}
_ARTICLES: dict[str, Raw] = {
    "article_id": key(INTEGER),
    "published_time": value(TIME),
    **{name: value(ANY) for name in ("category", "article_type", "premium")},
}


@config
class EbnerdConfig:
    """News slates of the EB-NeRD data set, as they were published.

    Attributes:
        path: the folder that holds its Parquet files.
    """

    kind: Literal["ebnerd"] = "ebnerd"
    path: Place


def _behaviors(rows: pl.DataFrame, source: EbnerdConfig) -> Made:
    people = rows.select("user_id", "impression_time", *_USER_ATTRIBUTES)
    return Made({"impressions": _impressions(rows), "engagements": _engagements(rows), "people": people})


def _impressions(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per article in view; nothing else of the behaviour than what was known when the slate was shown."""
    lengths = pl.col("article_ids_inview").list.len()
    return (
        rows.filter(lengths > 0)
        .select(
            pl.col("impression_id").alias("request_id"),
            "user_id",
            pl.col("article_ids_inview").alias("room_id"),
            pl.col("impression_time").alias("shown_at"),
            pl.int_ranges(lengths.cast(pl.Int32), dtype=pl.Int32).alias("position"),
            pl.col("device_type").alias("context.device"),
            pl.when(pl.col("article_id").is_null()).then(pl.lit("front")).otherwise(pl.lit("article")).alias("context.page"),
        )
        .explode("room_id", "position")
    )


def _engagements(rows: pl.DataFrame) -> pl.DataFrame:
    """`enter` for every clicked article and `scroll` where it is known, both with their request id."""
    clicks = (
        rows.with_columns(pl.col("article_ids_clicked").list.unique(maintain_order=True).alias("room_id"))
        .filter(pl.col("room_id").list.len() > 0)
        .with_columns(
            is_last=pl.int_ranges(pl.col("room_id").list.len()).list.eval(pl.element() == pl.element().max()),
        )
        .explode("room_id", "is_last")
        .select(
            "user_id",
            "room_id",
            pl.col("impression_time").alias("clicked_at"),
            pl.when("is_last").then("next_read_time").otherwise(0.0).alias("seconds"),
            pl.when("is_last").then("next_scroll_percentage").alias("percent"),
            pl.col("impression_id").alias("request_id"),
        )
    )
    return _enter_and_scroll(clicks)


def _history(rows: pl.DataFrame, source: EbnerdConfig) -> Made:
    """The reading of the weeks before the window; it was not logged in slates, so it has no request id."""
    lengths = [pl.col(name).list.len().fill_null(0) for name in _READING]
    uneven = rows.select(pl.any_horizontal(*(length != lengths[0] for length in lengths[1:]))).to_series()
    sound = rows.filter(~uneven)
    reads = sound.filter(lengths[0] > 0).explode(list(_READING))
    reads = reads.select(
        "user_id",
        pl.col("article_id_fixed").alias("room_id"),
        pl.col("impression_time_fixed").alias("clicked_at"),
        pl.col("read_time_fixed").alias("seconds"),
        pl.col("scroll_percentage_fixed").alias("percent"),
        pl.lit(None, pl.Int64).alias("request_id"),
    )
    nothing = int(sound.select((lengths[0] == 0).sum()).item())
    bad = {"its lists differ in length": uneven} if uneven.any() else {}
    return Made({"engagements": _enter_and_scroll(reads)}, {"nothing was read": nothing} if nothing else {}, bad)


def _articles(rows: pl.DataFrame, source: EbnerdConfig) -> Made:
    """Attributes of the articles; the publishing time is the start of the room."""
    return only("rooms", attributes(rows, room_id="article_id", start_at="published_time"))


def _users(parts: Mapping[str, pl.DataFrame], source: EbnerdConfig) -> Gathered:
    """One row a user: of every attribute the earliest value that is known."""
    by_user = parts["people"].sort("impression_time", maintain_order=True).group_by("user_id", maintain_order=True)
    users = by_user.agg(pl.col(_USER_ATTRIBUTES).drop_nulls().first()).sort("user_id")
    return Gathered({"users": users}, joined={"people": {"of a user that stands before": len(parts["people"]) - len(users)}})


def _enter_and_scroll(clicks: pl.DataFrame) -> pl.DataFrame:
    """From rows of (user_id, room_id, clicked_at, seconds, percent, request_id), the canonical engagements."""
    clicks = clicks.with_columns(pl.col("seconds").fill_null(0.0))
    enter = clicks.select(
        "user_id",
        "room_id",
        pl.col("clicked_at").alias("at"),
        pl.lit("enter").alias("action"),
        pl.col("seconds").alias("value"),
        "request_id",
    )
    scroll = clicks.filter(pl.col("percent").is_not_null()).select(
        "user_id",
        "room_id",
        (pl.col("clicked_at") + (pl.col("seconds") * 1000).cast(pl.Int64)).alias("at"),
        pl.lit("scroll").alias("action"),
        pl.col("percent").alias("value"),
        "request_id",
    )
    return pl.concat([enter, scroll])


DATA = DataSet(
    "EB-NeRD",
    (
        Kind("behaviors", Layout(_BEHAVIORS, _PASSED, rows_at_once=20_000), _behaviors, form="parquet"),
        Kind("history", Layout(_HISTORY, rows_at_once=2_000), _history, form="parquet"),
        Kind("articles", Layout(_ARTICLES), _articles, needed=False, gives="attributes of articles", form="parquet"),
    ),
    (Gather("people", "user_id", ("people",), _users),),
)


def data_set(source: EbnerdConfig) -> DataSet:
    return DATA
