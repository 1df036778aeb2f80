"""Joint training: one step on the weighted sum of all targets' mean losses.

# N candidates, U different table rows of a batch, D width
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import ConfigError, config
from models.layers.tables import Gathered, TableSet
from models.learners.world import World
from models.losses import sum_count
from models.optim import OptimiserConfig, Optimisers, merged
from models.schema import Schema
from models.slots import SumCount

if TYPE_CHECKING:
    from models.ranker import Ranker


@config
class JointConfig:
    kind: Literal["joint"] = "joint"


class Joint:
    """Minimises, over all workers' candidates together,

        sum over targets t of   sum_n(weight_tn loss_tn) / N   +   sum over penalties of   sum / count.

    Sums and counts are added over workers before the division, gradients are added after, so W workers make the step
    that one worker would make with the joint batch. A penalty that nothing counts for is 0.

    Raises:
        ConfigError: a weighting that needs one worker, and several.
    """

    def __init__(self, ranker: "Ranker", schema: Schema, config: JointConfig, optimiser: OptimiserConfig, world: World) -> None:
        if world.size > 1 and ranker.weighting.needs_one_worker:
            raise ConfigError(
                f"`weighting.beta: running` keeps each user's count on one worker, but this training has {world.size}. "
                "Use `weighting.beta: closed`, or one worker."
            )
        self.ranker = ranker
        self.schema = schema
        self.world = world
        self.tables = ranker.table_sets()
        of_tables = {id(tables.weight) for tables in self.tables.values()}
        self.dense = [parameter for parameter in ranker.parameters() if id(parameter) not in of_tables]
        self.optimisers = Optimisers(optimiser, self.dense, {name: each.weight.detach() for name, each in self.tables.items()})

    def step(self, batch: FeedBatch | None, progress: float = 0.0) -> dict[str, tuple[float, float]]:
        """One optimisation step; all workers take part.

        Args:
            batch: this worker's share; None if it has run out of data.
            progress: epochs that training has behind it, fractions included; what curricula go by.

        Returns:
            Loss sum and count by target, and by penalty, over all workers, without loss weights.

        Raises:
            FloatingPointError: a loss is not finite; on every worker alike, before anything is updated.
            ValueError: the batch lacks labels of a target.
        """
        gathered: Mapping[nn.Module, Gathered] = {}
        own: dict[str, SumCount] = {}
        objective: dict[str, Tensor] = {}  # what is divided by the count of the same name
        if batch is not None:
            batch = self.ranker.for_training(batch)
            gathered = self.ranker.gather(batch)
            outcome = self.ranker.outcome(batch, gathered, progress=progress)
            for name, loss_N in self.ranker.losses(outcome.outputs, batch.labels).items():
                own[name] = sum_count(loss_N)
                weight = outcome.weights.targets[name]
                if isinstance(weight, Tensor) or weight > 0:
                    objective[name] = (weight * loss_N).sum()
            for name, (loss, count) in outcome.penalties.items():
                own[name] = (loss, count)
                objective[name] = loss
        totals = self._totals(own)
        _refuse_non_finite(totals)

        if batch is not None:
            loss = torch.stack([each / (totals[name][1] or 1.0) for name, each in objective.items()]).sum()
            for parameter in self.dense:
                parameter.grad = None
            loss.backward()
        if any(count > 0 for _, count in totals.values()):
            self._sum_dense_gradients(is_idle=batch is None)
            self.optimisers.step({name: self._rows(tables, gathered.get(tables)) for name, tables in self.tables.items()})
        return totals

    def state_dict(self) -> dict[str, Any]:
        """Optimiser state; the ranker's weights are saved with the ranker."""
        return {"optimisers": self.optimisers.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimisers.load_state_dict(state["optimisers"])

    def _totals(self, own: Mapping[str, SumCount]) -> dict[str, tuple[float, float]]:
        """Sums and counts over all workers, in one exchange."""
        names = [*self.schema.target_names, *self.ranker.penalties]
        device = self.dense[0].device
        stacked = torch.zeros(len(names), 2, dtype=torch.float64, device=device)
        for index, name in enumerate(names):
            if name in own:
                stacked[index] = torch.stack([value.detach().to(torch.float64) for value in own[name]])
        self.world.sum_(stacked)
        return {name: (total, count) for name, (total, count) in zip(names, stacked.tolist(), strict=True)}

    def _sum_dense_gradients(self, *, is_idle: bool) -> None:
        if self.world.size == 1:
            return
        gradients = [
            torch.zeros_like(parameter) if is_idle or parameter.grad is None else parameter.grad for parameter in self.dense
        ]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.world.sum_(flat)
        parts = flat.split([parameter.numel() for parameter in self.dense])
        for parameter, part in zip(self.dense, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def _rows(self, tables: TableSet, gathered: Gathered | None) -> tuple[Tensor, Tensor]:
        """Different rows of a table set that any worker read, and their gradient over all workers."""
        weight = tables.weight
        if gathered is None:
            ids_U, gradient_UD = weight.new_zeros(0, dtype=torch.int64), weight.new_zeros(0, weight.shape[1])
        else:
            ids_U = gathered.ids_U
            gradient_UD = torch.zeros_like(gathered.rows_UD) if gathered.rows_UD.grad is None else gathered.rows_UD.grad
        if self.world.size == 1:
            return ids_U, gradient_UD
        return merged(*self.world.gather_rows(ids_U, gradient_UD))


def _refuse_non_finite(totals: Mapping[str, tuple[float, float]]) -> None:
    bad = {name: total for name, (total, _) in totals.items() if not math.isfinite(total)}
    if bad:
        listed = ", ".join(f"`{name}` ({total})" for name, total in bad.items())
        raise FloatingPointError(
            f"the loss is not finite for {listed}; nothing was updated. Look for labels or numbers that are not finite or "
            "very large, or lower the learning rate."
        )
