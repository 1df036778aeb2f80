"""Run folders: whole files, what a folder holds, who works in it."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from models.config import ConfigError
from pipelines.runs import (
    RunFolder,
    claim,
    claims,
    differences,
    discard,
    processes,
    read_json,
    told,
    write_json,
    write_text,
    written,
)
from pipelines.runs.claims import this_process
from pipelines.runs.files import draft_of

# -- files and folders ---------------------------------------------------------------------------------------------


def test_a_file_or_folder_takes_its_place_whole(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"a": 1})
    assert (tmp_path / "new" / "a.json").read_text() == '{\n "a": 1\n}\n'
    for text in ("old", "new"):
        with written(tmp_path / "folder") as draft:
            draft.mkdir()
            (draft / "part").write_text(text)
            if text == "new":
                assert (tmp_path / "folder" / "part").read_text() == "old"
    assert (tmp_path / "folder" / "part").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "new"]


def test_what_goes_wrong_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "file", "old")
    for path in (tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(KeyboardInterrupt), written(path) as draft:
            (draft.write_text if path.name == "file" else lambda _: draft.mkdir())("half")
            raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_full_disk_is_told_in_one_line_and_damages_nothing(tmp_path):
    write_text(tmp_path / "file", "old")
    _, most = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, most))
    try:
        with pytest.raises(ConfigError, match=r"^no space to write .*/file \(.* MiB are free.*as it was. Make room and start"):
            write_text(tmp_path / "file", "x" * 1001)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(ConfigError, match="no space"), written(tmp_path / "weights"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")  # as libraries put it
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.parametrize(
    ("written", "of", "reason"),
    [
        (b"", dict, "Expecting value"),
        (b'{"a": ', dict, "Expecting value"),
        (b"{\x80}", dict, "can't decode"),
        (b"null", dict, "it holds null, not an object"),
        (b"[1]", dict, r"it holds \[1\], not an object"),
        (b"{}", list, "it holds {}, not a list"),
    ],
)
def test_a_damaged_file_is_told_with_the_way_out(tmp_path, written, of, reason):
    (tmp_path / "a.json").write_bytes(written)
    with pytest.raises(ConfigError, match=rf"^.*/a\.json is damaged \(.*{reason}.*\)\. Delete it\.$"):
        read_json(tmp_path / "a.json", of=of, way_out="Delete it.")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json", way_out="")


def test_files_that_a_library_keeps_for_this_user_get_the_rights_of_their_folder(tmp_path):
    before = os.umask(0o027)
    try:
        with written(tmp_path / "folder") as draft:
            draft.mkdir()
            (draft / "weights").touch(0o600)  # as safetensors does
            (draft / "program").touch(0o700)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "folder").iterdir()}
    assert modes == {"weights": 0o640, "program": 0o740}


def test_drafts_tell_host_and_process_and_never_meet(tmp_path):
    drafts = {draft_of(tmp_path / "a.parquet").name for _ in range(100)}
    assert len(drafts) == 100
    pattern = rf"\.a\.parquet\.{re.escape(processes.host())}-{os.getpid()}-[0-9a-f]{{8}}\.draft"
    assert all(re.fullmatch(pattern, name) for name in drafts)


def test_what_is_thrown_away_is_gone(tmp_path):
    (tmp_path / "run" / "deep").mkdir(parents=True)
    for _ in range(2):
        discard(tmp_path / "run")
    assert not list(tmp_path.iterdir())


# -- identity ------------------------------------------------------------------------------------------------------


def test_differences_name_the_path_and_both_values():
    before = {"data": "a", "train": {"seed": 0, "rates": [1, 2]}, "fields": [{"name": "hour", "width": 4}, {"name": "day"}]}
    now = {"data": "a", "train": {"seed": 1, "rates": (1, 2)}, "fields": [{"name": "day"}, {"name": "hour", "width": 8}]}
    assert differences(before, now) == [
        "train.seed (0 -> 1)",
        "fields.hour.width (4 -> 8)",
        'fields.order (["hour", "day"] -> ["day", "hour"])',
    ]
    assert differences({"a": "x" * 50}, {"b": 1}) == [f'a ("{"x" * 36}... -> null)', "b (null -> 1)"]
    assert told(list("abcdefg")) == "a, b, c, d, e and 2 more"


def test_a_folder_takes_one_run(tmp_path):
    run = RunFolder(tmp_path / "run", "result")
    assert run.identity is None and run.differences({"seed": 1}) == []
    for _ in range(2):
        run.begin({"seed": 1}, way_out="Take another.")
    with pytest.raises(ConfigError, match=r"run holds a run with other settings: seed \(1 -> 2\)\. Take another\."):
        run.begin({"seed": 2}, way_out="Take another.")
    assert not run.is_finished
    write_text(run.path / "result", "")
    assert run.is_finished
    run.clear()
    run.begin({"seed": 2}, way_out="")
    for text in ("{", "null"):
        (run.path / "run.json").write_text(text)
        with pytest.raises(ConfigError, match=r"run\.json is damaged .* Delete .*run and start again"):
            run.begin({"seed": 2}, way_out="")


def test_what_no_run_left_is_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("my only copy")
    run = RunFolder(tmp_path, "result")
    assert run.differences({}) == ["everything (there is no run.json: an earlier version made it)"]
    for act in (run.clear, lambda: run.begin({}, way_out="")):
        with pytest.raises(ConfigError, match=r"holds files but no run\.json.*another folder, or delete this one"):
            act()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_lies_beside_the_parts_of_a_run_stays(tmp_path):
    (tmp_path / "thesis.txt").write_text("my only copy")
    run = RunFolder(tmp_path, "result", ("result", "deep"))
    run.begin({"seed": 1}, way_out="")
    (tmp_path / "deep").mkdir()
    (tmp_path / "result").touch()
    run.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "deep").mkdir()
    assert run.is_foreign


# -- claim ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def ended():
    """Number of a process that is gone."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def held(folder, **other) -> None:
    """As if another process had claimed the folder."""
    holder = replace(this_process(), **{"host": "there", "user": "ana", "command": "python -m jobs.train", **other})
    write_json(folder.with_name(f".{folder.name}.claim"), asdict(holder))


