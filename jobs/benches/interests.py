"""Interests: grouped by feed against flat, against deepctr-torch and torch-rechub, and what an answer takes.

    python -m jobs.bench interests                        all parts
    python -m jobs.bench interests --only peers
    python -m jobs.bench interests --only serving --rows eliverec eta
    python -m jobs.bench interests --only feeds --kinds bst eta --repeats 15

Two full histories of 50 (a few thousand rows a table), 1024 candidates as feeds of 8 or as feeds of their own, one thread.
Contestants take turns, so a busy machine slows all of them, and time is the CPU time of this process. A ratio is taken
within a turn; shown are median (smallest - largest).

`serving` is one user with many candidates: what the ranker takes, and which of its parts see one row and which one a candidate.

`interest` is the interest alone, forward and backward from embedded inputs; `step` is a whole training step with a shared
bottom of 256-128 behind it, tables and Adam included; `prediction` is the whole ranker without gradients.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from jobs.benches.columns import (
    BATCH,
    LENGTH,
    RATE,
    WIDTH,
    Both,
    PeerStep,
    both,
    flat,
    matched,
    names,
    random_feeds,
    schema_of,
    sizes,
)
from jobs.benches.measure import Step, ratio, row, speed, title, turns
from jobs.benches.systems import quickstart, table_sizes
from jobs.benches.systems import random_feeds as random_feeds_of
from models.batch import FeedBatch
from models.fusions.shared_bottom import SharedBottomConfig
from models.interests import InterestConfig
from models.interests.bst import BstConfig
from models.interests.dien import DienConfig
from models.interests.din import DinConfig
from models.interests.pooling import PoolingConfig
from models.layers.embedding import Embedded, EmbeddedHistory
from models.learners.joint import JointConfig
from models.learners.workers import SingleWorker
from models.optim import OptimiserConfig
from models.ranker import Ranker
from models.slots import Training, Vectors
from models.system import SystemConfig, build_learner
from models.zoo import ZOO

ROWS, FEED, BATCHES = 5_000, 8, 4
HIDDEN, ATTENTION = (256, 128), (64, 16)
BOTTOM = SharedBottomConfig(hidden=HIDDEN, towers=())
WARM_UP = 30
SLOTS = ("embedding", "interest", "fusion", "coupling")
OF_ZOO = ("din", "dien", "hgn", "bst", "can", "eta", "minet", "dasl", "conet", "dtcdr", "ddtcdr", "eliverec")


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(
        prog="jobs.bench interests", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    kinds = ["pooling", *OF_ZOO]
    parts = ("feeds", "peers", "serving")
    made.add_argument("--only", nargs="+", choices=parts, default=parts, help="parts to run (default: all)")
    made.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, metavar="KIND", help=f"default: {', '.join(kinds)}")
    made.add_argument("--width", type=int, default=64, help="of models that have one (default: %(default)s)")
    made.add_argument(
        "--rows", nargs="+", choices=ZOO, default=["eliverec"], metavar="SYSTEM", help="of `serving`, at the zoo's widths"
    )
    made.add_argument("--candidates", type=int, default=200, help="of `serving` (default: %(default)s)")
    made.add_argument("--repeats", type=int, default=7, help="turns of a few steps (default: %(default)s)")
    args = made.parse_args(argv)
    if args.repeats < 1:
        made.error(f"--repeats must be at least 1, got {args.repeats}")
    torch.set_num_threads(1)
    if "feeds" in args.only:
        feeds_part(args.kinds, args.width, args.repeats)
    if "peers" in args.only:
        peers_part(args.repeats)
    if "serving" in args.only:
        serving_part(args.rows, args.candidates, 60 * args.repeats)


# -- grouped against flat ------------------------------------------------------------------------------------------


def feeds_part(kinds: Sequence[str], width: int, repeats: int) -> None:
    title(
        f"{BATCH} candidates in feeds of {FEED} against flat, two histories of {LENGTH}, tables of width {WIDTH}, models of "
        f"width {width} (samples/s; ratio = flat / grouped)"
    )
    row("system", "interest, grouped", "ratio", "step, grouped", "ratio", "prediction, grouped", "ratio")
    schema = schema_of("two histories", ROWS)
    grouped = [random_feeds(schema, ROWS, BATCH // FEED, FEED, seed) for seed in range(BATCHES)]
    alone = [flat(batch) for batch in grouped]
    for kind in kinds:
        interest = of_width(PoolingConfig() if kind == "pooling" else ZOO[kind].interest, width)
        config = SystemConfig(embedding_width=WIDTH, interest=interest, fusion=BOTTOM)
        cells = []
        for what in (encoding, training_step, prediction):
            torch.manual_seed(0)
            calls = {"grouped": what(Ranker(schema, config, sizes(ROWS)), grouped)}
            torch.manual_seed(0)
            calls["flat"] = what(Ranker(schema, config, sizes(ROWS)), alone)
            taken = turns(calls, repeats=repeats, steps=BATCHES, warm_up=2)
            cells += [speed(taken["grouped"], BATCH), ratio(taken["flat"], taken["grouped"])]
        row(kind, *cells)


def of_width(interest: InterestConfig, width: int) -> InterestConfig:
    """The interest with models of that width, where it has one."""
    if "width" not in {field.name for field in dataclasses.fields(interest)}:
        return interest
    changed: dict[str, Any] = {"width": width}
    return dataclasses.replace(interest, **changed)


def encoding(ranker: Ranker, batches: Sequence[FeedBatch]) -> Step:
    """The interest alone, forward and backward, from embedded inputs that are leaves."""
    made = []
    for batch in batches:
        with torch.no_grad():
            embedded = ranker.embedding(batch)
        gathered = ranker.gather(batch)
        made.append((batch, embedded, gathered))

    def step(index: int) -> None:
        batch, embedded, gathered = made[index % len(made)]
        leaves = Embedded(
            feed=_leaves(embedded.feed),
            candidate=_leaves(embedded.candidate),
            histories={
                name: EmbeddedHistory(entries_RLE=_leaf(history.entries_RLE), is_real_RL=history.is_real_RL)
                for name, history in embedded.histories.items()
            },
        )
        training = Training(progress=index / 1000, batch=batch, beliefs={})
        interests = ranker.interest(leaves, batch, training, gathered)
        outputs = [
            *interests.feed.values(),
            *interests.candidate.values(),
            *(total for total, _ in interests.penalties.values()),
        ]
        torch.stack([output.sum() for output in outputs]).sum().backward()

    return step


def training_step(ranker: Ranker, batches: Sequence[FeedBatch]) -> Step:
    learner = build_learner(ranker, ranker.schema, JointConfig(), OptimiserConfig(), SingleWorker())
    return lambda index: learner.step(batches[index % len(batches)], index / 1000)


def prediction(ranker: Ranker, batches: Sequence[FeedBatch]) -> Step:
    ranker.eval()

    def step(index: int) -> None:
        with torch.inference_mode():
            ranker.predict(batches[index % len(batches)])

    return step


def _leaf(values: Tensor) -> Tensor:
    return values.detach().requires_grad_()


def _leaves(values: Any) -> dict[str, Tensor]:
    return {name: _leaf(value) for name, value in values.items()}


# -- peers ---------------------------------------------------------------------------------------------------------


def peers_part(repeats: int) -> None:
    """Ours as users train it (feeds of 8) and flat, theirs flat; one history of two attributes, the same layers for all."""
    found = _peers()
    if not found:
        print("\nNo peer is installed: pip install 'liverank[peers]'")
        return
    title(
        f"A training step on {BATCH} candidates with one history of {LENGTH}, {ROWS:,} rows a table, Adam (samples/s; ratio = "
        "their time / our time in feeds)"
    )
    row("system", f"ours, feeds of {FEED}", "ours, flat", *(f"{name} | ratio" for name in found))
    schema = schema_of("din", ROWS)
    grouped = [random_feeds(schema, ROWS, BATCH // FEED, FEED, seed) for seed in range(BATCHES)]
    alone = [_with_negatives(both(flat(batch))) for batch in grouped]
    width = WIDTH * len(matched("din")["seen"])
    interests: dict[str, InterestConfig] = {
        "din": DinConfig(hidden=ATTENTION),
        "bst": BstConfig(width=width, heads=8, blocks=1),
        "dien": DienConfig(width=width),
    }
    for kind, interest in interests.items():
        config = SystemConfig(embedding_width=WIDTH, interest=interest, fusion=BOTTOM)
        contestants: dict[str, Step] = {}
        for name, batches in (("feeds", grouped), ("flat", [each.feeds for each in alone])):
            torch.manual_seed(0)
            contestants[name] = training_step(Ranker(schema, config, sizes(ROWS)), batches)
        theirs = {name: step for name, peer in found.items() if (step := peer(kind, alone)) is not None}
        taken = turns({**contestants, **theirs}, repeats=repeats, steps=BATCHES, warm_up=2)
        cells = [
            f"{speed(taken[name], BATCH)} | {ratio(taken[name], taken['feeds'])}" if name in taken else "has none | -"
            for name in found
        ]
        row(kind, speed(taken["feeds"], BATCH), speed(taken["flat"], BATCH), *cells)


def _with_negatives(batch: Both) -> Both:
    """Columns that peers' DIEN draws its negatives from: the entries of another sample."""
    entries = [name for name in batch.columns if name.startswith("hist_")]
    return dataclasses.replace(
        batch, columns={**batch.columns, **{f"neg_{name}": batch.columns[name].roll(1, 0) for name in entries}}
    )


