"""One MLP for each target over all inputs; targets share nothing but embeddings."""

from typing import Literal

from torch import Tensor, nn

from models.config import config
from models.layers.mixed import MixedBank
from models.layers.mlp import check_layers
from models.schema import Schema
from models.slots import Vectors, Widths


@config
class SingleConfig:
    """An MLP for each target.

    Attributes:
        hidden: layers of a target's MLP.
        dropout: share of each hidden layer set to 0 in training.
    """

    kind: Literal["single"] = "single"
    hidden: tuple[int, ...] = (256, 128, 64)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_layers("single", self.dropout, hidden=self.hidden)


class Single(nn.Module):
    """An MLP for each target over all inputs."""

    def __init__(self, config: SingleConfig, schema: Schema, widths: Widths) -> None:
        super().__init__()
        self.targets = schema.target_names
        self.bank = MixedBank(len(self.targets), widths, config.hidden, config.dropout)
        self.expert_names: dict[str, tuple[str, ...]] = {}
        self.widths = dict.fromkeys(self.targets, self.bank.width)

    def forward(self, vectors: Vectors) -> dict[str, Tensor]:
        return dict(zip(self.targets, self.bank(vectors).unbind(0), strict=True))

    def gates(self, vectors: Vectors) -> dict[str, Tensor]:
        return {}
