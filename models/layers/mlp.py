"""Banks of equal MLPs, computed together.

    # B members of the bank, N rows, I input width, H output width

Hidden layers are linear, ReLU, dropout. Weights before a ReLU start uniform in +-sqrt(6 / inputs) (He et al. 2015),
others in +-1 / sqrt(inputs); biases start at 0.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.dropout import Dropout


def he_uniform(*shape: int, inputs: int) -> nn.Parameter:
    """A weight that a ReLU follows."""
    return nn.Parameter(torch.empty(*shape).uniform_(-1, 1) * math.sqrt(6 / max(inputs, 1)))


def plain_uniform(*shape: int, inputs: int) -> nn.Parameter:
    """A weight that no ReLU follows."""
    return nn.Parameter(torch.empty(*shape).uniform_(-1, 1) / math.sqrt(max(inputs, 1)))


def check_layers(owner: str, dropout: float = 0.0, *, hidden: Sequence[int], towers: Sequence[int] = ()) -> None:
    """Refuses empty `hidden`, layers without units and a dropout outside [0, 1)."""
    if not hidden:
        raise ValueError(f"{owner} needs at least one layer in hidden, got none.")
    for name, widths in (("hidden", hidden), ("towers", towers)):
        if any(width < 1 for width in widths):
            raise ValueError(f"{owner} needs layers of at least 1 unit, got {name}={list(widths)}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"{owner} needs 0 <= dropout < 1, got {dropout}.")


class LinearBank(nn.Module):
    """B linear maps: x_BNI -> [B, N, H]. `before_relu` chooses the initial weights."""

    def __init__(self, members: int, inputs: int, outputs: int, *, before_relu: bool) -> None:
        super().__init__()
        draw = he_uniform if before_relu else plain_uniform
        self.weight_BIH = draw(members, inputs, outputs, inputs=inputs)
        self.bias_B1H = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x_BNI: Tensor) -> Tensor:
        return torch.baddbmm(self.bias_B1H, x_BNI, self.weight_BIH)


class MlpBank(nn.Module):
    """B MLPs of the same shape with their own weights: x_BNI -> [B, N, H]. No hidden layer gives x itself."""

    def __init__(self, members: int, inputs: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.width = hidden[-1] if hidden else inputs
        pairs = zip([inputs, *hidden], hidden, strict=False)
        self.layers = nn.ModuleList([LinearBank(members, below, above, before_relu=True) for below, above in pairs])

        self.dropouts = nn.ModuleList([Dropout(dropout) for _ in hidden])

    def forward(self, x_BNI: Tensor, rows_N: Tensor | None = None) -> Tensor:
        """Args: `rows_N` as in `layers.dropout`; None drops nothing."""
        for layer, drop in zip(self.layers, self.dropouts, strict=True):
            x_BNI = drop(layer(x_BNI).relu_(), rows_N)
        return x_BNI
