"""The last linear map of every target.

# N candidates, K classes
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.layers.mlp import LinearBank
from models.layers.named import Named
from models.schema import Schema


class Heads(nn.Module):
    """A vector [N, width] per target -> its output: a number [N], or [N, K] for K classes.

    Outputs are at least float32, also under autocast.

    Weights start uniform in +-1 / sqrt(width), biases at 0.
    """

    def __init__(self, schema: Schema, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.linear = Named(
            {target.name: LinearBank(1, widths[target.name], target.outputs, before_relu=False) for target in schema.targets}
        )

    def forward(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {target: self.one(target, vectors[target]) for target in self.linear}

    def one(self, target: str, vector_NH: Tensor) -> Tensor:
        """The output of one target."""
        output_NK = at_least_float32(self.linear[target](vector_NH.unsqueeze(0)).squeeze(0))
        return output_NK.squeeze(1) if output_NK.shape[1] == 1 else output_NK


def at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
