"""What every learner does in a step: a forward pass over this worker's shard of the batch, and sums over all workers.

# N candidates, M compared rows of this worker, U different table rows of a batch, D width
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.layers.tables import Gathered, TableSet
from models.learners.others import with_others
from models.learners.workers import WorkerGroup
from models.losses import sum_count
from models.optim import merged
from models.ranker import Ranker
from models.schema import Schema
from models.slots import Compared, SumCount, Weights, candidates_of_feeds

Totals = dict[str, tuple[float, float]]
"""Loss sum and count by name, over all workers."""


Rows = dict[str, tuple[Tensor, Tensor]]
"""By table set, different rows [U] and their gradient [U, D]."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One worker's shard of a joint batch after the forward pass; empty for a worker that has run out of data.

    Attributes:
        batch: as it was trained on; None if there is none.
        gathered: table rows that it read, by table set.
        losses_N: of the targets, without weights; 0 for candidates that one is not learnt over.
        sums: loss sum and count by target and penalty, without weights.
        weights: of the targets; None without a batch.
        over: bool [N] by target, the candidates that count in its loss; all of one that is not named.
        compared: rows for the ranker's `together`.
    """

    batch: FeedBatch | None = None
    gathered: Mapping[nn.Module, Gathered] = field(default_factory=dict)
    losses_N: Mapping[str, Tensor] = field(default_factory=dict)
    sums: Mapping[str, SumCount] = field(default_factory=dict)
    weights: Weights | None = None
    over: Mapping[str, Tensor] = field(default_factory=dict)
    compared: Compared | None = None


class DistributedRanker:
    """The ranker that all workers of a training have a copy of and move by the same steps.

    Attributes:
        told: of the targets whose weights differ between candidates, over all workers' candidates of the last step:
            `gamma.<target>`, the mean weight as a part of the schema's, and `gamma_square.<target>`, the mean square.
    """

    def __init__(self, ranker: Ranker, schema: Schema, group: WorkerGroup) -> None:
        self.ranker = ranker
        self.group = group
        self.tables: dict[str, TableSet] = ranker.table_sets()
        of_tables = {id(tables.weight) for tables in self.tables.values()}
        self.dense = [parameter for parameter in ranker.parameters() if id(parameter) not in of_tables]
        self.schema = schema
        self.contrasted = ranker.contrasted
        self.names = (*schema.target_names, *ranker.penalties)
        self.varying = {name: schema.target(name).loss_weight for name in ranker.weighting.varying}
        self.told: dict[str, float] = {}
        self.dtype = torch.promote_types(self.dense[0].dtype, torch.float32)  # of compared rows, as under autocast

    def table_weights(self) -> dict[str, Tensor]:
        """Matrices by the name of their table set."""
        return {name: tables.weight.detach() for name, tables in self.tables.items()}

    def forward(self, batch: FeedBatch | None, progress: float) -> Shard:
        """The forward pass over this worker's shard; every worker takes part.

        Raises:
            ValueError: the batch lacks labels of a target.
        """
        of_user_R = self._candidates_of_users(batch) if self.ranker.weighting.counts_in_batch else None
        if self.contrasted:
            batch = with_others(batch, self.contrasted, self.schema, progress, self.group, self.dense[0].device)
        if batch is None:
            return Shard()
        batch = self.ranker.for_training(batch, progress)
        gathered = self.ranker.gather(batch)
        outcome = self.ranker.outcome(batch, gathered, progress=progress, of_user_R=of_user_R)
        losses_N, over = self.ranker.losses(outcome.outputs, batch.labels, batch.early), outcome.over
        return Shard(
            batch=batch,
            gathered=gathered,
            losses_N={name: loss_N.where(over[name], 0) if name in over else loss_N for name, loss_N in losses_N.items()},
            sums={**{name: sum_count(loss_N, over.get(name)) for name, loss_N in losses_N.items()}, **outcome.penalties},
            weights=outcome.weights,
            over=over,
            compared=outcome.compared,
        )

    def totals(self, shard: Shard) -> tuple[Totals, Tensor | None]:
        """All losses over all workers, and the gradient [M, W] of the `together` losses in this worker's compared rows.

        Raises:
            FloatingPointError: a loss is not finite; on every worker alike.
        """
        compared = shard.compared
        numbers_of = 2 * len(self.names), 2 * len(self.varying)
        stacked = torch.zeros(sum(numbers_of) + self.group.size, dtype=torch.float64, device=self.dense[0].device)
        for index, name in enumerate(self.names):
            if name in shard.sums:
                stacked[2 * index : 2 * index + 2] = torch.stack([value.detach().double() for value in shard.sums[name]])
        if shard.weights is not None and self.varying:
            gammas = [_counted(shard, name).detach().double() / weight for name, weight in self.varying.items()]
            stacked[numbers_of[0] : sum(numbers_of)] = torch.stack([(each**power).sum() for each in gammas for power in (1, 2)])
        rows_of_rank = stacked[sum(numbers_of) :]
        rows_of_rank[self.group.rank] = 0 if compared is None else len(compared.users_M)
        self.group.sum_(stacked)
        numbers = stacked.tolist()
        totals = {name: (numbers[2 * i], numbers[2 * i + 1]) for i, name in enumerate(self.names)}
        for i, name in enumerate(self.varying):
            if totals[name][1]:
                for what, total in zip(("gamma", "gamma_square"), numbers[numbers_of[0] + 2 * i :], strict=False):
                    self.told[f"{what}.{name}"] = total / totals[name][1]
        gradient_MW = None
        if self.ranker.together is not None:
            values, everyones = self._together(compared)
            totals |= {name: (value, float(everyones is not None)) for name, value in values.items()}
            if compared is not None and everyones is not None:
                first = sum(int(rows) for rows in rows_of_rank[: self.group.rank])
                gradient_MW = everyones[first : first + len(compared.users_M)]
        _refuse_non_finite(totals)
        return totals, gradient_MW

    def sum_dense(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Gradients of dense parameters over all workers; an idle worker gives zeros."""
        if self.group.size == 1:
            return list(gradients)
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self.group.sum_(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        return [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]

    def sum_rows(self, tables: TableSet, gathered: Gathered | None, gradient_UD: Tensor | None) -> tuple[Tensor, Tensor]:
        """Different rows of a table set that any worker read, and their gradient over all workers.

        Args:
            gathered: None for an idle worker.
            gradient_UD: None for zeros; may be wider than the table, for several gradients side by side.
        """
        weight = tables.weight
        if gathered is None:
            width = weight.shape[1] if gradient_UD is None else gradient_UD.shape[1]
            ids_U, gradient_UD = weight.new_zeros(0, dtype=torch.int64), weight.new_zeros(0, width)
        else:
            ids_U = gathered.ids_U
            gradient_UD = torch.zeros_like(gathered.rows_UD) if gradient_UD is None else gradient_UD
        if self.group.size == 1:
            return ids_U, gradient_UD
        return merged(*self.group.gather_rows(ids_U, gradient_UD))

    def _candidates_of_users(self, batch: FeedBatch | None) -> Tensor | None:
        """`slots.Training.of_user_R` of this worker's share; all workers take part."""
        if self.group.size == 1:
            return None
        device = self.dense[0].device
        users_R = torch.zeros(0, dtype=torch.int64, device=device) if batch is None else batch.user_R
        counts_R1 = torch.zeros(0, 1, dtype=torch.float64, device=device)
        if batch is not None:
            counts_R1 = candidates_of_feeds(batch).to(torch.float64).unsqueeze(1)
        users_U, counts_U1 = merged(*self.group.gather_rows(users_R, counts_R1))
        return counts_U1[torch.searchsorted(users_U, users_R), 0].to(torch.int64) if batch is not None else None

    def _together(self, compared: Compared | None) -> tuple[dict[str, float], Tensor | None]:
        """Every worker computes the losses over the rows of all; returned are values and the gradient in all rows."""
        together = self.ranker.together
        assert together is not None
        if compared is None:
            device = self.dense[0].device
            users_M = torch.zeros(0, dtype=torch.int64, device=device)
            rows_MW = torch.zeros(0, together.width, dtype=self.dtype, device=device)
        else:
            users_M, rows_MW = compared.users_M, compared.rows_MW.detach().to(self.dtype)
        users_M, rows_MW = self.group.gather_rows(users_M, rows_MW)
        if not len(users_M):
            return dict.fromkeys(together.names, 0.0), None
        leaf_MW = rows_MW.detach().requires_grad_()
        losses = together(Compared(users_M=users_M, rows_MW=leaf_MW))
        total = torch.stack([losses[name] for name in together.names]).sum()
        gradient_MW = torch.autograd.grad(total, leaf_MW)[0] if total.requires_grad else torch.zeros_like(leaf_MW)
        return {name: float(losses[name].detach()) for name in together.names}, gradient_MW


def gradients(distributed: DistributedRanker, batch: FeedBatch | None, progress: float) -> tuple[Totals, Rows | None]:
    """The gradients of the whole loss over all workers; those of dense parameters are left in their `grad`.

    The loss is the weighted sum of all targets' mean losses, plus penalties and `together` losses.

    Args:
        batch, progress: as a learner's `step` has them.

    Returns:
        Totals as a learner's `step` returns them, and the gradients of table rows; None where no worker had anything to learn
        from.

    Raises:
        FloatingPointError: a loss is not finite; on every worker alike.
        ValueError: the batch lacks labels of a target.
    """
    shard = distributed.forward(batch, progress)
    totals, compared_MW = distributed.totals(shard)
    for parameter in distributed.dense:
        parameter.grad = None
    if batch is not None:
        roots: list[Tensor] = [_objective(shard, totals)]
        slopes: list[Tensor | None] = [None]
        if shard.compared is not None and compared_MW is not None:
            roots.append(shard.compared.rows_MW)
            slopes.append(compared_MW.to(shard.compared.rows_MW.dtype))
        torch.autograd.backward(roots, slopes)
    if not any(count > 0 for _, count in totals.values()):
        return totals, None
    # zeros for what nothing leads to, so that weight decay reaches it with any number of workers
    own = [torch.zeros_like(each) if each.grad is None else each.grad for each in distributed.dense]
    for parameter, gradient in zip(distributed.dense, distributed.sum_dense(own), strict=True):
        parameter.grad = gradient
    rows = {}
    for name, tables in distributed.tables.items():
        gathered = shard.gathered.get(tables)
        rows[name] = distributed.sum_rows(tables, gathered, None if gathered is None else gathered.rows_UD.grad)
    return totals, rows


def side_by_side(shards: Sequence[Shard]) -> Shard:
    """What `DistributedRanker.totals` wants to know of parts of one worker's batch that went through the ranker one by one."""
    sums: dict[str, SumCount] = {}
    for shard in shards:
        for name, (total, count) in shard.sums.items():
            past_total, past_count = sums.get(name, (0.0, 0.0))
            sums[name] = (past_total + total, past_count + count)
    compared = [shard.compared for shard in shards if shard.compared is not None]
    if not compared:
        return Shard(sums=sums)
    users_M, rows_MW = (torch.cat([getattr(each, name) for each in compared]) for name in ("users_M", "rows_MW"))
    return Shard(sums=sums, compared=Compared(users_M=users_M, rows_MW=rows_MW))


def add_totals(totals: Totals, more: Totals) -> Totals:
    """The totals of two steps as those of one."""
    both = dict(totals)
    for name, (total, count) in more.items():
        past_total, past_count = both.get(name, (0.0, 0.0))
        both[name] = (past_total + total, past_count + count)
    return both


def part_of_mean(shard: Shard, totals: Totals, name: str, weight: float | Tensor) -> Tensor:
    """What this worker's rows add to a loss's mean over all workers, times its weight, one number or [N]."""
    loss = (weight * shard.losses_N[name]).sum() if isinstance(weight, Tensor) else weight * shard.sums[name][0]
    return loss / (totals[name][1] or 1.0)


def _counted(shard: Shard, name: str) -> Tensor:
    """The weights of the candidates that count in a target's loss."""
    assert shard.weights is not None
    weight_N = shard.weights.targets[name]
    assert isinstance(weight_N, Tensor), f"the weighting says that weights of `{name}` vary, and gives {weight_N}"
    return weight_N[shard.over[name]] if name in shard.over else weight_N


def _objective(shard: Shard, totals: Totals) -> Tensor:
    """This shard's part of the loss."""
    assert shard.weights is not None
    terms = []
    for name in shard.sums:
        weight = shard.weights.targets.get(name, 1.0)
        if isinstance(weight, Tensor) or weight != 0:
            terms.append(part_of_mean(shard, totals, name, weight))
    return torch.stack(terms).sum()


def _refuse_non_finite(totals: Mapping[str, tuple[float, float]]) -> None:
    bad = {name: total for name, (total, _) in totals.items() if not math.isfinite(total)}
    if bad:
        listed = ", ".join(f"`{name}` ({total})" for name, total in bad.items())
        raise FloatingPointError(
            f"the loss is not finite for {listed}; nothing was updated. Look for labels or numbers that are not finite or "
            "very large, or lower the learning rate."
        )
