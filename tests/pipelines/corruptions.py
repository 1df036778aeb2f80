"""Random damage to a small log and to what is made of it, through prepare, train, evaluate and the store.

    python -m tests.pipelines.corruptions --first 0 --count 200

Each number is one damage, the same every time. Whatever it is, a step ends well or with one line for the user: never with a
trace, never with a number that is not finite in a table, and never with fewer rows than it says. What is made of a log has
to give the results it gave before, or to be refused.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.config import from_dict
from pipelines.bundle import load_bundle
from pipelines.experiment import Experiment
from pipelines.faults import told
from pipelines.prepared import Prepared
from pipelines.report.evaluation import write
from pipelines.runs.runner import Runner
from pipelines.runs.sealed import read_sealed
from pipelines.serve.store import Store
from pipelines.steps import evaluate_step, prepare_step, store_of, train_step
from tests.pipelines.naive_prepare import random_log, wide_schema

EVENTS = ("impressions", "engagements", "product_clicks")
STEPS = ("clean", "cut", "rooms", "features", "fit", "encoder", "encode")
WILD = (float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 2**62, -(2**63), 0, -1, 2**31, 1e-300)
# Of a run: clocks, where it lies, and the learning curves, which are read from a plain file beside the bundle.
_ITS_OWN = {"Made", "seconds", "candidates_per_second", "created", "path", "history"}


class Silent(Exception):
    """A step ended well, and what it left is not what it says or was."""


class Stopped(Exception):
    """A step was not let begin."""


@dataclass(frozen=True)
class World:
    """A folder with logs, and an experiment on them."""

    folder: Path

    @property
    def experiment(self) -> Experiment:
        spelling = {
            "name": "run",
            "output": str(self.folder / "out"),
            "logs": {"kind": "canonical", "path": str(self.folder / "logs")},
            "schema": wide_schema().to_dict(),
            "prepare": {
                "parallel": "none",
                "quarantine_limit": 0.9,
                "rows_per_chunk": 60,
                "rows_per_bucket": 150,
                "feeds_per_file": 10,
            },
            "model": {"system": "mmoe"},
            "train": {"epochs": 1, "batch_feeds": 16},
            "evaluate": {"baselines": ["popularity"]},
        }
        return from_dict(Experiment, spelling)

    def files(self, table: str) -> list[Path]:
        """Those that the log has of a table, by a listing of our own."""
        found = [*(self.folder / "logs" / table).rglob("*"), *(self.folder / "logs").glob(f"{table}.*")]
        return [file for file in found if file.is_file() and not file.name.startswith((".", "_"))]

    @property
    def prepared(self) -> Path:
        return self.folder / "out" / "run" / "prepared"

    @property
    def run(self) -> Path:
        return self.folder / "out" / "run"


# -- damage --------------------------------------------------------------------------------------------------------

Rng = np.random.Generator


def flip(rng: Rng, file: Path) -> None:
    """One to eight bits, half of the time near the end, where Parquet and Arrow have their footers."""
    held = bytearray(file.read_bytes())
    for _ in range(int(rng.integers(1, 9))):
        low = int(len(held) * 0.7) if rng.random() < 0.5 else 0
        if held:
            held[int(rng.integers(low, len(held)))] ^= 1 << int(rng.integers(8))
    file.write_bytes(held)


def cut(rng: Rng, file: Path) -> None:
    held = file.read_bytes()
    file.write_bytes(held[: int(rng.integers(0, max(len(held), 1)))])


def lengthen(rng: Rng, file: Path) -> None:
    file.write_bytes(file.read_bytes() + rng.bytes(int(rng.integers(1, 100))))


def blank(rng: Rng, file: Path) -> None:
    """A stretch of zeros, as a file system leaves after a crash."""
    held = bytearray(file.read_bytes())
    begin = int(rng.integers(0, max(len(held), 1)))
    end = min(len(held), begin + int(rng.integers(1, 500)))
    held[begin:end] = bytes(end - begin)
    file.write_bytes(held)


def remove(rng: Rng, file: Path) -> None:
    file.unlink()


def rename(rng: Rng, file: Path) -> None:
    file.rename(file.with_name(str(rng.choice(["other", "part", ".hidden", "part-9.PARQUET", "x.tmp", "20251129_0001"]))))


def copy(rng: Rng, file: Path) -> None:
    shutil.copy(file, file.with_name(f"copy-of-{file.name}"))


def exchange(rng: Rng, file: Path) -> None:
    """With another file of its kind, or of any."""
    others = [each for each in file.parent.parent.rglob(f"*{file.suffix}") if each.is_file() and each != file]
    if others:
        other = others[int(rng.integers(len(others)))]
        ours, theirs = file.read_bytes(), other.read_bytes()
        file.write_bytes(theirs)
        other.write_bytes(ours)


def folder_instead(rng: Rng, file: Path) -> None:
    file.unlink()
    file.mkdir()


def scramble_json(rng: Rng, file: Path) -> None:
    """Another value, or none, at a place of a JSON file."""
    spelling = json.loads(file.read_text())  # what a person could have done; flips and cuts are done to JSON as well
    here: Any = spelling
    while isinstance(here, dict | list) and here:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = keys[int(rng.integers(len(keys)))]
        if not isinstance(here[key], dict | list) or not here[key] or rng.random() < 0.2:
            if rng.random() < 0.3:
                del here[key]
            else:
                here[key] = [None, -1, 0, 10**30, "x", "", [], {}, True, 1.5, [[1]], {"a": 1}][int(rng.integers(12))]
            break
        here = here[key]
    file.write_text(json.dumps(spelling))


BYTES: tuple[Callable[[Rng, Path], None], ...] = (flip, flip, flip, cut, lengthen, blank, remove, rename, copy, exchange)


# -- damage to the rows of a log -----------------------------------------------------------------------------------


def _rewritten(change: Callable[[Rng, pa.Table], pa.Table]) -> Callable[[Rng, Path], None]:
    def damage(rng: Rng, file: Path) -> None:
        pq.write_table(change(rng, pq.read_table(file, partitioning=None)), file, row_group_size=17)

    damage.__name__ = change.__name__
    return damage


def _one(rng: Rng, table: pa.Table) -> int:
    return int(rng.integers(table.num_columns))


def swap_columns(rng: Rng, table: pa.Table) -> pa.Table:
    names = list(table.column_names)
    one, other = _one(rng, table), _one(rng, table)
    names[one], names[other] = names[other], names[one]
    return table.rename_columns(names)


def wild_values(rng: Rng, table: pa.Table) -> pa.Table:
    """Some cells of a column, as float64 where the column cannot hold them."""
    place = _one(rng, table)
    values = table.column(place).to_pylist()
    for row in rng.integers(0, max(len(values), 1), int(rng.integers(1, 6))):
        if values:
            values[int(row)] = None if rng.random() < 0.2 else WILD[int(rng.integers(len(WILD)))]
    for kind in (table.schema.field(place).type, pa.float64(), pa.string()):
        with suppress(pa.ArrowException, OverflowError, TypeError):
            text = pa.types.is_string(kind)
            cells = [str(value) if text and value is not None else value for value in values]
            column = pa.array(cells, kind, from_pandas=False)
            return table.set_column(place, table.column_names[place], column)
    return table


def another_type(rng: Rng, table: pa.Table) -> pa.Table:
    place = _one(rng, table)
    kinds = (
        pa.string(),
        pa.float32(),
        pa.int8(),
        pa.bool_(),
        pa.binary(),
        pa.timestamp("s"),
        pa.date32(),
        pa.null(),
        pa.uint64(),
    )
    kind = kinds[int(rng.integers(len(kinds)))]
    column = table.column(place)
    if rng.random() < 0.2:
        column = pa.array([[value] for value in column.to_pylist()])
    elif pa.types.is_null(kind):
        column = pa.nulls(len(column))
    else:
        with suppress(pa.ArrowException):
            column = column.cast(kind, safe=False)
    return table.set_column(place, table.column_names[place], column)


def drop_column(rng: Rng, table: pa.Table) -> pa.Table:
    return table.remove_column(_one(rng, table)) if table.num_columns > 1 else table


def rename_column(rng: Rng, table: pa.Table) -> pa.Table:
    names = list(table.column_names)
    names[_one(rng, table)] = str(rng.choice(["", "x", "user_id", "USER_ID", "state.viewers", "label.click", "a b", "__index"]))
    return table.rename_columns(names)


def no_rows(rng: Rng, table: pa.Table) -> pa.Table:
    return table.slice(0, 0)


def rows_again(rng: Rng, table: pa.Table) -> pa.Table:
    return table.take(pa.array(rng.integers(0, max(len(table), 1), int(rng.integers(1, 40))))) if len(table) else table


def bad_texts(rng: Rng, table: pa.Table) -> pa.Table:
    """Bytes that are no UTF-8, in a column of bytes."""
    place = _one(rng, table)
    return table.set_column(place, table.column_names[place], pa.array([rng.bytes(3) for _ in range(len(table))], pa.binary()))


ROWS = tuple(
    map(
        _rewritten,
        (
            swap_columns,
            swap_columns,
            wild_values,
            wild_values,
            wild_values,
            another_type,
            another_type,
            drop_column,
            rename_column,
            no_rows,
            rows_again,
            bad_texts,
        ),
    )
)


# -- what has to hold ----------------------------------------------------------------------------------------------


def finite(prepared: Prepared) -> None:
    """No number of any table is infinite or NaN."""
    files = [*(file for split in ("train", "valid", "test") for file in prepared.features(split))]
    files += [file for what in ("users", "rooms") for file in prepared.snapshot(what)]
    tables = [(file, pq.read_table(file, partitioning=None)) for file in files]
    tables += [(file, read_sealed(file)) for split in ("train", "valid", "test") for file in prepared.files(split)]
    for file, table in tables:
        for name, column in zip(table.column_names, table.columns, strict=True):
            values = column.combine_chunks()
            while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
                values = values.flatten()
            if pa.types.is_floating(values.type) and not np.isfinite(values.drop_null().to_numpy()).all():
                raise Silent(f"{file}: `{name}` holds numbers that are not finite")


def accounted(world: World, prepared: Prepared) -> None:
    """The account has every row that the files of the log have, and the tables and the quarantine those it says."""
    counts = prepared.manifest.counts
    for table, account in counts.account.items():
        if not account.is_whole:
            raise Silent(f"the account of {table} does not add up: {account}")
        rows = sum(pq.read_metadata(file).num_rows for file in world.files(table))
        if rows != account.read:
            raise Silent(f"{table} has {rows} rows, the account {account.read}")
    apart: Counter[str] = Counter()
    for file in (world.prepared / "quarantine").glob("*.parquet"):
        apart.update(pq.read_table(file, partitioning=None)["table"].to_pylist())
    for table, account in counts.account.items():
        if apart[table] != sum(account.quarantined.values()):
            raise Silent(f"{apart[table]} rows of {table} are in quarantine, the account has {account.quarantined}")
    candidates = sum(
        len(rooms)
        for split in ("train", "valid", "test")
        for file in prepared.files(split)
        for rooms in read_sealed(file, ["room_id"])["room_id"].to_pylist()
    )
    if candidates != counts.account["impressions"].kept:
        raise Silent(f"{candidates} candidates of {counts.account['impressions'].kept} kept impressions")


def in_quarantine(prepared: Prepared) -> int:
    return sum(sum(reasons.values()) for reasons in prepared.manifest.counts.quarantined.values())


def results(world: World) -> Any:
    """All numbers of the report."""

    def told_again(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: told_again(each) for name, each in value.items() if name not in _ITS_OWN}
        if isinstance(value, list):
            return [told_again(each) for each in value]
        return round(value, 9) if isinstance(value, float) else value

    return told_again(json.loads((world.run / "report" / "metrics.json").read_text()))


# -- one damage ----------------------------------------------------------------------------------------------------


@contextmanager
def stopped_before(step: str) -> Iterator[None]:
    real = Runner.step

    def stop(self: Runner, name: str, *rest: Any) -> Any:
        if name == step:
            raise Stopped
        return real(self, name, *rest)

    Runner.step = stop  # type: ignore[method-assign]
    try:
        with suppress(Stopped):
            yield
    finally:
        Runner.step = real  # type: ignore[method-assign]


@dataclass(frozen=True)
class Outcome:
    """What came of a damage.

    Attributes:
        damage: what was done to which file.
        end: `well`, or the line that a user reads.
        fault: a trace, or what was silent; empty where all is as it should be.
        quarantined: rows that the damage brought there.
    """

    number: int
    damage: str
    end: str
    fault: str = ""
    quarantined: int = 0


class Damages:
    """A world that is whole, and copies of it that are not."""

    def __init__(self, folder: Path, patch: Callable[[Any, str, Any], None] = setattr) -> None:
        self.whole = World(folder / "whole")
        self._copy = World(folder / "damaged")
        patch(write, "html", lambda *_: "")  # its pictures take longer than all else
        random_log(3, feeds=60).write(self.whole.folder / "logs")
        with redirect_stdout(sys.stderr):
            run_from(self.whole, "prepare")
        self.expected = results(self.whole)
        self.quarantined = in_quarantine(Prepared.open(self.whole.prepared))

    def run(self, number: int) -> Outcome:
        rng, world = np.random.default_rng([7, number]), self._copy
        shutil.rmtree(world.folder, ignore_errors=True)
        where = ("log", "log", "log", "prepared", "prepared", "work", "bundle", "train")[int(rng.integers(8))]
        shutil.copytree(self.whole.folder / "logs", world.folder / "logs")
        begin = "prepare"
        if where == "work":
            step = STEPS[int(rng.integers(len(STEPS)))]
            with stopped_before(step):
                prepare_step(world.experiment)
            damage = f"before {step}, {self._damage(rng, world.prepared, rows=False)}"
        elif where == "log":
            damage = self._damage(rng, world.folder / "logs", rows=rng.random() < 0.6)
        else:
            shutil.copytree(self.whole.run, world.run)
            shutil.rmtree(world.run / "report")
            begin = {"prepared": "train", "bundle": "evaluate", "train": "train"}[where]
            if where == "prepared":
                shutil.rmtree(world.run / "train")
            if where != "bundle":
                shutil.rmtree(world.run / "store")
            inside = {"prepared": world.prepared, "bundle": world.run / "train" / "bundle", "train": world.run / "train"}[where]
            damage = self._damage(rng, inside, rows=False)
        return self._outcome(number, f"{where}: {damage}", world, begin, is_log=where == "log")

    def _damage(self, rng: Rng, folder: Path, *, rows: bool) -> str:
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        files = [file for file in files if not rows or file.suffix == ".parquet"]
        file = files[int(rng.integers(len(files)))]
        ways = ROWS if rows else BYTES
        if file.suffix == ".json" and rng.random() < 0.5:
            ways = (scramble_json,)
        way = ways[int(rng.integers(len(ways)))]
        way(rng, file)
        return f"{way.__name__} {file.relative_to(folder)}"

    def _outcome(self, number: int, damage: str, world: World, begin: str, *, is_log: bool) -> Outcome:
        try:
            run_from(world, begin)
            prepared = Prepared.open(world.prepared)
            finite(prepared)
            if is_log:
                accounted(world, prepared)
                return Outcome(number, damage, "well", quarantined=in_quarantine(prepared) - self.quarantined)
            if results(world) != self.expected:
                raise Silent("the results are others than those of the whole")
        except Silent as error:
            return Outcome(number, damage, "well", str(error))
        except Exception as error:
            line = told(error)
            if line is None or "\n" in line:
                return Outcome(number, damage, "", line or traceback.format_exc())
            return Outcome(number, damage, line)
        return Outcome(number, damage, "well")


def run_from(world: World, step: str) -> None:
    """The steps from `prepare`, `train` or `evaluate` on."""
    experiment = world.experiment
    if step == "prepare":
        prepare_step(experiment)
    bundle = world.run / "train" / "bundle"
    if step != "evaluate":
        bundle = train_step(experiment).bundle_path
    evaluate_step(experiment, [load_bundle(bundle)])
    Store(store_of(experiment)).close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    args = parser.parse_args()
    ends: Counter[str] = Counter()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        damages = Damages(Path(folder))
        for number in range(args.first, args.first + args.count):
            with redirect_stdout(Path("/dev/null").open("w")):
                found = damages.run(number)
            end = "FAULT" if found.fault else "told" if found.end != "well" else "apart" if found.quarantined > 0 else "well"
            ends[end] += 1
            told_of = f"{found.quarantined} rows more in quarantine" if end == "apart" else found.fault or found.end
            print(f"{number:>4} {end:<5} {found.damage}: {told_of}"[:400], flush=True)
            if found.fault:
                print(found.fault, flush=True)
    print(f"{args.count} damages: {dict(ends)}; {time.monotonic() - began:.0f} s")
    sys.exit(1 if ends["FAULT"] else 0)


if __name__ == "__main__":
    main()
