"""Adaptive information transfer (Xi et al. 2021, "Modeling the sequential dependence among audience multi-step conversions
with multi-task learning in targeted display advertising", Sec. 3), for whole target graphs.

    # N candidates

A target's vector q_t and its parent's message p = relu(FC(z_parent)) are weighed by attention,

    z_t = sum over u in {p, q_t} of w_u V(u),   w = softmax(Q(u) . K(u) / sqrt(d)),

and the output is linear in z_t; a target without parents has z_t = q_t. The calibrator punishes a child that is deemed
likelier than its parent: alpha * mean over candidates of the sum over edges of max(p_child - p_parent, 0).

The paper has a chain. Here a target attends over its own vector and the messages of all its parents, and a parent sends
all its children the same message. Targets of any kind exchange messages; the calibrator is about edges between binary ones
that have a loss weight: nothing else is to teach a target of weight 0.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from models.config import config
from models.layers.heads import Heads
from models.layers.transfer import Transfer
from models.losses import sum_count
from models.schema import Schema
from models.slots import Coupled, Training


@config
class AitmConfig:
    """Information transfer from parents to children.

    Attributes:
        calibrator: the paper's alpha, weight of the calibrator in the loss; 0 for none.
    """

    kind: Literal["aitm"] = "aitm"
    calibrator: float = 0.6

    def __post_init__(self) -> None:
        if not self.calibrator >= 0:
            raise ValueError(f"aitm needs calibrator >= 0, got {self.calibrator}.")


class Aitm(nn.Module):
    """Children attend to their parents' messages; the penalty `calibrator` punishes a child likelier than its parent."""

    curriculum_epochs = 0
    carries = "attention of the child on the parent's message"

    def __init__(self, config: AitmConfig, schema: Schema, widths: dict[str, int]) -> None:
        super().__init__()
        self.calibrator = config.calibrator
        parents = {name: schema.parents(name) for name in schema.target_names}
        self.transfer = Transfer(parents, widths, residual=False)
        self.heads = Heads(schema, dict.fromkeys(schema.target_names, self.transfer.width))
        calibrated = {target.name for target in schema.targets if target.is_binary and target.loss_weight}
        self.calibrated = tuple((parent, name) for name in parents for parent in parents[name] if {parent, name} <= calibrated)
        self.penalties: tuple[str, ...] = ("aitm.calibrator",) if self.calibrated and config.calibrator else ()

    def forward(self, vectors: dict[str, Tensor], training: Training | None) -> Coupled:
        become, _ = self.transfer(vectors)
        outputs = self.heads(become)
        if training is None or not self.penalties:
            return Coupled(outputs=outputs)
        above_N = torch.stack([outputs[child].sigmoid() - outputs[parent].sigmoid() for parent, child in self.calibrated])
        return Coupled(outputs=outputs, penalties={"aitm.calibrator": sum_count(self.calibrator * above_N.relu().sum(0))})

    def edges(self, vectors: dict[str, Tensor]) -> dict[tuple[str, str], Tensor]:
        _, weights = self.transfer(vectors)
        return weights
