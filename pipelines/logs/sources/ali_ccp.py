"""Ali-CCP, clicks and purchases of Taobao's recommendations (Ma et al. 2018, ESMM), as canonical logs.

Two files a split without a header: samples (`sample_skeleton_train`, `sample_skeleton_test`), and what all samples of one page
view share (`common_features_train`, `common_features_test`). A list of features is `field \\x02 feature \\x03 value`, joined by
`\\x01`.

| canonical | from |
| --- | --- |
| impressions | a sample each: `request_id` = its common-feature index, `user_id` = field 101, `room_id` = field 205, |
|  | `split`; `context.fNNN`: the page view's fields 121, 122, 124 to 129; `state.fNNN`: the sample's fields 206, 207, |
|  | 216, 301, 508, 509, 702, 853 |
| engagements `enter`, `order` | samples that were clicked, and bought; `split` |

Decisions:

* The common-feature index names one page view, so it is the feed.
* There are no times: the given split is kept (see `pipelines.logs.canonical.SPLIT_AT`). Of the training part's page views a
  share is held out for validation, by a hash of their index, so that a feed is never torn.
* These fields have one value and are those that the literature uses (AITM, PIMM); the weight of a combined one (508, 509, 702,
  853) is not read, and lists (109_14, 110_14, 127_14, 150_14, 210) are left alone.
* A sample that was bought and not clicked contradicts itself: it goes to quarantine, as does one whose page view is not there.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa

from models.config import config
from models.hashing import splitmix64
from pipelines.logs.convert import DataSet, Gather, Gathered, Kind, Made
from pipelines.logs.raw import ID, INTEGER, TEXT, Layout, Raw, key, value
from pipelines.places import Place

USER, ITEM = 101, 205
OF_PAGE = (121, 122, 124, 125, 126, 127, 128, 129)
OF_SAMPLE = (206, 207, 216, 301, 508, 509, 702, 853)
_OTHER_SPLIT = 0x5DEECE66D  # tells page views of the test part from those of the training part, whose indices are their own
_NEXT, _FEATURE, _VALUE = 1, 2, 3  # the bytes between parts of a list
_DIGITS = 18


@config
class AliCcpConfig:
    """Samples of Ali-CCP, as it was published.

    Attributes:
        path: the folder that holds its four CSV files, packed (.gz, .zst) or not, or a zip of them.
        valid_share: of the training part's page views, held out for validation.
    """

    kind: Literal["ali_ccp"] = "ali_ccp"
    path: Place
    valid_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.valid_share < 1:
            raise ValueError(f"ali_ccp needs 0 < valid_share < 1, got {self.valid_share}.")


def _samples(rows: pl.DataFrame, source: AliCcpConfig, *, split: str) -> Made:
    features, broken = read_lists(rows["feature_list"], rows["features"], (ITEM, *OF_SAMPLE))
    bought_only = ((rows["purchase"] != 0) & (rows["click"] == 0)).to_numpy() & ~broken
    no_item = (features[ITEM] < 0) & ~broken & ~bought_only
    index = _index(rows, split)
    held_out = (splitmix64(index) % np.uint64(1_000_000)).astype(np.int64) < round(source.valid_share * 1_000_000)
    name = np.where(held_out, "valid", "train") if split == "train" else np.full(len(rows), split)
    found = pl.DataFrame(
        {
            "request_id": index,
            "sample_id": rows["sample_id"],
            "room_id": features[ITEM],
            "split": name,
            "click": rows["click"] != 0,
            "purchase": rows["purchase"] != 0,
            **{f"state.f{field}": _known(features[field]) for field in OF_SAMPLE},
        }
    )
    bad = {
        "the list of features is damaged": broken,
        "bought and not clicked": bought_only,
        f"no item (field {ITEM})": no_item,
    }
    sound = ~(broken | bought_only | no_item)
    return Made({"samples": found.filter(pl.Series(sound))}, bad=_some(bad))


def _pages(rows: pl.DataFrame, source: AliCcpConfig, *, split: str) -> Made:
    features, broken = read_lists(rows["feature_list"], rows["features"], (USER, *OF_PAGE))
    nobody = (features[USER] < 0) & ~broken
    found = pl.DataFrame(
        {
            "request_id": _index(rows, split),
            "user_id": features[USER],
            **{f"context.f{field}": _known(features[field]) for field in OF_PAGE},
        }
    )
    bad = {"the list of features is damaged": broken, f"no user (field {USER})": nobody}
    return Made({"pages": found.filter(pl.Series(~(broken | nobody)))}, bad=_some(bad))


def _feeds(parts: Mapping[str, pl.DataFrame], source: AliCcpConfig) -> Gathered:
    """Every sample with what its page view shares."""
    samples, pages = parts.get("samples"), parts.get("pages")
    if samples is None:
        return Gathered({}, left_out={"pages": {"no sample has its index": 0 if pages is None else len(pages)}})
    if pages is None:
        pages = pl.DataFrame(schema={"request_id": pl.Int64, "user_id": pl.Int64})
    one = pages.unique("request_id", keep="first", maintain_order=True)
    alone = samples.join(one, on="request_id", how="anti")
    rows = samples.join(one, on="request_id", how="inner", maintain_order="left")
    unused = one.join(samples, on="request_id", how="anti")
    others = [name for name in rows.columns if name.startswith(("context.", "state."))]
    act = lambda action, column: rows.filter(column).select("request_id", "user_id", "room_id", "split", action=pl.lit(action))
    return Gathered(
        {
            "impressions": rows.select("request_id", "user_id", "room_id", "split", *others),
            "engagements": pl.concat([act("enter", "click"), act("order", "purchase")]),
        },
        joined={"pages": {"of an index that stands before": len(pages) - len(one)}} if len(pages) > len(one) else {},
        left_out={"pages": {"no sample has its index": len(unused)}} if len(unused) else {},
        bad=[("samples", "its page view is not there", f"sample {number}") for number in alone["sample_id"].to_list()],
    )


def read_lists(lists: pl.Series, lengths: pl.Series, fields: Sequence[int]) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """The features of some fields of three digits, read from the bytes of all lists at once.

    Args:
        lengths: how many features every list says that it has.

    Returns:
        the first feature of every field, -1 where a list has none, int64; and which lists are damaged, none of it being read.
    """
    column = lists.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offsets_buffer, data_buffer = column.cast(pa.large_string()).buffers()
    rows = len(lists)
    offsets = np.frombuffer(offsets_buffer, np.int64)[column.offset : column.offset + rows + 1]
    data = np.frombuffer(data_buffer or b"", np.uint8)[offsets[0] : offsets[-1]]
    offsets = offsets - offsets[0]
    found = {field: np.full(rows, -1, np.int64) for field in fields}
    borders = [np.flatnonzero(data == byte) for byte in (_NEXT, _FEATURE, _VALUE)]
    within = lambda places: np.diff(np.searchsorted(places, offsets))
    next_R, feature_R, value_R = map(within, borders)
    tokens_R = np.where(np.diff(offsets) > 0, next_R + 1, 0)
    broken = (tokens_R != feature_R) | (tokens_R != value_R) | (tokens_R != lengths.fill_null(-1).to_numpy())
    if broken.any():  # read what is left by itself
        some, none = read_lists(lists.filter(pl.Series(~broken)), lengths.filter(pl.Series(~broken)), fields)
        for field in fields:
            found[field][~broken] = some[field]
        broken[~broken] = none
        return found, broken
    if not len(borders[_FEATURE - 1]):
        return found, broken
    row_T = np.repeat(np.arange(rows), tokens_R)
    starts_of_rows = offsets[:-1][tokens_R > 0]
    begin_T = np.sort(np.concatenate([starts_of_rows, borders[0] + 1]))
    feature_T, value_T = borders[1], borders[2]
    end_T = np.append(begin_T[1:], offsets[-1])
    torn = (feature_T <= begin_T) | (value_T <= feature_T + 1) | (value_T >= end_T) | (value_T - feature_T > _DIGITS + 1)
    wanted = np.zeros(1000, bool)
    wanted[list(fields)] = True
    three = np.flatnonzero((feature_T - begin_T == 3) & ~torn)
    digits = data[begin_T[three][:, None] + np.arange(3)].astype(np.int64) - ord("0")
    field_T = np.where(((digits >= 0) & (digits <= 9)).all(axis=1), digits @ np.array([100, 10, 1]), 0)
    token = three[wanted[field_T]]
    field_T = field_T[wanted[field_T]]
    length = value_T[token] - feature_T[token] - 1
    number, sound = np.zeros(len(token), np.int64), np.ones(len(token), bool)
    for place in range(int(length.max(initial=0))):
        more = place < length
        digit = data[np.minimum(feature_T[token] + 1 + place, len(data) - 1)].astype(np.int64) - ord("0")
        sound &= ~more | ((digit >= 0) & (digit <= 9))
        number = np.where(more, number * 10 + digit, number)
    broken[row_T[torn]] = True
    broken[row_T[token[~sound]]] = True
    for field in fields:
        mine = np.flatnonzero(field_T == field)[::-1]  # the first one is written last
        found[field][row_T[token[mine]]] = number[mine]
        found[field][broken] = -1
    return found, broken


def _index(rows: pl.DataFrame, split: str) -> np.ndarray:
    index = rows["common_feature_index"].to_numpy()
    return index if split == "train" else index ^ _OTHER_SPLIT


def _known(features: np.ndarray) -> pl.Series:
    return pl.Series(pa.array(features, mask=features < 0))


def _some(bad: Mapping[str, np.ndarray]) -> dict[str, pl.Series]:
    return {reason: pl.Series(mask) for reason, mask in bad.items() if mask.any()}


_SAMPLE = {
    "sample_id": key(INTEGER),
    "click": key(INTEGER),
    "purchase": key(INTEGER),
    "common_feature_index": key(ID),
    "features": key(INTEGER),
    "feature_list": value(TEXT),
}
_PAGE = {"common_feature_index": key(ID), "features": key(INTEGER), "feature_list": value(TEXT)}


def _kind(name: str, columns: Mapping[str, Raw], make: Callable[..., Made], split: str) -> Kind:
    layout = Layout(columns, names=tuple(columns))
    needed, gives = split == "train", "test part, so set prepare.test_days to 0"
    return Kind(name, layout, partial(make, split=split), needed=needed, gives=gives)


DATA = DataSet(
    "Ali-CCP",
    tuple(
        _kind(f"{name}_{split}", columns, make, split)
        for split in ("train", "test")
        for name, columns, make in (("sample_skeleton", _SAMPLE, _samples), ("common_features", _PAGE, _pages))
    ),
    (Gather("feeds", "request_id", ("samples", "pages"), _feeds),),
)


def data_set(source: AliCcpConfig) -> DataSet:
    return DATA
