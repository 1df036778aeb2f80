"""A training that is killed goes on to the weights it would have had."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.train import train
from tests.pipelines.fabricate import fabricate
from tests.pipelines.killed_training import CONFIG, MODEL

ROOT = Path(__file__).parents[2]


def run(data, output, moment):
    return subprocess.run(
        [sys.executable, "-m", "tests.pipelines.killed_training", str(data), str(output), moment],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.cluster
def test_killed_four_times_and_the_same_weights_bit_for_bit(tmp_path):
    """24 steps. Killed before the 2nd step; in the middle of writing the 2nd checkpoint; in mid-epoch; between epochs."""
    data = tmp_path / "data"
    prepared = fabricate(data)
    undisturbed = train(prepared, MODEL, CONFIG, output=tmp_path / "undisturbed", say=lambda line: None)
    output = tmp_path / "killed"
    told = {
        "step:2": [],  # no checkpoint yet
        "save:2": [],  # checkpoint of step 3 is whole, that of step 6 is not
        "step:7": ["Going on at epoch 1, step 3 of 8."],  # steps 4 to 9; checkpoints at 6 and at the epoch's end
        "step:3": ["Going on at epoch 2, step 0 of 8."],
        "never": ["Going on at epoch 2, step 0 of 8."],
    }
    for moment, expected in told.items():
        done = run(data, output, moment)
        assert done.returncode == (0 if moment == "never" else -signal.SIGKILL), done.stderr
        assert [line for line in done.stdout.splitlines() if "Going on" in line] == expected
        if moment == "save:2":
            assert list((output / "checkpoints").glob(".*.draft")), "killed too late to prove anything"
    weights, expected = (
        load_file(folder / "bundle" / "weights.safetensors") for folder in (output, undisturbed.bundle_path.parent)
    )
    assert weights.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(weights[name], values), name


def workers_of_ray() -> list[int]:
    """Training workers among this process's descendants."""
    import psutil

    return [each.pid for each in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(each.cmdline())]


@pytest.mark.cluster
@pytest.mark.timeout(600)  # half a minute of starting processes on a quiet machine, minutes on a busy one
def test_a_killed_ray_worker_is_replaced_and_changes_nothing(local_ray, tmp_path):
    """One of two workers is killed after the second epoch has begun; Ray restarts both and they go on. Bitwise on the CPU."""
    prepared = fabricate(tmp_path / "data", train_files=(700, 500), row_group_feeds=100)
    config = replace(CONFIG, workers=2, batch_feeds=4, checkpoint_every_steps=20, max_failures=2)
    quiet = lambda line: None
    undisturbed = train(prepared, MODEL, config, output=tmp_path / "undisturbed", say=quiet)

    said: list[str] = []
    killed: list[int] = []

    def kill_one(record):
        if record.epoch == 0:
            time.sleep(0.2)  # into the second epoch
            while not list((tmp_path / "killed" / "checkpoints").glob("*-0001")):
                time.sleep(0.1)  # written while training goes on
            killed.append(max(workers_of_ray()))
            os.kill(killed[0], signal.SIGKILL)

    result = train(prepared, MODEL, config, output=tmp_path / "killed", say=said.append, on_epoch=kill_one)
    assert killed
    (going_on,) = [line for line in said if "Going on" in line]
    assert "epoch 2" in going_on or "epoch 3" in going_on
    assert len(result.history) == 3
    weights, expected = (load_file(each.bundle_path / "weights.safetensors") for each in (result, undisturbed))
    for name, values in expected.items():
        assert torch.equal(weights[name], values), name
