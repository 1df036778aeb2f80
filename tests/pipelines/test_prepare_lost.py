"""Files between steps that are gone, cut short or damaged: made again to the same bytes, or told by name.

    LIVERANK_LOST=all python -m pytest tests/pipelines/test_prepare_lost.py -k any_one_file -s

removes each file between each two steps, one after the other; without it a few of them are tried.
"""

import os
import shutil
from pathlib import Path

import pytest

from models.config import ConfigError
from pipelines.prepare import prepare, tasks
from pipelines.runs.runner import Runner, Task
from tests.pipelines.naive_prepare import random_log, wide_schema
from tests.pipelines.test_prepare import config, contents

SCHEMA = wide_schema()
STEPS = ("clean", "cut", "rooms", "features", "fit", "encoder", "encode")
LOST = 10**6 if os.environ.get("LIVERANK_LOST") == "all" else 2  # files that are tried between two steps
SETTINGS = config(rows_per_chunk=200, rows_per_bucket=60, feeds_per_file=8)


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    return random_log(2, feeds=12, users=4).write(tmp_path_factory.mktemp("lost") / "logs", files=1)


@pytest.fixture(scope="module")
def undisturbed(logs, tmp_path_factory):
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert prepare(logs, SCHEMA, SETTINGS, output).manifest.buckets == 2
    return contents(output)


def before(monkeypatch, step: str, what) -> None:
    """Has `what()` done between two steps."""
    real = Runner.step

    def disturbed(self, name, items, task):
        if name == step:
            what()
        return real(self, name, items, task)

    monkeypatch.setattr(Runner, "step", disturbed)


def stop() -> None:
    raise Stopped


def made(output: Path) -> list[Path]:
    return sorted(file for file in output.rglob("*") if file.is_file() and file.name != "run.json")


def one_of_a_kind(files: list[Path]) -> list[Path]:
    return list({(file.parent, file.name.split(".")[-2], file.suffix): file for file in files}.values())


