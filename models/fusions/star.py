"""Star topology over levels (Sheng et al. 2021, "One model to serve all: star topology adaptive recommender for
multi-domain CTR prediction"), its fully-connected part, extended to several targets as a baseline of CMLIR.

    # T targets, N_c candidates of level c, H width

Every layer of shared_bottom's net, of the bottom and of the towers, has weights for all levels and weights of each level;
a candidate goes through their elementwise product and the sum of the biases. The weights of a level start at 1, its
biases at 0, so a training starts as that of shared_bottom. The last linear map of a target is the coupling's, and all
levels share it.

Two parts of the paper are left out. Partitioned normalisation makes a candidate's output depend on the batch it is in.
The auxiliary network over the domain indicator is no part of the fully-connected net; give the level to it as a field
where that is wanted.
"""

from typing import Literal

from torch import Tensor, nn

from models.config import config
from models.layers.dropout import Dropout
from models.layers.mlp import check_layers
from models.layers.star import ByLevel, StarMixedLinear, StarMlpBank
from models.schema import Schema
from models.slots import Vectors, Widths


@config
class StarConfig:
    """Layers of a shared bottom, each of which has weights of every level.

    Attributes:
        hidden: layers that all targets share.
        towers: layers of each target after them; may be empty.
        dropout: share of each hidden layer set to 0 in training.
    """

    kind: Literal["star"] = "star"
    hidden: tuple[int, ...] = (256, 128, 64)
    towers: tuple[int, ...] = (64, 32)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_layers("star", self.dropout, hidden=self.hidden, towers=self.towers)


class Star(nn.Module):
    """A shared bottom and towers whose weights every level bends in its own way."""

    def __init__(self, config: StarConfig, schema: Schema, widths: Widths) -> None:
        super().__init__()
        self.targets = schema.target_names
        self.levels = len(schema.levels.names)
        self.drop = Dropout(config.dropout)
        self.first = StarMixedLinear(self.levels, widths, config.hidden[0])
        self.bottom = StarMlpBank(self.levels, 1, config.hidden[0], config.hidden[1:], config.dropout)
        self.towers = StarMlpBank(self.levels, len(self.targets), self.bottom.width, config.towers, config.dropout)
        self.expert_names: dict[str, tuple[str, ...]] = {}
        self.widths = dict.fromkeys(self.targets, self.towers.width)

    def forward(self, vectors: Vectors) -> dict[str, Tensor]:
        by_level = ByLevel(vectors.level_N, self.levels)
        rows = by_level.divided(vectors.rows_N)
        first = [
            self.drop(first_NH.relu_(), rows_N).unsqueeze(0)
            for first_NH, rows_N in zip(self.first(vectors, by_level), rows, strict=True)
        ]
        shared = [each.expand(len(self.targets), -1, -1) for each in self.bottom(first, rows)]
        return dict(zip(self.targets, by_level.together(self.towers(shared, rows)).unbind(0), strict=True))

    def gates(self, vectors: Vectors) -> dict[str, Tensor]:
        return {}
