"""Optimisers: PyTorch's for dense parameters, row-wise ones for embedding tables.

    # U different rows of a table set, D width

A table optimiser sees the rows that a step read and their gradient, and touches nothing else, neither in the table nor
in its state. That is another algorithm than its dense namesake: a row that a batch does not hold is not moved by its
momentum, and no L2 pulls at it.
"""

import math
from collections.abc import Mapping
from dataclasses import field as default
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Discriminator
from torch import Tensor, nn

from models.config import config


@config
class AdamConfig:
    """Adam (Kingma & Ba 2015) for dense parameters.

    Attributes:
        rate: learning rate.
        beta1, beta2: decay, per step, of the running means of the gradient and of its square.
        eps: added to the denominator.
        l1: l1 * sign(weight) is added to the gradient.
        l2: l2 * weight is added to the gradient.
    """

    kind: Literal["adam"] = "adam"
    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        _check_adam("adam", self.rate, self.beta1, self.beta2, self.eps)
        _check_not_negative("adam", l1=self.l1, l2=self.l2)


@config
class AdagradConfig:
    """Adagrad (Duchi et al. 2011) for dense parameters.

    Attributes:
        rate: learning rate.
        eps: added to the denominator.
        l1: l1 * sign(weight) is added to the gradient.
        l2: l2 * weight is added to the gradient.
    """

    kind: Literal["adagrad"] = "adagrad"
    rate: float = 0.01
    eps: float = 1e-10
    l1: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        _check_positive("adagrad", rate=self.rate, eps=self.eps)
        _check_not_negative("adagrad", l1=self.l1, l2=self.l2)


@config
class LazyAdamConfig:
    """Adam on the rows a step reads. A row's bias correction counts that row's own updates.

    Attributes:
        rate: learning rate.
        beta1, beta2: decay, per step, of the running means of the gradient and of its square.
        eps: added to the denominator.
    """

    kind: Literal["lazy_adam"] = "lazy_adam"
    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check_adam("lazy_adam", self.rate, self.beta1, self.beta2, self.eps)


@config
class RowwiseAdagradConfig:
    """Adagrad with one accumulator a row: the mean over the row of its squared gradients, summed over steps.

    Attributes:
        rate: learning rate.
        eps: added to the denominator.
    """

    kind: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    rate: float = 0.01
    eps: float = 1e-10

    def __post_init__(self) -> None:
        _check_positive("rowwise_adagrad", rate=self.rate, eps=self.eps)


@config
class OptimiserConfig:
    """The optimisers of a ranker.

    Attributes:
        dense: the optimiser of dense parameters.
        tables: that of embedding tables.
        clip_norm: gradients of a step, dense and tables together, are scaled down to this norm; None leaves them.
    """

    dense: Annotated[AdamConfig | AdagradConfig, Discriminator("kind")] = default(default_factory=AdamConfig)
    tables: Annotated[LazyAdamConfig | RowwiseAdagradConfig, Discriminator("kind")] = default(default_factory=LazyAdamConfig)
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if self.clip_norm is not None:
            _check_positive("the optimiser", clip_norm=self.clip_norm)


class TableOptimiser(Protocol):
    """State beside one table set's `weight`."""

    def update(self, weight: Tensor, ids_U: Tensor, gradient_UD: Tensor, scale: float = 1.0) -> None:
        """One step on the rows `ids_U` (different from each other) of `weight`, in place, with the rate times `scale`."""

    def state(self) -> dict[str, Tensor]:
        """Tensors that a checkpoint holds; `load` copies them back."""


class LazyAdam:
    """Keeps two moments and a step count for each row of a table.

    State is allocated and touched at once, so that a training that does not fit in memory fails at its start.
    """

    def __init__(self, config: LazyAdamConfig, weight: Tensor) -> None:
        self.config = config
        self.first = torch.full_like(weight, 0)
        self.second = torch.full_like(weight, 0)
        self.steps = torch.full((len(weight),), 0, dtype=torch.int32, device=weight.device)

    def update(self, weight: Tensor, ids_U: Tensor, gradient_UD: Tensor, scale: float = 1.0) -> None:
        beta1, beta2 = self.config.beta1, self.config.beta2
        # index_select, index_copy_ and index_add_ move whole rows; indexing with [] takes several times as long on a CPU
        steps_U = self.steps.index_select(0, ids_U) + 1
        self.steps.index_copy_(0, ids_U, steps_U)
        first_UD = self.first.index_select(0, ids_U).lerp_(gradient_UD, 1 - beta1)
        self.first.index_copy_(0, ids_U, first_UD)
        second_UD = self.second.index_select(0, ids_U).mul_(beta2).addcmul_(gradient_UD, gradient_UD, value=1 - beta2)
        self.second.index_copy_(0, ids_U, second_UD)
        # betas close to 1: expm1 keeps the digits that 1 - beta ** steps loses in float32
        steps_U1 = steps_U.to(weight.dtype).unsqueeze(1)
        correction1_U1 = -torch.expm1(steps_U1 * math.log(beta1)) if beta1 else torch.ones_like(steps_U1)
        correction2_U1 = -torch.expm1(steps_U1 * math.log(beta2)) if beta2 else torch.ones_like(steps_U1)
        root_UD = second_UD.div_(correction2_U1).sqrt_().add_(self.config.eps)
        weight.index_add_(0, ids_U, first_UD.mul_(scale * self.config.rate / correction1_U1).div_(root_UD), alpha=-1)

    def state(self) -> dict[str, Tensor]:
        return {"first": self.first, "second": self.second, "steps": self.steps}


