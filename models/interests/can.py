"""Co-action network: a candidate's attributes as a small MLP, through which the history's attributes go (Bian et al. 2022,
"CAN: feature co-action network for click-through rate prediction", arXiv 2011.05625, Sec. "Co-Action Unit").

    # R feeds, N candidates, G x S grid of candidates (rows of one feed), L history length, E width of an entry
    # P pairs of matched fields of a history, I inputs, H and J units of two layers, W parameters of a micro-MLP

Every pair (history field, candidate field) that shares attributes (`schema.matches`) has two tables of its own beside the
ordinary embeddings: the candidate's row holds weights and biases of a micro-MLP ("induction"), the entry's row its input
("feed"). With w_i, b_i from the candidate and x_t from entry t,

    h_{1,t} = tanh(w_1 x_t + b_1),  ...,  h_{K,t} = w_K h_{K-1,t} + b_K      (tanh behind all layers but the last)

and the co-action is the sums over the real entries of h_1, ..., h_K, side by side. So which pairs of ids go together is
learnt apart from what an id means elsewhere.

A candidate's first layer over all entries of its feed is a product with the feed's inputs, so the weights of all candidates
are laid side by side and multiplied with the history at once; no history is copied per candidate. The last layer is linear,
and the sum of its outputs is its output of the sum, so it is computed once per candidate and not per entry.

Where we differ: biases, as in the paper's definition, where the published code has none; sums as in both. One micro-MLP per
pair over the input itself: no powers of it ("orders"), no micro-MLPs between different fields. CAN stands on DIEN there;
here the mean of the entries is beside it, so that rows compare co-actions and not encoders. Weights start as those of any
layer (uniform's deviation, 1 / sqrt(3 inputs)) and biases at 0: small weights would make all candidates the same function.
"""

import itertools
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import config
from models.layers import histories
from models.layers.embedding import Embedded, InterestInputs
from models.layers.grid import Grid, grid
from models.layers.masked import masked_mean
from models.layers.mlp import check_layers
from models.layers.named import Named
from models.layers.tables import Gathered, Reads, TableSet
from models.schema import Schema
from models.slots import Interests, Together, Training, Widths


@config
class CanConfig:
    """Sizes of the candidates' micro-MLPs.

    Attributes:
        histories: which histories are read (`layers.histories.chosen`); None reads all.
        inputs: of a micro-MLP, the width of the feed tables.
        hidden: layers of a micro-MLP, all of which are given on.
    """

    kind: Literal["can"] = "can"
    histories: tuple[str, ...] | None = None
    inputs: int = 16
    hidden: tuple[int, ...] = (8, 4)

    def __post_init__(self) -> None:
        check_layers("can", hidden=self.hidden)
        if self.inputs < 1:
            raise ValueError(f"can needs inputs >= 1, got {self.inputs}.")

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """Inputs and units of each layer."""
        return tuple(itertools.pairwise((self.inputs, *self.hidden)))


