"""One MLP for all targets, then a tower each (Caruana 1997, "Multitask learning").

Vanilla MTL of the DBMTL paper; `hidden` is its shared, `towers` its specific part.
"""

from typing import Literal

from torch import Tensor, nn

from models.config import config
from models.layers.mixed import MixedBank
from models.layers.mlp import MlpBank, check_layers
from models.schema import Schema
from models.slots import Vectors, Widths


@config
class SharedBottomConfig:
    """Layers that all targets share, and each target's tower.

    Attributes:
        hidden: layers that all targets share.
        towers: layers of each target after them; may be empty.
        dropout: share of each hidden layer set to 0 in training.
    """

    kind: Literal["shared_bottom"] = "shared_bottom"
    hidden: tuple[int, ...] = (256, 128, 64)
    towers: tuple[int, ...] = (64, 32)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_layers("shared_bottom", self.dropout, hidden=self.hidden, towers=self.towers)


class SharedBottom(nn.Module):
    """One MLP over all inputs, and a tower for each target."""

    def __init__(self, config: SharedBottomConfig, schema: Schema, widths: Widths) -> None:
        super().__init__()
        self.targets = schema.target_names
        self.bottom = MixedBank(1, widths, config.hidden, config.dropout)
        self.towers = MlpBank(len(self.targets), self.bottom.width, config.towers, config.dropout)
        self.expert_names: dict[str, tuple[str, ...]] = {}
        self.widths = dict.fromkeys(self.targets, self.towers.width)

    def forward(self, vectors: Vectors) -> dict[str, Tensor]:
        shared_TNH = self.bottom(vectors).expand(len(self.targets), -1, -1)
        return dict(zip(self.targets, self.towers(shared_TNH, vectors.rows_N).unbind(0), strict=True))

    def gates(self, vectors: Vectors) -> dict[str, Tensor]:
        return {}
