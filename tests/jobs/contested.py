"""Two jobs on one folder at once, again and again: `python -m tests.jobs.contested CONFIG TURNS`; prints a line a turn.

Processes are forked after the job's modules are imported, so a turn takes no longer than the job itself.
"""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from jobs import prepare, screen
from pipelines.experiment import load_experiment


def started(config: str, log: Path, wait: float = 0.0) -> int:
    """The job as a process of its own, which begins after `wait` seconds; number of the process."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        time.sleep(wait)
        screen.run(lambda _: prepare.main(["--config", config]))
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def code_of(pid: int) -> int:
    """Exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def made(folder: Path) -> dict[str, bytes]:
    """Files by path, without what a clock said."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


def main(config: str, turns: int) -> None:
    folder = load_experiment(config, []).folder
    logs = [Path(config).with_name(f"{number}.log") for number in range(2)]
    began = time.monotonic()
    assert code_of(started(config, logs[0])) == 0, logs[0].read_text()
    took, whole = time.monotonic() - began, made(folder)
    draw, turn = random.Random(0), 0
    while turn < turns:
        shutil.rmtree(folder / "prepared")
        first = started(config, logs[0])
        second = started(config, logs[1], draw.uniform(0, took / 2))
        codes = code_of(first), code_of(second)
        told = [log.read_text() for log in logs]
        if codes == (0, 0):  # the second came when the first was over
            assert sum("is finished; nothing to do" in text for text in told) == 1, told
            took /= 2
            continue
        refused = [text.splitlines()[-1] for text, code in zip(told, codes, strict=True) if code == 2]
        assert sorted(codes) == [0, 2], (codes, told)
        holder = (first, second)[codes.index(0)]
        assert " is in use by process " in refused[0] and f" {holder} of " in refused[0], told
        assert made(folder) == whole and not list(folder.glob(".*")), turn
        print(f"turn {turn}: {refused[0]}", flush=True)
        turn += 1
    shutil.rmtree(folder / "prepared")
    killed = started(config, logs[0])
    claim = folder / ".prepared.claim"
    while not (folder / "prepared" / "work").exists():
        time.sleep(0.001)
    os.kill(killed, signal.SIGKILL)
    assert claim.exists()
    assert code_of(started(config, logs[1])) == 0 and code_of(killed) == -signal.SIGKILL  # not even waited for before
    assert f"process {killed} of " in logs[1].read_text() and "died at its work" in logs[1].read_text(), logs[1].read_text()
    assert made(folder) == whole and not list(folder.glob(".*"))
    print(next(line for line in logs[1].read_text().splitlines() if "Taking over" in line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
