"""What contestants of the step and interest benchmarks share: random feeds, the same as the columns that flat libraries read,
and a peer's training loop."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batch import FeedBatch, HistoryBatch
from models.schema import Field, Hash, History, HistoryField, Schema, Target

FIELDS, WIDTH, BATCH, LENGTH = 20, 16, 1024, 50
TARGETS = ("click", "order")
RATE = 1e-3
PEER_OPTIMISERS = {"adam": torch.optim.Adam, "adagrad": torch.optim.Adagrad}


@dataclass(frozen=True)
class Both:
    """The same candidates as our batch and as the columns that flat libraries read."""

    feeds: FeedBatch
    columns: dict[str, Tensor]
    labels: Tensor


class PeerStep:
    """A peer's model in the plain loop its own trainers run.

    Args:
        call: predictions [N, targets]; with `auxiliary`, what it gives is added to the loss after the call.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        call: Callable[[Both], Tensor],
        family: str,
        batches: list[Both],
        rate: float,
        auxiliary: Callable[[], Tensor] | None = None,
    ):
        self.model, self.call, self.batches, self.auxiliary = model, call, batches, auxiliary
        self.optimiser = PEER_OPTIMISERS[family](model.parameters(), lr=rate)

    def __call__(self, index: int) -> None:
        batch = self.batches[index % len(self.batches)]
        predicted = self.call(batch)
        loss = sum(F.binary_cross_entropy(predicted[:, each], batch.labels[:, each]) for each in range(predicted.shape[1]))
        if self.auxiliary is not None:
            loss = loss + self.auxiliary()
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        self.optimiser.step()

    def predict(self, feeds: FeedBatch) -> dict[str, Tensor]:
        self.model.eval()
        return dict(zip(TARGETS, self.call(both(feeds)).unbind(1), strict=False))


def names() -> list[str]:
    return [f"f{index:02d}" for index in range(FIELDS)]


def matched(system: str) -> dict[str, list[str]]:
    """Histories by name, with the candidate fields that their entries share tables with."""
    if system == "two histories":
        return {"channels": ["f10", "f11", "f12"], "products": ["f13", "f14"]}
    return {"seen": ["f10", "f11"]} if system == "din" else {}


def targets_of(system: str) -> tuple[str, ...]:
    return TARGETS[:1] if system == "din" else TARGETS


def schema_of(system: str, rows: int) -> Schema:
    """Half of the fields are the feed's, half the candidate's."""
    table = Hash(buckets=rows)
    return Schema(
        fields=tuple(
            Field(name=name, of="feed" if index < FIELDS // 2 else "candidate", encoding=table)
            for index, name in enumerate(names())
        ),
        histories=tuple(
            History(
                name=history,
                events="product_clicks" if history == "products" else "engagements",
                length=LENGTH,
                fields=tuple(HistoryField(name=name, encoding=table) for name in names),
            )
            for history, names in matched(system).items()
        ),
        targets=tuple(Target(name=name, action=name, parents=TARGETS[:index]) for index, name in enumerate(targets_of(system))),
    )


def sizes(rows: int) -> dict[str, int]:
    return dict.fromkeys(names(), rows)


def random_batches(system: str, rows: int, candidates: int = 1) -> list[Both]:
    """Feeds of `candidates` each, rows drawn uniformly: the hardest case, hardly any row of a large table occurs twice."""
    schema = schema_of(system, rows)
    return [both(random_feeds(schema, rows, BATCH // candidates, candidates, seed)) for seed in range(8)]


def random_feeds(schema: Schema, rows: int, feeds: int, candidates: int, seed: int) -> FeedBatch:
    drawn = torch.Generator().manual_seed(seed)
    ids = lambda *shape: torch.randint(1, rows, shape, generator=drawn)
    count = feeds * candidates
    return FeedBatch(
        feed={field.name: ids(feeds) for field in schema.fields_of("feed")},
        candidate={field.name: ids(count) for field in schema.fields_of("candidate")},
        histories={
            history.name: HistoryBatch(
                rows={field.name: ids(feeds, LENGTH) for field in history.fields},
                is_real_RL=torch.ones(feeds, LENGTH, dtype=torch.bool),
            )
            for history in schema.histories
        },
        feed_of_candidate_N=torch.arange(feeds).repeat_interleave(candidates),
        level_N=torch.zeros(count, dtype=torch.int64),
        user_R=torch.zeros(feeds, dtype=torch.int64),
        labels={name: (torch.rand(count, generator=drawn) < 0.3).float() for name in schema.target_names},
    )


def flat(batch: FeedBatch) -> FeedBatch:
    of = batch.feed_of_candidate_N
    return FeedBatch(
        feed={name: values[of] for name, values in batch.feed.items()},
        candidate=batch.candidate,
        histories={
            name: HistoryBatch(
                rows={field: rows[of] for field, rows in history.rows.items()}, is_real_RL=history.is_real_RL[of]
            )
            for name, history in batch.histories.items()
        },
        feed_of_candidate_N=torch.arange(batch.candidates),
        level_N=batch.level_N,
        user_R=batch.user_R[of],
        labels=batch.labels,
    )


def both(feeds: FeedBatch) -> Both:
    columns = {name: values.unsqueeze(1) for name, values in {**feeds.feed, **feeds.candidate}.items()}
    for history in feeds.histories.values():
        columns |= {f"hist_{name}": rows for name, rows in history.rows.items()}
        columns["length"] = history.is_real_RL.sum(1, keepdim=True)
    return Both(feeds=feeds, columns=columns, labels=torch.stack(list(feeds.labels.values()), dim=1))
