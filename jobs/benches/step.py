"""Training steps: against deepctr-torch and torch-rechub, across vocabulary sizes, and grouped by feed against flat.

    python -m jobs.bench step            all parts
    python -m jobs.bench step --quick    fewer repeats, small vocabularies, short epoch
    python -m jobs.bench step --only rows peers auc feeds

Same shapes for everyone: 20 fields of width 16, batches of 1024 candidates, two targets, one thread, optimisers of one
family (Adam: ours moves tables by lazy Adam; Adagrad: ours row-wise). Contestants take turns, so a busy machine slows all
of them, and time is the CPU time of this process. A ratio is taken within a turn; shown are median (smallest - largest).

Rows of large tables lie far apart in memory: with THP_MEM_ALLOC_ENABLE=1 in the environment PyTorch asks for large pages,
which makes our step at 1 M rows faster.
"""

import argparse
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from jobs.benches.columns import (
    BATCH,
    FIELDS,
    LENGTH,
    RATE,
    TARGETS,
    WIDTH,
    Both,
    PeerStep,
    both,
    flat,
    matched,
    names,
    random_batches,
    random_feeds,
    schema_of,
    sizes,
    targets_of,
)
from jobs.benches.measure import Step, ratio, row, speed, title, turns
from models.batch import FeedBatch
from models.couplings.esmm import EsmmConfig
from models.fusions import FusionConfig
from models.fusions.mmoe import MmoeConfig
from models.fusions.ple import PleConfig
from models.fusions.shared_bottom import SharedBottomConfig
from models.fusions.single import SingleConfig
from models.interests import InterestConfig
from models.interests.din import DinConfig
from models.interests.pooling import PoolingConfig
from models.learners.workers import SingleWorker
from models.optim import AdagradConfig, AdamConfig, LazyAdamConfig, OptimiserConfig, RowwiseAdagradConfig
from models.ranker import Ranker
from models.system import SystemConfig, build_learner

SMALL, LARGE = 10_000, 1_000_000
HIDDEN, TOWER, ATTENTION = (256, 128), (64,), (64, 16)
AUC_RATE = 3e-3
FAMILIES = {
    "adam": OptimiserConfig(dense=AdamConfig(rate=RATE), tables=LazyAdamConfig(rate=RATE)),
    "adagrad": OptimiserConfig(dense=AdagradConfig(rate=RATE), tables=RowwiseAdagradConfig(rate=RATE)),
}
SYSTEMS = {
    "mmoe": SystemConfig(fusion=MmoeConfig(experts=3, hidden=HIDDEN, towers=TOWER)),
    "ple": SystemConfig(fusion=PleConfig(levels=2, specific=1, shared=1, hidden=HIDDEN, towers=TOWER)),
    "esmm": SystemConfig(fusion=SingleConfig(hidden=HIDDEN), coupling=EsmmConfig()),
    "din": SystemConfig(interest=DinConfig(hidden=ATTENTION), fusion=SingleConfig(hidden=HIDDEN)),
}
PEER_BYTES = 4 * FIELDS * LARGE * WIDTH * 6.5  # weights, gradients, two moments, temporaries of the step


def main(argv: Sequence[str] | None = None) -> None:
    parts = {"rows": rows_part, "peers": peers_part, "auc": auc_part, "feeds": feeds_part}
    made = argparse.ArgumentParser(prog="jobs.bench step", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--quick", action="store_true", help="fewer repeats, small vocabularies, short epoch")
    made.add_argument("--only", nargs="+", choices=parts, default=list(parts), help="parts to run (default: all)")
    made.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="default: all")
    args = made.parse_args(argv)
    torch.set_num_threads(1)
    for name in args.only:
        parts[name](args.systems, args.quick)


# -- parts ---------------------------------------------------------------------------------------------------------


def rows_part(systems: Sequence[str], quick: bool) -> None:
    """Our step with small and large tables."""
    large = SMALL * 10 if quick else LARGE
    title(f"Our step at {SMALL:,} and {large:,} rows a table (samples/s; slowdown = time at large / time at small)")
    row("system", "feeds of", "optimiser", f"{SMALL:,}", f"{large:,}", "slowdown", "different rows a step")
    for system in systems:
        for candidates in (1, 8):
            batches = {size: random_batches(system, size, candidates) for size in (SMALL, large)}
            different = " -> ".join(f"{_different_rows(each[0].feeds):,}" for each in batches.values())
            for family, optimiser in FAMILIES.items():
                taken = turns(
                    {size: ours(system, size, optimiser, each) for size, each in batches.items()},
                    repeats=3 if quick else 9,
                    steps=8,
                )
                speeds = [speed(taken[size], BATCH) for size in (SMALL, large)]
                row(system, f"{candidates}", family, *speeds, ratio(taken[large], taken[SMALL]), different)


