"""Losses and predictions per candidate.

Labels that are not final (`batch.Early`) are left out, target by target, positive ones as well: those that are early are the
quick ones, and learning from them alone would learn what is quick. Or binary ones are learnt early (Chapelle 2014, "Modeling
delayed feedback in display advertising", Sec. 4). Of what will be positive, a share F is known by now; so with a chance p

    P(known to be positive by now) = p F        P(not known to be by now) = 1 - p F

and their negative log-likelihoods are -log p and -log(1 - p F) up to a constant, which for F = 1 is cross-entropy. Chapelle
learns an exponential delay from features beside p; here F is the curve of arrivals over windows that have closed, the same for
all candidates of a target (`pipelines.encode.open_labels`), which is right as far as delays do not depend on what p does.

# N candidates, K classes of a binned value, Q quantiles
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import Early
from models.config import ConfigError
from models.layers.named import Named
from models.layers.values import HEADS, Smearing
from models.schema import LOG, Schema, Target


class Losses(nn.Module):
    """Losses and predictions of every target of a schema from the outputs of a coupling.

    Args:
        entered: targets with parents are learnt over the candidates whose parents all happened, and not over all. What a
            coupling gives for one is then its chance (or value) given them, and what is predicted is

                p(t) = f_t * product of f_a over all ancestors a of t, each once,

            f the chance given all parents, as in ESMM; of both expectations of a value likewise.

    Raises:
        ConfigError: `entered`, and a value is a parent, which has no chance.
    """

    def __init__(self, schema: Schema, *, entered: bool = False) -> None:
        super().__init__()
        self.targets = schema.targets
        self.parents = {name: schema.parents(name) for name in schema.target_names if entered and schema.parents(name)}
        self.ancestors = {name: schema.ancestors(name) if entered else () for name in schema.target_names}
        for name, above in self.ancestors.items():
            for value in (ancestor for ancestor in above if not schema.target(ancestor).is_binary):
                raise ConfigError(
                    f"`model.children: entered` multiplies `{name}` with the chances of what is above it, but `{value}` is a "
                    f"value. Give `{name}` binary parents only, or take `children: all`."
                )
        values = [target for target in schema.targets if not target.is_binary]
        self.values: Named[Any] = Named({target.name: HEADS[str(target.head)](target) for target in values})
        self.smearings: Named[Smearing] = Named({target.name: Smearing() for target in values if target.is_log})

    def fit(self, quantiles: Mapping[str, Tensor]) -> None:
        """Tells the heads of values the quantiles of their positive labels (see `ValueHead.fit`).

        Raises:
            ValueError: a value without quantiles.
        """
        for name, head in self.values.items():
            if name not in quantiles:
                raise ValueError(
                    f"target `{name}` is a value, but there are no quantiles of its labels; prepare the data again."
                )
            head.fit(quantiles[name])

    def forward(
        self, outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor], early: Early | None = None
    ) -> dict[str, Tensor]:
        """Loss [N] by target: cross-entropy of binary targets, and what its head says of a value.

        Args:
            early: of labels that are not final; see `over` for which of their losses count.

        Raises:
            ValueError: labels of a target are missing.
        """
        self._check(labels)
        losses = {}
        for target in self.targets:
            output, label_N = outputs[target.name], labels[target.name]
            if early is not None and target.name in early.arrived:
                losses[target.name] = early_cross_entropy(output, label_N, early.arrived[target.name])
                continue
            if early is not None and target.name in early.targets:
                label_N = so_far(label_N)
            if target.is_binary:
                losses[target.name] = F.binary_cross_entropy_with_logits(output, label_N.to(output.dtype), reduction="none")
            else:
                losses[target.name] = self.values[target.name].loss(output, label_N)
        return losses

    def over(self, labels: Mapping[str, Tensor], early: Early | None = None) -> dict[str, Tensor]:
        """Bool [N] by target, whether its parents all happened, as far as that is final, and its label can be learnt from; of
        none that is learnt over all candidates."""
        found = {name: torch.stack([labels[parent] > 0 for parent in above]).all(0) for name, above in self.parents.items()}
        for name in early.targets - early.arrived.keys() if early is not None else ():
            final_N = labels[name] >= 0
            found[name] = found[name] & final_N if name in found else final_N
        return found

    def predictions(self, outputs: Mapping[str, Tensor], *, judged: bool = False) -> dict[str, Tensor]:
        """[N] by target: probabilities of binary targets, expectations of values in the label's unit, at least 0.

        Args:
            judged: also, as `LOG` and the target's name, the expectation of log(1 + value) where a value is judged by it.
        """
        predicted = {}
        for target in self.targets:
            name, output = target.name, outputs[target.name]
            above = [outputs[ancestor].sigmoid() for ancestor in self.ancestors[name]]
            if target.is_binary:
                predicted[name] = _product(output.sigmoid(), above)
                continue
            predicted[name] = self.smeared(name, _product(self.values[name].expected(output), above))
            if judged and target.is_log:
                predicted[LOG + name] = _product(self.values[name].expected_log(output), above)
        return predicted

    def smeared(self, name: str, value_N: Tensor) -> Tensor:
        """[N]: expectations of a value as validation has mended them, but of a linear head."""
        return self.smearings[name](value_N) if name in self.smearings else value_N

    def beliefs(self, labels: Mapping[str, Tensor], early: Early | None = None) -> dict[str, Tensor]:
        """[N] by target: the labels as `slots.Training` has them, NaN where they are not final.

        Raises:
            ValueError: labels of a target are missing.
        """
        self._check(labels)
        beliefs = {}
        for target in self.targets:
            label_N = labels[target.name]
            if target.is_binary:
                belief_N = label_N
            elif target.bins is not None:
                belief_N = self.values[target.name].classes(label_N).to(label_N.dtype) / target.bins
            elif target.head == "zero_inflated":
                belief_N = label_N.log1p() / self.values[target.name].mean
            else:
                belief_N = label_N.log1p() if target.is_log else label_N
            if early is not None and target.name in early.targets:
                belief_N = belief_N.where(label_N >= 0, torch.nan)
            beliefs[target.name] = belief_N
        return beliefs

    def _check(self, labels: Mapping[str, Tensor]) -> None:
        missing = [target.name for target in self.targets if target.name not in labels]
        if missing:
            raise ValueError(f"the batch has no labels for: {', '.join(missing)}. Training needs one per target of the schema.")


def believed(target: Target, output: Tensor) -> Tensor:
    """[N]: an output as `Losses.beliefs` spells a label: a probability, a value or its logarithm, a class's place.

    That of a zero-inflated value is in units of the mean logarithm of a positive one on training days, as its head's outputs.
    """
    if target.is_binary:
        return output.sigmoid()
    if target.head == "zero_inflated":
        return output[:, 0].sigmoid() * (1 + output[:, 1])
    if target.bins is None:
        return output
    places_K = torch.linspace(0, 1, output.shape[1], dtype=output.dtype, device=output.device)
    return output.softmax(1) @ places_K


def so_far(label_N: Tensor) -> Tensor:
    """What is known of labels: final ones, and of others what they were written for (`batch.Early`)."""
    return torch.where(label_N < 0, -1 - label_N, label_N)


def early_cross_entropy(logit_N: Tensor, label_N: Tensor, arrived_N: Tensor) -> Tensor:
    """[N]: cross-entropy of final labels, and of early ones -log p or -log(1 - p F) (see the head of this file).

    Args:
        label_N: 0 or 1 where final, -1 or -2 where not (`batch.Early`).
        arrived_N: F, from 0 (nothing is learnt of what is not positive yet) to 1.
    """
    known_N = so_far(label_N).to(logit_N.dtype)
    loss_N = F.binary_cross_entropy_with_logits(logit_N, known_N, reduction="none")
    # 1 - p F = (1 + e^z (1 - F)) / (1 + e^z) with p = sigmoid(z)
    missing_N = torch.log1p(-arrived_N.clamp(max=1 - 1e-6)).to(logit_N.dtype)
    unknown_N = F.softplus(logit_N) - F.softplus(logit_N + missing_N)
    return torch.where(label_N == -1, unknown_N, loss_N)


def sum_count(losses_N: Tensor, over_N: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The sum of losses and their number, to be divided once those of all workers are added.

    Args:
        over_N: the candidates that count, bool; None for all.
    """
    if over_N is not None:
        return losses_N.where(over_N, 0).sum(), over_N.sum().to(losses_N.dtype)
    return losses_N.sum(), torch.full((), len(losses_N), dtype=losses_N.dtype, device=losses_N.device)


def _product(own_N: Tensor, above: Sequence[Tensor]) -> Tensor:
    for chance_N in above:
        own_N = own_N * chance_N
    return own_N
