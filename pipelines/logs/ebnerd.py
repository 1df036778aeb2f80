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
* Times in the files are UTC.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import polars as pl

from models.config import ConfigError, config
from pipelines.logs.canonical import read_footer
from pipelines.logs.files import GrowingFolder, batches, write
from pipelines.logs.ids import as_ids
from pipelines.logs.rows import FileRows, SourceRows
from pipelines.paths import LocalPath

_SLATES_AT_ONCE, _USERS_AT_ONCE = 20_000, 2_000  # about 200 k rows of the canonical tables
_USER_ATTRIBUTES = ("is_subscriber", "is_sso_user", "gender", "postcode", "age")
_SLATE = ("impression_id", "impression_time", "user_id", "article_id", "device_type", "article_ids_inview")
_CLICK = ("article_ids_clicked", "next_read_time", "next_scroll_percentage")
_BEHAVIORS = [*_SLATE, *_CLICK, *_USER_ATTRIBUTES]
_HISTORY = ["user_id", "impression_time_fixed", "scroll_percentage_fixed", "article_id_fixed", "read_time_fixed"]
_ARTICLES = ["article_id", "published_time", "category", "article_type", "premium"]


@config
class EbnerdConfig:
    """News slates of the EB-NeRD data set, as they were published.

    Attributes:
        path: the folder that holds its Parquet files.
    """

    kind: Literal["ebnerd"] = "ebnerd"
    path: LocalPath

    def inputs(self) -> list[Path]:
        """The files that will be read.

        Raises:
            ConfigError: a file is missing.
        """
        needed = [self.path / "behaviors.parquet", self.path / "history.parquet"]
        for file in needed:
            if not file.is_file():
                raise ConfigError(
                    f"logs.path: {file} does not exist. EB-NeRD's behaviors.parquet and history.parquet are expected in "
                    "that folder, for example its `train` folder."
                )
        articles = self.path / "articles.parquet"
        return [*needed, articles] if articles.is_file() else needed


def convert(source: EbnerdConfig, output: Path) -> None:
    """Writes the canonical tables of `source` into the folder `output/logs`, part by part, and what became of its rows.

    Raises:
        ConfigError: a file or one of its columns is missing, damaged, or has another type than EB-NeRD's.
    """
    logs = output / "logs"
    behaviors_file, history_file, *articles_file = source.inputs()
    users: list[pl.DataFrame] = []
    tally = _Tally()
    with GrowingFolder(logs / "impressions", "window") as impressions, GrowingFolder(logs / "engagements", "window") as events:
        for behaviors in _read(behaviors_file, _BEHAVIORS, _SLATES_AT_ONCE):
            _check_lists(behaviors, behaviors_file, "article_ids_inview", "article_ids_clicked")
            behaviors = _with_milliseconds(behaviors, behaviors_file, "impression_time")
            behaviors = _with_ids(behaviors, "impression_id", "user_id")
            shown, done = impressions_of(behaviors), engagements_of(behaviors)
            impressions.write(shown.to_arrow())
            events.write(done.to_arrow())
            users.append(_first_known(behaviors.select("user_id", "impression_time", *_USER_ATTRIBUTES)))
            tally.slates(behaviors, shown, done)
            print(f"  {tally.counts['slates']:,} slates", flush=True)
    with GrowingFolder(logs / "engagements", "before") as events:
        for history in _read(history_file, _HISTORY, _USERS_AT_ONCE):
            _check_lists(history, history_file, *_HISTORY[1:])
            done = engagements_of_history(_with_ids(history, "user_id"), history_file)
            events.write(done.to_arrow())
            tally.history(history, done)
    known = _first_known(pl.concat(users)).drop("impression_time").sort("user_id")
    write(known.to_arrow(), logs / "users.parquet")
    articles = 0
    if articles_file:
        rooms = rooms_of(pl.concat(list(_read(articles_file[0], _ARTICLES, _SLATES_AT_ONCE))), articles_file[0])
        write(rooms.to_arrow(), logs / "rooms.parquet")
        articles = rooms.height
    rows = tally.rows(known.height, articles)
    rows.write(output)
    for line in rows.lines():
        print(f"  {line}", flush=True)


