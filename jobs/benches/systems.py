"""What every system of the zoo costs in training, relative to shared_bottom, on the same batch.

    python -m jobs.bench systems
    python -m jobs.bench systems --systems dbmtl pimm stan --repeats 15

Schema of the quickstart experiment with users' stages, batches of 256 feeds of 8 candidates with two histories of 50, tables
of width 16 for every system, one thread, Adam and lazy Adam. A row's three contestants (shared_bottom, the system, the system
without what is named in the last column) take turns, so a busy machine slows all of them, and time is the CPU time of this
process. A ratio is taken within a turn; shown are median (smallest - largest). Products counted are those of matrices.
"""

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from jobs.benches.measure import Step, ratio, ratios, row, speed, title, turns
from models.batch import FeedBatch, HistoryBatch
from models.couplings.independent import IndependentConfig
from models.learners.joint import Joint
from models.learners.workers import SingleWorker
from models.optim import OptimiserConfig
from models.ranker import Ranker
from models.schema import STAGES, Bins, Encoding, Field, Hash, Schema, Vocabulary
from models.system import SystemConfig, build_learner
from models.weightings.fixed import FixedConfig
from models.zoo import ZOO
from pipelines.experiment import load_spelling

EXPERIMENT = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
BASE = "shared_bottom"
WIDTH, FEEDS, CANDIDATES, LENGTH = 16, 256, 8, 50
BATCHES, STEPS = 4, 4
SMALL, LARGE = 50, 10_000  # rows of a table of attributes and of one of ids
MUCH = 2.0  # times what is asked of a coupling
BINNED = "stay_seconds as 10 bins"


@dataclass(frozen=True)
class Case:
    """A line of the table.

    Attributes:
        without: the system without its coupling, weighting or users' stage, for whatever of these it has.
        has: what these are.
    """

    name: str
    schema: Schema
    config: SystemConfig
    without: SystemConfig
    has: tuple[str, ...]