def _peers() -> dict[str, Callable[[str, list[Both]], PeerStep | None]]:
    found: dict[str, Callable[[str, list[Both]], PeerStep | None]] = {}
    for name, peer in (("deepctr_torch", _deepctr), ("torch_rechub", _rechub)):
        try:
            __import__(name)
        except ImportError:
            continue
        found[name.replace("_", "-")] = peer
    return found


def _deepctr(kind: str, batches: list[Both]) -> PeerStep | None:
    """deepctr-torch, without its L2 on whole tables; it has no BST."""
    from deepctr_torch.inputs import SparseFeat, VarLenSparseFeat
    from deepctr_torch.models import DIEN, DIN

    if kind == "bst":
        return None
    seen = matched("din")["seen"]
    columns = [SparseFeat(name, ROWS, WIDTH) for name in names()]
    entries = lambda prefix: [
        VarLenSparseFeat(SparseFeat(f"{prefix}{name}", ROWS, WIDTH, embedding_name=name), LENGTH, length_name="length")
        for name in seen
    ]
    if kind == "din":
        model = DIN([*columns, *entries("hist_")], seen, dnn_hidden_units=HIDDEN, att_hidden_size=ATTENTION, l2_reg_embedding=0)
    else:
        model = DIEN(
            [*columns, *entries("hist_"), *entries("neg_hist_")],
            seen,
            gru_type="AUGRU",
            use_negsampling=True,
            dnn_hidden_units=HIDDEN,
            att_hidden_units=ATTENTION,
            l2_reg_embedding=0,
        )
    order = list(model.feature_index)
    call = lambda batch: model(torch.cat([batch.columns[name] for name in order], dim=1).float())
    return PeerStep(model, call, "adam", batches, RATE, auxiliary=(lambda: model.aux_loss.sum()) if kind == "dien" else None)


