"""Prior information merged model (Weng et al. 2023, "Curriculum modeling the dependence among targets with multi-task
learning for financial marketing", Eq. 1-6), for whole target graphs.

    # N candidates, P targets with children, H width

A parent hands on what it knows, H = relu(FC(U)), merged with whether it happened, Z = sigmoid(y* W):

    U_t = v_t + sum over a in {v_t, Z^m} of w_a V(a),   w = softmax(Q(a) . K(a) / sqrt(d)),   Z^m = Z + H,

and the output is linear in U_t; a target without parents has U = v. In training, y* is the parent's label with
probability p, drawn for each candidate, else the parent's prediction; no gradient flows through it. When predicting it
is the prediction. p falls with the epochs E that training has behind it: p = max(alpha - decay E, floor).

The paper has a chain of binary targets. Here a target attends over its own vector and the Z^m of all its parents, and a
parent hands all its children the same Z^m, of one draw. A value's y* is its logarithm (`losses.believed`), a binned value's the
(expected) place of its class between 0 and 1. The paper calls FC a fully connected layer; it has a ReLU here, as in
AITM, which the paper builds on. Q, K and V have no bias.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from models.config import config
from models.layers.draws import uniform_N
from models.layers.heads import Heads
from models.layers.mlp import plain_uniform
from models.layers.transfer import Transfer
from models.losses import believed
from models.schema import Schema
from models.slots import Coupled, Training

NEARLY_0 = 1e-9  # so that thirds that sum to 1 are not missed by rounding


@config
class PimmConfig:
    """The curriculum by which parents hand on their label or their prediction.

    Attributes:
        alpha: probability of the label at the start of training.
        decay: subtracted for each epoch.
        floor: the probability never falls below.
        pace: `epoch` lowers it at the start of each epoch, as the paper does; `continuous` with every step, for data that is
            seen once.
    """

    kind: Literal["pimm"] = "pimm"
    alpha: float = 0.5
    decay: float = 0.25
    floor: float = 0.25
    pace: Literal["epoch", "continuous"] = "epoch"

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= self.alpha <= 1:
            raise ValueError(
                f"pimm needs 0 <= floor <= alpha <= 1, got floor={self.floor}, alpha={self.alpha}. "
                "Predictions alone are alpha=0, floor=0."
            )
        if not self.decay >= 0:
            raise ValueError(f"pimm needs decay >= 0, got {self.decay}.")


class Pimm(nn.Module):
    """Children attend to what their parents hand on: a message, merged with whether the parent happened."""

    penalties: tuple[str, ...] = ()
    carries = "attention of the child on what the parent hands on"

    def __init__(self, config: PimmConfig, schema: Schema, widths: dict[str, int]) -> None:
        super().__init__()
        self.config = config
        self.targets = {target.name: target for target in schema.targets}
        self.salts = {name: index for index, name in enumerate(schema.target_names)}
        self.transfer = Transfer({name: schema.parents(name) for name in self.targets}, widths, residual=True)
        width = self.transfer.width
        self.prior_PH = plain_uniform(len(self.transfer.senders), width, inputs=1) if self.transfer.senders else None
        self.heads = Heads(schema, dict.fromkeys(self.targets, width))

    @property
    def curriculum_epochs(self) -> int:
        """Epochs that begin before p is at its floor."""
        config = self.config
        return math.ceil((config.alpha - config.floor) / config.decay - NEARLY_0) if config.decay else 0

    def probability(self, progress: float) -> float:
        """The probability that a parent hands on its label, when training has `progress` epochs behind it."""
        epochs = math.floor(progress) if self.config.pace == "epoch" else progress
        return max(self.config.alpha - self.config.decay * epochs, self.config.floor)

    def forward(self, vectors: dict[str, Tensor], training: Training | None) -> Coupled:
        outputs, _ = self._outputs(vectors, training)
        return Coupled(outputs=outputs)

    def edges(self, vectors: dict[str, Tensor]) -> dict[tuple[str, str], Tensor]:
        _, weights = self._outputs(vectors, None)
        return weights

    def _outputs(
        self, vectors: dict[str, Tensor], training: Training | None
    ) -> tuple[dict[str, Tensor], dict[tuple[str, str], Tensor]]:
        outputs: dict[str, Tensor] = {}

        def merged(name: str, vector_NH: Tensor, message_NH: Tensor) -> Tensor:
            outputs[name] = self.heads.one(name, vector_NH)
            return message_NH + self.prior(name, outputs[name], training)

        become, weights = self.transfer(vectors, merged)
        return {
            name: outputs[name] if name in outputs else self.heads.one(name, become[name]) for name in self.targets
        }, weights

    def prior(self, name: str, output: Tensor, training: Training | None) -> Tensor:
        """Z [N, H] of a target with children, from its output."""
        assert self.prior_PH is not None
        weight_H = self.prior_PH[self.transfer.senders.index(name)]
        return (self.label_or_prediction(name, output, training).unsqueeze(1) * weight_H).sigmoid()

    def label_or_prediction(self, name: str, output: Tensor, training: Training | None) -> Tensor:
        """y* [N], without gradient: the prediction, in training mixed with the label."""
        prediction_N = believed(self.targets[name], output).detach()
        if training is None or self.probability(training.progress) == 0:
            return prediction_N
        draw_N = uniform_N(training.batch, training.progress, self.salts[name])
        label_N = training.beliefs[name].to(prediction_N.dtype)
        shown_N = draw_N < self.probability(training.progress)
        early = training.batch.early
        if early is not None and name in early.targets:  # nobody knows yet what the label will be
            shown_N = shown_N & ~label_N.isnan()
        return torch.where(shown_N, label_N, prediction_N)
