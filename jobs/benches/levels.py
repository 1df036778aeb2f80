"""What learners with weights of each level cost beside joint training of the same ranker: time and memory.

    python -m jobs.bench levels
    python -m jobs.bench levels --rows 10000 --systems mmoe mmoe_cmlir --repeats 9

Schema of the quickstart experiment, batches of 256 feeds of 8 candidates with two histories of 50, tables of width 16, of which
those of users, streamers and products have as many rows as the row says; three levels with 5, 20 and 75 % of the candidates;
one thread, Adam and lazy Adam. Rows of tables are drawn uniformly, so that hardly any is read twice: the hardest case for 1 M.

Time is of whole trainings, since a learner's rounds differ: CMLIR's first have all candidates in their shared steps, its last
as many of each level as of the smallest. A training is one epoch, in as many rounds as the learner makes of one; CMLIR's 25 of
200 joint batches are of 8 each. All systems read the same joint batches. Contestants take turns, so a
busy machine slows all of them, and time is the CPU time of this process without that of making the ranker. A ratio is taken
within a turn; shown are median (smallest - largest).

Memory is of a fresh process each: `tensors` counts what is alive between two steps, when it is most (weights, gradients,
optimiser state, what a learner keeps beside them, candidates that wait); `resident` is the most that the process grew by while
it trained, temporary values of steps included.

With joint training a table is there 3 times, weights and Adam's two moments. With `specific: all` and C levels there are W, a
ranker a level and two optimisers a level, so 5 C + 1, and V_c of the rows that are a level's own, at most C more.
"""

import argparse
import dataclasses
import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from jobs.benches.measure import ratio, row, speed, title
from jobs.benches.systems import CANDIDATES, FEEDS, LARGE, LENGTH, WIDTH, quickstart, random_feeds, table_sizes
from models.batch import FeedBatch
from models.learners.schedule import Schedule
from models.learners.workers import SingleWorker
from models.optim import OptimiserConfig
from models.schema import Schema
from models.system import SystemConfig, build_learner, build_ranker
from models.zoo import ZOO

BASE = "mmoe"
SYSTEMS = (BASE, "mmoe_finetune", "mmoe_cmlir", "mmoe_cmlir_dense")
ROWS = (10_000, 1_000_000)
SHARES = (0.05, 0.2, 0.75)
BATCHES = 8  # different ones
MEGABYTE = 2**20


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(prog="jobs.bench levels", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = f"rows of the large tables (default: {' '.join(map(str, ROWS))})"
    made.add_argument("--rows", nargs="+", type=int, default=ROWS, metavar="N", help=default)
    default = f"the first is the base (default: {' '.join(SYSTEMS)})"
    made.add_argument("--systems", nargs="+", choices=ZOO, default=SYSTEMS, metavar="NAME", help=default)
    made.add_argument("--batches", type=int, default=200, help="joint batches of a training (default: %(default)s)")
    made.add_argument("--repeats", type=int, default=5, help="trainings of each system (default: %(default)s)")
    made.add_argument("--only", nargs="+", choices=("time", "memory"), default=("time", "memory"), help="default: both")
    made.add_argument("--memory-of-this-process", action="store_true", help="of the first system and size, as JSON")
    args = made.parse_args(argv)
    if min(args.batches, args.repeats, *args.rows) < 1:
        told = f"{' '.join(map(str, args.rows))}, {args.batches} and {args.repeats}"
        made.error(f"--rows, --batches and --repeats must be at least 1, got {told}")
    torch.set_num_threads(1)
    if args.memory_of_this_process:
        print(json.dumps(memory_here(args.systems[0], args.rows[0], args.batches)))
        return
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}")
    title(
        f"Trainings of {args.batches} joint batches of {FEEDS} feeds of {CANDIDATES}, two histories of {LENGTH}, tables of "
        f"width {WIDTH}, {len(SHARES)} levels"
    )
    row("system", "rows", "candidates/s", "time, ratio", "tensors", "ratio", "resident", "ratio")
    for rows_of_table in args.rows:
        taken = times(args.systems, rows_of_table, args.batches, args.repeats) if "time" in args.only else {}
        base: Counter[str] = Counter()
        for system in args.systems:
            cells = ["-"] * 6
            if taken:
                seconds = taken[system]
                cells[:2] = speed(seconds, args.batches * FEEDS * CANDIDATES), ratio(seconds, taken[args.systems[0]])
            if "memory" in args.only:
                found = Counter(memory_apart(system, rows_of_table, args.batches))
                base = base or found
                cells[2:] = [text for key in ("tensors", "resident") for text in _size(found[key], base[key])]
            row(system, f"{rows_of_table:,}", *cells)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


