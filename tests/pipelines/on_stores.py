"""The pipeline with everything in a store of objects, beside the same on a disk: `python -m tests.pipelines.on_stores FAULTS`.

The command runs it before a server that misbehaves until that many faults were met, and prints a line a run.
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from safetensors.numpy import load_file

from models.config import ConfigError
from pipelines import places
from pipelines.experiment import load_experiment
from pipelines.places import fetch, place
from pipelines.steps import bundle_of, evaluate_step, prepare_step, register_step, store_of, train_step
from tests.pipelines.s3 import BUCKET, FAULTS, FaultyProxy, make_bucket, reached, served

CONFIG = Path(__file__).parents[2] / "jobs" / "configs" / "quickstart.yaml"
SMALL = (
    "logs.users=60",
    "logs.days=4",
    "prepare.parallel=none",
    "prepare.rows_per_bucket=4000",
    "prepare.feeds_per_file=400",
    "prepare.row_group_feeds=64",
    "train.workers=0",
    "train.epochs=2",
    "train.reader=thread",
    "evaluate.baselines=[popularity,truth]",
)


def experiment(output: Path | str, *more: str):  # type: ignore[no-untyped-def]
    return load_experiment(CONFIG, [*SMALL, f"output={output}", *more])


def whole_way(output: Path | str, *more: str) -> None:
    """Logs, tables, weights, report, store."""
    spelled = experiment(output, *more)
    prepare_step(spelled)
    register_step(spelled, train_step(spelled).bundle_path)
    evaluate_step(spelled, [bundle_of(spelled)])
    store_of(spelled)


def left(output: Path | str) -> dict[str, Any]:
    """What a run left, by path, without what a clock or a place said."""
    folder = place(output) / "quickstart"
    with tempfile.TemporaryDirectory() as where:
        copy = Path(where) / "copy"
        fetch(folder, copy)
        found: dict[str, Any] = {}
        for file in sorted(copy.rglob("*")):
            name = file.relative_to(copy)
            if not file.is_file() or name.name == places.WHOLE or name.parts[1] == "checkpoints" or "tensorboard" in name.parts:
                continue
            content: Any = file.read_bytes()
            if file.suffix == ".json":
                content = _timeless(json.loads(content))
            if file.suffix == ".safetensors" and "encoder" not in name.parts:  # beside the weights stand digests of such
                content = {key: (tensor.shape, tensor.tobytes()) for key, tensor in load_file(file).items()}
            if file.suffix != ".html":
                found[name.as_posix()] = content
    return found


def _timeless(value: Any) -> Any:
    """Without what a clock measured, where things lie, and digests over such."""
    untold = ("seconds", "digest", "created", "path", "Made", "candidates_per_second", "quarantine", "git_commit")
    if isinstance(value, dict):
        return {name: _timeless(each) for name, each in value.items() if name not in untold}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def under_faults(faults: int, share: float, seed: int) -> tuple[int, int, int]:
    """Runs it until so many faults were met, each time into an empty bucket; what was left has to be what a disk has.

    Beside faults of single requests the server goes away twice a run, for longer than is waited: the run has to end with a line
    that says so, and to go on when it is started again.

    Returns:
        faults met, runs, and how often a run ended and went on.
    """
    met = runs = ended = 0
    with tempfile.TemporaryDirectory() as disk:
        whole_way(disk)
        expected = left(disk)
    draw = random.Random(seed)
    while met < faults:
        runs += 1
        with (
            served() as port,
            FaultyProxy(port, share, seed + runs) as proxy,
            reached(proxy.port) as bucket,
            mock.patch.object(places, "PATIENCE", 3.0),
        ):
            make_bucket(port)
            goes_away = [draw.randrange(5, 100), draw.randrange(50, 600)]  # requests after which it does
            while True:
                proxy.away, proxy.away_after = False, proxy.requests + goes_away.pop(0) if goes_away else None
                try:
                    whole_way(f"{bucket}/runs")
                    break
                except ConfigError as error:
                    assert proxy.away and "started again, the same command goes on" in str(error), error
                    print(f"  ended: {error}", flush=True)
                    ended += 1
            proxy.share = 0.0
            wrong = differing(expected, left(f"s3://{BUCKET}/runs"))
            assert not wrong, wrong
            met += sum(proxy.met[fault] for fault in FAULTS)
            told = ", ".join(f"{count} {fault}" for fault, count in proxy.met.items() if count)
            print(f"run {runs}: {proxy.requests:,} requests, {told}; same bytes", flush=True)
    return met, runs, ended


if __name__ == "__main__":
    began = time.monotonic()
    met, runs, ended = under_faults(int(sys.argv[1]), 0.05, 0)
    print(f"{met} faults in {runs} runs; {ended} ended and went on; {time.monotonic() - began:.0f} s")
