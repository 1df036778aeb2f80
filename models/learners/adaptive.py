"""Adaptive multi-task training (Zhang et al. 2023, "Cross-domain disentangled learning for e-commerce live streaming
recommendation", eLiveRec, Sec. IV-D, Eq. 14-15): auxiliary targets are weighed by how well they agree with a primary one.

    # K targets in training, the primary first; J = K - 1 auxiliary ones; Q gradients, one for each target and one for the rest
    # P numbers of all dense parameters, U different table rows of a step, D width of a table, R feeds
    # B parts of a batch: its halves, or itself

A step minimises L_rec + sum_k w_k L_k + L_reg with

    w_k = sigmoid(MLP([cos(g_rec, g_k), log(1 + L_k), type_k])),

g the gradient of a target's mean loss, and makes one backward pass a target (and one for penalties and losses that
compare rows, where there are any). The gradient that is applied is the sum of these weighted by w; there is no further
pass. Cosines are of the gradients in the shared parameters: dense numbers and table rows that the primary loss and any
auxiliary one reach, which are those where neither gradient is exactly 0. A parameter as a whole would not do: layers
of several targets are one tensor here (`layers.mlp`), and all tables of one width are.

The weighting net is not trained on the loss itself: that falls fastest if all w go to 0. By default it descends the primary
loss after a look-ahead step of plain gradient descent, to first order

    dL_rec / dw_k = -rate <g_rec, g_k>   in the shared parameters, `rate` that of the dense parameters,

so that w_k grows while g_k points where g_rec does, and falls while it points against it. The step is taken on some users'
feeds and judged on others': a hash halves the users of a batch (`layers.draws`), and

    <g_rec, g_k>  is the mean of  <g_rec of one half, g_k of the other>  and the reverse.

On the same feeds the noise of g_rec and g_k is the same, the click that led to an order being in both, and adds its square to
their product: every target would seem to help. `ahead` is the mean of the two cosines between halves; of pure noise it is 0.
The halves go through the ranker one after the other, so that a backward pass of both costs what one did. `joint` is the loss
itself, as the equation says: dL / dw_k = L_k.

With `every` above 1 gradients are compared in one step of that many; the steps between keep the weights of the last and make
one backward pass in all.

Where we differ: a sigmoid keeps w in (0, 1), where the paper says nothing. There is one MLP for all auxiliary targets, with an
embedding of each, since in an MLP of its own a target's embedding would be a bias. It reads log(1 + L), since a squared error
can be thousands of times a cross-entropy and would leave the sigmoid no slope. L_reg keeps the weights it has.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import ConfigError, config
from models.layers.draws import uniform_R
from models.layers.tables import TableSet
from models.learners.distributed import DistributedRanker, Shard, Totals, part_of_mean, side_by_side
from models.learners.workers import WorkerGroup
from models.optim import OptimiserConfig, Optimisers, merged
from models.ranker import Ranker
from models.schema import Schema

REST = "the rest"  # of the loss: penalties, and losses that compare rows
SALT = 4000  # of the draw of halves


@config
class AdaptiveConfig:
    """Which target the others are to help, and the net that weighs them.

    Attributes:
        primary: the target that the others are to help; None takes the first trained one without parents.
        mode: how the weighting net learns: `look_ahead` from what a step on one half of a batch would do to the primary loss of
            the other half, `joint` from the sum of all losses, as the paper's equation says.
        hidden: units of its hidden layer.
        type_width: of a target's embedding in it.
        rate: of its Adam. Its steps are as many as comparisons, so a short training or a large `every` wants a larger one: 100
            of them at 1e-3 move a weight by .01, at 5e-2 by up to .5.
        every: steps from one comparison of gradients to the next; the paper's is 1.
    """

    kind: Literal["adaptive"] = "adaptive"
    primary: str | None = None
    mode: Literal["look_ahead", "joint"] = "look_ahead"
    hidden: int = 16
    type_width: int = 4
    rate: float = 1e-2
    every: int = 1

    def __post_init__(self) -> None:
        if min(self.hidden, self.type_width, self.every) < 1 or not self.rate > 0:
            raise ValueError(
                "adaptive needs hidden >= 1, type_width >= 1, every >= 1 and rate > 0, "
                f"got hidden={self.hidden}, type_width={self.type_width}, every={self.every}, rate={self.rate}."
            )


class Adaptive:
    """Minimises, over all workers' candidates together, the primary's mean loss plus the others' weighted by what is learnt,
    plus penalties and `together` losses as `joint` does.

    A weight of the weighting that is one number says only whether a target is trained (not 0); the primary counts once and the
    others w_k. Weights per candidate multiply inside a target's mean loss. Gradients are added over workers before anything
    is computed of them, so W workers make the step that one would make with the joint batch.

    Raises:
        ConfigError: `primary` is no target or is not trained.
    """

    plan = ""
    at_rest = True
    is_selectable = True

    def __init__(
        self, ranker: Ranker, schema: Schema, config: AdaptiveConfig, optimiser: OptimiserConfig, group: WorkerGroup
    ) -> None:
        self.distributed = DistributedRanker(ranker, schema, group)
        self.dense = self.distributed.dense
        self.optimisers = Optimisers(optimiser, self.dense, self.distributed.table_weights())
        self.patience_from = ranker.curriculum_epochs
        self.mode = config.mode
        self.look_ahead_rate = optimiser.dense.rate
        primary = _primary(config.primary, schema, ranker.trained)
        self.auxiliary = tuple(name for name in ranker.trained if name != primary)
        self.trained = (primary, *self.auxiliary)
        has_rest = bool(ranker.penalties) or ranker.together is not None
        self.parts = (*self.trained, *([REST] if has_rest else []))
        self.net = WeightingNet(len(self.auxiliary), config)
        # its gradients are products of two gradients and a rate, far below Adam's usual eps
        self.net_optimiser = torch.optim.Adam(self.net.parameters(), lr=config.rate, eps=1e-16)
        self.every = config.every
        self.steps = 0
        self.weights = [0.5] * len(self.auxiliary)
        self._diagnostics: dict[str, float] = {}

    def step(self, batch: FeedBatch | None, progress: float = 0.0) -> Totals:
        """One optimisation step of ranker and weighting net; all workers take part.

        Args, Returns, Raises: as `joint.Joint.step`.
        """
        is_compared = self.steps % self.every == 0
        halved = is_compared and self.mode == "look_ahead" and bool(self.auxiliary)
        shards = [self.distributed.forward(part, progress) for part in (_halves(batch, progress) if halved else [batch])]
        totals, compared_MW = self.distributed.totals(side_by_side(shards))
        if not any(count > 0 for _, count in totals.values()):
            return totals
        slopes_of_B = _cut(compared_MW, shards)
        if is_compared:
            losses_K, dense_BQP, rows = self._gradients(shards, totals, slopes_of_B)
            self._learn(_agreement(len(self.trained), losses_K, [dense_BQP, *(rows_BQE for _, rows_BQE in rows.values())]))
            places_Q1 = dense_BQP.new_tensor(self._places()).unsqueeze(1)
            combined_P = (dense_BQP.sum(0) * places_Q1).sum(0)
            combined = {}
            for name, (ids_U, rows_BQE) in rows.items():
                combined[name] = (ids_U, (rows_BQE.sum(0) * places_Q1).sum(0).view(len(ids_U), -1))
        else:
            combined_P, combined = self._combined(shards[0], totals, slopes_of_B[0])
        for parameter, part in zip(self.dense, combined_P.split([each.numel() for each in self.dense]), strict=True):
            parameter.grad = part.view_as(parameter)
        self.optimisers.step(combined)
        self.steps += 1
        return totals

    def diagnostics(self) -> dict[str, float]:
        """`weight.<target>`, `cosine.<target>` and (looking ahead) `ahead.<target>` of every auxiliary target at the last
        comparison; and as `joint.Joint`."""
        return {**self.distributed.told, **self._diagnostics}

    def state_dict(self) -> dict[str, Any]:
        """Of optimisers and weighting net; the ranker's weights are saved with the ranker."""
        return {
            "optimisers": self.optimisers.state_dict(),
            "net": self.net.state_dict(),
            "net_optimiser": self.net_optimiser.state_dict(),
            "steps": self.steps,
            "weights": self.weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimisers.load_state_dict(state["optimisers"])
        self.net.load_state_dict(state["net"])
        self.net_optimiser.load_state_dict(state["net_optimiser"])
        self.steps, self.weights = state["steps"], list(state["weights"])
        for each in self.net_optimiser.state.values():
            each["step"] = each["step"].cpu()  # checkpoints are loaded to the ranker's device, which Adam leaves as it is

    def _gradients(
        self, shards: Sequence[Shard], totals: Totals, slopes_of_B: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Over all workers, of each part of the batch its share of the mean losses' gradients: mean losses [K] of the whole;
        gradients of dense parameters [B, Q, P]; by table set, different rows [U] and their gradients [B, Q, U D].
        """
        sizes = [parameter.numel() for parameter in self.dense]
        tables = self.distributed.tables
        loss_K = self.dense[0].new_zeros(len(self.trained))
        dense_BQP = self.dense[0].new_zeros(len(shards), len(self.parts), sum(sizes))
        rows: dict[str, list[Tensor | None]] = {name: [None] * len(shards) for name in tables}
        for place, shard in enumerate(shards):
            if shard.batch is None:
                continue
            gathered = [shard.gathered[each].rows_UD for each in tables.values()]
            of_part: dict[str, list[Tensor]] = {name: [] for name in tables}
            for index, part in enumerate(self.parts):
                outputs, slopes = self._objective(part, shard, totals, slopes_of_B[place])
                if part != REST:
                    loss_K[index] += outputs[0].detach()
                is_last = index == len(self.parts) - 1
                found = _grad(outputs, slopes, [*self.dense, *gathered], retain=not is_last)
                torch.cat([each.reshape(-1) for each in found[: len(sizes)]], out=dense_BQP[place, index])
                for mine, gradient_UD in zip(of_part.values(), found[len(sizes) :], strict=True):
                    mine.append(gradient_UD)
            for name, gradients in of_part.items():
                rows[name][place] = torch.stack(gradients, dim=1)
        loss_K, dense_BQP = self.distributed.sum_dense([loss_K, dense_BQP])
        return loss_K, dense_BQP, {name: self._sum_rows(tables[name], shards, mine) for name, mine in rows.items()}

    def _combined(
        self, shard: Shard, totals: Totals, compared_MW: Tensor | None
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """Over all workers, weighted as in the last comparison: gradients of dense parameters [P]; by table set, different rows
        [U] and their gradients [U, D].
        """
        sizes = [parameter.numel() for parameter in self.dense]
        tables = self.distributed.tables
        dense_P = self.dense[0].new_zeros(sum(sizes))
        rows: list[Tensor | None] = [None] * len(tables)
        if shard.batch is not None:
            outputs: list[Tensor] = []
            slopes: list[Tensor | None] = []
            for part, weight in zip(self.parts, self._places(), strict=True):
                of_part, slopes_of_part = self._objective(part, shard, totals, compared_MW)
                outputs += [output * weight for output in of_part] if part != REST else of_part
                slopes += slopes_of_part
            gathered = [shard.gathered[each].rows_UD for each in tables.values()]
            found = _grad(outputs, slopes, [*self.dense, *gathered], retain=False)
            torch.cat([each.reshape(-1) for each in found[: len(sizes)]], out=dense_P)
            rows = [*found[len(sizes) :]]
        (dense_P,) = self.distributed.sum_dense([dense_P])
        summed = {
            name: self.distributed.sum_rows(each, shard.gathered.get(each), gradient_UD)
            for (name, each), gradient_UD in zip(tables.items(), rows, strict=True)
        }
        return dense_P, summed

    def _places(self) -> list[float]:
        """Weight of every part."""
        return [1.0, *self.weights, *([1.0] if REST in self.parts else [])]

    def _objective(
        self, part: str, shard: Shard, totals: Totals, compared_MW: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """What to differentiate for this shard's share of a part of the loss, and the slopes of what is no scalar."""
        assert shard.weights is not None
        if part != REST:
            weight = shard.weights.targets[part]
            return [part_of_mean(shard, totals, part, weight if isinstance(weight, Tensor) else 1.0)], [None]
        outputs = [part_of_mean(shard, totals, name, 1.0) for name in self.distributed.ranker.penalties]
        slopes: list[Tensor | None] = [None] * len(outputs)
        if shard.compared is not None and compared_MW is not None:
            outputs.append(shard.compared.rows_MW)
            slopes.append(compared_MW.to(shard.compared.rows_MW.dtype))
        return outputs, slopes

    def _sum_rows(self, tables: TableSet, shards: Sequence[Shard], gradients: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """Over all workers, different rows [U] that any part read, and the gradients [B, Q, U D].

        Args:
            gradients: by part of this worker's batch, [U, Q, D] of its rows; None where it is empty.
        """
        parts, kinds = len(shards), len(self.parts)
        ids = [tables.weight.new_zeros(0, dtype=torch.int64)]
        beside = [tables.weight.new_zeros(0, parts * kinds * tables.width)]
        for place, (shard, gradient_UQD) in enumerate(zip(shards, gradients, strict=True)):
            if gradient_UQD is not None:
                ids.append(shard.gathered[tables].ids_U)
                among_UBQD = gradient_UQD.new_zeros(len(gradient_UQD), parts, kinds, tables.width)
                among_UBQD[:, place] = gradient_UQD
                beside.append(among_UBQD.flatten(1))
        ids_U, summed = merged(torch.cat(ids), torch.cat(beside))
        if self.distributed.group.size > 1:
            ids_U, summed = merged(*self.distributed.group.gather_rows(ids_U, summed))
        return ids_U, summed.view(len(ids_U), parts, kinds, tables.width).permute(1, 2, 0, 3).flatten(2)

    def _learn(self, agreement: "Agreement") -> None:
        """Sets the weights of the auxiliary targets; the net learns from the step."""
        if not self.auxiliary:
            return
        weight_J = self.net(agreement.cosine_J, agreement.loss_J)
        slope_J = agreement.loss_J if self.mode == "joint" else -self.look_ahead_rate * agreement.ahead_inner_J
        self.net_optimiser.zero_grad()
        weight_J.backward(slope_J)
        self.net_optimiser.step()
        self.weights = weight_J.tolist()
        told = {"weight": self.weights, "cosine": agreement.cosine_J.tolist()}
        if self.mode == "look_ahead":
            told["ahead"] = agreement.ahead_J.tolist()
        self._diagnostics = {
            f"{what}.{name}": value for what, values in told.items() for name, value in zip(self.auxiliary, values, strict=True)
        }


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How the auxiliary targets stand to the primary one in a step.

    Attributes:
        cosine_J: of their gradients and its in the shared parameters, on the whole batch; 0 where nothing is shared.
        ahead_J, ahead_inner_J: mean cosine and mean inner product of gradients on different halves; 0 without halves, or where
            one has nothing.
        loss_J: their mean losses.
    """

    cosine_J: Tensor
    ahead_J: Tensor
    ahead_inner_J: Tensor
    loss_J: Tensor


class WeightingNet(nn.Module):
    """Eq. 14 for all auxiliary targets at once: cosines [J] and mean losses [J] -> weights [J] in (0, 1).

    In float64 on the CPU, from a generator of its own, so that it is the same on all workers. Its last layer starts at 0, so
    that every weight starts at 1/2.
    """

    def __init__(self, targets: int, config: AdaptiveConfig) -> None:
        super().__init__()
        generator, inputs = torch.Generator().manual_seed(0), 2 + config.type_width
        drawn = lambda *shape: torch.empty(*shape, dtype=torch.float64).uniform_(-1, 1, generator=generator)
        self.types_JE = nn.Parameter(drawn(targets, config.type_width))
        self.first_IH = nn.Parameter(drawn(inputs, config.hidden) * math.sqrt(6 / inputs))  # as `layers.mlp.he_uniform`
        self.first_bias_H = nn.Parameter(torch.zeros(config.hidden, dtype=torch.float64))
        self.second_H = nn.Parameter(torch.zeros(config.hidden, dtype=torch.float64))
        self.second_bias = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, cosine_J: Tensor, loss_J: Tensor) -> Tensor:
        signals_JI = torch.cat([cosine_J.unsqueeze(1), loss_J.log1p().unsqueeze(1), self.types_JE], dim=1)
        hidden_JH = (signals_JI @ self.first_IH + self.first_bias_H).relu()
        return (hidden_JH @ self.second_H + self.second_bias).sigmoid()


def _agreement(trained: int, loss_K: Tensor, gradients: Sequence[Tensor]) -> Agreement:
    """Args:
    trained: K, the gradients of which come first.
    gradients: [B, Q, E], of dense parameters and of each table set's rows.
    """
    halves = gradients[0].shape[0] == 2
    # inner products with the primary's gradient, and squares: on the whole batch, and for either half as the one looked at
    whole_2K, ahead_2BK, square_BK = (
        torch.zeros(*shape, trained, dtype=torch.float64, device=loss_K.device) for shape in ((2,), (2, 2), (2,))
    )
    for gradient_BQE in gradients:
        gradient_BKE = gradient_BQE[:, :trained]
        whole_KE = gradient_BKE.sum(0)
        is_shared_E = (whole_KE[0] != 0) & (whole_KE[1:] != 0).any(0)
        shared_BKE = gradient_BKE * is_shared_E
        shared_KE = shared_BKE.sum(0)
        whole_2K[0] += (shared_KE * shared_KE[0]).sum(1, dtype=torch.float64)
        whole_2K[1] += shared_KE.square().sum(1, dtype=torch.float64)
        if halves:
            square_BK += shared_BKE.square().sum(2, dtype=torch.float64)
            ahead_2BK[0] += (shared_BKE * shared_BKE.flip(0)[:, :1]).sum(2, dtype=torch.float64)
    ahead_2BK[1] = square_BK * square_BK.flip(0)[:, :1]
    cosine_K = _cosine(whole_2K[0], whole_2K[1] * whole_2K[1, 0])
    return Agreement(
        cosine_J=cosine_K[1:].cpu(),
        ahead_J=_cosine(*ahead_2BK).mean(0)[1:].cpu(),
        ahead_inner_J=4 * ahead_2BK[0].mean(0)[1:].cpu(),  # a half's share of a mean gradient is half of its own
        loss_J=loss_K[1:].double().cpu(),
    )


def _cosine(inner: Tensor, squares: Tensor) -> Tensor:
    """Inner products by the roots of products of squares; 0 where there are none."""
    return torch.where(squares > 0, inner / squares.where(squares > 0, 1).sqrt(), 0.0)


def _halves(batch: FeedBatch | None, progress: float) -> list[FeedBatch | None]:
    """Two parts of a batch with different users; None where there are none."""
    if batch is None:
        return [None, None]
    first_R = uniform_R(batch, progress, SALT) < 0.5
    return [batch.of_feeds(of_part_R) if of_part_R.any() else None for of_part_R in (first_R, ~first_R)]


def _cut(compared_MW: Tensor | None, shards: Sequence[Shard]) -> list[Tensor | None]:
    """The gradients in compared rows by the shard that has these."""
    if compared_MW is None:
        return [None] * len(shards)
    rows = [0 if shard.compared is None else len(shard.compared.users_M) for shard in shards]
    return list(compared_MW.split(rows))


def _primary(name: str | None, schema: Schema, trained: tuple[str, ...]) -> str:
    roots = [each for each in trained if not schema.parents(each)]
    if name is None and not roots:
        raise ConfigError(
            "adaptive helps the first target without parents, but none of those is trained. Name the target to help in "
            f"`learner.primary`, one of: {', '.join(trained)}."
        )
    if name is not None and name not in trained:
        raise ConfigError(f"`learner.primary` is `{name}`, which is no target in training. Those are: {', '.join(trained)}.")
    return roots[0] if name is None else name


def _grad(outputs: Sequence[Tensor], slopes: Sequence[Tensor | None], leaves: list[Tensor], *, retain: bool) -> list[Tensor]:
    """Gradients in the leaves, zeros in those that nothing leads to."""
    led = [(output, slope) for output, slope in zip(outputs, slopes, strict=True) if output.requires_grad]
    if not led:
        return [torch.zeros_like(leaf) for leaf in leaves]
    reached = torch.autograd.grad(
        [output for output, _ in led],
        leaves,
        [slope for _, slope in led],
        retain_graph=retain,
        allow_unused=True,
        materialize_grads=True,
    )
    return list(reached)
