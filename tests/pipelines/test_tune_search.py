"""Whole searches on Ray: the winner, what fails, what was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.config import ConfigError, from_dict
from pipelines.bundle import load_bundle
from pipelines.prepared import Prepared
from pipelines.train.progress import read_history
from pipelines.tune import TuneConfig, register, search, versions
from tests.pipelines.fabricate import fabricate

MODEL = {"system": "mmoe", "embedding_width": 4, "fusion": {"experts": 2, "hidden": [8], "towers": [4]}}
RATE = "train.optimiser.dense.rate"


def tune(space, **more):
    return from_dict(TuneConfig, {"space": space, **more}, where="tune")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("tune") / "data").path


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_search_finds_the_setting_that_learns(local_ray, data, tmp_path):
    """With rates of 1e-9 nothing is learnt: the trials that may learn must win."""
    rates = lambda rate: {"dense": {"kind": "adam", "rate": rate}, "tables": {"kind": "lazy_adam", "rate": rate}}
    space = {
        "train.optimiser": {"type": "choice", "values": [rates(1e-9), rates(0.03)]},
        "train.batch_feeds": {"type": "int", "low": 12, "high": 16},
        "model.fusion.hidden": {"type": "choice", "values": [[8], [16, 8]]},
    }
    config = tune(space, trials=4, metric="click.auc", grace_epochs=1, reduction=2, seed=1, searcher="random")
    schema = Prepared.open(data).schema.to_dict()
    schema["targets"][1]["loss_weight"] = 0.25  # not what the data were prepared with
    spelling = {"schema": schema, "model": MODEL, "train": {"epochs": 5, "patience": 5}}
    said: list[str] = []
    result = search(spelling, data, config, tmp_path / "out", say=said.append)
    assert result.fresh and result.metric == "click.auc"
    assert len(result.trials) == 4 and {trial.number for trial in result.trials} == {1, 2, 3, 4}
    assert result.best.status == "done" and result.best.values["train.optimiser"] == rates(0.03) and result.best.score > 0.5
    assert "tensorboard --logdir" in said[0]
    assert any("epoch 1 · click.auc" in line for line in said) and "4 of 4 trials" in " ".join(said)

    bundle = load_bundle(result.bundle_path)
    assert bundle.schema.target("goods_bag").loss_weight == 0.25
    assert list(bundle.system.fusion.hidden) == result.best.values["model.fusion.hidden"]
    assert bundle.provenance["search"]["values"] == result.best.values
    assert bundle.metrics["targets"]["click"]["auc"] == result.best.score
    assert register(result.bundle_path, tmp_path / "bundles", "tiny") == versions(tmp_path / "bundles", "tiny")[0]
    assert result.table.read_text().count("\n") == 5 and result.picture.read_bytes()[:4] == b"\x89PNG"

    again = search(spelling, data, config, tmp_path / "out", say=said.append)
    assert not again.fresh and again.best == result.best and again.bundle_path == result.bundle_path
    assert said[-1].startswith("Already searched")


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_search_by_two_metrics_tells_each_epoch_and_keeps_the_front(local_ray, data, tmp_path):
    """Lines are of the epoch that is over; Tune, which sees trials at their end, hears of the best one, that of the bundle."""
    spelling = {"model": MODEL, "train": {"epochs": 4, "patience": 4, "batch_feeds": 16}}
    space = {RATE: {"type": "choice", "values": [0.003, 0.1]}}
    said: list[str] = []
    config = tune(space, trials=2, metric=["click.auc", "click.gini"], seed=1)
    result = search(spelling, data, config, tmp_path / "out", say=said.append)
    for trial in result.trials:
        records = read_history(tmp_path / "out" / "trials" / trial.id)
        own = [record.metrics["targets"]["click"] for record in records]
        for epoch, metrics in enumerate(own, 1):
            (line,) = [line for line in said if line.startswith(f"trial {trial.number} · epoch {epoch} ·")]
            assert f"click.auc {metrics['auc']:.4f}" in line and f"click.gini {metrics['gini']:.4f}" in line
        best = max(own, key=lambda metrics: metrics["auc"])
        assert trial.scores == {"click.auc": best["auc"], "click.gini": best["gini"]}
    assert len({record["auc"] for record in own}) > 1
    assert result.front and result.best in result.front and "none is better in all of" in " ".join(said)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_failed_trials_are_told_and_sink_a_search_only_together(local_ray, data, tmp_path):
    """No model survives a learning rate of 1e30."""
    spelling = {"model": MODEL, "train": {"epochs": 1, "batch_feeds": 16}}
    space = {RATE: {"type": "choice", "values": [0.01, 1e30]}}
    said: list[str] = []
    config = tune(space, trials=3, seed=3, searcher="random")
    result = search(spelling, data, config, tmp_path / "some", say=said.append)
    failed = [trial for trial in result.trials if trial.status == "failed"]
    assert failed and all(trial.values[RATE] == 1e30 and "finite" in trial.reason for trial in failed)
    assert result.trials[-1] == failed[-1] and result.best.values[RATE] == 0.01
    assert any(line.startswith(f"trial {failed[0].number} failed") for line in said)

    config = tune({RATE: {"type": "choice", "values": [1e30]}}, trials=1)
    with pytest.raises(ConfigError, match=r"no trial of 1 was trained to its end: .*finite"):
        search(spelling, data, config, tmp_path / "all", say=lambda line: None)


@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_values_that_do_not_go_together_cost_a_trial_not_the_search(local_ray, data, tmp_path, searcher):
    """Floors above 0 go with an alpha of .75 alone. The search says why others were refused, and goes on."""
    alpha, floor = "model.coupling.alpha", "model.coupling.floor"
    values = {alpha: [0.1, 0.2, 0.75], floor: [0.5, 0.25, 0.0]}
    space = {path: {"type": "choice", "values": each} for path, each in values.items()}
    model = {"system": "pimm", "embedding_width": 4, "fusion": {"hidden": [8]}}
    spelling = {"model": model, "train": {"epochs": 1, "batch_feeds": 64}}
    said: list[str] = []
    config = tune(space, trials=5, seed=1, searcher=searcher)
    result = search(spelling, data, config, tmp_path / "out", say=said.append)
    refused = [trial for trial in result.trials if trial.status == "refused"]
    assert 0 < len(refused) < 5 and result.trials[-len(refused) :] == refused
    for trial in result.trials:
        assert (trial.status == "refused") == (trial.values[floor] > trial.values[alpha])
    for trial in refused:
        told = f"with {alpha} = {trial.values[alpha]}, {floor} = {trial.values[floor]}: "
        because = f"0 <= floor <= alpha <= 1, got floor={trial.values[floor]}, alpha={trial.values[alpha]}"
        assert told in trial.reason and because in trial.reason and trial.score is None and trial.epochs == 0
        mine = [line for line in said if line.startswith(f"trial {trial.number} ")]
        assert len(mine) == 2 and all("was refused: tune.space, " + told in line for line in mine)
        assert because in result.table.read_text()
    assert load_bundle(result.bundle_path).system.coupling.floor == result.best.values[floor]
    again = search(spelling, data, config, tmp_path / "out", say=said.append)
    assert not again.fresh and again.trials == result.trials


PROGRAM = """
import json, sys
import ray
from models.config import from_dict
from pipelines.tune import TuneConfig, search