def _rechub(kind: str, batches: list[Both]) -> PeerStep | None:
    """torch-rechub; its MLPs normalise every layer over the batch. Its BST's feed-forward layer is brought to our width."""
    from torch_rechub.basic.features import SequenceFeature, SparseFeature
    from torch_rechub.models.ranking import BST, DIEN, DIN

    seen = matched("din")["seen"]
    features = {name: SparseFeature(name, vocab_size=ROWS, embed_dim=WIDTH) for name in names()}
    entries = lambda prefix: [
        SequenceFeature(f"{prefix}{name}", vocab_size=ROWS, embed_dim=WIDTH, pooling="concat", shared_with=name, padding_idx=0)
        for name in seen
    ]
    others, targets = [feature for name, feature in features.items() if name not in seen], [features[name] for name in seen]
    mlp, width = {"dims": list(HIDDEN)}, WIDTH * len(seen)
    losses: list[Tensor] = []
    if kind == "din":
        model = DIN(others, entries("hist_"), targets, mlp_params=mlp, attention_mlp_params={"dims": list(ATTENTION)})
    elif kind == "bst":
        model = BST(others, entries("hist_"), targets, mlp_params=mlp, nhead=8, dropout=0.0, max_seq_len=LENGTH + 1)
        layer = torch.nn.TransformerEncoderLayer(
            width, 8, dim_feedforward=4 * width, dropout=0.0, activation=torch.nn.LeakyReLU(), batch_first=True
        )
        model.transformer_layers = torch.nn.TransformerEncoder(layer, 1)
    else:
        model = DIEN(others, entries("hist_"), entries("neg_hist_"), targets, mlp_params=mlp, alpha=1.0)

    def call(batch: Both) -> Tensor:
        predicted = model({name: column.squeeze(1) for name, column in batch.columns.items()})
        if kind == "dien":
            predicted, loss = predicted
            losses[:] = [loss]
        return predicted.unsqueeze(1)

    return PeerStep(model, call, "adam", batches, RATE, auxiliary=(lambda: losses[0]) if kind == "dien" else None)


