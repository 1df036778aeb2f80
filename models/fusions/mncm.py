"""Experts that hand on along the target graph (after Wu 2022, "MNCM: multi-level network cascades model for multi-task
learning", CIKM).

    # N candidates, T targets, O own experts of a target, X = T O + C experts with the C shared ones, H width of an expert

O experts per target and C shared ones read the inputs, as in one level of PLE. Before the gates, a target's own experts
take in those of its parents: each attends over itself and the messages relu(FC(.)) of all O experts of every parent, by
the attention of AITM, the parent's experts having taken in those above them. A target's gate then mixes its own experts
and the shared ones, and its tower follows. With coupling `aitm`, which hands on between towers, this is MNCM.

The paper is not at hand; what is known of it is what the PIMM paper says (Weng et al. 2023, Sec. 1 and 3.2): AITM over an
expert bottom in place of a shared one, and information transfer between the task-specific experts of neighbouring tasks.
Assumed are: attention without residual, as in AITM; each expert hearing all of the parent's; one message for all
children of a target; gates linear in the inputs; shared experts that neither hear nor are heard. The paper's chain of tasks is
the schema's graph here, and a target with several parents hears all of them.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from models.config import config
from models.layers.mixed import MixedBank, MixedLinear
from models.layers.mixture import own_and_shared
from models.layers.mlp import MlpBank, check_layers
from models.layers.transfer import Transfer
from models.schema import Schema
from models.slots import Vectors, Widths


@config
class MncmConfig:
    """Experts of every target and shared ones, and each target's tower.

    Attributes:
        specific: experts of each target.
        shared: experts that all targets share.
        hidden: layers of an expert.
        towers: layers of each target after the gates; may be empty.
        dropout: share of each hidden layer set to 0 in training.
    """

    kind: Literal["mncm"] = "mncm"
    specific: int = 2
    shared: int = 2
    hidden: tuple[int, ...] = (128, 64)
    towers: tuple[int, ...] = (32,)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_layers("mncm", self.dropout, hidden=self.hidden, towers=self.towers)
        if min(self.specific, self.shared) < 1:
            raise ValueError(
                f"mncm needs specific and shared of at least 1, got specific={self.specific}, shared={self.shared}."
            )


class Mncm(nn.Module):
    """Experts of every target that take in those of its parents, mixed with the shared ones by a gate for each target."""

    def __init__(self, config: MncmConfig, schema: Schema, widths: Widths) -> None:
        super().__init__()
        self.targets = schema.target_names
        self.specific = config.specific
        experts = len(self.targets) * config.specific + config.shared
        self.experts = MixedBank(experts, widths, config.hidden, config.dropout)
        self.gate_scores = MixedLinear(widths, len(self.targets) * (config.specific + config.shared), before_relu=False)
        numbers = range(1, config.specific + 1)
        parents = {
            _expert(name, number): tuple(_expert(parent, each) for parent in schema.parents(name) for each in numbers)
            for name in self.targets
            for number in numbers
        }
        self.own_names = tuple(parents)  # target after target, as experts stand in the bank
        self.transfer = Transfer(parents, dict.fromkeys(parents, self.experts.width), residual=False)
        self.towers = MlpBank(len(self.targets), self.experts.width, config.towers, config.dropout)
        self.widths = dict.fromkeys(self.targets, self.towers.width)
        own = [f"own {number}" for number in numbers]
        shared = [f"shared {number + 1}" for number in range(config.shared)]
        self.expert_names = dict.fromkeys(self.targets, (*own, *shared))

    def forward(self, vectors: Vectors) -> dict[str, Tensor]:
        own_then_shared = self.experts(vectors).unbind(0)
        own = dict(zip(self.own_names, own_then_shared, strict=False))
        become, _ = self.transfer(own)
        shared = own_then_shared[len(self.own_names) :]
        experts_XNH = torch.stack([*(become[name] for name in self.own_names), *shared])
        mixed_TNH = own_and_shared(self._scores(vectors), experts_XNH, self.specific)
        return dict(zip(self.targets, self.towers(mixed_TNH, vectors.rows_N).unbind(0), strict=True))

    def gates(self, vectors: Vectors) -> dict[str, Tensor]:
        return dict(zip(self.targets, self._scores(vectors).softmax(2).unbind(1), strict=True))

    def _scores(self, vectors: Vectors) -> Tensor:
        """[N, T, O + C], a target's own experts first."""
        return self.gate_scores(vectors).unflatten(1, (len(self.targets), -1))


def _expert(target: str, number: int) -> str:
    return f"{target} {number}"
