"""Entire space multi-task model (Ma et al. 2018, "Entire space multi-task model: an effective approach for estimating
post-click conversion rate", Eq. 2-3), for whole target graphs.

    # N candidates, K classes of a binned value

With f_t the target's own conditional probability given that all its parents happened,

    p(t) = f_t * product of f_a over all ancestors a of t, each once,

which on a chain is p(child) = p(parent) f(child), over all impressions. Products are sums of log probabilities, and
outputs are logits of them, exact far below the smallest probability that float32 can subtract from 1. Where paths of
the graph meet again, an ancestor counts once, as the chain rule has it.

A value target is f_t (in the space its head is trained in) times the probability of its ancestors: the paper's
variant for stay time, as the DBMTL paper describes it. A binned value has the classes of f_t with the probability of its
ancestors; what is missing from it belongs to the class of 0. The chance that a zero-inflated value is not 0 is multiplied
likewise, and how much it is then is its own.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from models.config import ConfigError, config
from models.layers.heads import Heads
from models.schema import Schema
from models.slots import Coupled, Training


@config
class EsmmConfig:
    """Nothing to choose."""

    kind: Literal["esmm"] = "esmm"


class Esmm(nn.Module):
    """Multiplies a target's own probability with those of all its ancestors.

    Raises:
        ConfigError: a value target is a parent, which has no probability to multiply with.
    """

    penalties: tuple[str, ...] = ()
    curriculum_epochs = 0
    carries = "probability of the parent"

    def __init__(self, config: EsmmConfig, schema: Schema, widths: dict[str, int]) -> None:
        super().__init__()
        self.heads = Heads(schema, widths)
        self.targets = {target.name: target for target in schema.targets}
        self.is_binary = {target.name: target.is_binary for target in schema.targets}
        self.parents = {name: schema.parents(name) for name in schema.target_names}
        self.ancestors = {name: schema.ancestors(name) for name in schema.target_names}
        for name, above in self.ancestors.items():
            for ancestor in above:
                if not self.is_binary[ancestor]:
                    raise ConfigError(
                        f"esmm multiplies with the probability of parents, but `{ancestor}`, above `{name}`, is a value. "
                        f"Give `{name}` binary parents only."
                    )

    def forward(self, vectors: dict[str, Tensor], training: Training | None) -> Coupled:
        own = self.heads(vectors)
        log_own = {name: logsigmoid(own[name]) for name, binary in self.is_binary.items() if binary}
        outputs = {}
        for name, above in self.ancestors.items():
            if not above:
                outputs[name] = own[name]
                continue
            log_above_N = torch.stack([log_own[ancestor] for ancestor in above]).sum(0)
            if name in log_own:
                outputs[name] = logit_of_log(log_above_N + log_own[name])
            elif self.targets[name].head == "zero_inflated":
                any_N = logit_of_log(log_above_N + logsigmoid(own[name][:, 0]))
                outputs[name] = torch.cat([any_N.unsqueeze(1), own[name][:, 1:]], dim=1)
            elif own[name].dim() == 1:
                outputs[name] = log_above_N.exp() * own[name]
            else:
                outputs[name] = given_parents(own[name].log_softmax(1), log_above_N)
        return Coupled(outputs=outputs)

    def edges(self, vectors: dict[str, Tensor]) -> dict[tuple[str, str], Tensor]:
        outputs = self(vectors, None).outputs
        return {(parent, name): outputs[parent].sigmoid() for name in self.parents for parent in self.parents[name]}


def logit_of_log(log_p: Tensor) -> Tensor:
    """log(p / (1 - p)) from log p, for p from the smallest to the largest float short of 1."""
    log_p = log_p.clamp(max=-torch.finfo(log_p.dtype).tiny)
    small = log_p < -0.7  # p < 1/2: log1p keeps the digits of 1 - p; above, expm1 does (Maechler 2012, log1mexp)
    # each branch sees arguments of its own side only, so that no gradient is nan
    log_rest_small = torch.log1p(-log_p.where(small, -1.0).exp())
    log_rest_large = torch.log(-torch.expm1(log_p.where(~small, -0.5)))
    return log_p - torch.where(small, log_rest_small, log_rest_large)


def given_parents(log_own_NK: Tensor, log_above_N: Tensor) -> Tensor:
    """Log probabilities [N, K] of classes: all but the first times the probability of the ancestors, the first has the rest."""
    log_happened_NK = log_own_NK + log_above_N.unsqueeze(1)
    log_missing_N = log_above_N - logit_of_log(log_above_N)  # log(1 - p) = log p - logit p
    first_N1 = torch.logaddexp(log_happened_NK[:, 0], log_missing_N).unsqueeze(1)
    return torch.cat([first_N1, log_happened_NK[:, 1:]], dim=1)