class Training:
    """A ranker and its learner at the beginning of a training, and the batches that it is to read."""

    def __init__(self, system: str, rows: int, steps: int, batches: Sequence[FeedBatch]) -> None:
        torch.manual_seed(0)
        schema, config = quickstart_of_levels(), config_of(system)
        self.steps, self.batches = steps, batches
        self.ranker = build_ranker(schema, config, sizes_of(schema, rows))
        counts = sum(torch.bincount(self._batch(index).level_N, minlength=len(SHARES)) for index in range(self.steps))
        assert isinstance(counts, Tensor)
        span = Schedule(epochs=1, steps=self.steps, candidates_of_level=tuple(counts.tolist()))
        self.learner = build_learner(self.ranker, schema, config.learner, OptimiserConfig(), SingleWorker(), span)

    def run(self) -> Iterator[None]:
        """Takes a step at a time."""
        for index in range(self.steps):
            self.learner.step(self._batch(index), index / self.steps)
            yield

    def _batch(self, index: int) -> FeedBatch:
        return self.batches[index % len(self.batches)]


def times(systems: Sequence[str], rows: int, steps: int, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each training, by system; they take turns in changing order."""
    batches = batches_of(rows)
    taken: dict[str, list[float]] = {system: [] for system in systems}
    for repeat in range(repeats):
        for system in systems if repeat % 2 else reversed(systems):
            training = Training(system, rows, steps, batches)
            begun = time.process_time()
            for _ in training.run():
                pass
            taken[system].append(time.process_time() - begun)
    return taken


def memory_apart(system: str, rows: int, steps: int) -> dict[str, int]:
    """`memory_here` of a process of its own."""
    words = ["--memory-of-this-process", "--systems", system, "--rows", str(rows), "--batches", str(steps)]
    told = subprocess.run(
        [sys.executable, "-m", "jobs.bench", "levels", *words], check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    return json.loads(told.stdout)


def memory_here(system: str, rows: int, steps: int) -> dict[str, int]:
    """Bytes of tensors between steps, when they are most, and what this process's peak grew by."""
    batches = batches_of(rows)
    before, resident = tensor_bytes(), _resident("VmRSS")
    training, most = Training(system, rows, steps, batches), 0
    for _ in training.run():
        most = max(most, tensor_bytes() - before)
    return {"tensors": most, "resident": _resident("VmHWM") - resident}


def tensor_bytes() -> int:
    """Of all tensors that are alive; storage that several share counts once."""
    found: dict[int, int] = {}
    for each in gc.get_objects():
        if type(each) in (Tensor, nn.Parameter):
            for tensor in (each, each.grad) if each.is_leaf and each.grad is not None else (each,):
                storage = tensor.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def _resident(field: str) -> int:
    """Bytes that this process is resident with (VmRSS), or has been at most (VmHWM).

    Not `ru_maxrss`, which a process takes over from the one that started it.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        sys.exit("error: memory is read from /proc, which only Linux has. Use --only time.")
    return next(
        int(line.split()[1]) * 1024 for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(f"{field}:")
    )


def _size(count: int, base: int) -> tuple[str, str]:
    return f"{count / MEGABYTE:,.0f} MB", f"{count / base:.2f}"


# -- data ----------------------------------------------------------------------------------------------------------


def quickstart_of_levels() -> Schema:
    schema = quickstart()
    assert len(schema.levels.names) == len(SHARES)
    return schema


def config_of(system: str) -> SystemConfig:
    return dataclasses.replace(ZOO[system], embedding_width=WIDTH)


def sizes_of(schema: Schema, rows: int) -> dict[str, int]:
    """Rows by table: as given for tables of ids, few for those of attributes."""
    return {table: rows if size >= LARGE else size for table, size in table_sizes(schema).items()}


def batches_of(rows: int) -> list[FeedBatch]:
    schema = quickstart_of_levels()
    drawn = torch.Generator().manual_seed(0)
    made = []
    for seed in range(BATCHES):
        batch = random_feeds(schema, seed, sizes=sizes_of(schema, rows))
        level_N = torch.multinomial(torch.tensor(SHARES), batch.candidates, replacement=True, generator=drawn)
        made.append(dataclasses.replace(batch, level_N=level_N))
    return made


if __name__ == "__main__":
    main()
