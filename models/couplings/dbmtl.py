"""Deep Bayesian multi-target learning (Wang et al. 2019, "Deep Bayesian multi-target learning for recommender systems",
Sec. 3.1).

    # N candidates, B targets computed together, I width of their inputs, E width of a target's embedding

The joint density of all targets is a product along a graph, p(t | parents of t, x), and each factor is a network: an
MLP over the target's own vector and the embeddings of its parents, side by side, gives the target's embedding, and a
linear layer of that its output. A target without parents has the same MLP over its own vector alone. Embeddings are
handed on, neither labels nor probabilities, so a parent or child may be of any kind, and nothing flows against an edge.

`DbmtlConfig()` after a shared bottom is the paper's network, its Bayesian layer being `hidden`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from models.config import ConfigError, config
from models.layers.dropout import rows_N
from models.layers.graph import generations
from models.layers.heads import Heads
from models.layers.mlp import MlpBank, check_layers
from models.losses import believed
from models.schema import Schema, Target
from models.slots import Coupled, Training


@config
class DbmtlConfig:
    """The MLP of each target, and the graph along which embeddings are handed on.

    Attributes:
        hidden: layers of a target's MLP; the last is the width of its embedding.
        dropout: share of each hidden layer set to 0 in training.
        parents: another graph than the schema's: parents by target; a target left out has none.
        root: another graph than the schema's: this target is the parent of all others (the paper's Table 5).
    """

    kind: Literal["dbmtl"] = "dbmtl"
    hidden: tuple[int, ...] = (32,)
    dropout: float = 0.0
    parents: Mapping[str, tuple[str, ...]] | None = None
    root: str | None = None

    def __post_init__(self) -> None:
        check_layers("dbmtl", self.dropout, hidden=self.hidden)
        if self.parents is not None and self.root is not None:
            raise ValueError(
                f"dbmtl takes one graph, got parents={dict(self.parents)} and root={self.root!r}. "
                "Leave out `root`, or leave out `parents`."
            )


class Dbmtl(nn.Module):
    """Each target's embedding from its own vector and its parents' embeddings, and its output from that.

    Attributes:
        parents: of every target, in the graph in use.

    Raises:
        ConfigError: the configured graph names what is no target of the schema, names one twice, or has a cycle.
    """

    penalties: tuple[str, ...] = ()
    curriculum_epochs = 0
    carries = "change of the child's output (logit, value or its logarithm, place of the bin) without the parent's embedding"

    def __init__(self, config: DbmtlConfig, schema: Schema, widths: dict[str, int]) -> None:
        super().__init__()
        self.targets = schema.targets
        self.parents = graph(config, schema)
        self.own_widths = widths
        self.width = config.hidden[-1]
        self.groups = generations(self.parents, widths)
        self.banks = nn.ModuleList([self._bank(group, config) for group in self.groups])
        self.heads = Heads(schema, dict.fromkeys(schema.target_names, self.width))

    def forward(self, vectors: dict[str, Tensor], training: Training | None) -> Coupled:
        return Coupled(outputs=self.heads(self._embeddings(vectors, training)))

    def edges(self, vectors: dict[str, Tensor]) -> dict[tuple[str, str], Tensor]:
        embeddings = self._embeddings(vectors, None)
        outputs = self.heads(embeddings)
        changes = {}
        for group, bank in zip(self.groups, self.banks, strict=True):
            x_BNI = self._inputs(group, vectors, embeddings)
            for place in range(len(self.parents[group[0]])):
                start = self.own_widths[group[0]] + place * self.width
                without_BNI = x_BNI.clone()
                without_BNI[..., start : start + self.width] = 0
                for name, embedding_NE in zip(group, bank(without_BNI), strict=True):
                    changes[self.parents[name][place], name] = self.heads.one(name, embedding_NE)
        return {
            (parent, target.name): (
                as_number(target, outputs[target.name]) - as_number(target, changes[parent, target.name])
            ).abs()
            for target in self.targets
            for parent in self.parents[target.name]
        }

    def _bank(self, group: tuple[str, ...], config: DbmtlConfig) -> MlpBank:
        inputs = self.own_widths[group[0]] + len(self.parents[group[0]]) * self.width
        return MlpBank(len(group), inputs, config.hidden, config.dropout)

    def _embeddings(self, vectors: Mapping[str, Tensor], training: Training | None) -> dict[str, Tensor]:
        """[N, E] of every target."""
        embeddings: dict[str, Tensor] = {}
        for group, bank in zip(self.groups, self.banks, strict=True):
            embedding_BNE = bank(self._inputs(group, vectors, embeddings), rows_N(training))
            embeddings.update(zip(group, embedding_BNE.unbind(0), strict=True))
        return embeddings

    def _inputs(self, group: tuple[str, ...], vectors: Mapping[str, Tensor], embeddings: Mapping[str, Tensor]) -> Tensor:
        """[B, N, I]: a target's own vector and its parents' embeddings."""
        parts = [part for name in group for part in (vectors[name], *(embeddings[parent] for parent in self.parents[name]))]
        return torch.cat(parts, dim=1).unflatten(1, (len(group), -1)).transpose(0, 1)


def graph(config: DbmtlConfig, schema: Schema) -> dict[str, tuple[str, ...]]:
    """Parents of every target as the config has it.

    Raises:
        ConfigError: it fits no graph over the schema's targets.
    """
    names = schema.target_names
    if config.root is not None:
        if config.root not in names:
            raise ConfigError(f"dbmtl.root is `{config.root}`, which is not a target. Targets: {', '.join(names)}.")
        return {name: () if name == config.root else (config.root,) for name in names}
    if config.parents is None:
        return {name: schema.parents(name) for name in names}
    for name, parents in config.parents.items():
        if name not in names:
            raise ConfigError(f"dbmtl.parents names `{name}`, which is not a target. Targets: {', '.join(names)}.")
        if len(set(parents)) < len(parents):
            raise ConfigError(f"dbmtl.parents.{name} names a parent twice: {', '.join(parents)}.")
    targets = [dataclasses.replace(target, parents=tuple(config.parents.get(target.name, ()))) for target in schema.targets]
    try:
        other = dataclasses.replace(schema, targets=tuple(targets))
    except ValueError as error:
        raise ConfigError(f"dbmtl.parents: {error}") from None
    return {name: other.parents(name) for name in names}


def as_number(target: Target, output: Tensor) -> Tensor:
    """[N]: a logit, a value or its logarithm, or what else is believed of a value."""
    return output if output.dim() == 1 else believed(target, output)
