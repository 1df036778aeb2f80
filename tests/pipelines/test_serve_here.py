"""A process that keeps an endpoint: how it is begun and ended from another one."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jobs import screen
from models.config import ConfigError
from pipelines.runs import processes, write_json
from pipelines.serve import here

# says where it is, as an endpoint does, and ends when it is told to
KEEPER = """
import json, os, pathlib, signal, sys, time
from pipelines.runs import processes
note = dict(url="http://x", ray="", authentication="", pid=os.getpid(), machine=processes.machine(),
            began=processes.began(os.getpid()))
if sys.argv[2] != "slow":
    pathlib.Path(sys.argv[1], "endpoint.json").write_text(json.dumps(note))
print("says something", flush=True)
signal.pause()
"""


def words(folder, *more: str) -> list[str]:
    return ["-c", KEEPER, str(folder), *(more or ("fast",))]


def test_one_is_kept_at_a_time_and_the_log_of_the_one_that_is_stays_whole(tmp_path):
    note = here.keep(tmp_path, words(tmp_path), 20)
    assert here.found(tmp_path) == note and note.is_alive
    while "says something" not in (tmp_path / here.LOG).read_text():
        time.sleep(0.01)
    with pytest.raises(ConfigError, match=rf"process {note.pid} keeps this endpoint already, at http://x\. `--swap` exch"):
        here.keep(tmp_path, words(tmp_path), 20)
    assert (tmp_path / here.LOG).read_text() == "says something\n"
    here.end(tmp_path, 0)
    assert here.found(tmp_path) is None
    with pytest.raises(ConfigError, match="no process of this machine keeps an endpoint"):
        here.end(tmp_path, 0)


def test_who_does_not_wait_for_it_leaves_none_behind(tmp_path, monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(here.subprocess, "Popen", lambda *args, **how: started.append(popen(*args, **how)) or started[-1])
    threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        here.keep(tmp_path, words(tmp_path, "slow"), 20)
    assert started[0].poll() is not None
    monkeypatch.setattr(here, "PATIENCE", 0.0)
    with pytest.raises(ConfigError, match="did not answer in time, and was ended"):
        here.keep(tmp_path, words(tmp_path, "slow"), 0.5)
    assert started[1].poll() is not None
    monkeypatch.setattr(here, "PATIENCE", 20.0)
    with pytest.raises(ConfigError, match=r"the endpoint ended at once: no port is free \(all it said is in"):
        here.keep(tmp_path, ["-c", "import sys; sys.exit('error: no port is free')"], 20)


def test_a_note_of_a_process_that_is_gone_is_none(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    note = dict(url="", ray="", authentication="", machine=processes.machine(), began=processes.began(os.getpid()))
    write_json(tmp_path / here.NOTE, {**note, "pid": int(gone.stdout)})
    assert here.found(tmp_path) is None


def test_options_are_spelled_out(capsys):
    """`--detach` is not handed on to the process that is to stay; an abbreviation of it would be."""
    with pytest.raises(SystemExit):
        screen.parser("").parse_args(["--deb"])
    assert "unrecognized arguments: --deb" in capsys.readouterr().err
