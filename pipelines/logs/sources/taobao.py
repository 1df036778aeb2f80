"""Taobao's user behaviours (UserBehavior, Zhu et al. 2018, KDD) as canonical logs: views as impressions.

`UserBehavior.csv` has no header: user, item, category, behaviour (`pv`, `buy`, `cart`, `fav`), time in seconds.

| canonical | from |
| --- | --- |
| impressions | behaviours `pv`, a row each: `room_id` = item, `shown_at` = the time |
| engagements `enter` | behaviours `pv` again, without a value: for histories of what was viewed |
| engagements `order`, `cart`, `favourite` | behaviours `buy`, `cart`, `fav` |
| rooms | `category` of every item |

Decisions:

* The log has what was viewed, not what was shown: there is no click to predict, and `enter` is of use in histories alone.
* An item that stands with several categories has the first one; how many there are is said.
* A few rows in ten thousand have times of other years. They are for `prepare.earliest` and `prepare.latest` to sort out.
"""

from typing import Literal

import polars as pl

from models.config import config
from pipelines.logs.convert import DataSet, Kind, Made
from pipelines.logs.raw import INTEGER, TEXT, Layout, key
from pipelines.logs.sources.shared import engagements, impressions
from pipelines.places import Place

_ACTIONS = {"buy": "order", "cart": "cart", "fav": "favourite"}
_COLUMNS = {
    "user_id": key(INTEGER),
    "item_id": key(INTEGER),
    "category_id": key(INTEGER),
    "behavior_type": key(TEXT),
    "timestamp": key(INTEGER),
}


@config
class TaobaoConfig:
    """Behaviours of Taobao's users, as they were published.

    Attributes:
        path: the folder that holds UserBehavior.csv, packed (.gz, .zst) or not, or its zip.
    """

    kind: Literal["taobao"] = "taobao"
    path: Place


def _behaviours(rows: pl.DataFrame, source: TaobaoConfig) -> Made:
    known = rows["behavior_type"].is_in(["pv", *_ACTIONS])
    rows = rows.with_columns(at=pl.col("timestamp") * 1000)
    viewed = rows.filter(pl.col("behavior_type") == "pv")
    acts = [engagements(viewed, "enter", room="item_id", at=pl.col("at"))]
    for spelled, action in _ACTIONS.items():
        acts.append(engagements(rows.filter(pl.col("behavior_type") == spelled), action, room="item_id", at=pl.col("at")))
    items = rows.filter(known).select(pl.col("item_id").alias("room_id"), pl.col("category_id").alias("category"))
    return Made(
        {
            "impressions": impressions(viewed, room="item_id", at="at"),
            "engagements": pl.concat(acts).drop("value"),  # there are none
            "rooms": items.unique(maintain_order=True),
        },
        bad={"`behavior_type` is not pv, buy, cart or fav": ~known} if not known.all() else {},
    )


_LAYOUT = Layout(_COLUMNS, names=tuple(_COLUMNS))
DATA = DataSet("Taobao's UserBehavior", (Kind("behaviours", _LAYOUT, _behaviours, ("UserBehavior*",)),))


def data_set(source: TaobaoConfig) -> DataSet:
    return DATA
