"""What the clock holds, on simulated worlds whose rows arrive late (jobs/configs/worlds/delays.yaml).

    python -m jobs.bench clock cuts       a log cut off at random moments against the whole: final labels, open ones
    python -m jobs.bench clock arrivals   planted rows that arrive late: nothing sees them before
    python -m jobs.bench clock delayed    training on a log cut off at noon: labels as they are, masked, corrected, complete

`cuts` and `arrivals` end with exit code 1 where something does not hold. `delayed` trains each way with several seeds and asks
all of them about the day after, whose labels are final: the share of what complete labels have over labels as they are that
each way wins back, under the world's own probabilities (`expected`), which have no noise of drawn labels.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch

from models.config import ConfigError
from models.metrics.evaluation import Evaluation
from models.metrics.expected import Known
from pipelines.bundle import load_bundle
from pipelines.encode.batches import to_batch
from pipelines.encode.encode import encode
from pipelines.encode.feeds import LABEL_PREFIX
from pipelines.evaluate.truth import truth_of
from pipelines.experiment import Experiment, load_experiment
from pipelines.logs import CanonicalLogs, SimulateConfig, materialise
from pipelines.prepare import PrepareConfig, prepare
from pipelines.prepared import SPLITS, Prepared
from pipelines.train import train

CONFIG = Path(__file__).parents[1] / "configs" / "worlds" / "delays.yaml"
BEGIN_MS = int(np.datetime64("2025-06-02", "ms").astype(np.int64))  # of every world
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
STAY = 30.0 + 2**-9  # seconds, of planted entries: no drawn stay has this value
WAYS = ("as_is", "mask", "corrected", "complete")


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cuts", "arrivals", "delayed"))
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--days", type=int, default=5, help="of the log; for `delayed`, until the cut at noon of the last")
    parser.add_argument("--seed", type=int, default=0, help="of the world, of cuts and of planted rows")
    parser.add_argument("--moments", type=int, default=100, help="cuts")
    parser.add_argument("--events", type=int, default=100_000, help="planted rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="of the trainings of each way")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument(
        "--late", default="order", help="the target of `delayed` that is late: 36 hours on average, and waits 72"
    )
    args = parser.parse_args(argv)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if args.what == "cuts":
            cuts = cut_at_random(folder, users=args.users, days=args.days, moments=args.moments, seed=args.seed)
            print(cuts.line())
            holds = cuts.holds
        elif args.what == "arrivals":
            planted = planted_late(folder, users=args.users, days=args.days, events=args.events, seed=args.seed)
            print(planted.line())
            holds = planted.holds
        else:
            size = {"users": args.users, "days": args.days, "seed": args.seed}
            delayed(folder, **size, seeds=args.seeds, epochs=args.epochs, late=args.late)
            holds = True
    if not holds:
        raise SystemExit(1)


def world(folder: Path, *, users: int, days: int, seed: int, more: Sequence[str] = ()) -> tuple[Experiment, CanonicalLogs]:
    """The experiment of `CONFIG` in another size, and its log."""
    changes = [f"logs.users={users}", f"logs.days={days}", f"logs.seed={seed}", f"output={folder}", "prepare.parallel=none"]
    experiment = load_experiment(CONFIG, [*changes, *more])
    assert isinstance(experiment.logs, SimulateConfig)
    return experiment, materialise(experiment.logs, folder / "source")


def moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def features_of(prepared: Prepared, columns: Sequence[str]) -> pl.DataFrame:
    """Columns of raw features of all splits, a row a feed."""
    files = [file for split in SPLITS for file in prepared.features(split)]
    return pl.concat([pl.read_parquet(file, columns=list(columns), hive_partitioning=False) for file in files])


# -- cuts --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cuts:
    """What cut-off logs say beside the whole.

    Attributes:
        final, differing: labels whose window had closed at the cut; those that are others in the whole log.
        open, as_final: labels whose window had not; those among them that stand as if it had.
        missing: candidates of a cut-off log that the whole does not have.
    """

    moments: int
    final: int
    differing: int
    open: int
    as_final: int
    missing: int

    @property
    def holds(self) -> bool:
        return self.final > 0 and self.open > 0 and not (self.differing or self.as_final or self.missing)

    def line(self) -> str:
        return (
            f"{self.moments} cuts: {self.final:,} labels of closed windows, {self.differing} differ from the whole log; "
            f"{self.open:,} labels of open windows, {self.as_final} stand as if closed; {self.missing} candidates unknown to it"
        )


def cut_at_random(folder: Path, *, users: int, days: int, moments: int, seed: int) -> Cuts:
    """Prepares a log as it was known at random moments, and compares labels with those of the whole log."""
    experiment, logs = world(folder, users=users, days=days, seed=seed)
    schema = experiment.schema
    columns = ["feed_id", "at", "room_id", *(LABEL_PREFIX + name for name in schema.target_names)]
    lists = columns[2:]

    def labels(prepared: Prepared) -> pl.DataFrame:
        return features_of(prepared, columns).explode(lists)

    whole = prepare(logs, schema, experiment.prepare, folder / "whole")
    assert whole is not None
    expected = labels(whole)
    rng = np.random.default_rng(seed)
    day_of_cut = rng.integers(2, days, moments) * DAY_MS  # and so late on it that some of its labels are final
    untils = BEGIN_MS + day_of_cut + rng.integers(6 * HOUR_MS, DAY_MS, moments)
    found = Cuts(moments=moments, final=0, differing=0, open=0, as_final=0, missing=0)
    for until in untils.tolist():
        cut = prepare(logs, schema, replace(experiment.prepare, until=moment(until)), folder / "cut")
        assert cut is not None
        rows = labels(cut)
        both = rows.join(expected, on=["feed_id", "room_id"], how="inner", suffix=".whole")
        final = differing = is_open = as_final = 0
        for target in schema.targets:
            name = LABEL_PREFIX + target.name
            open_rows = pl.col("at") + round(target.attribution_seconds * 1000) >= until
            final += both.filter(pl.col(name) >= 0).height
            differing += both.filter((pl.col(name) >= 0) & (pl.col(name) != pl.col(f"{name}.whole"))).height
            is_open += both.filter(open_rows).height
            as_final += both.filter(open_rows & (pl.col(name) >= 0)).height
        found = replace(
            found,
            final=found.final + final,
            differing=found.differing + differing,
            open=found.open + is_open,
            as_final=found.as_final + as_final,
            missing=found.missing + rows.height - both.height,
        )
        shutil.rmtree(folder / "cut")
    return found


# -- arrivals ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planted:
    """What feeds saw of planted entries.

    Attributes:
        counts, wrong: counters of users and rooms that were compared; those that count another number of planted entries than
            had arrived before the feed.
        seen, early: planted entries in histories; those that stand there before they arrived.
    """

    events: int
    counts: int
    wrong: int
    seen: int
    early: int

    @property
    def holds(self) -> bool:
        return self.counts > 0 and self.seen > 0 and not (self.wrong or self.early)

    def line(self) -> str:
        return (
            f"{self.events:,} entries planted that arrive up to two days late: {self.counts:,} counters compared, {self.wrong} "
            f"count other than what had arrived; {self.seen:,} times one stands in a history, {self.early} times too early"
        )


def planted_late(folder: Path, *, users: int, days: int, events: int, seed: int) -> Planted:
    """Plants entries that happen at any time and arrive up to two days later, and counts what feeds see of them."""
    experiment, logs = world(folder, users=users, days=days, seed=seed)
    config = replace(experiment.prepare, extra_columns=("user_entries", "room_entries.life"), user_most=10**9)
    columns = ["feed_id", "user_id", "at", "room_id", "user_entries", "room_entries.life"]
    before = prepare(logs, experiment.schema, config, folder / "before")
    assert before is not None
    rng = np.random.default_rng(seed)
    shown = pl.read_parquet([str(file) for file in logs.files("impressions")], columns=["user_id", "room_id", "shown_at"])
    at = rng.permutation(np.arange(BEGIN_MS, int(shown["shown_at"].to_numpy().max()), 1000))[:events]  # each its own second
    if len(at) < events:
        raise ConfigError(f"{events:,} planted rows need as many seconds, and the log has {len(at):,}. Raise --days.")
    rows = rng.integers(0, shown.height, events)
    planted = pl.DataFrame(
        {
            "user_id": shown["user_id"].to_numpy()[rows],
            "room_id": shown["room_id"].to_numpy()[rng.permutation(rows)],
            "at": at,
            "arrived_at": at + 31_000 + rng.integers(0, 2 * DAY_MS, events),
            "action": "enter",
            "value": STAY,
        }
    )
    planted.write_parquet(logs.path / "engagements" / "planted.parquet")
    after = prepare(logs, experiment.schema, config, folder / "after")
    assert after is not None
    keys = ["feed_id", "room_id"]
    both = (
        features_of(before, columns)
        .explode("room_id", "room_entries.life")
        .join(features_of(after, columns).explode("room_id", "room_entries.life"), on=keys, how="inner", suffix=".after")
    )
    wrong = 0
    for owner, column in (("user_id", "user_entries"), ("room_id", "room_entries.life")):
        more = (both[f"{column}.after"] - both[column]).to_numpy()
        wrong += int((more != _arrived_before(both[owner].to_numpy(), both["at"].to_numpy(), planted, owner)).sum())
    entries = (
        features_of(after, ["user_id", "at", "channels.at", "channels.stay_seconds"])
        .explode("channels.at", "channels.stay_seconds")
        .filter(pl.col("channels.stay_seconds") == STAY)
        .join(planted.select("user_id", "arrived_at", pl.col("at").alias("channels.at")), on=["user_id", "channels.at"])
    )
    early = entries.filter(pl.col("arrived_at") >= pl.col("at")).height
    return Planted(events=events, counts=2 * both.height, wrong=wrong, seen=entries.height, early=early)


def _arrived_before(owner_Q: np.ndarray, at_Q: np.ndarray, planted: pl.DataFrame, owner: str) -> np.ndarray:
    """How many planted rows of each owner had arrived before each moment, counted one owner at a time."""
    arrivals = {key[0]: np.sort(rows["arrived_at"].to_numpy()) for key, rows in planted.group_by(owner)}
    found = np.zeros(len(owner_Q), np.int64)
    for key in np.unique(owner_Q).tolist():
        mine = owner_Q == key
        found[mine] = np.searchsorted(arrivals.get(key, np.zeros(0, np.int64)), at_Q[mine], side="left")
    return found


# -- delayed -----------------------------------------------------------------------------------------------------------


def delayed(folder: Path, *, users: int, days: int, seed: int, seeds: Sequence[int], epochs: int, late: str) -> None:
    """Trains on the log as it was known at noon of its last day, each way, and asks about the day after."""
    experiment, logs = world(folder, users=users, days=days + 4, seed=seed, more=[f"logs.delays.{late}={36 * 3600}"])
    targets = [
        replace(each, attribution_seconds=72 * 3600.0) if each.name == late else each for each in experiment.schema.targets
    ]
    experiment = replace(experiment, schema=replace(experiment.schema, targets=tuple(targets)))
    experiment = replace(experiment, train=replace(experiment.train, epochs=epochs, monitor="click.auc", patience=epochs))
    until = moment(BEGIN_MS + (days - 1) * DAY_MS + DAY_MS // 2)
    settings: dict[str, PrepareConfig] = {
        "complete": replace(experiment.prepare, test_days=4),
        "mask": replace(experiment.prepare, until=until),
        "as_is": replace(experiment.prepare, until=until, open_labels="as_is"),
    }
    tables = {way: prepare(logs, experiment.schema, config, folder / way) for way, config in settings.items()}
    complete = tables["complete"]
    assert complete is not None and logs.truth is not None
    truth = truth_of(complete, "test", logs.truth)
    assert not isinstance(truth, str), truth
    asked = (truth.rows["at"].to_numpy() - BEGIN_MS) // DAY_MS == days  # the day after the cut
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for number in seeds:
        for way in WAYS:
            prepared = tables["mask" if way == "corrected" else way]
            assert prepared is not None
            given = replace(experiment.train, seed=number, delayed="corrected" if way == "corrected" else "wait")
            result = train(
                prepared, experiment.system, given, output=folder / "train" / f"{way}-{number}", say=lambda line: None
            )
            ranker = load_bundle(result.bundle_path).ranker
            predictions = []
            with torch.inference_mode():
                for file in complete.features("test"):
                    feeds = encode(pq.read_table(file, partitioning=None), experiment.schema, prepared.encoder)
                    predictions.append(ranker.predict(to_batch(feeds, experiment.schema))[late].numpy())
            evaluation = Evaluation(experiment.schema, [late])
            rows = truth.rows
            evaluation.add(
                {late: np.concatenate(predictions)[asked]},
                {late: rows[LABEL_PREFIX + late].to_numpy()[asked]},
                rows["level"].to_numpy()[asked],
                rows["feed_id"].to_numpy()[asked],
                rows["user_id"].to_numpy()[asked],
                known=Known(chances={late: truth.known.chances[late][asked]}),
            )
            metrics = evaluation.result()["targets"][late]
            found[way].append({name: metrics[name] for name in ("expected_auc", "expected_log_loss", "auc", "calibration")})
            told = ", ".join(f"{name} {value:.5f}" for name, value in found[way][-1].items())
            print(f"seed {number}, {way}: {told}", flush=True)
    masked = tables["mask"]
    assert masked is not None
    for line in _told(found, masked, late):
        print(line)


def _told(found: dict[str, list[dict[str, float]]], masked: Prepared, late: str) -> list[str]:
    counts = masked.manifest.splits["train"]
    still_open = counts.open_labels[late]
    lines = [
        f"`{late}` of {counts.candidates:,} training candidates: {still_open.labels:,} open ({still_open.positive} positive)"
    ]
    for way, values in found.items():
        told = [f"{name} {_spread([each[name] for each in values])}" for name in values[0]]
        lines.append(f"{way:<10} {', '.join(told)}")
    for name in ("expected_auc", "expected_log_loss"):
        gap = [whole[name] - plain[name] for whole, plain in zip(found["complete"], found["as_is"], strict=True)]
        for way in ("mask", "corrected"):
            won = [each[name] - plain[name] for each, plain in zip(found[way], found["as_is"], strict=True)]
            lines.append(
                f"{name}: complete has {mean(gap):+.5f} over as_is; {way} {_spread(won)}, {mean(won) / mean(gap):.0%} of it"
            )
    return lines


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):+.5f} ± {stdev(values):.5f}" if len(values) > 1 else f"{values[0]:+.5f}"
