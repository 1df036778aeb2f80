"""Float fields as vectors. They come standardised (`schema.Number`).

# N rows, F fields, K frequencies, D width
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import Discriminator
from torch import Tensor, nn

from models.config import config


@config
class RawConfig:
    """A number is a vector of width 1."""

    kind: Literal["raw"] = "raw"

    @property
    def width(self) -> int:
        return 1


@config
class PeriodicConfig:
    """A number x becomes relu(W [sin 2 pi c x, cos 2 pi c x, x] + b), with its own c, W, b per field.

    Lets a network bend where a tree would split (Gorishniy et al. 2022, "On embeddings for numerical features in tabular
    deep learning", Sec. 3.3); x itself is added to what they use, so that a straight line stays easy.

    Attributes:
        frequencies: how many c a field has.
        sigma: deviation of the normal distribution that c starts from; larger bends finer.
        width: of the vector.
    """

    kind: Literal["periodic"] = "periodic"
    frequencies: int = 8
    sigma: float = 0.2
    width: int = 8

    def __post_init__(self) -> None:
        if min(self.frequencies, self.width) < 1 or self.sigma <= 0:
            raise ValueError(
                "periodic numbers need frequencies >= 1, width >= 1 and sigma > 0, "
                f"got {self.frequencies}, {self.width}, {self.sigma}."
            )


NumbersConfig = Annotated[RawConfig | PeriodicConfig, Discriminator("kind")]


class Raw(nn.Module):
    """values_NF -> [N, F, 1]."""

    def __init__(self, config: RawConfig, fields: int) -> None:
        super().__init__()

    def forward(self, values_NF: Tensor) -> Tensor:
        return values_NF.unsqueeze(2)


class Periodic(nn.Module):
    """values_NF -> [N, F, width], see `PeriodicConfig`."""

    def __init__(self, config: PeriodicConfig, fields: int) -> None:
        super().__init__()
        inputs = 2 * config.frequencies + 1
        self.frequency_FK = nn.Parameter(torch.randn(fields, config.frequencies) * config.sigma)
        self.weight_FID = nn.Parameter(torch.empty(fields, inputs, config.width).uniform_(-1, 1) / math.sqrt(inputs))
        self.bias_F1D = nn.Parameter(torch.zeros(fields, 1, config.width))

    def forward(self, values_NF: Tensor) -> Tensor:
        values_FN1 = values_NF.t().unsqueeze(2)
        angle_FNK = 2 * math.pi * values_FN1 * self.frequency_FK.unsqueeze(1)
        inputs_FNI = torch.cat([angle_FNK.sin(), angle_FNK.cos(), values_FN1], dim=2)
        return torch.baddbmm(self.bias_F1D, inputs_FNI, self.weight_FID).relu().transpose(0, 1)


NUMBERS = {"raw": Raw, "periodic": Periodic}
