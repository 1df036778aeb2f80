"""Two workers over gloo: collectives, and the same weights as one worker with the joint batch."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.testing import assert_close

from models.learners import build_learner
from models.learners.span import Span
from models.learners.world import Solo
from models.leveled import ranker_of
from models.optim import AdamConfig, OptimiserConfig, RowwiseAdagradConfig
from models.ranker import Ranker
from models.zoo import ZOO
from pipelines.prepared import Prepared
from pipelines.train.stream import Plan, Stream, row_groups
from pipelines.train.world import TorchWorld, from_rank_0, gather_objects
from tests.pipelines.fabricate import fabricate
from tests.samples import full_schema, smaller

OPTIMISERS = {
    "adam": OptimiserConfig(),
    "adagrad_clipped": OptimiserConfig(
        dense=AdamConfig(l2=1e-3), tables=RowwiseAdagradConfig(rate=0.05), clip_norm=0.1
    ),
}  # fmt: skip
CASES = [(system, "adam") for system in ZOO] + [("mmoe", "adagrad_clipped"), ("wdl", "adagrad_clipped")]


def trained(data: Path, system: str, optimiser: str, world) -> tuple[dict[str, torch.Tensor], list[dict], list[bool]]:
    """Float64 weights, losses of every step and whether the step had data here, after an epoch in joint batches of 10."""
    torch.set_num_threads(1)
    prepared = Prepared.open(data)
    torch.manual_seed(0)
    config = smaller(ZOO[system])
    ranker = ranker_of(prepared.schema, config, prepared.encoder.table_sizes).double()
    groups = row_groups(prepared.files("train"))
    plan = Plan(groups=groups, seed=1, batch_feeds=10, window_groups=2, rank=world.rank, size=world.size)
    counts = prepared.manifest.splits["train"].candidates_by_level
    span = Span(epochs=1, steps=plan.steps, candidates_of_level=counts)
    learner = build_learner(ranker, prepared.schema, config.learner, OPTIMISERS[optimiser], world, span)
    losses, had_data = [], []
    for batch in Stream(plan, prepared.schema, preferences=True).epoch(0):
        had_data.append(batch is not None)
        as_float64 = lambda tensor: tensor.double() if tensor.is_floating_point() else tensor
        losses.append(learner.step(None if batch is None else batch.map(as_float64), progress=len(losses) / plan.steps))
    return ranker.state_dict(), losses, had_data


def in_two_processes(rank: int, data: Path, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    world = TorchWorld()
    found: dict = {"rank": world.rank, "size": world.size, "pid": os.getpid()}

    ones = torch.full((2, 3), float(rank + 1))
    world.sum_(ones)
    found["sum"] = ones
    found["rows"] = world.gather_rows(torch.arange(rank + 1) + 10 * rank, torch.full((rank + 1, 2), float(rank)))
    found["no rows"] = world.gather_rows(torch.arange(2)[: 2 * rank], torch.ones(2 * rank, 3))
    found["nobody's rows"] = world.gather_rows(torch.arange(0), torch.ones(0, 3))
    found["objects"] = gather_objects({"rank": rank}, world)
    found["from rank 0"] = from_rank_0(f"said by {rank}", world)

    found["trained"] = {case: trained(data, *case, world) for case in CASES}
    torch.save(found, folder / f"rank-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """46 feeds in row groups of 16, 16, 14. In windows of at most 2 the first has one: rank 1 begins without data."""
    path = tmp_path_factory.mktemp("world") / "data"
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


def test_objects_gather_on_rank_0_and_spread_from_it(two):
    assert [found["objects"] for found in two] == [[{"rank": 0}, {"rank": 1}], None]
    assert [found["from rank 0"] for found in two] == ["said by 0"] * 2


@pytest.mark.parametrize(("system", "optimiser"), CASES)
def test_two_workers_give_the_weights_of_one_with_the_joint_batch(two, data, system, optimiser):
    """Float64, five steps, in the first of which rank 1 has no data; the order of sums differs, so equal to 1e-10."""
    alone, losses, _ = trained(data, system, optimiser, Solo())
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
    after, _, _ = trained(data, "mmoe", "adam", Solo())
    still = [name for name, values in after.items() if torch.equal(values, fresh[name])]
    assert still == ["losses.binned.visit.edges_E", "losses.binned.visit.means_K"]  # what a training finds, not learns