class CoAction(nn.Module):
    """One history's co-actions with each candidate: [N, P * sum of the layers' units]."""

    def __init__(self, config: CanConfig, schema: Schema, history: str, table_sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.history = history
        self.layers = config.layers
        pairs = schema.matches(history)
        of_candidate = {field.name: field.table for _, field in pairs}
        of_entry = {item.name: item.table for item, _ in pairs}
        self.field_of_pair = [list(of_candidate).index(field.name) for _, field in pairs]
        self.width = len(pairs) * sum(config.hidden)
        deviation_W = torch.cat([_deviations(below, above) for below, above in self.layers])
        self.induction = TableSet(Reads(feed={}, candidate=of_candidate, histories={}), table_sizes, len(deviation_W), std=1.0)
        with torch.no_grad():
            self.induction.weight.mul_(deviation_W)
        self.feed = TableSet(Reads(feed={}, candidate={}, histories={history: of_entry}), table_sizes, config.inputs)

    def forward(self, batch: FeedBatch, places: Grid, gathered: Mapping[nn.Module, Gathered] | None) -> Tensor:
        induction = self.induction(batch, None if gathered is None else gathered[self.induction])
        feed = self.feed(batch, None if gathered is None else gathered[self.feed])
        rows_NPW = induction.candidate_NFD[:, self.field_of_pair]
        rows_GPSW = places.lay(rows_NPW.flatten(1)).unflatten(2, rows_NPW.shape[1:]).transpose(1, 2)
        inputs_GPIL = places.of_feed(feed.histories[self.history].permute(0, 2, 3, 1))
        is_real_GL1 = places.of_feed(batch.histories[self.history].is_real_RL).unsqueeze(2).to(inputs_GPIL.dtype)
        # padding goes through the layers and is multiplied with 0: tanh is finite
        summed = lambda values: (values.flatten(1, -2) @ is_real_GL1).view(values.shape[:-1])
        layers = self._layers(rows_GPSW)
        sums: list[Tensor] = []
        hidden_GPSHL = None
        for weight_GPSHI, bias_GPSH in layers[:-1]:
            if hidden_GPSHL is None:  # one product of a feed's entries and all its candidates
                product_GPSHL = (weight_GPSHI.flatten(2, 3) @ inputs_GPIL).unflatten(2, weight_GPSHI.shape[2:4])
            else:
                product_GPSHL = weight_GPSHI @ hidden_GPSHL
            hidden_GPSHL = torch.tanh(product_GPSHL + bias_GPSH.unsqueeze(4))
            sums.append(summed(hidden_GPSHL))
        weight_GPSHI, bias_GPSH = layers[-1]
        below_GPSI = sums[-1] if sums else summed(inputs_GPIL).unsqueeze(2)
        count_G111 = is_real_GL1.sum(1).view(-1, 1, 1, 1)
        sums.append((weight_GPSHI @ below_GPSI.unsqueeze(4)).squeeze(4) + count_G111 * bias_GPSH)
        return places.pick(torch.cat(sums, dim=3).transpose(1, 2).flatten(2))

    def _layers(self, rows_GPSW: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Weights [G, P, S, H, I] and biases [G, P, S, H] of each layer."""
        parts = rows_GPSW.split([width for below, above in self.layers for width in (below * above, above)], dim=3)
        weights = [part.unflatten(3, (above, below)) for part, (below, above) in zip(parts[::2], self.layers, strict=True)]
        return list(zip(weights, parts[1::2], strict=True))


class Can(nn.Module):
    """Gives `coaction.<history>` per candidate and `interest.<history>` [R, E], the mean of the entries, per feed."""

    penalties: tuple[str, ...] = ()
    together: Together | None = None

    def __init__(self, config: CanConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        self.histories = histories.chosen(schema, config.histories)
        coaction = {name: CoAction(config, schema, name, inputs.table_sizes) for name in self.histories}
        self.coaction = Named(coaction)
        self.widths = Widths(
            feed={f"interest.{name}": inputs.histories[name].entry for name in self.histories},
            candidate={f"coaction.{name}": coaction[name].width for name in self.histories},
        )

    def forward(
        self,
        embedded: Embedded,
        batch: FeedBatch,
        training: Training | None = None,
        gathered: Mapping[nn.Module, Gathered] | None = None,
    ) -> Interests:
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        feed, candidate = {}, {}
        for name in self.histories:
            history = embedded.histories[name]
            feed[f"interest.{name}"] = masked_mean(history.entries_RLE, history.is_real_RL)
            candidate[f"coaction.{name}"] = self.coaction[name](batch, places, gathered)
        return Interests(feed=feed, candidate=candidate)


def _deviations(inputs: int, units: int) -> Tensor:
    """Standard deviations [(inputs + 1) * units] that a layer's weights and biases start with."""
    return torch.cat([torch.full((inputs * units,), (3 * inputs) ** -0.5), torch.zeros(units)])
