"""Hand-made logs, small enough to read."""

from datetime import datetime
from pathlib import Path

import polars as pl

NOON = 1_684_411_200_000  # 2023-05-18 12:00 UTC, Unix milliseconds


def canonical_tables() -> dict[str, pl.DataFrame]:
    """One feed of two rooms; the second was entered for 30 seconds."""
    return {
        "impressions": pl.DataFrame(
            {
                "request_id": [1, 1],
                "user_id": [7, 7],
                "room_id": [70, 71],
                "shown_at": [NOON, NOON],
                "context.device": ["ios", "ios"],
                "state.viewers": [5, 9],
            }
        ),
        "engagements": pl.DataFrame(
            {"user_id": [7], "room_id": [71], "at": [NOON + 2000], "action": ["enter"], "value": [30.0], "request_id": [1]}
        ),
        "users": pl.DataFrame({"user_id": [7], "age": [30]}),
    }


def write_canonical(folder: Path, **changed: pl.DataFrame | None) -> Path:
    """Writes the tables as folders of one file, with some of them replaced or (None) left out."""
    for name, table in {**canonical_tables(), **changed}.items():
        if table is not None:
            (folder / name).mkdir(parents=True, exist_ok=True)
            table.write_parquet(folder / name / "part-0.parquet")
    return folder


def ebnerd_tables() -> dict[str, pl.DataFrame]:
    """EB-NeRD in its own types: four slates of two users, and what one of them had read before.

    Slate 11: article 100 clicked, read for 40 s, scrolled to 90 %. Slate 12 was shown on article 100; 103 clicked, nothing
    known of the reading. Slate 13: 102 clicked twice, then 100. Slate 14: no click.
    """
    behaviors = pl.DataFrame(
        {
            "impression_id": [11, 12, 13, 14],
            "article_id": [None, 100, None, None],
            "impression_time": [datetime(2023, 5, 18, 12, minute) for minute in (0, 1, 2, 3)],
            "read_time": [8.0, 40.0, 5.0, 6.0],
            "scroll_percentage": [None, 90.0, None, None],
            "device_type": [2, 2, 1, 1],
            "article_ids_inview": [[101, 100, 102], [103, 101], [100, 102], [104, 105]],
            "article_ids_clicked": [[100], [103], [102, 102, 100], []],
            "user_id": [1, 1, 2, 2],
            "is_sso_user": [True, True, False, False],
            "gender": [None, 1, None, None],
            "postcode": [None, None, None, None],
            "age": [50, 60, None, None],
            "is_subscriber": [False, False, True, True],
            "session_id": [5, 5, 6, 6],
            "next_read_time": [40.0, None, 12.0, None],
            "next_scroll_percentage": [90.0, None, 55.0, None],
        },
        schema={
            "impression_id": pl.UInt32,
            "article_id": pl.Int32,
            "impression_time": pl.Datetime("us"),
            "read_time": pl.Float32,
            "scroll_percentage": pl.Float32,
            "device_type": pl.Int8,
            "article_ids_inview": pl.List(pl.Int32),
            "article_ids_clicked": pl.List(pl.Int32),
            "user_id": pl.UInt32,
            "is_sso_user": pl.Boolean,
            "gender": pl.Int8,
            "postcode": pl.Int8,
            "age": pl.Int8,
            "is_subscriber": pl.Boolean,
            "session_id": pl.UInt32,
            "next_read_time": pl.Float32,
            "next_scroll_percentage": pl.Float32,
        },
    )
    history = pl.DataFrame(
        {
            "user_id": [1, 2],
            "impression_time_fixed": [[datetime(2023, 5, 1, 9), datetime(2023, 5, 1, 10)], []],
            "scroll_percentage_fixed": [[100.0, None], []],
            "article_id_fixed": [[90, 91], []],
            "read_time_fixed": [[20.0, 0.0], []],
        },
        schema={
            "user_id": pl.UInt32,
            "impression_time_fixed": pl.List(pl.Datetime("us")),
            "scroll_percentage_fixed": pl.List(pl.Float32),
            "article_id_fixed": pl.List(pl.Int32),
            "read_time_fixed": pl.List(pl.Float32),
        },
    )
    return {"behaviors": behaviors, "history": history}


def ebnerd_articles() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "article_id": [100, 101],
            "published_time": [datetime(2023, 5, 18, 6), datetime(2023, 5, 17, 23)],
            "category": [118, 140],
            "article_type": ["article_default", "article_standard_feature"],
            "premium": [False, True],
            "total_inviews": [1000, 2000],  # counted until after the window; must never be read
        },
        schema_overrides={"article_id": pl.Int32, "category": pl.Int16},
    )


def write_ebnerd(folder: Path, **changed: pl.DataFrame | None) -> Path:
    """Writes the files, with some of them replaced, added or (None) left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in {**ebnerd_tables(), **changed}.items():
        if table is not None:
            table.write_parquet(folder / f"{name}.parquet")
    return folder
