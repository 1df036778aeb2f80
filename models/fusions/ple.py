"""Progressive layered extraction (Tang et al. 2020, "Progressive layered extraction: a novel multi-task learning model
for personalized recommendations", Sec. 4).

    # N candidates, T targets, O own experts of a target, C shared experts, X = T O + C experts of a level, H width of an expert

Each level has O experts per target and C shared ones. A target's gate mixes its own experts and the shared ones; the
shared gate mixes the experts of all targets and the shared ones. The mixtures are the next level's inputs: a target's
experts and gate read the target's, shared experts and the shared gate read the shared one. The first level reads the
inputs; the last has no shared gate, since nothing would read it. Gates are linear softmax gates with a bias.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.config import config
from models.layers.dropout import Dropout
from models.layers.mixed import MixedBank, MixedLinear
from models.layers.mixture import mixture, own_and_shared
from models.layers.mlp import LinearBank, MlpBank, check_layers
from models.schema import Schema
from models.slots import Vectors, Widths


@config
class PleConfig:
    """Extraction levels of experts, and each target's tower.

    Attributes:
        levels: how many extraction levels.
        specific: experts of each target on each level.
        shared: shared experts on each level.
        hidden: layers of an expert.
        towers: layers of each target after the last level; may be empty.
        dropout: share of each hidden layer set to 0 in training.
    """

    kind: Literal["ple"] = "ple"
    levels: int = 2
    specific: int = 1
    shared: int = 2
    hidden: tuple[int, ...] = (128, 64)
    towers: tuple[int, ...] = (32,)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_layers("ple", self.dropout, hidden=self.hidden, towers=self.towers)
        if min(self.levels, self.specific, self.shared) < 1:
            raise ValueError(
                "ple needs levels, specific and shared of at least 1, "
                f"got levels={self.levels}, specific={self.specific}, shared={self.shared}."
            )


class Ple(nn.Module):
    """Extraction levels of experts and gates, one above the other."""

    def __init__(self, config: PleConfig, schema: Schema, widths: Widths) -> None:
        super().__init__()
        self.targets = schema.target_names
        self.specific = config.specific
        self.first = FirstLevel(config, len(self.targets), widths)
        self.later = nn.ModuleList(
            [LaterLevel(config, len(self.targets), is_last=level == config.levels) for level in range(2, config.levels + 1)]
        )
        self.towers = MlpBank(len(self.targets), config.hidden[-1], config.towers, config.dropout)
        self.widths = dict.fromkeys(self.targets, self.towers.width)
        own = [f"own {number + 1}" for number in range(config.specific)]
        shared = [f"shared {number + 1}" for number in range(config.shared)]
        self.expert_names = dict.fromkeys(self.targets, (*own, *shared))

    def forward(self, vectors: Vectors) -> dict[str, Tensor]:
        mixed_TNH = self._for_targets(self._extracted(vectors))
        return dict(zip(self.targets, self.towers(mixed_TNH, vectors.rows_N).unbind(0), strict=True))

    def gates(self, vectors: Vectors) -> dict[str, Tensor]:
        return dict(zip(self.targets, self._extracted(vectors).own_NTM.softmax(2).unbind(1), strict=True))

    def _extracted(self, vectors: Vectors) -> "Extracted":
        """What the last level computes."""
        extracted: Extracted = self.first(vectors)
        for level in self.later:
            assert extracted.shared_N1X is not None  # only the last level has none
            shared_1NH = mixture(extracted.shared_N1X, extracted.experts_XNH.transpose(0, 1))
            extracted = level(self._for_targets(extracted), shared_1NH, vectors.rows_N)
        return extracted

    def _for_targets(self, extracted: "Extracted") -> Tensor:
        return own_and_shared(extracted.own_NTM, extracted.experts_XNH, self.specific)


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """What a level computes.

    Attributes:
        experts_XNH: a target's own experts side by side, target after target; then the shared ones.
        own_NTM: gate scores of the targets over M = O + C experts, a target's own first.
        shared_N1X: scores of the shared gate over all experts; None on the last level.
    """

    experts_XNH: Tensor
    own_NTM: Tensor
    shared_N1X: Tensor | None


class FirstLevel(nn.Module):
    """Experts and gates that read the inputs."""

    def __init__(self, config: PleConfig, targets: int, widths: Widths) -> None:
        super().__init__()
        self.targets = targets
        all_experts = targets * config.specific + config.shared
        self.own_scores = targets * (config.specific + config.shared)
        self.experts = MixedBank(all_experts, widths, config.hidden, config.dropout)
        shared_scores = all_experts if config.levels > 1 else 0
        self.gates = MixedLinear(widths, self.own_scores + shared_scores, before_relu=False)

    def forward(self, vectors: Vectors) -> Extracted:
        scores = self.gates(vectors)
        own, shared = scores[:, : self.own_scores], scores[:, self.own_scores :]
        return Extracted(
            experts_XNH=self.experts(vectors),
            own_NTM=own.unflatten(1, (self.targets, -1)),
            shared_N1X=shared.unsqueeze(1) if shared.shape[1] else None,
        )


class LaterLevel(nn.Module):
    """Experts and gates that read the mixtures of the level below."""

    def __init__(self, config: PleConfig, targets: int, *, is_last: bool) -> None:
        super().__init__()
        self.first_width = config.hidden[0]
        self.drop = Dropout(config.dropout)
        below = config.hidden[-1]
        all_experts = targets * config.specific + config.shared
        self.own = LinearBank(targets, below, config.specific * self.first_width, before_relu=True)
        self.shared = LinearBank(1, below, config.shared * self.first_width, before_relu=True)
        self.rest = MlpBank(all_experts, self.first_width, config.hidden[1:], config.dropout)
        self.own_gates = LinearBank(targets, below, config.specific + config.shared, before_relu=False)
        self.shared_gate = None if is_last else LinearBank(1, below, all_experts, before_relu=False)

    def forward(self, mixed_TNH: Tensor, shared_1NH: Tensor, rows_N: Tensor | None) -> Extracted:
        """Args: `rows_N` as in `layers.dropout`."""
        first_XNH = torch.cat([self._experts(self.own(mixed_TNH)), self._experts(self.shared(shared_1NH))])
        return Extracted(
            experts_XNH=self.rest(self.drop(first_XNH.relu_(), rows_N), rows_N),
            own_NTM=self.own_gates(mixed_TNH).transpose(0, 1),
            shared_N1X=None if self.shared_gate is None else self.shared_gate(shared_1NH).transpose(0, 1),
        )

    def _experts(self, first_BNW: Tensor) -> Tensor:
        """[B, N, experts side by side] -> [experts, N, H]."""
        return first_BNW.unflatten(2, (-1, self.first_width)).permute(0, 2, 1, 3).flatten(0, 1)