class _Tally:
    """Counts what was read and made."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def slates(self, behaviors: pl.DataFrame, shown: pl.DataFrame, done: pl.DataFrame) -> None:
        clicks = behaviors["article_ids_clicked"].list.len().fill_null(0)
        percents = behaviors["next_scroll_percentage"].is_not_null()
        self.counts.update(
            {
                "slates": behaviors.height,
                "in view": behaviors["article_ids_inview"].list.len().sum(),
                "impressions": shown.height,
                "clicks": clicks.sum(),
                "enter": (done["action"] == "enter").sum(),
                "percents": percents.sum(),
                "scroll": (done["action"] == "scroll").sum(),
                "percents without click": (percents & (clicks == 0)).sum(),
            }
        )

    def history(self, history: pl.DataFrame, done: pl.DataFrame) -> None:
        self.counts.update(
            {
                "reads": history["article_id_fixed"].list.len().sum(),
                "reads, enter": (done["action"] == "enter").sum(),
                "reads, percents": history["scroll_percentage_fixed"].list.drop_nulls().list.len().sum(),
                "reads, scroll": (done["action"] == "scroll").sum(),
            }
        )

    def rows(self, users: int, articles: int) -> SourceRows:
        """What became of each list of `behaviors` and `history`, and of the rows of `articles`."""
        count = self.counts
        of = lambda rows, table, made, rule="", out=0: FileRows(
            rows=rows, used=rows - out, left_out={rule: out} if rule else {}, made={table: made}
        )
        enter, scroll = "engagements (`enter`)", "engagements (`scroll`)"
        again, late = count["clicks"] - count["enter"], count["slates"] - users
        unclicked = count["percents without click"]
        files = {
            "behaviors.parquet, articles in view": of(count["in view"], "impressions", count["impressions"]),
            "behaviors.parquet, articles clicked": of(
                count["clicks"], enter, count["enter"], "clicked before in the slate", again
            ),
            "behaviors.parquet, scroll percentages": of(
                count["percents"], scroll, count["scroll"], "of slates without click", unclicked
            ),
            "behaviors.parquet, attributes of users": of(
                count["slates"], "users", users, "of users with an earlier slate", late
            ),
            "history.parquet, articles read": of(count["reads"], enter, count["reads, enter"]),
            "history.parquet, scroll percentages": of(count["reads, percents"], scroll, count["reads, scroll"]),
        }
        if articles:
            files["articles.parquet"] = of(articles, "rooms", articles)
        for name, each in files.items():
            assert each.used == sum(each.made.values()), name
        return SourceRows(files=files)


def impressions_of(behaviors: pl.DataFrame) -> pl.DataFrame:
    """One row per article in view; nothing else of the behaviour than what was known when the slate was shown."""
    rows = (
        behaviors.filter(pl.col("article_ids_inview").list.len() > 0)
        .select(
            pl.col("impression_id").alias("request_id"),
            "user_id",
            pl.col("article_ids_inview").alias("room_id"),
            pl.col("impression_time").alias("shown_at"),
            pl.int_ranges(pl.col("article_ids_inview").list.len().cast(pl.Int32), dtype=pl.Int32).alias("position"),
            pl.col("device_type").cast(pl.Int64).alias("context.device"),
            pl.when(pl.col("article_id").is_null()).then(pl.lit("front")).otherwise(pl.lit("article")).alias("context.page"),
        )
        .explode("room_id", "position")
    )
    return _with_ids(rows, "room_id")


def engagements_of(behaviors: pl.DataFrame) -> pl.DataFrame:
    """`enter` for every clicked article and `scroll` where it is known, both with their request id."""
    clicks = (
        behaviors.with_columns(pl.col("article_ids_clicked").list.unique(maintain_order=True).alias("room_id"))
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


def engagements_of_history(history: pl.DataFrame, file: Path) -> pl.DataFrame:
    """The reading of the weeks before the window; it was not logged in slates, so it has no request id."""
    lengths = [pl.col(name).list.len() for name in _HISTORY[1:]]
    uneven = history.filter(pl.any_horizontal(*(length != lengths[0] for length in lengths[1:])))
    if uneven.height:
        raise ConfigError(f"{file}: the lists of user {uneven['user_id'][0]} differ in length; they must be parallel.")
    reads = history.filter(lengths[0] > 0).explode(_HISTORY[1:])
    reads = _with_milliseconds(reads, file, "impression_time_fixed").select(
        "user_id",
        pl.col("article_id_fixed").alias("room_id"),
        pl.col("impression_time_fixed").alias("clicked_at"),
        pl.col("read_time_fixed").alias("seconds"),
        pl.col("scroll_percentage_fixed").alias("percent"),
        pl.lit(None, pl.Int64).alias("request_id"),
    )
    return _enter_and_scroll(reads)


def rooms_of(articles: pl.DataFrame, file: Path) -> pl.DataFrame:
    """Attributes of the articles; the publishing time is the start of the room."""
    return _with_milliseconds(_with_ids(articles, "article_id"), file, "published_time").select(
        pl.col("article_id").alias("room_id"), pl.col("published_time").alias("start_at"), "category", "article_type", "premium"
    )


def _first_known(users: pl.DataFrame) -> pl.DataFrame:
    """One row a user: of every attribute the earliest value that is not null."""
    by_user = users.sort("impression_time", maintain_order=True).group_by("user_id", maintain_order=True)
    return by_user.agg(pl.col("impression_time").first(), pl.col(_USER_ATTRIBUTES).drop_nulls().first())


def _enter_and_scroll(clicks: pl.DataFrame) -> pl.DataFrame:
    """From rows of (user_id, room_id, clicked_at, seconds, percent, request_id), the canonical engagements."""
    clicks = _with_ids(clicks, "room_id").with_columns(pl.col("seconds").cast(pl.Float64).fill_null(0.0))
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
        pl.col("percent").cast(pl.Float64).alias("value"),
        "request_id",
    )
    return pl.concat([enter, scroll])


def _read(file: Path, columns: list[str], rows: int) -> Iterator[pl.DataFrame]:
    there = read_footer(file).schema.to_arrow_schema().names
    missing = [name for name in columns if name not in there]
    if missing:
        raise ConfigError(f"{file}: column `{missing[0]}` is missing. Needed: {', '.join(columns)}.")
    for table in batches(file, columns, rows):
        yield cast(pl.DataFrame, pl.from_arrow(table))


def _with_ids(table: pl.DataFrame, *columns: str) -> pl.DataFrame:
    return table.with_columns(pl.Series(name, pl.from_arrow(as_ids(table[name].to_arrow()))) for name in columns)


def _with_milliseconds(table: pl.DataFrame, file: Path, column: str) -> pl.DataFrame:
    """The column's timestamps as Unix milliseconds."""
    times = table.schema[column]
    if not isinstance(times, pl.Datetime):
        raise ConfigError(f"{file}: column `{column}` is {times}, expected a timestamp as EB-NeRD has it.")
    return table.with_columns(pl.col(column).dt.epoch("ms"))


def _check_lists(table: pl.DataFrame, file: Path, *columns: str) -> None:
    for name in columns:
        if not isinstance(table.schema[name], pl.List):
            raise ConfigError(f"{file}: column `{name}` is {table.schema[name]}, expected a list as EB-NeRD has it.")
