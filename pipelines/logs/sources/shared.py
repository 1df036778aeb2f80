"""What sources have in common."""

import polars as pl

from pipelines.logs.convert import Made


def impressions(rows: pl.DataFrame, *, room: str, at: str, **more: pl.Expr) -> pl.DataFrame:
    """Canonical impressions, a row each.

    Args:
        room, at: names of the columns; the user's is `user_id`.
        more: further columns by name, with `__` for a dot: `context__device`.
    """
    others = [how.alias(name.replace("__", ".")) for name, how in more.items()]
    return rows.select("user_id", pl.col(room).alias("room_id"), pl.col(at).alias("shown_at"), *others)


def engagements(rows: pl.DataFrame, action: str, *, room: str, at: pl.Expr, value: pl.Expr | None = None) -> pl.DataFrame:
    """Canonical engagements of one action, a row each."""
    return rows.select(
        "user_id",
        pl.col(room).alias("room_id"),
        at.alias("at"),
        pl.lit(action).alias("action"),
        (pl.lit(None) if value is None else value).cast(pl.Float64).alias("value"),
    )


def attributes(rows: pl.DataFrame, **renamed: str) -> pl.DataFrame:
    """All columns of the rows; those that are named get another name: `attributes(rows, room_id="live_id")`."""
    return rows.rename({old: new for new, old in renamed.items() if old in rows.columns})


def only(table: str, rows: pl.DataFrame) -> Made:
    """Every row gives one row of a table."""
    return Made({table: rows})