def taken(folder) -> list[str]:
    """Claims the folder and gives what was said."""
    said: list[str] = []
    with claim(folder, say=said.append):
        pass
    return said


def test_who_comes_second_is_told_who_holds_it(tmp_path):
    with claim(tmp_path / "run"), claim(tmp_path / "other"):
        with pytest.raises(ConfigError) as caught, claim(tmp_path / "x" / ".." / "run"):
            pass
        line = str(caught.value)
        assert line.startswith(f"{tmp_path / 'run'} is in use by process {os.getpid()} of ") and "\n" not in line
        assert f"on {processes.host()} (`python" in line and re.search(r" UTC \(\d+ s ago\)\. ", line)
        assert line.endswith("Wait for its end, stop it, or give the experiment another `name`.")
    assert taken(tmp_path / "run") == [] and not list(tmp_path.glob(".*"))


def test_a_dead_holders_claim_is_taken_over_and_its_drafts_go(tmp_path, ended):
    run = tmp_path / "run"
    (run / "deep").mkdir(parents=True)
    (run / "deep" / "whole").touch()
    mine = draft_of(run / "deep" / "mine")
    mine.touch()
    theirs = [path.with_name(path.name.replace(f"-{os.getpid()}-", f"-{ended}-")) for path in (mine, draft_of(run))]
    theirs[0].touch()
    theirs[1].mkdir()
    (theirs[1] / "half").touch()
    held(run, pid=ended)
    (said,) = taken(run)
    assert f"process {ended} of ana on there (`python -m jobs.train`) died at its work" in said and "Taking over." in said
    assert not any(path.exists() for path in theirs) and mine.exists() and (run / "deep" / "whole").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_whose_replacement_was_killed_halfway_is_put_back(tmp_path, ended):
    old = draft_of(tmp_path / "run", "old")
    old = old.with_name(old.name.replace(f"-{os.getpid()}-", f"-{ended}-"))
    old.mkdir()
    (old / "kept").touch()
    taken(tmp_path / "run")
    assert (tmp_path / "run" / "kept").exists() and not old.exists()


