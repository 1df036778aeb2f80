"""Batches cut, padded and rearranged; workers as threads."""

import threading

import torch
from torch import Tensor

from models.batch import FeedBatch, HistoryBatch


def take(batch: FeedBatch, feeds: list[int]) -> FeedBatch:
    """The given feeds, in the given order, with their candidates."""
    chosen = [torch.nonzero(batch.feed_of_candidate_N == feed).flatten() for feed in feeds]
    return rearranged(batch, feeds, torch.cat(chosen), torch.repeat_interleave(torch.tensor([len(each) for each in chosen])))


def flat(batch: FeedBatch) -> FeedBatch:
    """Every candidate as a feed of its own."""
    everyone = torch.arange(batch.candidates)
    return rearranged(batch, batch.feed_of_candidate_N.tolist(), everyone, everyone)


def rearranged(batch: FeedBatch, feeds: list[int], candidates: Tensor, feed_of_candidate_N: Tensor) -> FeedBatch:
    feed_rows = torch.tensor(feeds)
    return FeedBatch(
        feed={name: values[feed_rows] for name, values in batch.feed.items()},
        candidate={name: values[candidates] for name, values in batch.candidate.items()},
        histories={
            name: HistoryBatch(
                rows={field: rows[feed_rows] for field, rows in history.rows.items()}, is_real_RL=history.is_real_RL[feed_rows]
            )
            for name, history in batch.histories.items()
        },
        feed_of_candidate_N=feed_of_candidate_N,
        level_N=batch.level_N[candidates],
        user_R=batch.user_R[feed_rows],
        labels={name: values[candidates] for name, values in batch.labels.items()},
        stage_R=None if batch.stage_R is None else batch.stage_R[feed_rows],
        preferences={name: values[feed_rows] for name, values in batch.preferences.items()},
        earlier_RW=None if batch.earlier_RW is None else batch.earlier_RW[feed_rows],
    )


def with_pads(batch: FeedBatch, pads: int, row: int) -> FeedBatch:
    """The same feeds with `pads` more padded entries behind every history, which hold table row `row`."""
    histories = {}
    for name, history in batch.histories.items():
        shape = (batch.feeds, pads)
        histories[name] = HistoryBatch(
            rows={field: torch.cat([rows, torch.full(shape, row)], 1) for field, rows in history.rows.items()},
            is_real_RL=torch.cat([history.is_real_RL, torch.zeros(shape, dtype=torch.bool)], 1),
        )
    return replaced(batch, histories=histories)


def without_history(batch: FeedBatch) -> FeedBatch:
    """All entries turned into padding."""
    histories = {
        name: HistoryBatch(rows=history.rows, is_real_RL=torch.zeros_like(history.is_real_RL))
        for name, history in batch.histories.items()
    }
    return replaced(batch, histories=histories)


def with_no_entries(batch: FeedBatch) -> FeedBatch:
    """Histories of length 0."""
    histories = {
        name: HistoryBatch(
            rows={field: rows[:, :0] for field, rows in history.rows.items()}, is_real_RL=history.is_real_RL[:, :0]
        )
        for name, history in batch.histories.items()
    }
    return replaced(batch, histories=histories)


def replaced(batch: FeedBatch, **changes) -> FeedBatch:
    return FeedBatch(**{**batch.__dict__, **changes})


def points(seed: int, counts: tuple[int, int], *, at: float = 1.5) -> FeedBatch:
    """Feeds of one candidate each, as many of each of two levels; x is 1 and the label noise of deviation 1 around `at`."""
    many = sum(counts)
    generator = torch.Generator().manual_seed(seed)
    return FeedBatch(
        feed={},
        candidate={"x": torch.ones(many, dtype=torch.float64)},
        histories={},
        feed_of_candidate_N=torch.arange(many),
        level_N=torch.repeat_interleave(torch.arange(2), torch.tensor(counts)),
        user_R=torch.arange(many) + 10_000 * seed,
        labels={"y": at + torch.randn(many, generator=generator, dtype=torch.float64)},
    )


def double(batch: FeedBatch) -> FeedBatch:
    return batch.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


class Threads:
    """The workers of a group as threads; sums and concatenates in rank order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=30)
        self.slots: list = [None] * size

    def exchange(self, rank: int, value):
        self.slots[rank] = value
        self.barrier.wait()
        everything = list(self.slots)
        self.barrier.wait()
        return everything

    def run(self, work) -> list:
        """Calls `work(group)` once per worker and gives back the results; the first error is raised."""
        results: list = [None] * self.size
        errors: list[BaseException] = []

        def one(rank: int) -> None:
            try:
                results[rank] = work(ThreadGroup(self, rank))
            except BaseException as error:
                errors.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
        return results


class ThreadGroup:
    def __init__(self, threads: Threads, rank: int) -> None:
        self.threads, self.rank, self.size = threads, rank, threads.size

    def sum_(self, tensor: Tensor) -> None:
        everything = self.threads.exchange(self.rank, tensor.clone())
        tensor.copy_(torch.stack(everything).sum(0))

    def gather_rows(self, ids_U: Tensor, rows_UD: Tensor) -> tuple[Tensor, Tensor]:
        everything = self.threads.exchange(self.rank, (ids_U, rows_UD))
        return torch.cat([ids for ids, _ in everything]), torch.cat([rows for _, rows in everything])
