"""Training in this process: early stopping, going on, bundles, refusals."""

import errno
import json
import math
import os
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.batch import joined
from models.config import ConfigError, from_dict
from models.interests.disentangled import DisentangledConfig
from models.learners.adaptive import Adaptive, AdaptiveConfig
from models.learners.joint import Joint
from models.learners.workers import SingleWorker
from models.metrics.evaluation import Evaluation
from models.optim import AdamConfig, LazyAdamConfig, OptimiserConfig
from models.schema import Schema
from models.system import build_ranker
from models.zoo import resolve
from pipelines.bundle import load_bundle
from pipelines.runs import processes
from pipelines.runs.files import draft_of
from pipelines.train import TrainConfig, checkpoint, train
from pipelines.train.checkpoint import Checkpoints
from pipelines.train.loop import fit
from pipelines.train.monitor import Monitor
from pipelines.train.order import FeedOrder, row_groups
from pipelines.train.preferences import preference_means
from pipelines.train.progress import Progress, read_history, read_progress
from pipelines.train.report import Silent
from pipelines.train.stream import StoredFeeds, Stream
from pipelines.train.worker import train_in_bf16
from tests.pipelines.fabricate import fabricate, noted_anew
from tests.samples import full_schema

MODEL = resolve({"system": "mmoe", "embedding_width": 4, "fusion": {"experts": 2, "hidden": [8], "towers": [4]}})
CONFIG = TrainConfig(epochs=3, batch_feeds=16, checkpoint_every_steps=3, patience=3, shuffle_row_groups=4)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """120 training feeds: 8 steps of 16 feeds an epoch, the last of 8."""
    return fabricate(tmp_path_factory.mktemp("prepared") / "data")


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    said: list[str] = []
    result = train(prepared, MODEL, CONFIG, output=tmp_path_factory.mktemp("undisturbed") / "run", say=said.append)
    return result, said


