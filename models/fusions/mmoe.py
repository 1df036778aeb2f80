"""Multi-gate mixture of experts (Ma et al. 2018, "Modeling task relationships in multi-task learning with multi-gate
mixture-of-experts", Eq. 6-8).

    # N candidates, T targets, E experts, H width of an expert

All experts read all inputs; each target mixes them by a softmax gate of its own, linear in the inputs, and passes the
mixture through its tower. Gates have a bias here.
"""

from typing import Literal

from torch import Tensor, nn

from models.config import config
from models.layers.mixed import MixedBank, MixedLinear
from models.layers.mixture import mixture
from models.layers.mlp import MlpBank, check_layers
from models.schema import Schema
from models.slots import Vectors, Widths


@config
class MmoeConfig:
    """Experts that all targets mix, and each target's tower.

    Attributes:
        experts: how many.
        hidden: layers of an expert.
        towers: layers of each target after its mixture; may be empty.
        dropout: share of each hidden layer set to 0 in training.
    """

    kind: Literal["mmoe"] = "mmoe"
    experts: int = 8
    hidden: tuple[int, ...] = (128, 64)
    towers: tuple[int, ...] = (32,)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_layers("mmoe", self.dropout, hidden=self.hidden, towers=self.towers)
        if self.experts < 1:
            raise ValueError(f"mmoe needs experts >= 1, got {self.experts}.")


class Mmoe(nn.Module):
    """Experts over all inputs, mixed by a gate for each target."""

    def __init__(self, config: MmoeConfig, schema: Schema, widths: Widths) -> None:
        super().__init__()
        self.targets = schema.target_names
        self.experts = MixedBank(config.experts, widths, config.hidden, config.dropout)
        self.gate_scores = MixedLinear(widths, len(self.targets) * config.experts, before_relu=False)
        self.towers = MlpBank(len(self.targets), self.experts.width, config.towers, config.dropout)
        self.widths = dict.fromkeys(self.targets, self.towers.width)
        self.expert_names = dict.fromkeys(self.targets, tuple(f"expert {number + 1}" for number in range(config.experts)))

    def forward(self, vectors: Vectors) -> dict[str, Tensor]:
        experts_NEH = self.experts(vectors).transpose(0, 1)
        mixed_TNH = mixture(self._scores_NTE(vectors), experts_NEH)
        return dict(zip(self.targets, self.towers(mixed_TNH, vectors.rows_N).unbind(0), strict=True))

    def gates(self, vectors: Vectors) -> dict[str, Tensor]:
        return dict(zip(self.targets, self._scores_NTE(vectors).softmax(2).unbind(1), strict=True))

    def _scores_NTE(self, vectors: Vectors) -> Tensor:
        return self.gate_scores(vectors).unflatten(1, (len(self.targets), -1))
