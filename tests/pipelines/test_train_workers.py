"""Two workers over gloo: collectives, and the same weights as one worker with the joint batch."""

import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.testing import assert_close

from models.learners.schedule import Schedule
from models.learners.workers import SingleWorker
from models.metrics.evaluation import Evaluation
from models.optim import AdamConfig, OptimiserConfig, RowwiseAdagradConfig
from models.ranker import Ranker
from models.system import build_learner, build_ranker
from models.zoo import ZOO
from pipelines.prepared import Prepared
from pipelines.train import process_group
from pipelines.train.order import FeedOrder, row_groups
from pipelines.train.process_group import TorchGroup, all_objects, exchange_bytes, from_rank_0
from pipelines.train.stream import StoredFeeds, Stream
from pipelines.train.validation import together, validate
from tests.pipelines.fabricate import fabricate
from tests.samples import full_schema, smaller, tiny_schema

# Two processes train every system of the zoo before the first test: on a busy machine of two cores that takes minutes.
pytestmark = pytest.mark.timeout(900)

OPTIMISERS = {
    "adam": OptimiserConfig(),
    "adagrad_clipped": OptimiserConfig(
        dense=AdamConfig(l2=1e-3), tables=RowwiseAdagradConfig(rate=0.05), clip_norm=0.1
    ),
}  # fmt: skip
CASES = [(system, "adam") for system in ZOO] + [("mmoe", "adagrad_clipped"), ("wdl", "adagrad_clipped")]

LIMITS = (10_000, 500)  # of candidates that an evaluation keeps


def trained(data: Path, system: str, optimiser: str, group) -> tuple[dict[str, torch.Tensor], list[dict], list[bool]]:
    """Float64 weights, losses of every step and whether the step had data here, after an epoch in joint batches of 10."""
    torch.set_num_threads(1)
    prepared = Prepared.open(data)
    torch.manual_seed(0)
    config = smaller(ZOO[system])
    ranker = build_ranker(prepared.schema, config, prepared.encoder.table_sizes).double()
    groups = row_groups(prepared.files("train"))
    order = FeedOrder(groups=groups, seed=1, batch_feeds=10, window_groups=2, rank=group.rank, size=group.size)
    counts = prepared.manifest.splits["train"].candidates_by_level
    schedule = Schedule(epochs=1, steps=order.steps, candidates_of_level=counts)
    learner = build_learner(ranker, prepared.schema, config.learner, OPTIMISERS[optimiser], group, schedule)
    losses, had_data = [], []
    for batch in Stream(order, prepared.schema).epoch(0):
        had_data.append(batch is not None)
        as_float64 = lambda tensor: tensor.double() if tensor.is_floating_point() else tensor
        losses.append(learner.step(None if batch is None else batch.map(as_float64), progress=len(losses) / order.steps))
    return ranker.state_dict(), losses, had_data


