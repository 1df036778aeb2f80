"""Feeds encoded straight to tensors, against the tables that preparation writes and training reads: equal to the bit."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.batch import FeedBatch
from models.config import ConfigError
from models.schema import Bins, Encoding, Field, Hash, History, HistoryField, Levels, Number, Schema, Stages, Target, Vocabulary
from pipelines.encode.arrays import flat, is_list, lengths
from pipelines.encode.batches import to_batch
from pipelines.encode.clock import Clock
from pipelines.encode.encode import encode
from pipelines.encode.fit import finish, fit_partial
from pipelines.encode.plan import EncodePlan, Flat, RawFeeds, RawHistory
from pipelines.encode.state import EncoderState
from pipelines.logs.ids import as_ids

AT = 1_700_000_000_000
HOUR = 3_600_000
HOW = {"entry_rate": 0.13, "clock": Clock(utc_offset_hours=5.5, day_starts_hour=4.0)}
ANY = Vocabulary(min_count=1)
LOG = Number(transform="log1p")

FIELDS: tuple[tuple[str, str, Encoding], ...] = (
    ("feed", "user_id", Hash(buckets=50)),
    ("feed", "hour", ANY),
    ("feed", "hour", Bins(count=4)),
    ("feed", "weekday", Hash(buckets=9)),
    ("feed", "feed_size", Number()),
    ("feed", "user_entries", LOG),
    ("feed", "user_entries", ANY),
    ("feed", "user_entry_rate", Number()),
    ("feed", "user_last_seen_hours", LOG),
    ("feed", "user.age", Number()),
    ("feed", "user.age", Bins(count=3)),
    ("feed", "user.city", ANY),
    ("feed", "user.is_new", ANY),
    ("feed", "context.device", Hash(buckets=20)),
    ("feed", "preference.click", Number()),
    ("candidate", "room_id", Vocabulary(min_count=2)),
    ("candidate", "streamer_id", Hash(buckets=30)),
    ("candidate", "room.category", ANY),
    ("candidate", "room.is_hd", Number()),
    ("candidate", "state.product_id", Vocabulary(min_count=1, max_size=5)),
    ("candidate", "state.viewers", LOG),
    ("candidate", "state.viewers", Number()),
    ("candidate", "state.viewers", Bins(count=6)),
    ("candidate", "feed_rank.state.viewers", Number()),
    ("candidate", "room_entry_rate.life", Number()),
    ("candidate", "room_entry_rate.life", Bins(count=5)),
    ("candidate", "room_entries.life", LOG),
    ("candidate", "pair_streamer_hours", Bins(count=4)),
    ("candidate", "room_age_hours", LOG),
)


def schema_of(chosen: list[int], *, levels: Levels, stages: bool, histories: int) -> Schema:
    fields = [
        Field(name=f"f{place}", of=FIELDS[place][0], column=FIELDS[place][1], encoding=FIELDS[place][2]) for place in chosen
    ]
    entries = (
        HistoryField(name="room", column="room_id", encoding=ANY),
        HistoryField(name="kind", column="room.category", encoding=ANY),
        HistoryField(name="stay", column="stay_seconds", encoding=Bins(count=3)),
        HistoryField(name="ago", column="hours_ago", encoding=Bins(count=5)),
    )
    products = (HistoryField(name="product", column="product_id", encoding=ANY),)
    both = (
        History(name="channels", events="engagements", length=6, fields=entries),
        History(name="products", events="product_clicks", length=4, fields=products),
    )
    tables = {"channels": ("room", "room_id"), "products": ("product", "state.product_id")}
    matched = [
        Field(name=tables[each.name][0], of="candidate", column=tables[each.name][1], encoding=ANY) for each in both[:histories]
    ]
    targets = (
        Target(name="click", action="enter", fusion_weight=1.0),
        Target(name="order", action="order", parents=("click",)),
        Target(name="stay", action="enter", kind="value", head="log1p", parents=("click",)),
    )
    return Schema(
        fields=(*matched, *fields),
        histories=both[:histories],
        targets=targets,
        levels=levels,
        list_context=True,
        stages=Stages(stay="stay") if stages else None,
    )


def random_feeds(rng: np.random.Generator, count: int, wild: float) -> pa.Table:
    """Raw feeds with every base column of `FIELDS`; some values are missing, some nobody could have meant."""
    sizes = rng.integers(1, 6, count)
    offsets = pa.array(np.r_[0, np.cumsum(sizes)].astype(np.int32))
    entries = rng.integers(0, 7, count)
    of_entries = pa.array(np.r_[0, np.cumsum(entries)].astype(np.int32))

    def some(values: np.ndarray, kind: pa.DataType | None = None) -> pa.Array:
        return pa.array(values, kind, mask=rng.random(len(values)) < 0.2)

    def numbers(n: int) -> pa.Array:
        values = rng.lognormal(2, 2, n)
        odd = rng.random(n) < wild
        values[odd] = rng.choice([np.inf, -np.inf, np.nan, 1e39, -1e39, 3.4e38, -1.0, -0.0, 5e-324, 1e30], int(odd.sum()))
        return some(values)

    def ids(n: int) -> pa.Array:
        values = rng.integers(0, 12, n)
        odd = rng.random(n) < wild
        values[odd] = rng.choice([-1, 2**53 + 1, 2**63 - 1, -(2**63), 99], int(odd.sum()))
        return some(values)

    texts = lambda n: some(rng.choice(["c0", "c1", "", "a much longer word", "\U0001f600"], n), pa.string())
    truths = lambda n: some(rng.random(n) < 0.5)
    counts = lambda n: some(rng.integers(0, 300, n))
    n, m = int(sizes.sum()), int(entries.sum())
    rooms = rng.integers(0, 15, n)
    at = AT + rng.integers(0, 40 * 24 * HOUR, count)
    lists = lambda values: pa.ListArray.from_arrays(offsets, values)
    history = lambda values: pa.ListArray.from_arrays(of_entries, values)
    moments = np.repeat(at, entries) - rng.integers(1, 100 * HOUR, m)
    return pa.table(
        {
            "feed_id": pa.array(np.arange(count)),
            "user_id": ids(count),
            "at": pa.array(at),
            "day": pa.array(HOW["clock"].day(at).astype(np.int32)),
            "room_id": lists(pa.array(rooms)),
            "user_entries": counts(count),
            "user_impressions": counts(count),
            "user_last_seen_hours": some(rng.exponential(50, count).astype(np.float32)),
            "user.age": numbers(count),
            "user.city": texts(count),
            "user.is_new": truths(count),
            "context.device": texts(count),
            "preference.click": some(rng.random(count).astype(np.float32)),
            "preference.stay": some(rng.exponential(50, count).astype(np.float32)),
            "preference.order": some(rng.random(count).astype(np.float32)),
            "streamer_id": lists(ids(n)),
            "room.category": lists(texts(n)),
            "room.is_hd": lists(truths(n)),
            "state.product_id": lists(ids(n)),
            "state.viewers": lists(numbers(n)),
            "room_entries.life": lists(counts(n)),
            "room_impressions.life": lists(counts(n)),
            "pair_streamer_hours": lists(some(rng.exponential(50, n).astype(np.float32))),
            "room_age_hours": lists(some(rng.exponential(50, n).astype(np.float32))),
            "label.click": lists(pa.array((rng.random(n) < 0.4).astype(np.float32))),
            "label.order": lists(pa.array((rng.random(n) < 0.1).astype(np.float32))),
            "label.stay": lists(pa.array(rng.exponential(60, n).astype(np.float32))),
            "channels.at": history(pa.array(moments)),
            "channels.room_id": history(pa.array(rng.integers(0, 15, m))),
            "channels.room.category": history(texts(m)),
            "channels.stay_seconds": history(numbers(m)),
            "products.at": history(pa.array(moments)),
            "products.product_id": history(ids(m)),
        }
    )


def fitted(schema: Schema, rng: np.random.Generator, count: int, wild: float) -> EncoderState:
    features = random_feeds(rng, count, wild)
    features = features.set_column(1, "user_id", features["user_id"].fill_null(7))  # in a log everybody has one
    return finish(fit_partial(features, schema, **HOW), schema, **HOW)


def as_raw(features: pa.Table, schema: Schema) -> RawFeeds:
    """The same feeds as arrays."""

    def column(name: str) -> Flat:
        values = flat(features[name])
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.int8())
        known = values.is_valid().to_numpy(zero_copy_only=False)
        if pa.types.is_floating(values.type):
            return Flat(values.fill_null(0).to_numpy().astype(np.float64), known)
        ids = as_ids(values)
        return Flat(ids.fill_null(0).to_numpy(), ids.is_valid().to_numpy(zero_copy_only=False))

    historic = {history.name for history in schema.histories}
    names = [name for name in features.column_names if name.partition(".")[0] not in ("channels", "products", "label")]
    histories = {
        history: RawHistory(
            lengths(features[f"{history}.at"]),
            {name[len(history) + 1 :]: column(name) for name in features.column_names if name.startswith(f"{history}.")},
        )
        for history in historic
    }
    return RawFeeds(
        at_R=features["at"].to_numpy(),
        lengths_R=lengths(features["room_id"]),
        feed={name: column(name) for name in names if not is_list(features[name].type)},
        candidate={name: column(name) for name in names if is_list(features[name].type)},
        histories=histories,
    )


def bits(batch: FeedBatch) -> dict[str, tuple[tuple[int, ...], str, bytes]]:
    """All that predicting reads, tensor by tensor."""
    found = {f"feed.{name}": each for name, each in batch.feed.items()}
    found |= {f"candidate.{name}": each for name, each in batch.candidate.items()}
    for name, history in batch.histories.items():
        found |= {f"{name}.{field}": each for field, each in history.rows.items()} | {f"{name} is real": history.is_real_RL}
    found |= {"feed_of_candidate": batch.feed_of_candidate_N, "level": batch.level_N, "user": batch.user_R}
    found |= {} if batch.stage_R is None else {"stage": batch.stage_R}
    return {name: (tuple(each.shape), str(each.dtype), each.contiguous().numpy().tobytes()) for name, each in found.items()}


LEVELS = (
    Levels(of="streamer"),
    Levels(of="room", names=("low", "high"), shares=(0.5, 0.5)),
    Levels(column="state.viewers"),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    chosen=st.lists(st.integers(0, len(FIELDS) - 1), unique=True),
    level=st.sampled_from(LEVELS),
    stages=st.booleans(),
    histories=st.integers(0, 2),
    count=st.integers(1, 5),
    wild=st.sampled_from([0.0, 0.05, 0.5]),
)
def test_the_plan_gives_what_tables_give_to_the_bit(seed, chosen, level, stages, histories, count, wild):
    rng = np.random.default_rng(seed)
    if not any(FIELDS[place][0] == "candidate" for place in chosen):
        chosen = [*chosen, 20]
    schema = schema_of(chosen, levels=level, stages=stages, histories=histories)
    state = fitted(schema, rng, 30, wild / 5)
    features = random_feeds(rng, count, wild)
    plan = EncodePlan(schema, state)
    expected = to_batch(encode(features, schema, state), schema)
    assert bits(plan.batch(as_raw(features, schema))) == bits(expected)
    # and a feed is encoded alike alone and among others
    alone = [bits(plan.batch(as_raw(features.slice(row, 1), schema))) for row in range(count)]
    assert alone == [bits(to_batch(encode(features.slice(row, 1), schema, state), schema)) for row in range(count)]


def test_all_fields_at_once():
    rng = np.random.default_rng(0)
    schema = schema_of(list(range(len(FIELDS))), levels=LEVELS[0], stages=True, histories=2)
    state = fitted(schema, rng, 300, 0.01)
    features = random_feeds(rng, 64, 0.1)
    found = bits(EncodePlan(schema, state).batch(as_raw(features, schema)))
    assert found == bits(to_batch(encode(features, schema, state), schema)) and len(found) > len(FIELDS)
    assert EncodePlan(schema, state).batch(as_raw(features, schema)).stage_R.unique().tolist() == [0, 1, 2, 3]


def test_a_plan_of_another_encoder_is_refused(tiny_schema):
    rng = np.random.default_rng(0)
    schema = schema_of([20], levels=LEVELS[0], stages=False, histories=0)
    state = fitted(schema, rng, 30, 0)
    with pytest.raises(ConfigError, match="was fitted for another schema"):
        EncodePlan(tiny_schema, state)
