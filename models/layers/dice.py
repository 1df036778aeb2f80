"""A rectifier with a smooth, learned corner (Zhou et al. 2018, "Deep interest network", Eq. 3).

# K rows, A units
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CPU_ROWS = 4096  # as many rows as stay in a core's cache from one pass to the next


class Dice(nn.Module):
    """x (alpha + (1 - alpha) p) with p = sigmoid(x + shift), on the last dimension.

    In the paper p = sigmoid((x - mean x) / sqrt(var x)) over the batch. Here the corner is a parameter: with batch
    statistics a row's output depends on the rows beside it, and two workers do not equal one. The slope needs no
    parameter, since the linear maps before and after can scale x and the output. So a trained Dice of the paper's kind,
    which predicts with fixed statistics, is the same function with rescaled neighbours.

    Both parameters start at 0, which makes it x sigmoid(x).
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(units))
        self.shift = nn.Parameter(torch.zeros(units))

    def forward(self, x: Tensor) -> Tensor:
        rows_KA = x.reshape(-1, x.shape[-1])
        return _Dice.apply(rows_KA, self.alpha.to(x.dtype), self.shift.to(x.dtype)).view_as(x)


class _Dice(torch.autograd.Function):
    """`Dice` and its gradient, written by hand.

    It runs on every pair of a candidate and a history entry, and makes half the passes over memory that autograd makes of
    the formula, each over a piece that stays in cache.
    """

    @staticmethod
    def forward(ctx: Any, x_KA: Tensor, alpha_A: Tensor, shift_A: Tensor) -> Tensor:
        ctx.save_for_backward(x_KA, alpha_A, shift_A)
        out_KA = torch.empty_like(x_KA)
        for x, out in zip(_pieces(x_KA), _pieces(out_KA), strict=True):
            torch.add(x, shift_A, out=out).sigmoid_()
            torch.addcmul(alpha_A, 1 - alpha_A, out, out=out).mul_(x)
        return out_KA

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_KA: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_KA, alpha_A, shift_A = ctx.saved_tensors
        of_x_KA = torch.empty_like(x_KA)
        of_alpha_A, of_p_A = torch.zeros_like(alpha_A), torch.zeros_like(shift_A)
        rest_A = 1 - alpha_A
        for x, gradient, of_x in zip(_pieces(x_KA), _pieces(gradient_KA), _pieces(of_x_KA), strict=True):
            p = torch.add(x, shift_A).sigmoid_()
            part = (1 - p).mul_(x).mul_(gradient)  # gradient x (1 - p)
            of_alpha_A += part.sum(0)
            of_p_A += part.mul_(p).sum(0)  # gradient x p (1 - p)
            torch.addcmul(alpha_A, rest_A, p, out=of_x).mul_(gradient).addcmul_(rest_A, part)
        return of_x_KA, of_alpha_A, rest_A * of_p_A


def _pieces(rows_KA: Tensor) -> tuple[Tensor, ...]:
    return rows_KA.split(CPU_ROWS) if rows_KA.device.type == "cpu" else (rows_KA,)