def test_another_process_with_the_number_of_a_dead_one_does_not_hold(tmp_path):
    held(tmp_path / "run", pid=os.getpid(), began="1")
    assert "died at its work" in taken(tmp_path / "run")[0]


def test_of_other_machines_signs_of_life_are_waited_for(tmp_path, monkeypatch):
    held(tmp_path / "run", machine="there")
    said: list[str] = []

    def lives(line):
        said.append(line)
        os.utime(tmp_path / ".run.claim")

    with pytest.raises(ConfigError, match=r"in use by .* on there"), claim(tmp_path / "run", say=lives):
        pass
    (line,) = said
    assert re.search(r"Its last sign of life is \d+ s old, at 60 s it counts as dead; waiting for one\.$", line)
    monkeypatch.setattr(claims, "DEAD_AFTER", 0.5)
    waiting, taking = taken(tmp_path / "run")
    assert "waiting for one." in waiting and "on there" in taking and "Taking over." in taking


@pytest.mark.parametrize("damage", [{"since": "yesterday"}, {"since": 5}, {"pid": "7"}, {"token": "../x"}, "[]", "", b"\xff"])
def test_a_damaged_claim_counts_as_dead_after_a_while(tmp_path, damage):
    text = json.dumps({**asdict(this_process()), **damage}) if isinstance(damage, dict) else damage
    (tmp_path / ".run.claim").write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(tmp_path / ".run.claim", (time.time() - 61,) * 2)
    assert "Taking over." in taken(tmp_path / "run")[0]


@pytest.mark.parametrize("heard", [signal.default_int_handler, signal.SIG_IGN], ids=["in front", "in the background"])
def test_a_holder_gives_signs_of_life_and_stops_where_it_was_taken_for_dead(tmp_path, monkeypatch, heard):
    """Jobs in the background of a script, as cron starts them, ignore Ctrl-C; they must stop all the same."""
    monkeypatch.setattr(claims, "RENEWED_EVERY", 0.01)
    before = signal.signal(signal.SIGINT, heard)
    try:
        _taken_for_dead(tmp_path)
        assert signal.getsignal(signal.SIGINT) is heard
    finally:
        signal.signal(signal.SIGINT, before)


def _taken_for_dead(tmp_path):
    file = tmp_path / ".run.claim"
    with pytest.raises(ConfigError, match="claim of this process is gone"), claim(tmp_path / "run"):
        os.utime(file, (0, 0))
        while file.stat().st_mtime == 0:
            time.sleep(0.01)
        held(tmp_path / "run", token="another")
        time.sleep(60)
    assert json.loads(file.read_text())["token"] == "another"


def test_who_has_patience_says_so_and_waits(tmp_path):
    said: list[str] = []
    began, over = threading.Event(), threading.Event()

    def work():
        with claim(tmp_path / "run"):
            began.set()
            over.wait()

    holder = threading.Thread(target=work)
    holder.start()
    began.wait()
    with claim(tmp_path / "run", patience=60, say=lambda line: (said.append(line), over.set())):
        assert len(said) == 1 and "is in use by" in said[0] and "Waiting for at most 60 s." in said[0]
    holder.join()


@pytest.mark.parametrize("links", [True, False])
def test_of_many_at_one_instant_one_holds_also_where_a_dead_one_did(tmp_path, monkeypatch, ended, links):
    if not links:  # a file system without
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links here")))
    for turn in range(10):
        inside: list[int] = []
        worked: list[int] = []
        gate = threading.Barrier(6)
        if turn % 2:
            held(tmp_path / "run", pid=ended, token=str(turn))

        def work(number, inside=inside, worked=worked, gate=gate):
            gate.wait()
            try:
                with claim(tmp_path / "run", say=lambda line: None):
                    inside.append(number)
                    assert inside == [number]
                    time.sleep(0.002)
                    worked.append(inside.pop())
            except ConfigError:
                pass

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert worked and not inside
    assert not list(tmp_path.glob(".*"))
