"""What the driver of Ray's workers sees of them: lines, epochs, and why they ended. Needs no Ray."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from models.config import ConfigError
from pipelines.train.follow import Fitting, Lines, Records
from pipelines.train.progress import HISTORY
from tests.pipelines.fabricate import epoch_record


def fitting(fit):
    made = Fitting(SimpleNamespace(fit=fit))
    assert made.wait(10)
    return made


def raises(error):
    def fit():
        raise error

    return fit


def test_whole_lines_are_said_once_and_old_ones_not_at_all(tmp_path):
    path, said = tmp_path / "progress.log", []
    path.write_text("of an earlier attempt\n")
    lines = Lines(path, said.append)
    lines.follow()
    with path.open("a") as file:
        file.write("first · ä\nsecond, half")
    lines.follow()
    assert said == ["first · ä"]
    with path.open("a") as file:
        file.write(" and half\n")
    lines.follow()
    lines.follow()
    assert said == ["first · ä", "second, half and half"]


def test_lines_wait_for_their_file(tmp_path):
    said = []
    lines = Lines(tmp_path / "later.log", said.append)
    lines.follow()
    (tmp_path / "later.log").write_text("here\n")
    lines.follow()
    assert said == ["here"]


def test_every_epoch_is_told_once_and_those_of_an_earlier_attempt_are_not(tmp_path):
    told = []

    def finish(*epochs: int) -> None:
        (tmp_path / HISTORY).write_text(json.dumps([asdict(epoch_record(epoch)) for epoch in epochs]))

    finish(0)
    records = Records(tmp_path, lambda record: told.append(record.epoch))
    records.follow()
    finish(0, 1, 2)
    records.follow()
    records.follow()
    assert told == [1, 2]


def test_a_history_of_another_version_is_refused_in_one_line(tmp_path):
    (tmp_path / HISTORY).write_text(json.dumps([{"epoch": 0, "told": []}]))
    with pytest.raises(ConfigError, match=r"history.json was written by another version .*told.*Train again, .*--restart"):
        Records(tmp_path, print)


def test_a_fit_that_ended_well_raises_nothing():
    fitting(lambda: SimpleNamespace(return_value=None)).check()


def test_what_workers_refuse_is_raised_as_it_is():
    with pytest.raises(ConfigError, match="not defined on the validation split"):
        fitting(lambda: SimpleNamespace(return_value=ConfigError("not defined on the validation split"))).check()


def test_a_worker_that_failed_says_its_root_cause_in_one_line():
    outer = RuntimeError("a long\ntrace")
    outer.__cause__ = OSError("disk full")
    failed = Exception("workers failed")
    failed.worker_failures = {1: outer, 0: outer}  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r"^training worker 0 failed: OSError\('disk full'\)$"):
        fitting(raises(failed)).check()


def test_other_errors_of_ray_come_through():
    with pytest.raises(TimeoutError, match="no cluster"):
        fitting(raises(TimeoutError("no cluster"))).check()