class Contestant:
    """Training steps of one ranker.

    Attributes:
        dense: parameters outside of embedding tables.
        products: multiplications with addition of all matrix products of a step, a candidate; backward pass included.
    """

    def __init__(self, schema: Schema, config: SystemConfig, batches: Sequence[FeedBatch]) -> None:
        torch.manual_seed(0)
        ranker = Ranker(schema, config, table_sizes(schema))
        learner = build_learner(ranker, schema, config.learner, OptimiserConfig(), SingleWorker())
        assert isinstance(learner, Joint)
        self.dense = sum(parameter.numel() for parameter in learner.distributed.dense)
        self.step: Step = lambda index: learner.step(batches[index % len(batches)], index / 1000)
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm_flops}) as counter:
            self.step(0)
        self.products = counter.get_total_flops() / 2 / batches[0].candidates


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(
        prog="jobs.bench systems", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    known = [*ZOO, BINNED]
    made.add_argument("--systems", nargs="+", choices=known, default=known, metavar="NAME", help=f"default: {', '.join(known)}")
    made.add_argument("--repeats", type=int, default=9, help=f"turns of {STEPS} steps (default: %(default)s)")
    args = made.parse_args(argv)
    if args.repeats < 1:
        made.error(f"--repeats must be at least 1, got {args.repeats}")
    torch.set_num_threads(1)
    schema = quickstart()
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; torch {torch.__version__}")
    title(
        f"A training step on {FEEDS} feeds of {CANDIDATES}: {len(schema.fields)} fields, {len(schema.histories)} histories of "
        f"{LENGTH}, {len(schema.targets)} targets, tables of width {WIDTH}"
    )
    row("system", "ms a step", "candidates/s", f"times {BASE}", "products a candidate", "dense parameters", "with / without")
    notes = []
    for name in args.systems:
        notes += measured(case(name, schema), args.repeats)
    if notes:
        print(f"\nMore than {MUCH:g} times:\n\n" + "\n".join(notes))
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


def measured(one: Case, repeats: int) -> list[str]:
    """Prints the case's line; gives what is to be said about it below the table."""
    batches = [random_feeds(one.schema, seed) for seed in range(BATCHES)]
    rankers = {"base": dataclasses.replace(ZOO[BASE], embedding_width=WIDTH), "system": one.config, "without": one.without}
    made = {key: Contestant(one.schema, config, batches) for key, config in rankers.items()}
    if one.name == BINNED:
        made["base"] = Contestant(quickstart(), rankers["base"], batches)
    taken = turns({key: each.step for key, each in made.items()}, repeats=repeats, steps=STEPS)
    system, without = made["system"], made["without"]
    times, own = ratio(taken["system"], taken["base"]), ratio(taken["system"], taken["without"])
    row(
        one.name,
        f"{1e3 * median(taken['system']):.1f}",
        speed(taken["system"], batches[0].candidates),
        times,
        f"{system.products / 1e3:,.0f} k",
        f"{system.dense:,}",
        f"{', '.join(one.has)}: {own}" if one.has else "-",
    )
    notes = []
    more = lambda this, other: f"{this.products / other.products:.1f} times the products"
    if median(ratios(taken["system"], taken["base"])) > MUCH:
        notes.append(f"- {one.name}: {times}, with {more(system, made['base'])} of {BASE}")
    if one.has and median(ratios(taken["system"], taken["without"])) > MUCH:
        notes.append(f"- {', '.join(one.has)} of {one.name}: {own}, with {more(system, without)} of the same without")
    return notes


def case(name: str, schema: Schema) -> Case:
    config = dataclasses.replace(ZOO[BASE if name == BINNED else name], embedding_width=WIDTH)
    has = [f"coupling {config.coupling.kind}"] if config.coupling.kind != "independent" else []
    has += [f"weighting {config.weighting.kind}"] if config.weighting.kind != "fixed" else []
    has += ["stage"] if config.stage else []
    return Case(
        name=name,
        schema=binned(schema) if name == BINNED else schema,
        config=config,
        without=dataclasses.replace(config, coupling=IndependentConfig(), weighting=FixedConfig(), stage=False),
        has=tuple(has),
    )


# -- data ----------------------------------------------------------------------------------------------------------


def quickstart() -> Schema:
    """The shipped experiment's schema, with users' stages."""
    stages = {"click": "click", "stay": "stay_seconds", "order": "order"}
    return Schema.from_dict({**load_spelling(EXPERIMENT)["schema"], "stages": stages})


def binned(schema: Schema) -> Schema:
    bins = lambda target: target if target.is_binary else dataclasses.replace(target, head="bins", bins=10)
    return dataclasses.replace(schema, targets=tuple(bins(target) for target in schema.targets))


def table_sizes(schema: Schema) -> dict[str, int]:
    return {table: _rows(encoding) for table, (encoding, _) in schema.tables.items()}


def random_feeds(
    schema: Schema,
    seed: int,
    feeds: int = FEEDS,
    candidates: int = CANDIDATES,
    sizes: Mapping[str, int] | None = None,
) -> FeedBatch:
    """Rows and numbers drawn uniformly, full histories, labels along the target graph, preferences of users with a past.

    Args:
        sizes: rows by table, if not those of `table_sizes`.
    """
    drawn = torch.Generator().manual_seed(seed)
    sizes = sizes or table_sizes(schema)
    rows = lambda table, *shape: torch.randint(1, sizes[table], shape, generator=drawn)
    count = feeds * candidates

    def column(field: Field, length: int) -> torch.Tensor:
        return torch.randn(length, generator=drawn) if field.is_number else rows(field.table, length)

    labels: dict[str, torch.Tensor] = {}
    for target in schema.targets_parents_first:
        happened = torch.rand(count, generator=drawn) < 0.3
        for parent in target.parents:
            happened = happened & (labels[parent] > 0)
        how_much = 1.0 if target.is_binary else 300 * torch.rand(count, generator=drawn)
        labels[target.name] = happened * how_much
    windows = len(schema.preference_days)
    return FeedBatch(
        feed={field.name: column(field, feeds) for field in schema.fields_of("feed")},
        candidate={field.name: column(field, count) for field in schema.fields_of("candidate")},
        histories={
            history.name: HistoryBatch(
                rows={field.name: rows(field.table, feeds, LENGTH) for field in history.fields},
                is_real_RL=torch.ones(feeds, LENGTH, dtype=torch.bool),
            )
            for history in schema.histories
        },
        feed_of_candidate_N=torch.arange(feeds).repeat_interleave(candidates),
        level_N=torch.randint(len(schema.levels.names), (count,), generator=drawn),
        user_R=torch.randint(2**40, (feeds,), generator=drawn),
        labels={name: labels[name].float() for name in schema.target_names},
        stage_R=torch.randint(len(STAGES), (feeds,), generator=drawn),
        preferences={name: torch.rand(feeds, windows, generator=drawn) for name in schema.target_names},
        earlier_RW=torch.randint(1, 200, (feeds, windows), generator=drawn),
    )


def _rows(encoding: Encoding) -> int:
    if isinstance(encoding, Hash):
        return encoding.buckets + 1
    if isinstance(encoding, Bins):
        return encoding.count + 1
    return SMALL if isinstance(encoding, Vocabulary) and encoding.min_count == 1 else LARGE


def _addmm_flops(_: Any, left: Sequence[int], right: Sequence[int], **more: Any) -> int:
    """Of the in-place product, which torch's counter does not know (shapes as it gives them)."""
    return 2 * left[0] * left[1] * right[1]


if __name__ == "__main__":
    main()
