"""Joint training: one step on the weighted sum of all targets' mean losses."""

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from models.batch import FeedBatch
from models.config import config
from models.learners.share import Share, Totals, Workers, part_of_mean
from models.learners.world import World
from models.optim import OptimiserConfig, Optimisers
from models.schema import Schema

if TYPE_CHECKING:
    from models.ranker import Ranker


@config
class JointConfig:
    kind: Literal["joint"] = "joint"


class Joint:
    """Minimises, over all workers' candidates together,

        sum over targets t of   sum_n(weight_tn loss_tn) / N   +   sum over penalties of   sum / count
        +   sum over the ranker's `together` losses.

    Sums and counts are added over workers before the division, gradients are added after, so W workers make the step
    that one worker would make with the joint batch. A penalty that nothing counts for is 0.

    Raises:
        ConfigError: a weighting that needs one worker, and several.
    """

    def __init__(self, ranker: "Ranker", schema: Schema, config: JointConfig, optimiser: OptimiserConfig, world: World) -> None:
        self.workers = Workers(ranker, schema, world)
        self.dense = self.workers.dense
        weights = {name: tables.weight.detach() for name, tables in self.workers.tables.items()}
        self.optimisers = Optimisers(optimiser, self.dense, weights)

    def step(self, batch: FeedBatch | None, progress: float = 0.0) -> Totals:
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
        share = self.workers.forward(batch, progress)
        totals, compared_MW = self.workers.totals(share)
        for parameter in self.dense:
            parameter.grad = None
        if batch is not None:
            roots: list[Tensor] = [_objective(share, totals)]
            gradients: list[Tensor | None] = [None]
            if share.compared is not None and compared_MW is not None:
                roots.append(share.compared.rows_MW)
                gradients.append(compared_MW.to(share.compared.rows_MW.dtype))
            torch.autograd.backward(roots, gradients)
        if any(count > 0 for _, count in totals.values()):
            self._sum_dense_gradients()
            rows = {}
            for name, tables in self.workers.tables.items():
                gathered = share.gathered.get(tables)
                rows[name] = self.workers.sum_rows(tables, gathered, None if gathered is None else gathered.rows_UD.grad)
            self.optimisers.step(rows)
        return totals

    def told(self) -> dict[str, float]:
        """Numbers of the last step worth following, by name; joint training has none besides its losses."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Optimiser state; the ranker's weights are saved with the ranker."""
        return {"optimisers": self.optimisers.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimisers.load_state_dict(state["optimisers"])

    def _sum_dense_gradients(self) -> None:
        """Zeros for what nothing leads to, so that weight decay reaches it with any number of workers."""
        own = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in self.dense]
        for parameter, gradient in zip(self.dense, self.workers.sum_dense(own), strict=True):
            parameter.grad = gradient


def _objective(share: Share, totals: Totals) -> Tensor:
    """This worker's part of the loss."""
    assert share.weights is not None
    terms = []
    for name in share.sums:
        weight = share.weights.targets.get(name, 1.0)
        if isinstance(weight, Tensor) or weight != 0:
            terms.append(part_of_mean(share, totals, name, weight))
    return torch.stack(terms).sum()
