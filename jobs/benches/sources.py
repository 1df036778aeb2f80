"""Files that look like those of public data sets, converted and prepared at several sizes.

    python -m jobs.bench sources --kinds kuailive --shares 0.01 0.05

A share of 1 has as many rows as the real data set. Each size is converted, and with `--prepare` prepared by the data set's
shipped config, on Ray in a process of its own whose workers are warm. Memory is the proportional set size (what is shared
counts once) of the process and all that it started, sampled four times a second: it must not grow with the log.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from jobs.benches.lookalikes import LOOKALIKES
from jobs.benches.measure import row
from jobs.benches.memory import Memory
from pipelines.cluster import RayConfig, connected
from pipelines.experiment import Experiment, load_experiment
from pipelines.steps import logs_of, prepare_step

CONFIGS = Path(__file__).parents[1] / "configs"
_WARM = 1e-4  # share of the look-alike that warms the workers


def experiment_of(kind: str, files: Path, output: Path) -> Experiment:
    return load_experiment(CONFIGS / f"{kind}.yaml", [f"logs.path={files}", f"output={output}"])


def lookalike(kind: str, share: float, folder: Path) -> dict[str, int]:
    """The files, made unless they are there; rows by file."""
    told = folder / "rows.json"
    if not told.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        started = time.monotonic()
        rows = LOOKALIKES[kind](folder, share)
        told.write_text(json.dumps(rows), encoding="utf-8")
        print(f"{kind}, share {share:g}: {sum(rows.values()):,} rows made up in {time.monotonic() - started:.0f} s", flush=True)
    return json.loads(told.read_text(encoding="utf-8"))


def one_side(side: str, experiment: Experiment, warm: Experiment, cpus: int) -> float:
    """Seconds of a conversion, or of a preparation of what has been converted."""
    with connected(RayConfig(num_cpus=cpus, dashboard=False, object_store_mb=300)):
        logs_of(warm)
        if side == "prepare":
            prepare_step(warm)
        started = time.monotonic()
        if side == "convert":
            logs_of(experiment)
        else:
            prepare_step(experiment)
        return time.monotonic() - started


def measured(side: str, kind: str, files: Path, folder: Path, cpus: int) -> tuple[float, Memory]:
    """Runs one side in a process of its own."""
    command = [sys.executable, "-m", "jobs.benches.sources", "--side", side, "--kinds", kind]
    command += ["--files", str(files), "--folder", str(folder), "--cpus", str(cpus)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    memory = Memory(process.pid)
    printed, _ = process.communicate()
    memory.stop()
    if process.returncode:
        raise RuntimeError(f"{kind}, {side} failed:\n{printed}")
    return float(printed.splitlines()[-1]), memory


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="jobs.bench sources", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=LOOKALIKES, default=["kuailive"], help="data sets")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.05], help="sizes, as shares of the real one")
    parser.add_argument("--cpus", type=int, default=os.cpu_count() or 1, help="tasks at a time")
    parser.add_argument("--prepare", action="store_true", help="also prepare what was converted")
    parser.add_argument("--folder", type=Path, help="where files are kept; a temporary folder by default")
    parser.add_argument("--side", choices=["convert", "prepare"], help=argparse.SUPPRESS)
    parser.add_argument("--files", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.side:
        (kind,) = args.kinds
        experiment, warm = (experiment_of(kind, files, args.folder / name) for files, name in _runs(args, kind))
        print(one_side(args.side, experiment, warm, args.cpus))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        row("data set", "share", "rows", "MB", "step", "s", "rows/s", "memory, all MiB", "the largest process MiB")
        row(*["---"] * 9)
        for kind in args.kinds:
            lookalike(kind, _WARM, folder / f"{kind}-warm")
            for share in args.shares:
                _one_size(kind, share, folder, args.cpus, prepare=args.prepare)


def _runs(args: argparse.Namespace, kind: str) -> list[tuple[Path, str]]:
    return [(args.files, "run"), (args.folder.parent / f"{kind}-warm", "warm")]


def _one_size(kind: str, share: float, folder: Path, cpus: int, *, prepare: bool) -> None:
    files, run = folder / f"{kind}-{share:g}", folder / "run"
    rows = lookalike(kind, share, files)
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    size = sum(file.stat().st_size for file in files.iterdir()) / 1e6
    of_size = (kind, f"{share:g}")
    seconds, memory = measured("convert", kind, files, run, cpus)
    row(*of_size, f"{sum(rows.values()):,}", f"{size:,.0f}", "convert", *_told(sum(rows.values()), seconds, memory))
    if prepare:
        logs = logs_of(experiment_of(kind, files, run / "run"))
        events = sum(pq.read_metadata(file).num_rows for table in ("impressions", "engagements") for file in logs.files(table))
        seconds, memory = measured("prepare", kind, files, run, cpus)
        row(*of_size, f"{events:,}", "", "prepare", *_told(events, seconds, memory))
    shutil.rmtree(run)


def _told(rows: int, seconds: float, memory: Memory) -> tuple[str, ...]:
    sizes = (f"{size / 2**20:,.0f}" for size in (memory.peak, memory.peak_of_one))
    return (f"{seconds:.1f}", f"{rows / seconds:,.0f}", *sizes)


if __name__ == "__main__":
    main()
