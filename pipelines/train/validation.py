"""The validation of a ranker by all ranks of a training: each scores its feeds, then each summarises whole users.

No rank waits on another's work without a sign of life, and no single operation moves more than a bounded number of bytes, so
the size of the validation split is not limited by the group's timeout. The metrics have the same bits for any number of
ranks that score alike.
"""

import pickle
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import torch
from numpy.typing import NDArray

from models.learners.workers import WorkerGroup
from models.leveled import Leveled
from models.metrics.evaluation import Evaluation, Summary
from models.metrics.smearing import Seen
from models.ranker import Ranker
from pipelines.train.heartbeat import with_heartbeat
from pipelines.train.process_group import device_of_group, exchange_bytes, from_rank_0
from pipelines.train.stream import StoredFeeds


def validate(ranker: Ranker | Leveled, valid: StoredFeeds, group: WorkerGroup) -> dict[str, Any] | None:
    """Metrics of the validation split, the same on every rank; None if the split is empty.

    Expectations of values are mended by what the split shows (`layers.values.Smearing`), in the ranker and in the metrics.
    """
    if not valid.groups:
        return None
    ranker.eval()
    for smearing in ranker.losses.smearings.values():
        smearing.forgotten()
    own = with_heartbeat(lambda: scored(ranker, valid), group)
    mend(ranker, own, group)
    return together(own, group)


def mend(ranker: Ranker | Leveled, own: Evaluation, group: WorkerGroup) -> None:
    """Sets the ranker's smearings by the predictions of all ranks, and applies them to this rank's."""
    losses = ranker.losses
    names = [name for name in losses.smearings if name in own.targets]
    seen = with_heartbeat(lambda: [own.seen(name) for name in names], group)
    parts = [seen] if group.size == 1 else exchanged(lambda: [seen] * group.size, group)
    for place, name in enumerate(names):
        predicted_B, observed_B = Seen.together([part[place] for part in parts]).knots()
        losses.smearings[name].set(torch.from_numpy(predicted_B), torch.from_numpy(observed_B))

        def mended(value_N: NDArray, name: str = name) -> NDArray:
            device = next(ranker.parameters()).device
            return losses.smeared(name, torch.from_numpy(value_N).to(device)).cpu().numpy()

        own.become(name, mended)


def scored(ranker: Ranker | Leveled, valid: StoredFeeds) -> Evaluation:
    """What the ranker predicts of this rank's feeds. It must be in eval mode, and gradients off."""
    device = next(ranker.parameters()).device
    evaluation = Evaluation(valid.schema, ranker.trained)
    with closing(valid.batches()) as batches:
        for batch in batches:
            predictions = ranker.predict(batch.to(device), judged=True)
            evaluation.add(
                {name: values.cpu().numpy() for name, values in predictions.items()},
                {name: values.numpy() for name, values in batch.labels.items()},
                batch.level_N.numpy(),
                batch.feed_of_candidate_N.numpy(),
                batch.user_R[batch.feed_of_candidate_N].numpy(),
                None if batch.stage_R is None else batch.stage_R[batch.feed_of_candidate_N].numpy(),
            )
    return evaluation


def together(own: Evaluation, group: WorkerGroup) -> dict[str, Any]:
    """The metrics of what all ranks have scored, on every rank.

    Metrics by user want all of a user's feeds on one rank, wherever they lay in the files; so everything is sent to the rank
    that a hash of its user names. Each rank summarises its users, which is most of the work, and rank 0 puts the summaries
    together.
    """
    if group.size == 1:
        return own.result()
    mine = Evaluation(own.schema, own.targets, limit=own.limit)
    rows = torch.from_numpy(with_heartbeat(own.rows_by_halvings, group)).to(device_of_group())
    group.sum_(rows)

    def by_user() -> list[Evaluation]:
        own.keep_within_limit(rows.cpu().numpy())
        return own.by_user(group.size)

    def summary() -> Summary | None:
        for part in parts:
            mine.merge(part)
        return mine.summary()

    parts = exchanged(by_user, group)
    summaries = exchanged(lambda: [summary(), *[None] * (group.size - 1)], group)
    result = with_heartbeat(lambda: Summary.together(summaries).result() if group.rank == 0 else None, group)
    return from_rank_0(result, group)


def exchanged(values: Callable[[], Sequence[Any]], group: WorkerGroup) -> list[Any]:
    """Sends the r-th of the picklable values to rank r; returns what every rank sent to this one, in rank order.

    Args:
        values: makes them, one a rank; may take its time.
    """
    sent = with_heartbeat(lambda: [pickle.dumps(value) for value in values()], group)
    received = exchange_bytes(sent, group)
    del sent
    return with_heartbeat(lambda: [pickle.loads(part) for part in received], group)