def remove(file: Path) -> None:
    file.unlink()


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    """Of the same length, with another byte in its middle."""
    held = bytearray(file.read_bytes())
    held[len(held) // 2] ^= 16
    file.write_bytes(held)


@pytest.mark.parametrize("step", ["cut", "encode"])
def test_a_job_started_again_makes_what_is_gone(logs, undisturbed, tmp_path, monkeypatch, step):
    """Whichever file is removed after the job was killed."""
    with monkeypatch.context() as killed, pytest.raises(Stopped):
        before(killed, step, stop)
        prepare(logs, SCHEMA, SETTINGS, tmp_path / "killed")
    for number, file in enumerate(one_of_a_kind(made(tmp_path / "killed"))):
        output = tmp_path / str(number)
        shutil.copytree(tmp_path / "killed", output)
        (output / file.relative_to(tmp_path / "killed")).unlink()
        prepare(logs, SCHEMA, SETTINGS, output)
        assert contents(output) == undisturbed, file
        shutil.rmtree(output)


@pytest.mark.parametrize("step", STEPS)
def test_any_one_file_that_goes_between_two_steps_changes_nothing(logs, undisturbed, tmp_path, monkeypatch, step, capsys):
    """Of a job that runs, and so has seen it; every kind of file that is there by then, notes and quarantine included."""
    with monkeypatch.context() as killed, pytest.raises(Stopped):
        before(killed, step, stop)
        prepare(logs, SCHEMA, SETTINGS, tmp_path / "killed")
    files = made(tmp_path / "killed")
    again = []
    for number in sorted({number * len(files) // min(LOST, len(files)) for number in range(min(LOST, len(files)))}):
        output, file = tmp_path / str(number), files[number].relative_to(tmp_path / "killed")
        shutil.copytree(tmp_path / "killed", output)
        with monkeypatch.context() as here:
            before(here, step, (output / file).unlink)
            prepare(logs, SCHEMA, SETTINGS, output)
        assert contents(output) == undisturbed, file
        again += [file] if f"{file} is not there" in capsys.readouterr().out else []
        shutil.rmtree(output)
    if len(files) < LOST:
        with capsys.disabled():
            print(f"\nbefore {step}: {len(files)} files removed one by one, {len(again)} of them were needed and made again")


@pytest.mark.parametrize("step", STEPS[1:])
def test_a_job_that_misses_a_file_makes_it_again(logs, undisturbed, tmp_path, monkeypatch, step, capsys):
    """Between two steps one file of each kind that the steps from there on read is spoilt, in turn in each way."""
    ways = (remove, shorten, flip)
    read = {"all_users", "all_rooms", "attributes", "clean", "cut", "shown", "done", "seen", "counters"}
    read |= {"encoder": {"fit"}, "encode": {"train", "valid", "test"}, "fit": {"train"}}.get(step, set())
    spoilt = []

    def disturb() -> None:
        for number, file in enumerate(one_of_a_kind([file for file in made(tmp_path / "out") if file.parent.name in read])):
            ways[(number + STEPS.index(step)) % 3](file)
            spoilt.append(file)

    before(monkeypatch, step, disturb)
    prepare(logs, SCHEMA, SETTINGS, tmp_path / "out")
    assert contents(tmp_path / "out") == undisturbed
    assert spoilt and "makes it again" in capsys.readouterr().out


def test_a_file_that_vanishes_in_the_middle_of_a_step_is_made_again(logs, undisturbed, tmp_path, monkeypatch):
    real, ran = Task.__call__, []

    def disturbed(self, item):
        ran.append((self.folder.name, item.name))
        ended = real(self, item)
        if ran[-1] == ("cut", "00000") and ran.count(("cut", "00000")) == 1:
            for file in (tmp_path / "out" / "work" / "clean").iterdir():
                file.unlink()
        return ended

    monkeypatch.setattr(Task, "__call__", disturbed)
    prepare(logs, SCHEMA, SETTINGS, tmp_path / "out")
    assert contents(tmp_path / "out") == undisturbed
    assert ran.count(("cut", "00001")) == 4 and ran.count(("clean", "impressions-00000")) == 2  # a table is missed at a time


def test_results_that_vanish_before_the_end_are_made_again(logs, undisturbed, tmp_path, monkeypatch):
    for folder in ("quarantine", "snapshot/users", "snapshot/rooms", "features/test", "feeds/valid"):
        with monkeypatch.context() as here:
            real, output = Runner.settled, tmp_path / folder.replace("/", "-")

            def settled(self, *kinds, real=real, output=output, folder=folder):
                if "quarantine" in kinds:  # the first that are asked for
                    for file in (output / folder).iterdir():
                        file.unlink()
                return real(self, *kinds)

            here.setattr(Runner, "settled", settled)
            prepare(logs, SCHEMA, SETTINGS, output)
        assert contents(output) == undisturbed


def test_what_cannot_be_made_again_is_told_by_name(logs, tmp_path, monkeypatch):
    """A disk that loses a file as often as it is written; a log that is gone meanwhile."""
    real = Task.__call__

    def forgetful(self, item):
        ended = real(self, item)
        (tmp_path / "a" / "work" / "clean" / "engagements-00000.arrow").unlink(missing_ok=True)
        return ended

    with monkeypatch.context() as here:
        here.setattr(Task, "__call__", forgetful)
        with pytest.raises(ConfigError, match=r"engagements-00000.arrow is not there. Start the same command again"):
            prepare(logs, SCHEMA, SETTINGS, tmp_path / "a")
    assert not (tmp_path / "a" / "manifest.json").exists()
    own = random_log(2, feeds=12, users=4).write(tmp_path / "logs", files=1)

    def both_gone() -> None:
        (tmp_path / "b" / "work" / "clean" / "impressions-00000.arrow").unlink()
        own.files("impressions")[0].unlink()

    before(monkeypatch, "cut", both_gone)
    with pytest.raises(ConfigError, match=r"impressions/part-0.parquet is damaged \(.*No such file"):
        prepare(own, SCHEMA, SETTINGS, tmp_path / "b")


@pytest.mark.parametrize(
    ("task", "count", "message"),
    [
        ("CleanChunk", "rows", r"clean: \d+ rows of `impressions` were read where the steps before left \d+"),
        ("CutBucket", "read", r"cut: \d+ rows of `impressions` were read where"),
        ("CutBucket", "kept", r"cut: \d+ rows of `impressions` in order were read where"),
        ("CountRooms", "read", r"rooms: \d+ rows of `seen` were read where"),
        ("WriteFeatures", "splits", r"features: \d+ rows of feeds were read where"),
        ("FitFile", "feeds", r"fit: \d+ rows of feeds of training days were read where"),
        ("EncodeFile", "feeds", r"encode: \d+ rows of feeds of train were read where"),
    ],
)
def test_sums_of_rows_have_to_agree_from_step_to_step(logs, tmp_path, monkeypatch, task, count, message):
    """A fault of ours, in any step, that loses a row."""
    real = getattr(tasks, task).__call__

    def loses(self, work):
        done = real(self, work)
        counted, name = done.counts, count
        while isinstance(counted[name], dict):
            counted, name = counted[name], next(iter(counted[name]))
        counted[name] += 1
        return done

    monkeypatch.setattr(getattr(tasks, task), "__call__", loses)
    with pytest.raises(ConfigError, match=message):
        prepare(logs, SCHEMA, SETTINGS, tmp_path / "out")