# -- serving -------------------------------------------------------------------------------------------------------


def serving_part(systems: Sequence[str], candidates: int, answers: int) -> None:
    """Predictions for one user: rows that each part of the ranker sees, and its time."""
    schema = quickstart()
    batch = random_feeds_of(schema, 0, feeds=1, candidates=candidates)
    lengths = ", ".join(f"{name} {history.is_real_RL.shape[1]}" for name, history in batch.histories.items())
    title(f"One user, {candidates} candidates, histories of {lengths}, {len(schema.targets)} targets, {answers} answers")
    row("system", "part", "rows", "ms, median", "99 %")
    for name in systems:
        torch.manual_seed(0)
        ranker = Ranker(schema, ZOO[name], table_sizes(schema)).eval()
        clock = Clock(ranker)
        whole = []
        with torch.inference_mode():
            for index in range(WARM_UP + answers):
                clock.forget(index < WARM_UP)
                began = time.perf_counter()
                ranker.predict(batch)
                whole.append(time.perf_counter() - began)
        for part, rows in clock.rows.items():
            row(name, part, f"{rows:,}", *_quantiles(clock.taken[part]))
        row(name, "whole", f"{batch.candidates:,}", *_quantiles(whole[WARM_UP:]))


class Clock:
    """Times calls of a ranker's parts; a part within a part counts in both.

    Attributes:
        rows: leading size of what a part is called with, by part, in order of first call.
        taken: seconds of each call.
    """

    def __init__(self, ranker: Ranker) -> None:
        self.rows: dict[str, int] = {}
        self.taken: dict[str, list[float]] = {}
        self.begun: dict[str, float] = {}
        for name, module in ranker.named_modules():
            if name in SLOTS or name.split(".")[-1] in ("encoder", "entering", "after"):
                module.register_forward_pre_hook(partial(self._begin, name))
                module.register_forward_hook(partial(self._end, name))

    def forget(self, wanted: bool) -> None:
        if wanted:
            self.taken = {name: [] for name in self.taken}

    def _begin(self, name: str, module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        self.begun[name] = time.perf_counter()

    def _end(self, name: str, module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.taken.setdefault(name, []).append(time.perf_counter() - self.begun[name])
        self.rows.setdefault(name, _rows(inputs))


def _rows(inputs: tuple[Any, ...]) -> int:
    """Candidates of what a part is called with, or the leading size of a tensor."""
    for each in inputs:
        if isinstance(each, (FeedBatch, Vectors)):
            return len(each.feed_of_candidate_N)
        if isinstance(each, dict):
            return len(next(iter(each.values())))
        if isinstance(each, Tensor):
            return len(each)
    raise ValueError(f"no batch, vectors or tensor among {[type(each).__name__ for each in inputs]}.")


def _quantiles(seconds: list[float]) -> list[str]:
    return [f"{1e3 * value:.2f}" for value in (median(seconds), quantiles(seconds, n=100)[98])]


if __name__ == "__main__":
    main()