def in_two_processes(rank: int, data: Path, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    group = TorchGroup()
    found: dict = {"rank": group.rank, "size": group.size, "pid": os.getpid()}

    ones = torch.full((2, 3), float(rank + 1))
    group.sum_(ones)
    found["sum"] = ones
    found["rows"] = group.gather_rows(torch.arange(rank + 1) + 10 * rank, torch.full((rank + 1, 2), float(rank)))
    found["no rows"] = group.gather_rows(torch.arange(2)[: 2 * rank], torch.ones(2 * rank, 3))
    found["nobody's rows"] = group.gather_rows(torch.arange(0), torch.ones(0, 3))
    found["objects"] = all_objects({"rank": rank}, group)
    process_group.PIECE_BYTES = 6  # 3 bytes to each rank at a time
    found["bytes"] = exchange_bytes([b"%d to 0" % rank, b"" if rank else b"from 0 to 1"], group)
    found["from rank 0"] = from_rank_0(f"said by {rank}", group)

    found["metrics"] = [together(some_scores(rank, 2, limit), group) for limit in LIMITS]
    found["validated"] = validated(data, group)
    found["trained"] = {case: trained(data, *case, group) for case in CASES}
    torch.save(found, folder / f"rank-{rank}.pt")
    dist.destroy_process_group()


def some_scores(place: int, places: int, limit: int = 10_000) -> Evaluation:
    """3,000 candidates of 400 feeds of 50 users, every `places`-th feed of them from `place` on."""
    evaluation = Evaluation(tiny_schema(), limit=limit)
    rng = np.random.default_rng(0)
    feed_N = np.sort(rng.integers(0, 400, 3000))
    user_N = rng.integers(0, 50, 400)[feed_N]
    level_N = rng.integers(0, 3, 3000)
    names = tiny_schema().target_names
    predictions = {name: rng.random(3000).astype(np.float32).round(2 + i) for i, name in enumerate(names)}
    labels = {name: (rng.random(3000) < 0.3).astype(np.float32) for name in names}
    own_N = feed_N % places == place
    columns = lambda by_name: {name: values_N[own_N] for name, values_N in by_name.items()}
    evaluation.add(columns(predictions), columns(labels), level_N[own_N], feed_N[own_N], user_N[own_N])
    return evaluation


def validated(data: Path, group) -> dict:
    prepared = Prepared.open(data)
    torch.manual_seed(0)
    ranker = build_ranker(prepared.schema, smaller(ZOO["mmoe"]), prepared.encoder.table_sizes)
    groups = row_groups(prepared.files("train"))
    valid = StoredFeeds(groups=groups, schema=prepared.schema, batch_feeds=7, rank=group.rank, size=group.size)
    return validate(ranker, valid, group)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """46 feeds in row groups of 16, 16, 14. In windows of at most 2 the first has one: rank 1 begins without data."""
    path = tmp_path_factory.mktemp("group") / "data"
    fabricate(path, schema=full_schema(), train_files=(46,), valid_files=())
    return path


@pytest.fixture(scope="module")
def two(data, tmp_path_factory):
    """What both ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(in_two_processes, (data, folder), nprocs=2)
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in (0, 1)]


def test_two_processes_took_part(two):
    assert [found["rank"] for found in two] == [0, 1]
    assert [found["size"] for found in two] == [2, 2]
    assert two[0]["pid"] != two[1]["pid"]


def test_sums_are_of_all_ranks_in_place(two):
    for found in two:
        assert_close(found["sum"], torch.full((2, 3), 3.0))


def test_rows_come_in_rank_order_without_padding(two):
    for found in two:
        ids_U, rows_UD = found["rows"]
        assert ids_U.tolist() == [0, 10, 11]
        assert rows_UD.tolist() == [[0, 0], [1, 1], [1, 1]]
        assert found["no rows"][0].tolist() == [0, 1]
        assert found["nobody's rows"][1].shape == (0, 3)


def test_bytes_reach_their_rank_in_pieces(two):
    assert [found["bytes"] for found in two] == [[b"0 to 0", b"1 to 0"], [b"from 0 to 1", b""]]


def test_objects_of_all_ranks_and_of_rank_0_reach_all(two):
    assert [found["objects"] for found in two] == [[{"rank": 0}, {"rank": 1}]] * 2
    assert [found["from rank 0"] for found in two] == ["said by 0"] * 2


@pytest.mark.parametrize("limit", LIMITS)
def test_two_ranks_find_the_metrics_of_one_bit_for_bit(two, limit):
    """Feeds lie with the ranks in turn, so those of most users with both. Past the limit both keep the same users."""
    expected = some_scores(0, 1, limit).result()
    assert [found["metrics"][LIMITS.index(limit)] for found in two] == [expected] * 2
    assert (expected["user_share"] < 1) == (limit < 3000)


def test_ranks_that_score_parts_validate_as_one_does_bit_for_bit(two, data):
    assert [found["validated"] for found in two] == [validated(data, SingleWorker())] * 2


@pytest.mark.parametrize(("system", "optimiser"), CASES)
def test_two_workers_give_the_weights_of_one_with_the_joint_batch(two, data, system, optimiser):
    """Float64, five steps, in the first of which rank 1 has no data; the order of sums differs, so equal to 1e-10."""
    alone, losses, _ = trained(data, system, optimiser, SingleWorker())
    for found in two:
        weights, losses_of_two, had_data = found["trained"][system, optimiser]
        assert weights.keys() == alone.keys()
        for name, values in alone.items():
            assert_close(weights[name], values, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")
        for step, (one, both) in enumerate(zip(losses, losses_of_two, strict=True)):
            assert one.keys() == both.keys()
            for name in one:
                assert both[name] == pytest.approx(one[name], rel=1e-10), (step, name)
        assert had_data == [found["rank"] == 0, True, True, True, True]
    for name, values in two[0]["trained"][system, optimiser][0].items():
        assert torch.equal(values, two[1]["trained"][system, optimiser][0][name]), f"ranks differ in {name}"


def test_an_update_was_made_at_all(data):
    torch.manual_seed(0)
    prepared = Prepared.open(data)
    fresh = Ranker(prepared.schema, smaller(ZOO["mmoe"]), prepared.encoder.table_sizes).double().state_dict()
    after, _, _ = trained(data, "mmoe", "adam", SingleWorker())
    still = [name for name, values in after.items() if torch.equal(values, fresh[name])]
    assert all(name.startswith(("losses.values.", "losses.smearings.")) for name in still)  # what a training finds, not learns
