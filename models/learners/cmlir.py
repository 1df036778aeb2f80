"""Curriculum multi-level training (Yu et al. 2023, "Curriculum multi-level learning for imbalanced live-stream
recommendation", CMLIR, Sec. 4, Algorithm 1): weights shared by all levels and a part of each level's own, whatever the ranker.

    # C levels, W shared weights, V_c those of level c, D_c its training candidates, U rows of a table, D width

Training is cut into N rounds (the paper's iterations). In round i = 1..N, with a = step_size (1 - (i / N)^eta):

1. Every level, starting at W, takes optimiser steps on a share of its candidates of the round, which is
   (D_min / D_c)^(i / N): all of them at first, as many of each level at last (Eq. 3). It ends at W_c (Eq. 1).
2. W <- W + a / C sum_c (W_c - W) (Eq. 2, as Nichol et al. 2018, Reptile).
3. k times, with g_c the gradient of level c's loss at W + V_c: b_c = |g_c| / sum_c' |g_c'|, and an optimiser step on V_c of
   rate (1 - a) b_c (Eq. 5 to 7). All levels' batches are of one size, drawn from the candidates of the round (Algorithm 1,
   line 11): on batches as large as the level is, b_c would tell how many candidates a level has, for noise falls with their
   root, and not how hard it is (`learners.equal_batches`).

Level c predicts with W + V_c, which is what its ranker holds at the end of every round ("at rest"); V_c starts at 0.

A round reads its part of the feeds once, for 1. and 3. alike, so every feed is read once an epoch. Sample sizes of 1. become
numbers of steps in `learners.rebatching`. Rounds never reach over an epoch's end, so that validation finds the ranker at rest.
The paper gives N = 25 and not how often it reads the data in that time; here N is `rounds`, and passes are the epochs.

What the paper leaves open. Steps are the optimiser's (its experiments say Adam): each level keeps one for 1. and one for 3.,
which live as long as the training; (1 - a) b_c multiplies the rate, and weight decay of 3. pulls at W + V_c. The k steps of a
round are on k different batches; in a level that has fewer candidates than that, V_c waits for the next round. A level's own
part with `specific: all` is a copy of everything, tables included. With `dense` there is one copy of the tables, which no level
owns: every step of 1. moves its rows, at a / C times the rate, which is what 2. would make of it; and 3. leaves them alone.

In the mean of 2., a row of a table that one level alone has met moves by 1 / C of the way that this level took. With
`table_step: sum` rows move by the sum of the levels' ways instead.

Variants (Table 3): `specific: none` is Reptile, without 3. `hardness: even` makes all b_c 1 / C, so that nothing changes but a
level's rate; `none` makes them 1, which is Eq. 4 with the adaptor, and steps C times as long in the mean. `adaptor: false` sets
both a and 1 - a to 1. `sampling`: `natural` (all candidates: MLIR), `over` (levels repeated up to the largest), `under` (cut
down to the smallest). Without shared weights it is `finetune` with nothing to tune.

With several workers every step is that of the joint batch. `inner: local` sums nothing over workers in 1.: each worker goes
its own way from W, on its own candidates and with optimisers that start anew, and 2. takes the mean of their ways weighted by
how many candidates they kept; so workers talk once a round instead of once a step.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from models.batch import FeedBatch
from models.config import ConfigError, config
from models.learners.distributed import DistributedRanker, Rows, Totals, add_totals, gradients
from models.learners.equal_batches import EqualBatches
from models.learners.rebatching import Rebatcher, draw_kept
from models.learners.schedule import Schedule, least_filled
from models.learners.workers import SingleWorker, WorkerGroup
from models.leveled import Leveled
from models.optim import OptimiserConfig, Optimisers
from models.schema import Schema

Sampling = Literal["curriculum", "natural", "over", "under"]


@config
class CmlirConfig:
    """The curriculum of shared weights, and what levels have of their own.

    A round first moves the shared weights by the ways that levels take from them, then each level's own part. The adaptor
    hands the training over from the first to the second; the file says on top how, with the paper's equations.

    Attributes:
        rounds: the paper's N, of the whole training: its passes are `train.epochs`, or the row's `epochs` in a comparison.
            An epoch has one round at least, and at most as many as it has joint batches.
        eta: exponent of the adaptor.
        step_size: of Reptile at the start, which the adaptor anneals.
        specific_steps: the paper's k: steps of a round on levels' own parts.
        specific_batch: candidates of every level in such a step at most (the paper's batch size is 512); None for as many as
            the largest level has in a joint batch. It is fewer where a level has fewer in the round, for all levels alike.
        specific: what levels have of their own: everything, all but embedding tables, or nothing.
        sampling: how many of a level's candidates shared weights learn from.
        table_step: whether a row of a table moves by the mean of the levels' ways, as all else does, or by their sum.
        hardness: the rate of a level's own part: `norm` in proportion to its gradient, `even` as large for all (1 / C), `none`
            the whole rate.
        adaptor: whether steps on shared weights shrink over the rounds while those on own parts grow; else both stay whole.
        inner: whether workers sum gradients in every step that starts at shared weights, or walk alone and sum once a round.
    """

    kind: Literal["cmlir"] = "cmlir"
    rounds: int = 25
    eta: float = 1.0
    step_size: float = 1.0
    specific_steps: int = 4
    specific_batch: int | None = None
    specific: Literal["all", "dense", "none"] = "all"
    sampling: Sampling = "curriculum"
    table_step: Literal["mean", "sum"] = "mean"
    hardness: Literal["norm", "even", "none"] = "norm"
    adaptor: bool = True
    inner: Literal["synchronous", "local"] = "synchronous"

    def __post_init__(self) -> None:
        counts = {"rounds": self.rounds, "specific_steps": self.specific_steps, "specific_batch": self.specific_batch or 1}
        if min(counts.values()) < 1 or self.specific_batch == 0 or not self.eta > 0 or not 0 < self.step_size <= 1:
            raise ValueError(
                "cmlir needs rounds >= 1, specific_steps >= 1, specific_batch >= 1, eta > 0 and 0 < step_size <= 1, got "
                f"rounds={self.rounds}, specific_steps={self.specific_steps}, specific_batch={self.specific_batch}, "
                f"eta={self.eta}, step_size={self.step_size}."
            )
        if self.inner == "local" and self.specific == "dense":
            raise ValueError(
                "cmlir with inner: local needs specific: all or none, got dense: tables that all levels share are moved by "
                "every step, so every step has to be that of all workers."
            )


class Cmlir:
    """Trains the rankers of all levels; see the head of this file.

    Attributes:
        at_rest: every level's ranker holds W + V_c.

    Raises:
        ConfigError: the training data have no candidates.
    """

    patience_from = math.inf
    is_selectable = True

    def __init__(
        self,
        ranker: Leveled,
        schema: Schema,
        config: CmlirConfig,
        optimiser: OptimiserConfig,
        group: WorkerGroup,
        schedule: Schedule,
    ) -> None:
        if not least_filled(schedule.candidates_of_level):
            raise ConfigError("cmlir divides candidates by level, but the training data have none.")
        self.config, self.optimiser, self.group, self.schedule = config, optimiser, group, schedule
        self.names = schema.levels.names
        has_own, ties_tables = config.specific != "none", config.specific == "dense"
        self.rounds = schedule.rounds(config.rounds)
        self.distributed = [DistributedRanker(each, schema, group) for each in ranker.rankers]
        is_local = config.inner == "local"
        inner_group = SingleWorker() if is_local else group
        self.inner_distributed = [DistributedRanker(each, schema, inner_group) for each in ranker.rankers]
        self.inner = self._inner_optimisers()
        self.own = [
            Optimisers(optimiser, each.dense, {} if ties_tables else each.table_weights())
            for each in (self.distributed if has_own else ())
        ]
        self.parts = [_part(each, tables=not ties_tables) for each in self.distributed]
        self.shared = [part.clone() for part in self.parts[0]]
        # V_c while shared weights are trained, and the rows [U] that it is of
        self.differences: list[list[tuple[Tensor | None, Tensor]]] = []
        # Large tables hardly change in a round, so work on them is work on rows: those that steps of 1. have moved in this
        # round, and by level those that steps on V_c ever have. Every other row of a level's is that of W.
        self.moved = self._no_rows(ties_tables)
        self.own_rows = [self._no_rows(ties_tables) for _ in self.own]
        self.at_rest = True
        self.rebatcher = Rebatcher(len(self.names), inner_group, self.shared[0].device)
        largest = -(-max(schedule.candidates_of_level) // schedule.steps)  # candidates of a joint batch
        self.equal = EqualBatches(
            len(self.names), config.specific_steps, config.specific_batch or largest, group, self.shared[0].device
        )
        self.kept = 0  # candidates of this round that this worker has trained shared weights on
        self.steps = 0
        self.round = 0  # places in `rounds`, so one less than i
        self._diagnostics: dict[str, float] = {}

    def step(self, batch: FeedBatch | None, progress: float = 0.0) -> Totals:
        """Takes in one joint batch; all workers take part. It does not always lead to a step of the optimisers.

        Args, Raises: as `joint.Joint.step`; and ValueError if the training is over.

        Returns:
            Totals as `joint.Joint.step`, of all steps that were made; empty without any.
        """
        if self.round == len(self.rounds):
            raise ValueError(f"cmlir was to train for {self.steps} joint batches, and has had all of them.")
        now = self.rounds[self.round]
        is_last = self.steps == now.end - 1
        if self.steps == now.start:
            self._leave_rest()
        totals = self._shared_step(batch, progress, is_last=is_last)
        if self.own:
            self.equal.add(batch, progress)
        self.steps += 1
        if is_last:
            self._reptile()
            if self.own:
                totals = add_totals(totals, self._own_steps(progress))
            self.round += 1
            self._diagnostics |= {f"norm.{name}": norm for name, norm in zip(self.names, self._norms(), strict=True)}
        return totals

    @property
    def plan(self) -> str:
        """The training in a line."""
        made, steps = len(self.rounds), self.rounds[-1].end
        asked = "" if made == self.config.rounds else f" ({self.config.rounds} are asked for)"
        own = f"; {self.config.specific_steps} steps of {self.equal.size:,} candidates of every level after each"
        return f"cmlir: {steps:,} joint batches in {made} rounds{asked}{own if self.own else ''}."

    def diagnostics(self) -> dict[str, float]:
        """`alpha` (a) of the last Reptile step; by level, as means over the last round's steps on own parts, `hardness.<level>`
        (b_c) and `gradient.<level>` (|g_c|), `equal_batch` the size of their batches; and `norm.<level>` (|V_c|) at the end of
        that round.
        """
        return dict(self._diagnostics)

    def alpha(self, round: int) -> float:
        """Step size a of the shared weights in round i = 1..N."""
        return self.config.step_size * (1 - (round / len(self.rounds)) ** self.config.eta) if self.config.adaptor else 1.0

    def kept_of_level(self, round: int) -> list[float]:
        """The share of its candidates that each level keeps in round i = 1..N."""
        exponents = {"curriculum": round / len(self.rounds), "under": 1.0, "natural": 0.0, "over": 0.0}
        least, exponent = least_filled(self.schedule.candidates_of_level), exponents[self.config.sampling]
        return [(least / count) ** exponent if count else 1.0 for count in self.schedule.candidates_of_level]

    def repeats_of_level(self) -> list[float]:
        """How often the candidates of each level count."""
        counts = self.schedule.candidates_of_level
        return [max(counts) / count if self.config.sampling == "over" and count else 1.0 for count in counts]

    def state_dict(self) -> dict[str, Any]:
        """Of shared weights, optimisers and place; W + V_c are saved with the ranker.

        Raises:
            ValueError: not at rest.
        """
        if not self.at_rest:
            raise ValueError("cmlir can be saved only at rest, and shared weights are being trained.")
        return {
            "steps": self.steps,
            "round": self.round,
            "shared": self.shared,
            # those of local loops start anew in every round
            "inner": [each.state_dict() for each in self.inner] if self.config.inner == "synchronous" else [],
            "own": [each.state_dict() for each in self.own],
            "own_rows": self.own_rows,
            "diagnostics": self._diagnostics,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.round, self._diagnostics = state["steps"], state["round"], dict(state["diagnostics"])
        for mine, saved in zip(self.shared, state["shared"], strict=True):
            mine.copy_(saved)
        for mine, saved in zip(
            [*(self.inner if state["inner"] else ()), *self.own], [*state["inner"], *state["own"]], strict=True
        ):
            mine.load_state_dict(saved)
        for own_rows, saved in zip(self.own_rows, state["own_rows"], strict=True):
            for name, is_own in own_rows.items():
                is_own.copy_(saved[name])

    def _inner_optimisers(self) -> list[Optimisers]:
        """One for each level; where all levels share their tables, these have one optimiser between them."""
        made: list[Optimisers] = []
        for distributed in self.inner_distributed:
            beside = made[0] if made and self.config.specific == "dense" else None
            made.append(Optimisers(self.optimiser, distributed.dense, distributed.table_weights(), beside))
        return made

    def _no_rows(self, ties_tables: bool) -> dict[str, Tensor]:
        """A mask over the rows of each table that levels have copies of, by its name; no row is marked yet."""
        tables = {} if ties_tables else self.distributed[0].table_weights()
        return {name: torch.zeros(len(weight), dtype=torch.bool, device=weight.device) for name, weight in tables.items()}

    @torch.no_grad()
    def _leave_rest(self) -> None:
        """All levels start at W."""
        self.at_rest = False
        for part, own_rows in zip(self.parts, self.own_rows, strict=bool(self.own)):
            ids = self._ids(own_rows)
            differences = []
            for ids_U, mine, shared in zip(ids, part, self.shared, strict=True):
                start = _taken(shared, ids_U)
                differences.append((ids_U, _taken(mine, ids_U) - start))
                _put(mine, ids_U, start)
            self.differences.append(differences)
        if self.config.inner == "local":
            self.inner = self._inner_optimisers()

    def _shared_step(self, batch: FeedBatch | None, progress: float, *, is_last: bool) -> Totals:
        """Steps of the levels that are due; in a round's last, of all that have any candidates left."""
        round = self.round + 1
        keep_N = None if batch is None else draw_kept(batch, self.kept_of_level(round), progress)
        due = self.rebatcher.add(batch, keep_N, self.repeats_of_level())
        totals: Totals = {}
        for level in self.rebatcher.filled() if is_last else due:
            own = self.rebatcher.take(level)
            self.kept += 0 if own is None else own.candidates
            found, rows = gradients(self.inner_distributed[level], own, progress)
            totals = add_totals(totals, found)
            if rows is not None:
                _mark(self.moved, rows)
                self.inner[level].step(rows, table_scale=self._scale_of_tied_tables(round))
        return totals

    def _scale_of_tied_tables(self, round: int) -> float:
        """The rate of table rows in a level's step: one copy is moved at once as far as 2. would move it."""
        if self.config.specific != "dense":
            return 1.0
        return self.alpha(round) / (1 if self.config.table_step == "sum" else len(self.names))

    @torch.no_grad()
    def _reptile(self) -> None:
        """Eq. 2; every level then holds W + V_c again."""
        alpha = self.alpha(self.round + 1)
        share = self._share_of_round()
        is_local = self.config.inner == "local"
        for is_moved in self.moved.values() if is_local else ():
            workers_that_moved = is_moved.int()
            self.group.sum_(workers_that_moved)
            is_moved.copy_(workers_that_moved > 0)
        for place, (ids_U, shared) in enumerate(zip(self._ids(self.moved), self.shared, strict=True)):
            start = _taken(shared, ids_U)
            ways = torch.stack([_taken(part[place], ids_U) - start for part in self.parts])
            way = share * (ways.sum(0) if self.config.table_step == "sum" and ids_U is not None else ways.mean(0))
            if is_local:
                self.group.sum_(way)
            reached = start.add(way, alpha=alpha)
            for weights in (shared, *(part[place] for part in self.parts)):
                _put(weights, ids_U, reached)
            for part, differences in zip(self.parts, self.differences, strict=bool(self.own)):
                own_U, difference = differences[place]
                _put(part[place], own_U, _taken(shared, own_U) + difference)
        for is_moved in self.moved.values():
            is_moved.fill_(False)
        self.differences, self.kept, self.at_rest = [], 0, True
        self._diagnostics["alpha"] = alpha

    def _share_of_round(self) -> float:
        """The weight of this worker's way in the mean over all workers."""
        if self.config.inner == "synchronous":
            return 1.0
        kept = torch.tensor(self.kept, dtype=torch.float64, device=self.shared[0].device)
        self.group.sum_(kept)
        return self.kept / max(1.0, kept.item())

    def _own_steps(self, progress: float) -> Totals:
        """Eq. 5 to 7, k times."""
        totals: Totals = {}
        size, batches = self.equal.draw()
        of_steps = []
        for parts in batches:
            found, hardness, norms = self._own_step(parts, progress)
            totals = add_totals(totals, found)
            of_steps.append((hardness, norms))
        for level, name in enumerate(self.names):
            # a level may be missing in a step: candidates of equal numbers are taken together, and another batch may go empty
            for what, place in (("hardness", 0), ("gradient", 1)):
                if known := [each[place][level] for each in of_steps if level in each[place]]:
                    self._diagnostics[f"{what}.{name}"] = sum(known) / len(known)
        self._diagnostics["equal_batch"] = size
        return totals

    def _own_step(
        self, parts: Sequence[FeedBatch | None], progress: float
    ) -> tuple[Totals, dict[int, float], dict[int, float]]:
        """Totals, b_c and |g_c| by level. A level that no worker has candidates of is left alone.

        Args:
            parts: of this worker, by level.
        """
        totals: Totals = {}
        rows_of_level: dict[int, Rows] = {}
        norms: dict[int, float] = {}
        for level, distributed in enumerate(self.distributed):
            found, rows = gradients(distributed, parts[level], progress)
            totals = add_totals(totals, found)
            if rows is not None:
                rows_of_level[level] = rows if self.config.specific == "all" else {}
                of_rows = [gradient_UD for _, gradient_UD in rows_of_level[level].values()]
                norms[level] = float(
                    get_total_norm([*(each.grad for each in distributed.dense if each.grad is not None), *of_rows])
                )
        hardness = self._hardness(norms)
        scale = 1 - self.alpha(self.round + 1) if self.config.adaptor else 1.0
        for level, rows in rows_of_level.items():
            _mark(self.own_rows[level], rows)
            self.own[level].step(rows, scale * hardness[level], scale * hardness[level])
        return totals, hardness, norms

    def _hardness(self, norms: Mapping[int, float]) -> dict[int, float]:
        """b_c of the levels that have a gradient."""
        if self.config.hardness == "norm":
            return {level: norm / (sum(norms.values()) or 1.0) for level, norm in norms.items()}
        return dict.fromkeys(norms, 1 / len(self.names) if self.config.hardness == "even" else 1.0)

    @torch.no_grad()
    def _norms(self) -> list[float]:
        """|V_c| by level."""
        norms = [0.0] * len(self.parts)
        for level, (part, own_rows) in enumerate(zip(self.parts, self.own_rows, strict=bool(self.own))):
            places = zip(self._ids(own_rows), part, self.shared, strict=True)
            norms[level] = float(
                get_total_norm([_taken(mine, ids_U) - _taken(shared, ids_U) for ids_U, mine, shared in places])
            )
        return norms

    def _ids(self, rows: dict[str, Tensor]) -> list[Tensor | None]:
        """By place in `shared`: the marked rows [U] of a table; None for other parameters, of which all is meant."""
        return [*(None for _ in self.distributed[0].dense), *(is_meant.nonzero().squeeze(1) for is_meant in rows.values())]


def _part(distributed: DistributedRanker, *, tables: bool) -> list[Tensor]:
    """The parameters of a level's ranker that are divided into shared ones and the level's own."""
    return [*(parameter.detach() for parameter in distributed.dense), *(distributed.table_weights().values() if tables else ())]


def _taken(weights: Tensor, ids_U: Tensor | None) -> Tensor:
    """The rows, as a copy; without `ids_U` the weights themselves."""
    return weights if ids_U is None else weights.index_select(0, ids_U)


def _put(weights: Tensor, ids_U: Tensor | None, values: Tensor) -> None:
    """Replaces what `_taken` gives."""
    if ids_U is None:
        weights.copy_(values)
    else:
        weights.index_copy_(0, ids_U, values)


def _mark(rows: dict[str, Tensor], touched: Rows) -> None:
    """Marks the touched rows in the masks that there are."""
    for name, is_meant in rows.items():
        if name in touched:
            is_meant.index_fill_(0, touched[name][0], True)
