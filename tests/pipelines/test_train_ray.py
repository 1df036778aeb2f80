"""Training on Ray's workers: the same order of feeds, the same result, errors in one line."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from models.config import ConfigError
from models.learners.cmlir import CmlirConfig
from pipelines.train import train
from pipelines.train.order import FeedOrder, row_groups
from pipelines.train.ray_data import ray_data
from pipelines.train.ray_train import check_cluster
from pipelines.train.stream import Stream
from tests.pipelines.fabricate import fabricate
from tests.pipelines.killed_training import CONFIG, MODEL

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("prepared") / "data")


def test_ray_data_keeps_the_order(local_ray, prepared):
    """Also from the middle of a window on, and for a rank that has no row group in some window."""
    for rank, size, first_step in [(0, 1, 0), (0, 1, 5), (1, 2, 3), (2, 3, 0)]:
        order = FeedOrder(
            groups=row_groups(prepared.files("train")), seed=3, batch_feeds=10, window_groups=3, rank=rank, size=size
        )
        here, there = (
            [None if batch is None else batch.user_R.tolist() for batch in stream.epoch(1, first_step)]
            for stream in (Stream(order, prepared.schema), Stream(order, prepared.schema, ray_data))
        )
        assert here == there
        assert sum(batch is not None for batch in here) > 1


def test_two_workers_give_what_one_process_gives(local_ray, prepared, tmp_path):
    """Float32 sums in another order, 24 steps: equal to 1e-5. Rank 0's lines and every epoch's record arrive here."""
    alone = train(prepared, MODEL, CONFIG, output=tmp_path / "alone", say=lambda line: None)
    said: list[str] = []
    told: list[dict] = []
    config = replace(CONFIG, workers=2, reader="ray_data")
    two = train(prepared, MODEL, config, output=tmp_path / "two", say=said.append, on_epoch=told.append)
    first, second = (load_file(result.bundle_path / "weights.safetensors") for result in (alone, two))
    for name, values in first.items():
        torch.testing.assert_close(second[name], values, atol=1e-5, rtol=0)
    assert [record.candidates for record in two.history] == [record.candidates for record in alone.history]
    for mine, theirs in zip(two.history, alone.history, strict=True):
        assert mine.losses == pytest.approx(theirs.losses, rel=1e-5)
        assert mine.metrics["rows"] == theirs.metrics["rows"]
        assert mine.monitor == pytest.approx(theirs.monitor, abs=0.002)
    assert told == two.history
    assert said[0] == "Training on 120 feeds, 8 steps an epoch, 2 Ray workers."
    assert said[-1].startswith("epoch 3/3 done")
    assert list((tmp_path / "two" / "tensorboard").glob("events*"))

    said.clear()
    again = train(prepared, MODEL, config, output=tmp_path / "two", say=said.append)
    assert not again.fresh and said[0].startswith("Already trained")


def test_two_workers_train_levels_as_one_process_does(local_ray, prepared, tmp_path):
    """Rounds, samples, Reptile's steps and hardness are those of the joint batches."""
    model = replace(MODEL, learner=CmlirConfig(rounds=4, specific_steps=2))
    alone = train(prepared, model, CONFIG, output=tmp_path / "alone", say=lambda line: None)
    two = train(prepared, model, replace(CONFIG, workers=2), output=tmp_path / "two", say=lambda line: None)
    first, second = (load_file(result.bundle_path / "weights.safetensors") for result in (alone, two))
    assert first.keys() == second.keys() and any(name.startswith("levels.2.") for name in first)
    for name, values in first.items():
        torch.testing.assert_close(second[name], values, atol=1e-5, rtol=0)
    for mine, theirs in zip(two.history, alone.history, strict=True):
        assert mine.diagnostics[-1] == pytest.approx(theirs.diagnostics[-1], rel=1e-3)


def test_what_on_epoch_raises_ends_the_training_and_what_fails_is_told(local_ray, prepared, tmp_path):
    def enough(record):
        raise LookupError("enough")

    config = replace(CONFIG, workers=1, epochs=5000, patience=5000)
    with pytest.raises(LookupError, match="enough"):
        train(prepared, MODEL, config, output=tmp_path / "run", on_epoch=enough, say=lambda line: None)
    assert not (tmp_path / "run" / "bundle").exists()

    (tmp_path / "run" / "checkpoints").rename(tmp_path / "away")
    (tmp_path / "run" / "checkpoints").touch()  # workers cannot write
    with pytest.raises(ConfigError, match=r"^the checkpoint after step 3 could not be written to .*checkpoints: (File|Not a)"):
        train(prepared, MODEL, config, output=tmp_path / "run", say=lambda line: None)
    shutil.rmtree(tmp_path / "run" / "tensorboard")
    (tmp_path / "run" / "tensorboard").touch()  # what no worker asks about beforehand
    with pytest.raises(
        ConfigError, match=r"^training worker 0: .*tensorboard: a file of this name is where a folder is needed"
    ):
        train(prepared, MODEL, replace(config, max_failures=0), output=tmp_path / "run", say=lambda line: None)


def test_a_cluster_too_small_is_refused_in_one_line(local_ray):
    with pytest.raises(ConfigError, match=r"train.workers=4 x train.cpus_per_worker=1 \+ 1 .*needs 5 CPUs, the cluster has 4"):
        check_cluster(replace(CONFIG, workers=4))
    check_cluster(replace(CONFIG, workers=3))
    check_cluster(replace(CONFIG, workers=6, cpus_per_worker=0.5))
    with pytest.raises(ConfigError, match=r"train.device is cuda and train.workers is 2, but the cluster has 0 GPUs"):
        check_cluster(replace(CONFIG, workers=2, device="cuda"))