data, output = sys.argv[1:]
ray.init(num_cpus=2, include_dashboard=False, object_store_memory=300 * 2**20, log_to_driver=False)
space = {"train.seed": {"type": "choice", "values": [0, 1, 2, 3]}}
config = from_dict(TuneConfig, {"trials": 2, "grace_epochs": 60, "max_concurrent": 1, "space": space})
spelling = json.loads(sys.stdin.read())
result = search(spelling, data, config, output)
print("BEST", result.best.number)
"""


def statuses(output: Path) -> list[str]:
    """Of the trials that Tune's own state on disk knows of; what it learns later a kill costs (TUNE_GLOBAL_CHECKPOINT_S)."""
    files = sorted(output.glob("ray/search/experiment_state-*.json"), key=lambda file: file.stat().st_mtime)
    try:
        trials = json.loads(files[-1].read_text())["trial_data"] if files else []
    except ValueError:  # being written
        return []
    return sorted(json.loads(spelled)["status"] for spelled, _ in trials)


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_killed_search_goes_on(data, tmp_path):
    """Killed in its second trial, the search keeps the first and finishes the second from its own last checkpoint."""
    model = json.dumps({"model": MODEL, "train": {"epochs": 60, "patience": 60, "batch_feeds": 16}})
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROGRAM, str(data), str(tmp_path / "out")]
    log = tmp_path / "log"

    def start():
        process = subprocess.Popen(
            command,
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TUNE_GLOBAL_CHECKPOINT_S": "0.5"},
        )
        process.stdin.write(model)
        process.stdin.close()
        return process

    first = start()
    deadline = time.monotonic() + 150
    while "trial 2 · epoch 5 ·" not in log.read_text() or statuses(tmp_path / "out") != ["RUNNING", "TERMINATED"]:
        assert first.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(3)  # its Ray notices that its driver is gone
    histories = {
        path.parent.name: len(json.loads(path.read_text())) for path in (tmp_path / "out").glob("trials/*/history.json")
    }
    assert sorted(histories.values())[1] == 60 and len(histories) == 2
    files = (tmp_path / "out").glob("trials/*/history.json")
    reached = max(record.monitor for path in files for record in read_history(path.parent))

    second = start()
    assert second.wait(timeout=150) == 0, log.read_text()
    said = log.read_text()
    assert "Going on with the search" in said and "BEST" in said
    assert "trial 1 · epoch" not in said  # finished before
    marked = [line for line in said.splitlines() if "(best so far)" in line]
    score = lambda line: float(line.split("auc ")[1].split()[0])
    assert all(score(line) >= round(reached, 4) for line in marked)  # what was reached before the kill counts
    assert "trial 2 · epoch 1 ·" not in said and "trial 2 · epoch 60 ·" in said  # not from its beginning
    rows = (tmp_path / "out" / "search.csv").read_text().splitlines()
    assert len(rows) == 3 and all(",done," in row for row in rows[1:])