def peers_part(systems: Sequence[str], quick: bool) -> None:
    """Our step against the same system of other libraries."""
    peers = _peers()
    if not peers:
        print("\nNo peer is installed: pip install 'liverank[peers]'")
        return
    for size in (SMALL,) if quick else (SMALL, LARGE):
        title(f"Step at {size:,} rows a table (samples/s; ratio = their time / our time)")
        row("system", "optimiser", "ours", *(f"{name} | ratio" for name in peers))
        if size == LARGE and _available_bytes() < PEER_BYTES:
            needed, there = PEER_BYTES / 2**30, _available_bytes() / 2**30
            print(f"\nskipped: a dense optimiser needs {needed:.0f} GiB for these tables, {there:.0f} are available.")
            continue
        for system in systems:
            for family, optimiser in FAMILIES.items():
                batches = random_batches(system, size)
                if size == SMALL:
                    made: dict[str, Step] = {"ours": ours(system, size, optimiser, batches)}
                    made |= {name: peer(system, size, family, batches) for name, peer in peers.items()}
                    taken = turns(made, repeats=3 if quick else 9, steps=8)
                else:  # one at a time: each of theirs holds weights, gradients and moments of 20 M rows
                    taken = turns({"ours": ours(system, size, optimiser, batches)}, repeats=5, steps=8)
                    for name, peer in peers.items():
                        taken |= turns({name: peer(system, size, family, batches)}, repeats=2, steps=1, warm_up=1)
                        gc.collect()
                theirs = [f"{speed(taken[name], BATCH)} | {ratio(taken[name], taken['ours'])}" for name in peers]
                row(system, family, speed(taken["ours"], BATCH), *theirs)


