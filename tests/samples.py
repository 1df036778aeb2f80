"""Small schemas and random feeds that many tests share."""

import numpy as np
import torch

from models.batch import FeedBatch, HistoryBatch
from models.config import from_dict, to_dict
from models.schema import STAGES, Bins, Field, Hash, History, HistoryField, Number, Schema, Target, Vocabulary
from models.system import SystemConfig

TABLE_SIZES = {"user": 50, "hour": 25, "room": 40, "streamer": 20, "category": 8, "product": 30, "rate_bin": 9, "stay_bin": 7}


def tiny_schema() -> Schema:
    """Every kind of part once: feed and candidate fields, numbers, bins, two histories, a funnel of targets, a value."""
    room, streamer, category, product = Vocabulary(), Vocabulary(), Vocabulary(min_count=1), Vocabulary()
    return Schema(
        fields=(
            Field(name="user", of="feed", column="user_id", encoding=Hash(buckets=50)),
            Field(name="hour", of="feed", encoding=Vocabulary(min_count=1)),
            Field(name="user_entries", of="feed", encoding=Number(transform="log1p")),
            Field(name="room", of="candidate", column="room_id", encoding=room),
            Field(name="streamer", of="candidate", column="streamer_id", encoding=streamer),
            Field(name="category", of="candidate", column="room.category", encoding=category),
            Field(name="product", of="candidate", column="state.product_id", encoding=product),
            Field(name="rate_bin", of="candidate", column="room_entry_rate.life", encoding=Bins(count=8)),
            Field(name="rate", of="candidate", column="room_entry_rate.life", encoding=Number()),
        ),
        histories=(
            History(
                name="channels",
                events="engagements",
                length=10,
                fields=(
                    HistoryField(name="room", column="room_id", encoding=room),
                    HistoryField(name="streamer", column="streamer_id", encoding=streamer),
                    HistoryField(name="category", column="room.category", encoding=category),
                    HistoryField(name="stay", column="stay_seconds", encoding=Bins(count=6), table="stay_bin"),
                ),
            ),
            History(
                name="products",
                events="product_clicks",
                length=8,
                fields=(HistoryField(name="product", column="product_id", encoding=product),),
            ),
        ),
        targets=(
            Target(name="click", action="enter", fusion_weight=0.5),
            Target(name="goods_bag", action="goods_bag", parents=("click",), fusion_weight=0.2),
            Target(name="order", action="order", parents=("goods_bag",), fusion_weight=1.0),
            Target(name="stay", action="enter", kind="value", head="log1p", parents=("click",), fusion_weight=0.1),
        ),
    )


def full_schema() -> Schema:
    """`tiny_schema` with life-cycle stages, two preference windows, a sparse target beside the funnel, values of all heads."""
    spelling = tiny_schema().to_dict()
    return Schema.from_dict(
        {
            **spelling,
            "targets": [
                *spelling["targets"],
                {"name": "follow", "action": "follow", "parents": ["click"]},
                {"name": "visit", "action": "enter", "kind": "value", "head": "bins", "bins": 3, "parents": ["click"]},
                {"name": "price", "action": "order", "kind": "value", "head": "zero_inflated", "parents": ["order"]},
            ],
            "preference_days": [7.0, 30.0],
            "stages": {"click": "click", "stay": "stay", "order": "order"},
        }
    )


def smaller(config: SystemConfig) -> SystemConfig:
    """The same choices with narrow layers, since width decides nothing here but time."""
    limits = {"embedding_width": 16, "width": 32, "heads": 4}

    def narrow(key: str, value):
        if isinstance(value, dict):
            return {inner: narrow(inner, each) for inner, each in value.items()}
        if key in limits and value is not None:
            return min(value, limits[key])
        return (
            [min(each, 48) for each in value] if key in ("hidden", "entering", "towers") and isinstance(value, list) else value
        )

    return from_dict(SystemConfig, narrow("", to_dict(config)))


def random_batch(
    schema: Schema, sizes: dict[str, int], *, feeds: int, seed: int, most_candidates: int = 5, history: int | None = None
) -> FeedBatch:
    """Feeds with random table rows, numbers, histories (some empty) and labels that respect the target graph."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, most_candidates + 1, feeds)
    n = int(lengths.sum())

    def values(field, count):
        if field.is_number:
            return torch.from_numpy(rng.normal(size=count).astype(np.float32))
        return torch.from_numpy(rng.integers(0, sizes[field.table], count))

    histories = {}
    for item in schema.histories:
        real = rng.integers(0, (history or item.length) + 1, feeds)
        real[0] = 0  # one history is always all padding
        is_real = torch.from_numpy(np.arange(real.max(initial=0))[None, :] < real[:, None])
        rows = {
            field.name: torch.from_numpy(rng.integers(1, sizes[field.table], is_real.shape)) * is_real for field in item.fields
        }
        histories[item.name] = HistoryBatch(rows=rows, is_real_RL=is_real)

    labels: dict[str, torch.Tensor] = {}
    for target in schema.targets_parents_first:
        happened = torch.from_numpy((rng.random(n) < 0.5).astype(np.float32))
        for parent in target.parents:
            happened = happened * (labels[parent] > 0)
        if not target.is_binary:
            happened = happened * torch.from_numpy(rng.exponential(60, n).astype(np.float32))
        labels[target.name] = happened

    return FeedBatch(
        feed={field.name: values(field, feeds) for field in schema.fields_of("feed")},
        candidate={field.name: values(field, n) for field in schema.fields_of("candidate")},
        histories=histories,
        feed_of_candidate_N=torch.from_numpy(np.repeat(np.arange(feeds), lengths)),
        level_N=torch.from_numpy(rng.integers(0, len(schema.levels.names), n)),
        user_R=torch.from_numpy(rng.integers(0, 1000, feeds)),
        labels=labels,
        **_life_cycle(schema, feeds, rng),
    )


def _life_cycle(schema: Schema, feeds: int, rng: np.random.Generator) -> dict:
    """Stages and preferences; the first feed is its user's first, without earlier impressions in any window."""
    windows = len(schema.preference_days)
    earlier = np.cumsum(rng.integers(0, 20, (feeds, windows)), axis=1)
    earlier[0] = 0
    means = {target.name: rng.random((feeds, windows)).astype(np.float32) for target in schema.targets}
    return {
        "stage_R": None if schema.stages is None else torch.from_numpy(rng.integers(0, len(STAGES), feeds)),
        "preferences": {name: torch.from_numpy(np.where(earlier > 0, mean, np.nan)).float() for name, mean in means.items()},
        "earlier_RW": torch.from_numpy(earlier),
    }
