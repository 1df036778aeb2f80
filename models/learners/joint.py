"""Joint training: one step on the weighted sum of all targets' mean losses."""

from typing import Any, Literal

from models.batch import FeedBatch
from models.config import config
from models.learners.distributed import DistributedRanker, Totals, gradients
from models.learners.workers import WorkerGroup
from models.optim import OptimiserConfig, Optimisers
from models.ranker import Ranker
from models.schema import Schema


@config
class JointConfig:
    """Nothing to choose."""

    kind: Literal["joint"] = "joint"


class Joint:
    """Minimises, over all workers' candidates together,

        sum over targets t of   sum_n(weight_tn loss_tn) / N   +   sum over penalties of   sum / count
        +   sum over the ranker's `together` losses.

    Sums and counts are added over workers before the division, gradients are added after, so W workers make the step
    that one worker would make with the joint batch. A penalty that nothing counts for is 0.
    """

    plan = ""
    at_rest = True
    is_selectable = True

    def __init__(
        self, ranker: Ranker, schema: Schema, config: JointConfig, optimiser: OptimiserConfig, group: WorkerGroup
    ) -> None:
        self.distributed = DistributedRanker(ranker, schema, group)
        self.optimisers = Optimisers(optimiser, self.distributed.dense, self.distributed.table_weights())
        self.patience_from = ranker.curriculum_epochs

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
        totals, rows = gradients(self.distributed, batch, progress)
        if rows is not None:
            self.optimisers.step(rows)
        return totals

    def diagnostics(self) -> dict[str, float]:
        """Numbers of the last step worth following, by name: those of weights that differ between candidates."""
        return dict(self.distributed.told)

    def state_dict(self) -> dict[str, Any]:
        """Optimiser state; the ranker's weights are saved with the ranker."""
        return {"optimisers": self.optimisers.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimisers.load_state_dict(state["optimisers"])