def auc_part(systems: Sequence[str], quick: bool) -> None:
    """What an epoch of each teaches, on a task with a known answer."""
    from sklearn.metrics import roc_auc_score

    samples = 100 * BATCH if quick else 300 * BATCH
    title(f"Test AUC of {' / '.join(TARGETS)} after one epoch of {samples:,} samples, {SMALL:,} rows a table, rate {AUC_RATE}")
    peers = _peers()
    row(
        "system", "truth", "ours, lazy Adam", "ours, dense Adam", "ours, row-wise Adagrad", *(f"{name}, Adam" for name in peers)
    )
    lazy = OptimiserConfig(dense=AdamConfig(rate=AUC_RATE), tables=LazyAdamConfig(rate=AUC_RATE))
    rowwise = OptimiserConfig(dense=AdamConfig(rate=AUC_RATE), tables=RowwiseAdagradConfig(rate=10 * AUC_RATE))
    for system in systems:
        task = Task(system, SMALL)
        train, test = task.batches(samples // BATCH, seed=1), task.batches(20, seed=2)

        def auc(predict: Callable[[FeedBatch], dict[str, Tensor]], test=test, system=system) -> str:
            with torch.no_grad():
                found = [predict(batch.feeds) for batch in test]
            scores = [
                roc_auc_score(
                    torch.cat([batch.feeds.labels[name] for batch in test]), torch.cat([each[name] for each in found])
                )
                for name in targets_of(system)
            ]
            return " / ".join(f"{score:.4f}" for score in scores)

        cells = [auc(task.truth)]
        for optimiser in (lazy, None, rowwise):
            torch.manual_seed(0)
            ranker = Ranker(schema_of(system, SMALL), SYSTEMS[system], sizes(SMALL))
            step = (
                _dense_step(ranker, [each.feeds for each in train])
                if optimiser is None
                else ours(system, SMALL, optimiser, train, ranker)
            )
            for index in range(len(train)):
                step(index)
            cells.append(auc(ranker.eval().predict))
        for peer in peers.values():
            step = peer(system, SMALL, "adam", train, rate=AUC_RATE)
            for index in range(len(train)):
                step(index)
            cells.append(auc(step.predict))  # type: ignore[attr-defined]
        row(system, *cells)


def feeds_part(_: Sequence[str], quick: bool) -> None:
    """Batches of feeds against the same candidates as feeds of their own."""
    title(
        f"Feeds of 8 candidates against flat, two histories of {LENGTH}, {BATCH} candidates (samples/s; ratio = flat / grouped)"
    )
    row("system", "", "grouped", "flat", "ratio")
    schema = schema_of("two histories", SMALL)
    interests: dict[str, InterestConfig] = {"pooling": PoolingConfig(), "din": DinConfig(hidden=ATTENTION)}
    fusions: dict[str, FusionConfig] = {
        "shared bottom": SharedBottomConfig(hidden=HIDDEN, towers=TOWER),
        "mmoe": MmoeConfig(experts=3, hidden=HIDDEN, towers=TOWER),
    }
    rankers = {
        f"{first} + {second}": SystemConfig(interest=interest, fusion=fusion)
        for first, interest in interests.items()
        for second, fusion in fusions.items()
    }
    grouped = [random_feeds(schema, SMALL, BATCH // 8, 8, seed) for seed in range(4)]
    alone = [flat(batch) for batch in grouped]
    one = [random_feeds(schema, SMALL, 1, 200, seed) for seed in range(4)]
    one_alone = [flat(batch) for batch in one]
    repeats = 3 if quick else 9
    for name, config in rankers.items():
        ranker = Ranker(schema, config, sizes(SMALL))
        learners = {each: build_learner(ranker, schema, config.learner, FAMILIES[each], SingleWorker()) for each in FAMILIES}

        def predict(batch: FeedBatch, ranker: Ranker = ranker) -> None:
            with torch.inference_mode():
                ranker.predict(batch)

        training = [(f"training step, {family}", learner.step) for family, learner in learners.items()]
        for what, call in [*training, ("prediction", predict)]:
            taken = turns(
                {
                    "grouped": lambda index, call=call: call(grouped[index % 4]),
                    "flat": lambda index, call=call: call(alone[index % 4]),
                },
                repeats=repeats,
                steps=8,
            )
            row(name, what, speed(taken["grouped"], BATCH), speed(taken["flat"], BATCH), ratio(taken["flat"], taken["grouped"]))
        taken = turns(
            {
                "grouped": lambda index, call=predict: call(one[index % 4]),
                "flat": lambda index, call=predict: call(one_alone[index % 4]),
            },
            repeats=repeats,
            steps=8,
        )
        times = [f"{1e3 * median(taken[each]):.1f} ms" for each in ("grouped", "flat")]
        row(name, "one feed of 200", *times, ratio(taken["flat"], taken["grouped"]))


def _available_bytes() -> float:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return float("inf")
    return next(
        int(line.split()[1]) * 1024.0
        for line in meminfo.read_text(encoding="utf-8").splitlines()
        if line.startswith("MemAvailable")
    )


# -- contestants ---------------------------------------------------------------------------------------------------


def ours(system: str, rows: int, optimiser: OptimiserConfig, batches: list[Both], ranker: Ranker | None = None) -> Step:
    schema = schema_of(system, rows)
    ranker = ranker or Ranker(schema, SYSTEMS[system], sizes(rows))
    learner = build_learner(ranker, schema, SYSTEMS[system].learner, optimiser, SingleWorker())
    return lambda index: learner.step(batches[index % len(batches)].feeds)


def _dense_step(ranker: Ranker, batches: list[FeedBatch]) -> Step:
    """Our ranker under torch's Adam over whole tables: what the lazy one stands in for."""
    optimiser = torch.optim.Adam(ranker.parameters(), lr=AUC_RATE)

    def step(index: int) -> None:
        batch = batches[index % len(batches)]
        outputs = ranker(batch)
        loss = torch.stack(
            [F.binary_cross_entropy_with_logits(output, batch.labels[name]) for name, output in outputs.items()]
        ).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def _peers() -> dict[str, Callable[..., PeerStep]]:
    found: dict[str, Callable[..., PeerStep]] = {}
    for name, peer in (("deepctr_torch", _deepctr), ("torch_rechub", _rechub)):
        try:
            __import__(name)
        except ImportError:
            continue
        found[name.replace("_", "-")] = peer
    return found


def _deepctr(system: str, rows: int, family: str, batches: list[Both], rate: float = RATE) -> PeerStep:
    """deepctr-torch with its own initial weights, without its L2 on whole tables, gates linear as ours."""
    from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat
    from deepctr_torch.models import DIN, ESMM, MMOE, PLE

    columns = [SparseFeat(name, rows, WIDTH) for name in names()]
    kept = {"l2_reg_embedding": 0, "l2_reg_linear": 0, "task_names": TARGETS}
    gated = {"expert_dnn_hidden_units": HIDDEN, "gate_dnn_hidden_units": (), "tower_dnn_hidden_units": TOWER, **kept}
    if system == "din":
        seen = matched("din")["seen"]
        histories = [
            VarLenSparseFeat(SparseFeat(f"hist_{name}", rows, WIDTH, embedding_name=name), LENGTH, length_name="length")
            for name in seen
        ]
        model = DIN([*columns, *histories], seen, dnn_hidden_units=HIDDEN, att_hidden_size=ATTENTION, l2_reg_embedding=0)
    elif system == "esmm":
        model = ESMM(columns, tower_dnn_hidden_units=HIDDEN, **kept)
    elif system == "ple":
        model = PLE(columns, shared_expert_num=1, specific_expert_num=1, num_levels=2, **gated)
    else:
        model = MMOE(columns, num_experts=3, **gated)
    order = list(model.feature_index)
    call = lambda batch: model(torch.cat([batch.columns[name] for name in order], dim=1).float())
    return PeerStep(model, call, family, batches, rate)


def _rechub(system: str, rows: int, family: str, batches: list[Both], rate: float = RATE) -> PeerStep:
    """torch-rechub; its MLPs normalise every layer over the batch, which cannot be turned off."""
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.models.multi_task import ESMM, MMOE, PLE
    from torch_rechub.models.ranking import DIN

    features = {name: SparseFeature(name, vocab_size=rows, embed_dim=WIDTH) for name in names()}
    layers, towers = {"dims": list(HIDDEN)}, [{"dims": list(TOWER)} for _ in TARGETS]
    kinds = ["classification" for _ in TARGETS]
    if system == "din":
        seen = matched("din")["seen"]
        model = DIN(
            features=[feature for name, feature in features.items() if name not in seen],
            history_features=[
                SequenceFeature(f"hist_{name}", vocab_size=rows, embed_dim=WIDTH, pooling="concat", shared_with=name)
                for name in seen
            ],
            target_features=[features[name] for name in seen],
            mlp_params=layers,
            attention_mlp_params={"dims": list(ATTENTION)},
        )
    elif system == "esmm":
        half = FIELDS // 2
        every = list(features.values())
        model = ESMM(every[:half], every[half:], cvr_params=layers, ctr_params=dict(layers))
    elif system == "ple":
        model = PLE(list(features.values()), kinds, 2, 1, 1, layers, towers)
    else:
        model = MMOE(list(features.values()), kinds, 3, layers, towers)

    def call(batch: Both) -> Tensor:
        predicted = model({name: column.squeeze(1) for name, column in batch.columns.items()})
        if system == "din":
            return predicted.unsqueeze(1)
        return predicted[:, 1:] if system == "esmm" else predicted  # its ESMM also gives p(order | click), first

    return PeerStep(model, call, family, batches, rate)


# -- data ----------------------------------------------------------------------------------------------------------


def _different_rows(batch: FeedBatch) -> int:
    columns: dict[str, list[Tensor]] = {name: [values] for name, values in {**batch.feed, **batch.candidate}.items()}
    for history in batch.histories.values():
        for name, rows in history.rows.items():
            columns[name].append(rows.flatten())
    return sum(len(torch.cat(parts).unique()) for parts in columns.values())


class Task:
    """Labels from a known model: a weight per row, a product of two fields' vectors, and for DIN the share of a history
    that is of the candidate's kind. Rows are drawn with the skew of real logs (row = rows * u^4)."""

    def __init__(self, system: str, rows: int) -> None:
        drawn = torch.Generator().manual_seed(0)
        self.system, self.rows = system, rows
        self.weights = torch.randn(2, FIELDS, rows, generator=drawn) * 0.3
        self.factors = torch.randn(2, rows, 4, generator=drawn) * 0.6
        self.kinds = torch.randint(0, 10, (rows,), generator=drawn)

    def truth(self, feeds: FeedBatch) -> dict[str, Tensor]:
        columns = {**feeds.feed, **feeds.candidate}
        click, order = (
            torch.stack([self.weights[index, place][columns[name]] for place, name in enumerate(names())]).sum(0)
            for index in range(2)
        )
        click = click + (self.factors[0][columns["f00"]] * self.factors[1][columns["f10"]]).sum(1) - 1
        for history in feeds.histories.values():
            same = self.kinds[history.rows["f10"]] == self.kinds[columns["f10"]].unsqueeze(1)
            click = click + 12 * (same.float().mean(1) - 0.1)
        return {"click": click.sigmoid(), "order": click.sigmoid() * (order - 1).sigmoid()}

    def batches(self, count: int, seed: int) -> list[Both]:
        made = []
        for index in range(count):
            feeds = random_feeds(schema_of(self.system, self.rows), self.rows, BATCH, 1, 1000 * seed + index)
            feeds = feeds.map(lambda ids: self._skewed(ids) if ids.dtype == torch.int64 else ids)
            feeds = FeedBatch(**{**feeds.__dict__, "feed_of_candidate_N": torch.arange(BATCH)})
            drawn = torch.Generator().manual_seed(7 * (1000 * seed + index))
            p = self.truth(feeds)
            click = torch.rand(BATCH, generator=drawn) < p["click"]
            order = click & (torch.rand(BATCH, generator=drawn) < p["order"] / p["click"])
            labels = {"click": click.float(), "order": order.float()}
            made.append(
                both(FeedBatch(**{**feeds.__dict__, "labels": {name: labels[name] for name in targets_of(self.system)}}))
            )
        return made

    def _skewed(self, ids: Tensor) -> Tensor:
        return (self.rows * (ids.double() / self.rows) ** 4).long()


if __name__ == "__main__":
    main()
