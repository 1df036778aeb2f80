"""Files in the formats of public data sets, of any size: made up, with the columns, types and counts of the real ones.

What is in them is no data set's: users come back, rooms are live for hours, some streamers draw more than others and are
liked more by some. It is enough to measure conversions on, and for a training to find something.
"""

from collections.abc import Callable

from jobs.benches.lookalikes.ali_ccp import ali_ccp
from jobs.benches.lookalikes.csv import csv
from jobs.benches.lookalikes.kuailive import kuailive
from jobs.benches.lookalikes.kuailive_m3 import kuailive_m3
from jobs.benches.lookalikes.kuairand import kuairand
from jobs.benches.lookalikes.taobao import taobao
from jobs.benches.lookalikes.wechat2021 import wechat2021

# By kind of source: writes files into a folder, a share of as many rows as the real data set has; returns rows by file.
LOOKALIKES: dict[str, Callable[..., dict[str, int]]] = {
    "kuailive": kuailive,
    "kuailive_m3": kuailive_m3,
    "kuairand": kuairand,
    "taobao": taobao,
    "wechat2021": wechat2021,
    "ali_ccp": ali_ccp,
    "csv": csv,
}
