"""A common ranker, and then one for each level made of it (FT and FT (Balanced) of Yu et al. 2023, "Curriculum multi-level
learning for imbalanced live-stream recommendation", Sec. 5): what CMLIR is measured against.

The first part of the training is joint training of one ranker, on all candidates or on as many of each level as the smallest
has. Then every level goes on from its weights, on the level's candidates alone and with an optimiser that starts anew.

What the paper leaves open. `pretraining` is the first part's share of the joint batches, in whole rounds. With 0 there is no
common ranker: levels are trained apart from the start, which is CMLIR without shared parameters (Table 3). Levels take steps on
batches of one size, so as many as their candidates are worth (`learners.rebatching`), as in CMLIR. With `specific: all` a
level's own ranker is its own in everything. With `dense` levels share the embedding tables, which then stay as they were
pretrained.

At the end of every round the ranker is at rest: while the common ranker is trained it is the first level's, and the others
are copied from it there; afterwards no candidates wait there.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from models.batch import FeedBatch
from models.config import ConfigError, config
from models.learners.distributed import DistributedRanker, Totals, add_totals, gradients
from models.learners.rebatching import Rebatcher, draw_kept
from models.learners.schedule import Schedule, least_filled
from models.learners.workers import WorkerGroup
from models.leveled import Leveled
from models.optim import OptimiserConfig, Optimisers
from models.schema import Schema


@config
class FinetuneConfig:
    """How long and on what the common ranker is trained, and what each level then fine-tunes.

    Attributes:
        pretraining: share of the training that the common ranker takes, below 1: a round at least, and it leaves one; or 0 for
            no common ranker.
        sampling: whether the common ranker learns from all candidates, or from equally many of each level.
        specific: what levels have of their own: everything, or all but embedding tables.
        rounds_per_epoch: places of an epoch where the training can switch, and be saved.
    """

    kind: Literal["finetune"] = "finetune"
    pretraining: float = 0.6
    sampling: Literal["natural", "balanced"] = "natural"
    specific: Literal["all", "dense"] = "all"
    rounds_per_epoch: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.pretraining < 1 or self.rounds_per_epoch < 1:
            raise ValueError(
                "finetune needs 0 <= pretraining < 1 and rounds_per_epoch >= 1, "
                f"got pretraining={self.pretraining}, rounds_per_epoch={self.rounds_per_epoch}."
            )
        if not self.pretraining and (self.specific == "dense" or self.sampling == "balanced"):
            raise ValueError(
                "finetune with pretraining=0 has no common ranker, so nothing trains tables that levels share, and nothing is "
                f"balanced: it needs specific: all and sampling: natural, got {self.specific} and {self.sampling}."
            )


class Finetune:
    """Trains the rankers of all levels; see the head of this file.

    Attributes:
        at_rest: every level's ranker holds what the level predicts with, and no candidates wait.
        is_selectable: levels have learnt something of their own; before that there is no fine-tuned ranker to select.

    Raises:
        ConfigError: the training data have no candidates.
    """

    patience_from = math.inf

    def __init__(
        self,
        ranker: Leveled,
        schema: Schema,
        config: FinetuneConfig,
        optimiser: OptimiserConfig,
        group: WorkerGroup,
        schedule: Schedule,
    ) -> None:
        least = least_filled(schedule.candidates_of_level)
        if not least:
            raise ConfigError("finetune divides candidates by level, but the training data have none.")
        self.config, self.optimiser = config, optimiser
        self.names = schema.levels.names
        self.rounds = schedule.rounds(config.rounds_per_epoch * schedule.passes)
        common_rounds = min(max(1, round(config.pretraining * len(self.rounds))), max(1, len(self.rounds) - 1))
        self.switch = self.rounds[common_rounds - 1].end if config.pretraining else 0
        self.distributed = [DistributedRanker(each, schema, group) for each in ranker.rankers]
        self.optimisers = self._common_optimisers() if self.switch else self._own_optimisers()
        # of dense parameters alone: another copy of the tables would be there only to be measured against
        self.pretrained: list[Tensor] = [] if self.switch else self._dense_now()
        is_balanced = config.sampling == "balanced"
        self.kept = [least / count if is_balanced and count else 1.0 for count in schedule.candidates_of_level]
        device = self.distributed[0].dense[0].device
        self.common_rebatcher = Rebatcher(1, group, device)
        self.rebatcher = Rebatcher(len(self.names), group, device)
        self.steps = 0
        self.round = 0
        self._diagnostics: dict[str, float] = {}

    @property
    def plan(self) -> str:
        if not self.switch:
            return f"finetune: a ranker for each level from the start, over {self.rounds[-1].end:,} joint batches."
        return (
            f"finetune: a common ranker for {self.switch:,} of {self.rounds[-1].end:,} joint batches, then one for each level."
        )

    @property
    def is_selectable(self) -> bool:
        return self.steps > self.switch or self.round == len(self.rounds)

    @property
    def at_rest(self) -> bool:
        return self.round == len(self.rounds) or self.steps == self.rounds[self.round].start

    def step(self, batch: FeedBatch | None, progress: float = 0.0) -> Totals:
        """Takes in one joint batch; all workers take part. It does not always lead to a step of the optimisers.

        Args, Raises: as `joint.Joint.step`; and ValueError if the training is over.

        Returns:
            Totals as `joint.Joint.step`, of all steps that were made; empty without any.
        """
        if self.round == len(self.rounds):
            raise ValueError(f"finetune was to train for {self.steps} joint batches, and has had all of them.")
        is_last = self.steps == self.rounds[self.round].end - 1
        if self.steps < self.switch:
            totals = self._common_step(batch, progress, is_last=is_last)
        else:
            totals = self._own_step(batch, progress, is_last=is_last)
        self.steps += 1
        self.round += is_last
        if self.steps == self.switch:
            self._make_own()
        return totals

    def diagnostics(self) -> dict[str, float]:
        """`norm.<level>`: how far the level's dense parameters were from the pretrained ones, or from those at the start where
        nothing is pretrained, at the end of the last round.
        """
        return dict(self._diagnostics)

    def state_dict(self) -> dict[str, Any]:
        """Of optimisers and place; the ranker's weights are saved with the ranker.

        Raises:
            ValueError: not at rest.
        """
        if not self.at_rest:
            raise ValueError("finetune can be saved only at rest, and a round is under way.")
        return {
            "steps": self.steps,
            "round": self.round,
            "optimisers": [each.state_dict() for each in self.optimisers],
            "pretrained": self.pretrained,
            "diagnostics": self._diagnostics,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.round, self._diagnostics = state["steps"], state["round"], dict(state["diagnostics"])
        self.pretrained = list(state["pretrained"])
        self.optimisers = self._common_optimisers() if self.steps < self.switch else self._own_optimisers()
        for mine, saved in zip(self.optimisers, state["optimisers"], strict=True):
            mine.load_state_dict(saved)

    def _common_optimisers(self) -> list[Optimisers]:
        return [Optimisers(self.optimiser, self.distributed[0].dense, self.distributed[0].table_weights())]

    def _own_optimisers(self) -> list[Optimisers]:
        tables = lambda distributed: distributed.table_weights() if self.config.specific == "all" else {}
        return [Optimisers(self.optimiser, distributed.dense, tables(distributed)) for distributed in self.distributed]

    def _common_step(self, batch: FeedBatch | None, progress: float, *, is_last: bool) -> Totals:
        first, totals = self.distributed[0], Totals()
        if self.config.sampling == "natural":
            totals, rows = gradients(first, batch, progress)
            if rows is not None:
                self.optimisers[0].step(rows)
        else:
            keep_N = None if batch is None else draw_kept(batch, self.kept, progress)
            due = self.common_rebatcher.add(batch, keep_N, queue_N=None if batch is None else torch.zeros_like(batch.level_N))
            for queue in self.common_rebatcher.filled() if is_last else due:
                totals, rows = gradients(first, self.common_rebatcher.take(queue), progress)
                if rows is not None:
                    self.optimisers[0].step(rows)
        if is_last:
            self._copy()
        return totals

    @torch.no_grad()
    def _copy(self) -> None:
        """Gives all levels the weights of the first."""
        first, *others = self.distributed
        for distributed in others:
            for parameter, original in zip(distributed.dense, first.dense, strict=True):
                parameter.copy_(original)
            if self.config.specific == "all":
                for weight, original_weight in zip(
                    distributed.table_weights().values(), first.table_weights().values(), strict=True
                ):
                    weight.copy_(original_weight)

    def _make_own(self) -> None:
        self.optimisers, self.pretrained = self._own_optimisers(), self._dense_now()

    def _dense_now(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.distributed[0].dense]

    def _own_step(self, batch: FeedBatch | None, progress: float, *, is_last: bool) -> Totals:
        due = self.rebatcher.add(batch, None if batch is None else torch.ones_like(batch.level_N, dtype=torch.bool))
        totals: Totals = {}
        for level in self.rebatcher.filled() if is_last else due:
            found, rows = gradients(self.distributed[level], self.rebatcher.take(level), progress)
            totals = add_totals(totals, found)
            if rows is not None:
                self.optimisers[level].step(rows if self.config.specific == "all" else {})
        if is_last:
            for name, distributed in zip(self.names, self.distributed, strict=True):
                away = [each.detach() - before for each, before in zip(distributed.dense, self.pretrained, strict=True)]
                self._diagnostics[f"norm.{name}"] = float(get_total_norm(away))
        return totals