class RowwiseAdagrad:
    """Keeps one number for each row of a table."""

    def __init__(self, config: RowwiseAdagradConfig, weight: Tensor) -> None:
        self.config = config
        self.sums = torch.full((len(weight),), 0, dtype=weight.dtype, device=weight.device)

    def update(self, weight: Tensor, ids_U: Tensor, gradient_UD: Tensor, scale: float = 1.0) -> None:
        sums_U = self.sums.index_select(0, ids_U).add_(gradient_UD.square().mean(1))
        self.sums.index_copy_(0, ids_U, sums_U)
        rate_U1 = (scale * self.config.rate / (sums_U.sqrt() + self.config.eps)).unsqueeze(1)
        weight.index_add_(0, ids_U, gradient_UD * rate_U1, alpha=-1)

    def state(self) -> dict[str, Tensor]:
        return {"sums": self.sums}


TABLE_OPTIMISERS = {"lazy_adam": LazyAdam, "rowwise_adagrad": RowwiseAdagrad}


class Optimisers:
    """All optimisers of one ranker.

    Args:
        dense: parameters outside tables; a parameter whose `grad` is None is left alone.
        tables: matrices by the name of their table set.
        beside: of a ranker that has the same tables; their optimisers are one and the same, and it keeps their state.
    """

    def __init__(
        self,
        config: OptimiserConfig,
        dense: list[nn.Parameter],
        tables: Mapping[str, Tensor],
        beside: "Optimisers | None" = None,
    ) -> None:
        self.config = config
        self.keeps_tables = beside is None
        self.dense_parameters = dense
        self.dense = dense_optimiser(config.dense, dense)
        self.weights = dict(tables)
        self.tables: dict[str, TableOptimiser] = (
            {name: TABLE_OPTIMISERS[config.tables.kind](config.tables, weight) for name, weight in tables.items()}
            if beside is None
            else beside.tables
        )

    @torch.no_grad()
    def step(self, rows: Mapping[str, tuple[Tensor, Tensor]], scale: float = 1.0, table_scale: float = 1.0) -> None:
        """One step.

        Args:
            rows: by table set, the different rows `ids_U` and their gradient [U, D].
            scale, table_scale: what the rates of dense parameters and of tables are multiplied by.
        """
        if self.config.clip_norm is not None:
            rows = self._clipped(rows, self.config.clip_norm)
        if self.config.dense.l1:
            for parameter in self.dense_parameters:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.sign(), alpha=self.config.dense.l1)
        for group in self.dense.param_groups:
            group["lr"] = scale * self.config.dense.rate
        self.dense.step()
        for name, (ids_U, gradient_UD) in rows.items():
            if len(ids_U):
                self.tables[name].update(self.weights[name], ids_U, gradient_UD, table_scale)

    def state_dict(self) -> dict[str, Any]:
        tables = {name: each.state() for name, each in self.tables.items()} if self.keeps_tables else {}
        return {"dense": self.dense.state_dict(), "tables": tables}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state_dict` gave.

        Raises:
            ValueError: the state belongs to other tables or to another kind of optimiser.
        """
        for name, each in self.tables.items() if self.keeps_tables else ():
            found, wanted = state["tables"].get(name, {}), each.state()
            if {key: value.shape for key, value in found.items()} != {key: value.shape for key, value in wanted.items()}:
                raise ValueError(
                    f"optimiser state of `{name}` does not fit: it holds {_shapes(found)}, expected {_shapes(wanted)}. "
                    "It belongs to other tables or to another table optimiser."
                )
            for key, value in wanted.items():
                value.copy_(found[key])
        self.dense.load_state_dict(state["dense"])

    def _clipped(self, rows: Mapping[str, tuple[Tensor, Tensor]], limit: float) -> dict[str, tuple[Tensor, Tensor]]:
        gradients = [parameter.grad for parameter in self.dense_parameters if parameter.grad is not None]
        everything = [*gradients, *(gradient_UD for _, gradient_UD in rows.values())]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(each) for each in everything]))
        scale = (limit / norm.clamp(min=limit)).to(norm.dtype)
        for gradient in gradients:
            gradient.mul_(scale)
        return {name: (ids_U, gradient_UD * scale) for name, (ids_U, gradient_UD) in rows.items()}


def dense_optimiser(config: AdamConfig | AdagradConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if isinstance(config, AdamConfig):
        return torch.optim.Adam(
            parameters,
            lr=config.rate,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.l2,
            fused=True,
        )
    return torch.optim.Adagrad(parameters, lr=config.rate, eps=config.eps, weight_decay=config.l2, foreach=True)


def merged(ids: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Sums gradients of the same row: different rows, ascending, and their gradient.

    Sums in the given order, on a GPU too, so that equal runs give equal bits.
    """
    ids_U, inverse = torch.unique(ids, return_inverse=True)
    summed_UD = gradients.new_zeros(len(ids_U), gradients.shape[1])
    return ids_U, summed_UD.index_put_((inverse,), gradients, accumulate=True)


def _shapes(state: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{key} {list(value.shape)}" for key, value in state.items()) or "nothing"


def _check_positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{owner} needs {name} > 0, got {value}.")


def _check_not_negative(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{owner} needs {name} >= 0, got {value}.")


def _check_adam(owner: str, rate: float, beta1: float, beta2: float, eps: float) -> None:
    _check_positive(owner, rate=rate, eps=eps)
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"{owner} needs 0 <= beta1, beta2 < 1, got {beta1}, {beta2}.")