def weights(result):
    return load_file(result.bundle_path / "weights.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# -- one run -------------------------------------------------------------------------------------------------------


def test_a_run_leaves_history_bundle_and_curves(undisturbed, prepared):
    result, said = undisturbed
    assert [record.epoch for record in result.history] == [0, 1, 2]
    assert [record.total_steps for record in result.history] == [8, 16, 24]
    assert result.history[0].losses.keys() == set(prepared.schema.target_names)
    candidates = sum(batch.candidates for batch in in_order(prepared, "train").batches())
    assert [record.candidates for record in result.history] == [candidates] * 3
    assert result.best.monitor == max(record.monitor for record in result.history)
    output = result.bundle_path.parent
    assert read_history(output) == result.history
    assert list((output / "tensorboard").glob("events*"))
    assert said[0] == "Training on 120 feeds, 8 steps an epoch, in this process."
    assert said[-1].startswith("epoch 3/3 done") and said[-1].endswith("all epochs done")


def test_curves_have_one_point_a_step_also_after_a_break(undisturbed, prepared, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def enough(record):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError):
        train(prepared, MODEL, CONFIG, output=tmp_path / "run", on_epoch=enough, say=lambda line: None)
    result = train(prepared, MODEL, CONFIG, output=tmp_path / "run", say=lambda line: None)
    curves = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    curves.Reload()
    points = curves.Scalars("valid/click.auc")
    assert [point.step for point in points] == [8, 16, 24]
    assert [point.value for point in points] == pytest.approx(
        [record.metrics["targets"]["click"]["auc"] for record in result.history]
    )
    assert [point.step for point in curves.Scalars("loss_of_epoch/order")] == [8, 16, 24]


def test_lines_between_tell_how_far_it_is(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.train.report.SECONDS_BETWEEN_LINES", 0.0)
    said: list[str] = []
    train(prepared, MODEL, replace(CONFIG, max_steps=3), output=tmp_path / "run", say=said.append)
    pattern = r"epoch 1/3 · step 2/8 · [\d,]+ candidates/s · loss click 0\.\d{4} .* · \d:\d\d left in this epoch"
    assert re.fullmatch(pattern, said[3])


def test_training_lowers_the_loss(undisturbed):
    first, *_, last = (sum(record.losses.values()) for record in undisturbed[0].history)
    assert last < first


def in_order(prepared, split):
    return StoredFeeds(groups=row_groups(prepared.files(split)), schema=prepared.schema, batch_feeds=7)


def test_the_bundle_predicts_what_validation_measured(undisturbed, prepared):
    result, _ = undisturbed
    bundle = load_bundle(result.bundle_path)
    evaluation = Evaluation(prepared.schema)
    with torch.no_grad():
        for batch in in_order(prepared, "valid").batches():
            predicted = {name: values.numpy() for name, values in bundle.ranker.predict(batch).items()}
            labels = {name: values.numpy() for name, values in batch.labels.items()}
            feed_N = batch.feed_of_candidate_N.numpy()
            evaluation.add(predicted, labels, batch.level_N.numpy(), feed_N, batch.user_R.numpy()[feed_N])
    for name, table in evaluation.result()["targets"].items():
        for metric in ("auc", "gauc_feed", "log_loss", "mse"):
            if metric in table:
                assert table[metric] == pytest.approx(bundle.metrics["targets"][name][metric], rel=1e-5)


def test_two_steps_counted_by_hand(prepared, tmp_path):
    """`max_steps` ends in the middle of an epoch, after as many steps as it says."""
    result = train(prepared, MODEL, replace(CONFIG, max_steps=2), output=tmp_path / "run", say=lambda line: None)
    (record,) = result.history
    assert record.total_steps == 2
    assert read_progress(result.checkpoint).stopped == "stopped after train.max_steps=2"


# -- going on ------------------------------------------------------------------------------------------------------


def test_finished_work_says_so_and_does_nothing(undisturbed, prepared):
    result, _ = undisturbed
    said: list[str] = []
    before = (result.bundle_path / "provenance.json").stat().st_mtime_ns
    again = train(prepared, MODEL, CONFIG, output=result.bundle_path.parent, say=said.append)
    assert said == [f"Already trained: {result.bundle_path}. To train again, throw it away (--restart, resume=False)."]
    assert not again.fresh and again.history == result.history
    assert (result.bundle_path / "provenance.json").stat().st_mtime_ns == before


def test_another_configuration_in_the_same_folder_is_refused(undisturbed, prepared):
    output = undisturbed[0].bundle_path.parent
    with pytest.raises(
        ConfigError, match=r"other settings: train.batch_feeds \(16 -> 8\).*another folder, or throw the old run away"
    ):
        train(prepared, MODEL, replace(CONFIG, batch_feeds=8), output=output)
    with pytest.raises(ConfigError, match=r"other settings: model.embedding_width \(4 -> 5\)"):
        train(prepared, replace(MODEL, embedding_width=5), CONFIG, output=output)


def test_how_it_is_run_may_change(undisturbed, prepared):
    output = undisturbed[0].bundle_path.parent
    assert not train(prepared, MODEL, replace(CONFIG, checkpoint_every_steps=5), output=output, say=lambda line: None).fresh


@pytest.mark.parametrize("steps", [1, 3, 4, 8, 11, 23])
def test_a_run_that_breaks_goes_on_to_the_same_weights(steps, undisturbed, prepared, tmp_path, monkeypatch):
    """Bitwise, on the CPU; broken after 1, 3, ... of 24 steps, with a checkpoint every 3 steps and at epoch ends."""
    from models.learners.joint import Joint

    taken = []
    step = Joint.step

    def breaking(self, batch, progress):
        if len(taken) == steps:
            raise KeyboardInterrupt
        taken.append(batch)
        return step(self, batch, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Joint, "step", breaking)
        with pytest.raises(KeyboardInterrupt):
            train(prepared, MODEL, CONFIG, output=tmp_path / "run", say=lambda line: None)
    said: list[str] = []
    result = train(prepared, MODEL, CONFIG, output=tmp_path / "run", say=said.append)
    went_on = {1: None, 3: (1, 3), 4: (1, 3), 8: (2, 0), 11: (2, 3), 23: (3, 6)}[steps]
    line = None if went_on is None else f"Going on at epoch {went_on[0]}, step {went_on[1]} of 8."
    assert (line in said) if line else not any("Going on" in said_line for said_line in said)
    assert same(weights(result), weights(undisturbed[0]))
    without_time = lambda history: [replace(record, seconds=0, candidates_per_second=0) for record in history]
    assert without_time(result.history) == without_time(undisturbed[0].history)


def test_a_bundle_lost_between_checkpoint_and_its_writing_is_made_again(undisturbed, prepared, tmp_path):
    shutil.copytree(undisturbed[0].bundle_path.parent, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "bundle")
    result = train(prepared, MODEL, CONFIG, output=tmp_path / "run", say=lambda line: None)
    assert result.fresh and same(weights(result), weights(undisturbed[0]))


def test_an_old_run_can_be_thrown_away(prepared, tmp_path):
    short = replace(CONFIG, epochs=1)
    train(prepared, MODEL, short, output=tmp_path / "run", say=lambda line: None)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    other = train(prepared, MODEL, replace(short, seed=1), output=tmp_path / "run", resume=False, say=lambda line: None)
    assert other.fresh and len(other.history) == 1
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_what_on_epoch_raises_ends_the_run_and_it_can_go_on(undisturbed, prepared, tmp_path):
    told = []

    def enough(record):
        told.append(record.epoch)
        if len(told) == 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        train(prepared, MODEL, CONFIG, output=tmp_path / "run", on_epoch=enough, say=lambda line: None)
    assert told == [0, 1]
    result = train(prepared, MODEL, CONFIG, output=tmp_path / "run", on_epoch=enough, say=lambda line: None)
    assert told == [0, 1, 2]  # epochs told before are not told again
    assert same(weights(result), weights(undisturbed[0]))


# -- what a learner tells ------------------------------------------------------------------------------------------


ADAPTIVE = replace(MODEL, learner=AdaptiveConfig(hidden=4, rate=0.01))
TELLING = replace(CONFIG, epochs=2, batch_feeds=5, checkpoint_every_steps=4)  # 24 steps an epoch


def test_a_learner_that_tells_nothing_leaves_nothing(undisturbed):
    assert [record.diagnostics for record in undisturbed[0].history] == [[], [], []]


def test_what_a_learner_tells_is_kept_by_tenths_of_an_epoch(prepared, tmp_path, monkeypatch):
    """24 steps: the first tenth is over with the third step, the second with the fifth, ... Each has the mean of its steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps = []
    diagnostics = Adaptive.diagnostics
    monkeypatch.setattr(Adaptive, "diagnostics", lambda self: steps.append(diagnostics(self)) or steps[-1])
    result = train(prepared, ADAPTIVE, replace(TELLING, max_steps=34), output=tmp_path / "run", say=lambda line: None)
    ends = [3, 5, 8, 10, 12, 15, 17, 20, 22, 24]
    ends += [27, 29, 32, 34]  # stopped by max_steps in the middle of an epoch
    points = [point for record in result.history for point in record.diagnostics]
    assert [len(record.diagnostics) for record in result.history] == [10, 4]
    assert [point["progress"] for point in points] == pytest.approx([end / 24 for end in ends])
    names = [f"{what}.{target}" for what in ("weight", "cosine", "ahead") for target in ("goods_bag", "order", "stay")]
    for first, last, point in zip([0, *ends], ends, points, strict=False):
        assert point.keys() == {"progress", *names}
        for name in names:
            assert point[name] == pytest.approx(sum(step[name] for step in steps[first:last]) / (last - first))
    assert points[0]["weight.order"] != points[-1]["weight.order"]
    curves = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    curves.Reload()
    drawn = curves.Scalars("diagnostics/cosine.order")
    assert [point.step for point in drawn] == ends
    assert [point.value for point in drawn] == pytest.approx([point["cosine.order"] for point in points])


@pytest.mark.parametrize("steps", [7, 25])
def test_what_was_told_survives_a_break_bit_for_bit(steps, prepared, tmp_path, monkeypatch):
    """The last checkpoint is at step 4, inside of the second tenth; or at an epoch's end."""
    whole = train(prepared, ADAPTIVE, TELLING, output=tmp_path / "whole", say=lambda line: None)
    taken = []
    step = Adaptive.step

    def breaking(self, batch, progress):
        if len(taken) == steps:
            raise KeyboardInterrupt
        taken.append(batch)
        return step(self, batch, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Adaptive, "step", breaking)
        with pytest.raises(KeyboardInterrupt):
            train(prepared, ADAPTIVE, TELLING, output=tmp_path / "run", say=lambda line: None)
    result = train(prepared, ADAPTIVE, TELLING, output=tmp_path / "run", say=lambda line: None)
    assert [record.diagnostics for record in result.history] == [record.diagnostics for record in whole.history]
    assert same(weights(result), weights(whole))


# -- probes ----------------------------------------------------------------------------------------------------------


DISENTANGLED = replace(MODEL, interest=DisentangledConfig(width=8, heads=2))


def test_a_ranker_is_probed_before_training_and_after_every_epoch(prepared, tmp_path):
    """On the same feeds: those of the validation split, here 40."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(prepared, DISENTANGLED, CONFIG, output=tmp_path / "run", say=lambda line: None)
    points = [point for record in result.history for point in record.diagnostics]
    assert [point["progress"] for point in points] == [0, 1, 2, 3]
    torch.manual_seed(CONFIG.seed)
    ranker = build_ranker(prepared.schema, DISENTANGLED, prepared.encoder.table_sizes)
    held_out = joined(list(in_order(prepared, "valid").batches()))
    with torch.no_grad():
        expected = {name: probe.value for name, probe in ranker.probe(held_out).items()}
        assert {"progress": 0.0, **expected} == pytest.approx(points[0])
        ranker.load_state_dict(weights(result))
        best = {name: probe.value for name, probe in ranker.probe(held_out).items()}
    assert best == pytest.approx({name: value for name, value in points[result.best.epoch + 1].items() if name != "progress"})
    assert best != expected
    curves = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    curves.Reload()
    drawn = curves.Scalars("diagnostics/disentangled.spread.channels")
    assert [point.value for point in drawn] == pytest.approx([point["disentangled.spread.channels"] for point in points])
    assert [point.step for point in drawn] == [1, *(record.total_steps for record in result.history)]


def test_a_planted_collapse_raises_an_alarm_in_history_and_lines(prepared, tmp_path, monkeypatch):
    """From the second epoch on all entries are alike but in one place of the width."""
    step, lines = Joint.step, []

    def collapsing(self, batch, progress):
        totals = step(self, batch, progress)
        if progress >= 1:
            for intentions in self.distributed.ranker.interest.intentions.values():
                intentions.encoder.blocks[-1].norms[-1].weight.data[1:] = 0
        return totals

    monkeypatch.setattr(Joint, "step", collapsing)
    result = train(prepared, DISENTANGLED, CONFIG, output=tmp_path / "run", say=lines.append)
    first, second, third = (record.alarms for record in result.history)
    told = [
        text for text in second if text.startswith("the effective rank of consistent intentions in channels is 1, below 0.25")
    ]
    assert first == [] and len(told) == 1 and len(third) >= 2
    assert f"  alarm: {told[0]}" in lines
    found = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [record["alarms"] for record in found] == [list(first), list(second), list(third)]


@pytest.mark.parametrize("steps", [3, 9])
def test_probes_survive_a_break(steps, prepared, tmp_path, monkeypatch):
    """In the first epoch, where only a checkpoint still has the probes before training, and in the second."""
    config = replace(CONFIG, checkpoint_every_steps=2)
    whole = train(prepared, DISENTANGLED, config, output=tmp_path / "whole", say=lambda line: None)
    step, taken = Joint.step, []

    def breaking(self, batch, progress):
        if len(taken) == steps:
            raise KeyboardInterrupt
        taken.append(batch)
        return step(self, batch, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Joint, "step", breaking)
        with pytest.raises(KeyboardInterrupt):
            train(prepared, DISENTANGLED, config, output=tmp_path / "run", say=lambda line: None)
    result = train(prepared, DISENTANGLED, config, output=tmp_path / "run", say=lambda line: None)
    assert [record.diagnostics for record in result.history] == [record.diagnostics for record in whole.history]
    assert read_progress(result.checkpoint).at_start == read_progress(whole.checkpoint).at_start != {}


# -- checkpoints -----------------------------------------------------------------------------------------------------


def test_the_last_two_checkpoints_are_kept(undisturbed):
    kept = sorted(path.name for path in undisturbed[0].checkpoint.parent.iterdir())
    assert kept == ["000000022-0002", "000000024-0003"]


class Parameter(nn.Module):
    """Stands in for a ranker: one number."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(1))


class Stateless:
    """Stands in for a learner."""

    state_dict = load_state_dict = lambda self, *_: {}


def test_a_checkpoint_that_was_not_finished_is_ignored(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(Parameter(), Stateless(), Progress(epoch=1, total_steps=5), SingleWorker(), best=True)
        checkpoints.wait(SingleWorker())
        draft = draft_of(tmp_path / "000000007-0002")
        draft.mkdir()
        (draft / "weights.safetensors").write_bytes(b"half")
        assert checkpoints.restore(Parameter(), Stateless(), SingleWorker()).total_steps == 5
        checkpoints.save(Parameter(), Stateless(), Progress(epoch=2, total_steps=9), SingleWorker())
    # its writer is this process, which lives
    assert [path.name for path in sorted(tmp_path.iterdir())] == [draft.name, "000000005-0001", "000000009-0002"]


@pytest.mark.parametrize("name", ["weights.safetensors", "best.safetensors", "state.pt", "progress.json"])
def test_a_checkpoint_cut_short_is_passed_over_and_said(tmp_path, name):
    with Checkpoints(tmp_path) as checkpoints:
        for epoch in (1, 2):
            progress = Progress(epoch=epoch, total_steps=5 * epoch)
            checkpoints.save(Parameter(), Stateless(), progress, SingleWorker(), best=True)
    file = tmp_path / "000000010-0002" / name
    whole = file.read_bytes()
    file.unlink()  # it may be a hard link to another one
    file.write_bytes(whole[: len(whole) // 2])
    said = []
    checkpoints.discard_damaged(said.append)
    assert len(said) == 1 and said[0].startswith(f"The checkpoint {file.parent} is damaged or cut short (")
    assert said[0].endswith("; going on from 000000005-0001.")
    assert checkpoints.restore(Parameter(), Stateless(), SingleWorker()).total_steps == 5
    (tmp_path / "000000005-0001" / "state.pt").unlink()
    checkpoints.discard_damaged(said.append)
    assert said[1].endswith("there is none before it; training begins anew.") and not [*tmp_path.iterdir()]


def test_a_checkpoint_without_its_best_weights_is_not_whole(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(Parameter(), Stateless(), Progress(total_steps=5, best_epoch=0), SingleWorker(), best=True)
    assert checkpoints.latest() is not None
    (tmp_path / "000000005-0000" / "best.safetensors").unlink()
    assert checkpoints.latest() is None


def test_what_is_no_damage_throws_no_checkpoint_away(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(Parameter(), Stateless(), Progress(total_steps=5), SingleWorker())
    (tmp_path / "9 of my own").mkdir()  # not a checkpoint's name
    checkpoints.discard_damaged(print)
    assert checkpoints.latest() == tmp_path / "000000005-0000"

    def refused(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr("pathlib.Path.open", refused)  # another user's
    with pytest.raises(PermissionError):
        checkpoints.discard_damaged(print)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000005-0000", "9 of my own"]


def test_a_checkpoint_of_other_names_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(torch.nn.Linear(1, 1), Stateless(), Progress(), SingleWorker())
    with pytest.raises(ConfigError, match=r"another version of this program: its weights have other names \(bias\)"):
        checkpoints.restore(Parameter(), Stateless(), SingleWorker())


def test_what_a_lost_worker_had_half_written_goes_with_the_next_checkpoint(tmp_path):
    """A draft is as large as a checkpoint, and Ray starts lost workers anew within one claim of the folder."""
    folder = tmp_path / "checkpoints"
    dead = subprocess.Popen(["true"])
    dead.wait()
    draft = folder / f".000000007-0002.{processes.host()}-{dead.pid}-01234567.draft"
    draft.mkdir(parents=True)
    (draft / "weights.safetensors").write_bytes(b"half")
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(Parameter(), Stateless(), Progress(epoch=1, total_steps=5), SingleWorker())
    assert [path.name for path in folder.iterdir()] == ["000000005-0001"]


def test_training_goes_on_while_a_checkpoint_is_written_and_changes_nothing_in_it(tmp_path, monkeypatch):
    may_write = threading.Event()
    monkeypatch.setattr(checkpoint, "save_file", lambda *what: may_write.wait(10) and save_file(*what))
    ranker, progress = Parameter(), Progress(total_steps=1)
    momentum = torch.ones(1)
    learner = Stateless()
    learner.state_dict = lambda: {"momentum": momentum}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(ranker, learner, progress, SingleWorker())
    ranker.number.data += 7
    momentum += 7
    progress.total_steps += 7
    assert checkpoints.latest() is None
    may_write.set()
    checkpoints.wait(SingleWorker())
    written = checkpoints.latest()
    assert written.name == "000000001-0000" and read_progress(written).total_steps == 1
    assert load_file(written / "weights.safetensors")["number"].item() == 0
    assert torch.load(written / "state.pt")["learner"]["momentum"].item() == 1


@pytest.mark.parametrize("moment", ["the next", "the end", "an error"])
def test_a_checkpoint_that_cannot_be_written_is_told_in_one_line_and_the_one_before_stays(moment, tmp_path, monkeypatch):
    def full(*what):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")  # as PyTorch says it

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(Parameter(), Stateless(), Progress(epoch=1, total_steps=5), SingleWorker())
    checkpoints.wait(SingleWorker())
    monkeypatch.setattr(checkpoint, "save_file", full)
    line = (
        rf"^the checkpoint after step 9 could not be written to {tmp_path}: No space left on device. "
        r"It takes 0\.0 MB; make room, and start again to go on from the one before.$"
    )
    raised = {"the next": ConfigError, "the end": ConfigError, "an error": LookupError}[moment]
    with pytest.raises(raised) as caught, checkpoints:
        checkpoints.save(Parameter(), Stateless(), Progress(epoch=2, total_steps=9), SingleWorker())
        if moment == "the next":
            checkpoints.save(Parameter(), Stateless(), Progress(epoch=3, total_steps=11), SingleWorker())
        if moment == "an error":
            raise LookupError("enough")
    (told,) = caught.value.__notes__ if moment == "an error" else [str(caught.value)]
    assert re.fullmatch(line, told)
    assert [path.name for path in tmp_path.iterdir()] == ["000000005-0001"]


def test_random_states_come_back(tmp_path):
    import random

    draw = lambda: (random.random(), np.random.rand(), torch.rand(()).item(), np.random.normal())
    draw()
    np.random.normal()  # leaves a second normal number in waiting
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(Parameter(), Stateless(), Progress(), SingleWorker())
    expected = draw()
    assert draw() != expected
    Checkpoints(tmp_path).restore(Parameter(), Stateless(), SingleWorker())
    assert draw() == expected


# -- early stopping ----------------------------------------------------------------------------------------------


class Scripted(nn.Module):
    """Stands in for ranker and learner: its predictions mix label and noise, more label the better its epoch is said to be."""

    def __init__(self, qualities: list[float], steps: int, patience_from: float = 0) -> None:
        super().__init__()
        self.patience_from = patience_from
        self.quality = nn.Parameter(torch.zeros(()))
        self.qualities, self.steps, self.taken = qualities, steps, 0
        self.trained, self.is_probed = ("click",), False
        self.losses = SimpleNamespace(smearings={})  # no target is a value

    def predict(self, batch, *, judged):
        noise_N = torch.rand(batch.candidates, generator=torch.Generator().manual_seed(0))
        mixed = lambda label_N: self.quality * label_N.clamp(max=1) + (1 - self.quality) * noise_N
        return {name: mixed(label_N) for name, label_N in batch.labels.items()}

    def step(self, batch, progress):
        self.quality.data.fill_(self.qualities[self.taken // self.steps])
        self.taken += 1
        return {"click": (1.0, 2.0)}

    def learner(self):
        class Learner:
            step = staticmethod(self.step)
            diagnostics = state_dict = staticmethod(dict)
            at_rest = is_selectable = True
            patience_from = self.patience_from

        return Learner()


def scripted_run(prepared, folder, qualities, config, *, valid="valid", patience_from=0):
    order = FeedOrder(groups=row_groups(prepared.files("train")), seed=0, batch_feeds=40, window_groups=4)
    ranker = Scripted(qualities, order.steps, patience_from)
    checkpoints = Checkpoints(folder)
    stream, held_out = Stream(order, prepared.schema), in_order(prepared, valid)
    progress = fit(ranker.learner(), ranker, stream, held_out, config, Silent(), checkpoints, SingleWorker())
    return progress, load_file(checkpoints.latest() / "best.safetensors")["quality"].item()


def test_early_stopping_keeps_the_best_epoch(prepared, tmp_path):
    qualities = [0.1, 0.3, 0.45, 0.2, 0.4, 0.5]
    progress, best = scripted_run(prepared, tmp_path, qualities, TrainConfig(epochs=6, patience=2))
    assert len(progress.history) == 5  # two epochs without a better one after the third; the sixth is never run
    assert progress.best_epoch == 2
    assert best == pytest.approx(0.45)
    assert progress.stopped == "stopped early: no better auc for 2 epochs"
    assert progress.history[0].losses == {"click": 0.5}


def test_patience_counts_from_the_end_of_a_curriculum_on(prepared, tmp_path):
    """The first epoch is the best. Patience of 2 alone stops after the third; where the third is the first one behind a
    curriculum, it and the fourth count; where the whole training is planned, none does.
    """
    qualities = [0.5, 0.4, 0.3, 0.2, 0.1, 0.1]
    for patience_from, epochs in ((0, 3), (1, 3), (2, 4), (3, 5), (math.inf, 6)):
        folder = tmp_path / str(patience_from)
        config = TrainConfig(epochs=6, patience=2)
        progress, best = scripted_run(prepared, folder, qualities, config, patience_from=patience_from)
        assert len(progress.history) == epochs and best == pytest.approx(0.5)
        assert progress.stopped == ("all epochs done" if epochs == 6 else "stopped early: no better auc for 2 epochs")


def test_a_monitor_can_be_better_when_smaller(prepared, tmp_path):
    qualities = [0.1, 0.45, 0.2, 0.1]
    progress, best = scripted_run(prepared, tmp_path, qualities, TrainConfig(epochs=4, monitor="click.log_loss", patience=1))
    values = [record.monitor for record in progress.history]
    assert len(values) == 3 and best == pytest.approx(0.45)
    assert values[1] == min(values)


def test_weights_of_candidates_are_told_as_the_share_that_counts_as_much():
    """Two steps of as many candidates, whose weights are 1 and 3 in one and 2 and 2 in the other: (8 / 4)^2 / (18 / 4)."""
    progress = Progress()
    for mean, square in ((2.0, 5.0), (2.0, 4.0)):
        progress.add_diagnostics({"gamma.order": mean, "gamma_square.order": square, "alpha": 0.5})
    progress.close_stretch(0.1)
    assert progress.diagnostics == [
        {"progress": 0.1, "gamma.order": 2, "gamma_square.order": 4.5, "alpha": 0.5, "effective.order": pytest.approx(4 / 4.5)}
    ]


def test_stage_weights_start_at_the_mean_preference_and_are_told(tmp_path):
    """At rates that move nothing, so that what is told at the end is what was there at the start; w/o Beta weights are the
    preferences.
    """
    prepared = fabricate(tmp_path / "data", schema=full_schema())
    still = OptimiserConfig(dense=AdamConfig(rate=1e-30), tables=LazyAdamConfig(rate=1e-30))
    system = {"system": "stan_without_beta", "embedding_width": 4, "fusion": {"hidden": [8], "towers": [4]}}
    means = preference_means(row_groups(prepared.files("train")), prepared.schema, "click", SingleWorker(), torch.device("cpu"))
    for weighting, expected in (({}, None), ({"pseudo_label": "click", "window": 30.0}, means)):
        config = TrainConfig(epochs=1, batch_feeds=16, optimiser=still)
        model = resolve({**system, "weighting": weighting})
        result = train(prepared, model, config, output=tmp_path / f"run{len(weighting)}", say=lambda line: None)
        told = result.history[0].diagnostics[-1]
        for name in prepared.schema.target_names:
            assert 0.9 < told[f"effective.{name}"] <= 1 + 1e-9  # users hardly differ yet
            if expected is not None:
                assert told[f"gamma.{name}"] == pytest.approx(expected[name][1], rel=0.15)


def test_without_validation_feeds_the_last_epoch_is_kept(prepared, tmp_path):
    progress, best = scripted_run(prepared, tmp_path, [0.4, 0.3, 0.2], TrainConfig(epochs=3, patience=1), valid="test")
    assert (progress.best_epoch, best) == (2, pytest.approx(0.2))
    assert [record.monitor for record in progress.history] == [None] * 3


def test_the_default_monitor_is_the_mean_auc_of_trained_binary_targets(tiny_schema):
    untrained = replace(tiny_schema.target("order"), loss_weight=0.0)
    schema = replace(tiny_schema, targets=(*tiny_schema.targets[:2], untrained, tiny_schema.targets[3]))
    table = lambda auc: {"kind": "binary", "auc": auc}
    metrics = {
        "targets": {"click": table(0.8), "goods_bag": table(0.6), "order": table(0.1), "stay": {}},
        "mean": {},
        "rows": 9,
    }
    assert Monitor(schema).value(metrics) == pytest.approx(0.7)
    with pytest.raises(ConfigError, match=r"`order[.]auc`, which begins with none that is trained: click, stay, mean"):
        Monitor(schema, "order.auc", ("click", "stay"))
    metrics["targets"]["click"] = table(None)
    assert Monitor(schema).value(metrics) == pytest.approx(0.6)
    metrics["targets"]["goods_bag"] = table(None)
    with pytest.raises(ConfigError, match=r"click.auc, goods_bag.auc is not defined on the validation split \(9 candidates"):
        Monitor(schema).value(metrics)


def test_calibration_is_better_nearer_to_one(tiny_schema):
    monitor = Monitor(tiny_schema, "click.calibration")
    assert monitor.is_better(1.1, than=0.8) and not monitor.is_better(1.3, than=0.8)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("click.acc", "no metric `click.acc`"),
        ("buy.auc", "begins with none that is trained: click, goods_bag, order, stay, mean"),
    ],
)
def test_an_unknown_monitor_is_refused_before_training(path, message, prepared, tmp_path):
    with pytest.raises(ConfigError, match=message):
        train(prepared, MODEL, replace(CONFIG, monitor=path), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_monitor_that_can_have_no_value_is_refused_before_training(prepared, tmp_path):
    shutil.copytree(prepared.path, tmp_path / "data")
    for file in (tmp_path / "data" / "feeds" / "valid").iterdir():
        table = pq.read_table(file, partitioning=None)
        place = table.schema.get_field_index("label.order")
        none = pa.ListArray.from_arrays(
            table["label.order"].combine_chunks().offsets, pa.array(np.zeros(len(pc.list_flatten(table["label.order"])), "f4"))
        )
        pq.write_table(table.set_column(place, table.schema.field(place), none.cast(table.schema.field(place).type)), file)
    without_orders = noted_anew(tmp_path / "data")
    with pytest.raises(ConfigError, match=r"train\.monitor: order\.auc is not defined on the validation split"):
        train(without_orders, MODEL, replace(CONFIG, monitor="order.auc"), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# -- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "train.epochs must be at least 1, got 0"),
        ({"workers": -1}, "train.workers must not be negative, got -1"),
        ({"seed": -1}, "train.seed must not be negative, got -1"),
        ({"cpus_per_worker": 0}, "train.cpus_per_worker must be above 0, got 0"),
        ({"reader": "ray_data"}, "train.reader `ray_data` needs Ray: set train.workers >= 1"),
        ({"batchfeeds": 3}, "`train.batchfeeds` is not a known key. Known here: epochs"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(TrainConfig, changes, where="train")


def test_workers_without_ray_are_refused(prepared, tmp_path):
    import ray

    if ray.is_initialized():
        pytest.skip("Ray is up")
    with pytest.raises(ConfigError, match=r"train.workers=2 needs Ray: call ray.init"):
        train(prepared, MODEL, replace(CONFIG, workers=2), output=tmp_path / "run")


def test_too_few_row_groups_for_the_workers_are_said(prepared, tmp_path, monkeypatch):
    from pipelines.train import ray_train

    def not_here(run, name, **_):
        raise InterruptedError(name)

    monkeypatch.setattr(ray_train, "check_cluster", lambda config: None)
    monkeypatch.setattr(ray_train, "train_on_ray", not_here)
    said: list[str] = []
    many = replace(CONFIG, workers=10, shuffle_row_groups=10)
    with pytest.raises(InterruptedError, match=r"^train-[0-9a-f]{16}$"):
        train(prepared, MODEL, many, output=tmp_path / "run", say=said.append)
    assert said[:2] == [
        "Training on 120 feeds, 8 steps an epoch, 10 Ray workers.",
        "Only 9 row groups: some workers get no feeds. Prepare with fewer prepare.row_group_feeds.",
    ]
    monkeypatch.setattr(ray_train, "train_on_ray", lambda *_, **__: None)
    with pytest.raises(
        ConfigError, match=r"the workers left nothing in .*run: it must lie on a file system that all nodes share"
    ):
        train(prepared, MODEL, many, output=tmp_path / "run", say=said.append)
    with pytest.raises(ConfigError, match=r"train.shuffle_row_groups=4 is less than train.workers=10"):
        train(prepared, MODEL, replace(CONFIG, workers=10), output=tmp_path / "run", say=said.append)


def test_a_missing_gpu_is_said(prepared, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match=r"train.device is cuda, but PyTorch finds no GPU here"):
        train(prepared, MODEL, replace(CONFIG, device="cuda"), output=tmp_path / "run", say=lambda line: None)


def test_loss_weights_may_differ_from_the_prepared_ones(prepared, tmp_path):
    spelling = prepared.schema.to_dict()
    spelling["targets"][0]["loss_weight"] = 0.0
    schema = Schema.from_dict(spelling)
    once = replace(CONFIG, epochs=1)
    result = train(prepared, MODEL, once, schema=schema, output=tmp_path / "run", say=lambda line: None)
    assert load_bundle(result.bundle_path).schema == schema


def test_bf16_runs_the_layers_low_and_the_losses_high(prepared):
    from models.ranker import Ranker

    torch.manual_seed(0)
    ranker = Ranker(prepared.schema, MODEL, prepared.encoder.table_sizes)
    batch = next(in_order(prepared, "valid").batches())
    exact = ranker.outcome(batch).outputs
    train_in_bf16(ranker, torch.device("cpu"))
    rough = ranker.outcome(batch).outputs
    for name, output_N in exact.items():
        assert rough[name].dtype == torch.float32
        torch.testing.assert_close(rough[name], output_N, atol=0.02, rtol=0.02)
    assert any(not torch.equal(rough[name], exact[name]) for name in exact)
    assert torch.equal(rough["click"], rough["click"].bfloat16().float())
