"""The last linear map of every target.

# N candidates
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.layers.mlp import LinearBank


class Heads(nn.Module):
    """A vector [N, width] per target -> a number [N] per target, of at least float32 also under autocast.

    Weights start uniform in +-1 / sqrt(width), biases at 0.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.linear = nn.ModuleDict({target: LinearBank(1, width, 1, before_relu=False) for target, width in widths.items()})

    def forward(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = {target: linear(vectors[target].unsqueeze(0)).flatten() for target, linear in self.linear.items()}
        return {target: at_least_float32(output_N) for target, output_N in outputs.items()}


def at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
