"""Training of rankers that have weights of each level: goes on after a break, is validated at rest, keeps the best."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from models.learners.cmlir import Cmlir
from models.learners.finetune import Finetune
from models.leveled import Leveled
from models.metrics.evaluation import Evaluation
from models.optim import AdamConfig, LazyAdamConfig, OptimiserConfig
from models.zoo import resolve
from pipelines.bundle import load_bundle
from pipelines.train import TrainConfig, train
from pipelines.train.order import row_groups
from pipelines.train.stream import StoredFeeds
from pipelines.train.worker import Run, feed_order, schedule_of
from tests.pipelines.fabricate import fabricate

SMALL = {"system": "mmoe", "embedding_width": 4, "fusion": {"experts": 2, "hidden": [8], "towers": [4]}}
LEARNERS = {
    "cmlir": {"kind": "cmlir", "rounds": 6, "specific_steps": 2},
    "cmlir, dense": {"kind": "cmlir", "rounds": 6, "specific_steps": 1, "specific": "dense"},
    "finetune": {"kind": "finetune", "rounds_per_epoch": 2, "pretraining": 0.5},
}
CONFIG = TrainConfig(epochs=3, batch_feeds=16, checkpoint_every_steps=3, patience=1, shuffle_row_groups=4)


def model(learner: str):
    return resolve({**SMALL, "learner": LEARNERS[learner]})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """120 training feeds: 8 steps of 16 feeds an epoch, in rounds of 4."""
    return fabricate(tmp_path_factory.mktemp("prepared") / "data")


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    quiet = lambda line: None
    return {name: train(prepared, model(name), CONFIG, output=folder / name, say=quiet) for name in LEARNERS}


def test_a_planned_training_is_not_stopped_early(prepared, tmp_path):
    """At rates that move nothing no epoch is better than the first: joint training stops after two, patience being 1."""
    still = OptimiserConfig(dense=AdamConfig(rate=1e-30), tables=LazyAdamConfig(rate=1e-30))
    config = replace(CONFIG, optimiser=still)
    for learner, epochs in ({"kind": "joint"}, 2), (LEARNERS["cmlir"], 3), (LEARNERS["finetune"], 3):
        system = resolve({**SMALL, "learner": learner})
        result = train(prepared, system, config, output=tmp_path / learner["kind"], say=lambda line: None)
        assert len(result.history) == epochs
        assert len({record.monitor for record in result.history}) == 1


def test_the_best_epoch_of_a_fine_tuned_ranker_is_one_in_which_it_was_fine_tuned(undisturbed):
    """The switch is after 12 of 24 steps, in the second epoch."""
    result = undisturbed["finetune"]
    assert result.best.epoch in (1, 2)
    assert result.best.monitor == max(record.monitor for record in result.history[1:])


@pytest.mark.parametrize("steps", [1, 5, 8, 13, 23])
@pytest.mark.parametrize("learner", LEARNERS)
def test_a_run_that_breaks_goes_on_to_the_same_weights(learner, steps, undisturbed, prepared, tmp_path, monkeypatch):
    """Bitwise. A checkpoint is due after 3 and 6 of an epoch's 8 steps, and waits for a round's fourth or last step."""
    kind = Finetune if learner == "finetune" else Cmlir
    taken = []
    step = kind.step

    def breaking(self, batch, progress):
        if len(taken) == steps:
            raise KeyboardInterrupt
        taken.append(batch)
        return step(self, batch, progress)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "step", breaking)
        with pytest.raises(KeyboardInterrupt):
            train(prepared, model(learner), CONFIG, output=tmp_path / "run", say=lambda line: None)
    said: list[str] = []
    result = train(prepared, model(learner), CONFIG, output=tmp_path / "run", say=said.append)
    went_on = {1: None, 5: (1, 4), 8: (2, 0), 13: (2, 4), 23: (3, 4)}
    assert said[2].startswith(learner.split(",")[0] + ": ")  # the plan
    place = went_on[steps]
    line = None if place is None else f"Going on at epoch {place[0]}, step {place[1]} of 8."
    assert [each for each in said if "Going on" in each] == ([line] if line else [])
    mine, theirs = (load_file(each.bundle_path / "weights.safetensors") for each in (result, undisturbed[learner]))
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    timeless = lambda history: [replace(record, seconds=0, candidates_per_second=0) for record in history]
    assert timeless(result.history) == timeless(undisturbed[learner].history)


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_bundle_predicts_what_validation_measured(learner, undisturbed, prepared):
    bundle = load_bundle(undisturbed[learner].bundle_path)
    assert isinstance(bundle.ranker, Leveled)
    evaluation = Evaluation(prepared.schema)
    valid = StoredFeeds(groups=row_groups(prepared.files("valid")), schema=prepared.schema, batch_feeds=7)
    with torch.no_grad():
        for batch in valid.batches():
            predicted = {name: values.numpy() for name, values in bundle.ranker.predict(batch).items()}
            labels = {name: values.numpy() for name, values in batch.labels.items()}
            feed_N = batch.feed_of_candidate_N.numpy()
            evaluation.add(predicted, labels, batch.level_N.numpy(), feed_N, batch.user_R.numpy()[feed_N])
    for name, table in evaluation.result()["targets"].items():
        for metric in ("auc", "gauc_feed", "log_loss", "mse"):
            if metric in table:
                assert table[metric] == pytest.approx(bundle.metrics["targets"][name][metric], rel=1e-5)


def test_what_is_told_is_by_level(undisturbed):
    last = undisturbed["cmlir"].history[-1].diagnostics[-1]
    assert last["alpha"] == pytest.approx(0, abs=1e-12) and last["progress"] == 3
    for name in ("tail", "medium", "head"):
        assert last[f"norm.{name}"] > 0 and 0 < last[f"hardness.{name}"] < 1
    assert {"norm.tail", "norm.medium", "norm.head"} < undisturbed["finetune"].history[-1].diagnostics[-1].keys()


def test_training_in_bf16_is_that_of_every_level(prepared, tmp_path):
    """Predictions stay float32, near those of a training in float32."""
    config = replace(CONFIG, epochs=1, precision="bf16")
    result = train(prepared, model("cmlir"), config, output=tmp_path / "run", say=lambda line: None)
    exact = train(
        prepared, model("cmlir"), replace(config, precision="float32"), output=tmp_path / "exact", say=lambda line: None
    )
    for name, loss in exact.history[0].losses.items():
        found = result.history[0].losses[name]
        assert found == pytest.approx(loss, rel=0.02) and found != loss


def test_the_schedule_is_that_of_the_feed_files(prepared, tmp_path):
    run = Run(data=prepared.path, schema=prepared.schema, system=model("cmlir"), config=CONFIG, folder=tmp_path)
    schedule = schedule_of(run, prepared, feed_order(run, prepared, rank=0, size=1))
    files = prepared.files("train")
    levels = np.concatenate([pq.read_table(file)["level"].combine_chunks().flatten().to_numpy() for file in files])
    assert schedule.candidates_of_level == tuple(np.bincount(levels, minlength=3))
    assert (schedule.epochs, schedule.steps, schedule.total) == (3, 8, 24)
