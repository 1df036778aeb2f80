"""Deep interest network: a history weighed by each candidate (Zhou et al. 2018, "Deep interest network for
click-through rate prediction", Sec. 4.3).

    # R feeds, N candidates, G x S grid of candidates (rows of one feed), L history length
    # E width of an entry, M width of its matched part, A units of the first attention layer, Z = G S, B = S A

An entry's weight is an MLP over [q, k, q - k, q * k], q the candidate's and k the entry's attributes; no softmax, as
published. The first layer is linear, so with W = [Wq, Wk, Wd, Wp]

    [q, k, q - k, q * k] W  =  q (Wq + Wd)  +  k (Wk - Wd + diag(q) Wp).

The first part is computed once per candidate; the second is one matrix product a feed, of its history with the brackets
of all its candidates side by side. No history is copied per candidate, and neither is q * k ever written down. What is
left per pair is that product, the activations and the layers above.

Where we differ: Wq + Wd and Wk - Wd are one weight each (the same functions with fewer parameters). Attributes of an
entry that no candidate field matches (say its stay time) stand beside k. Activation `dice` is `layers.dice`, which does
not look at other rows of the batch.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import config
from models.layers import histories
from models.layers.dice import Dice
from models.layers.embedding import Embedded, EmbeddedHistory, HistoryWidths, InterestInputs
from models.layers.grid import Grid, grid
from models.layers.masked import masked_softmax
from models.layers.mlp import check_layers, plain_uniform
from models.layers.tables import Gathered
from models.schema import Schema
from models.slots import Interests, Together, Training, Widths


@config
class DinConfig:
    """Attributes:
    histories: which histories are read (`layers.histories.chosen`); None reads all. Each has attention weights of its own.
    hidden: hidden layers of the attention MLP.
    activation: of the attention MLP.
    softmax: let a history's weights sum to 1.
    matches: also count, per candidate, the entries that share its attributes (`layers.histories.matches`).
    """

    kind: Literal["din"] = "din"
    histories: tuple[str, ...] | None = None
    hidden: tuple[int, ...] = (80, 40)
    activation: Literal["dice", "prelu", "relu", "sigmoid"] = "dice"
    softmax: bool = False
    matches: bool = False

    def __post_init__(self) -> None:
        check_layers("din", hidden=self.hidden)


def activation(kind: str, width: int) -> nn.Module:
    match kind:
        case "dice":
            return Dice(width)
        case "prelu":
            return nn.PReLU()
        case "sigmoid":
            return nn.Sigmoid()
    return nn.ReLU()


class TargetAttention(nn.Module):
    """One history, weighed by each candidate."""

    def __init__(self, config: DinConfig, widths: HistoryWidths) -> None:
        super().__init__()
        self.matched = widths.matched
        self.softmax = config.softmax
        first = config.hidden[0]
        inputs = 3 * widths.matched + widths.entry
        self.query_MA = plain_uniform(widths.matched, first, inputs=inputs)
        self.entry_EA = plain_uniform(widths.entry, first, inputs=inputs)
        self.pair_MA = plain_uniform(widths.matched, first, inputs=inputs)
        self.bias_A = nn.Parameter(torch.zeros(first))
        self.first_activation = activation(config.activation, first)
        rest: list[nn.Module] = []
        for below, above in zip(config.hidden, config.hidden[1:], strict=False):
            rest += [nn.Linear(below, above), activation(config.activation, above)]
        self.rest = nn.Sequential(*rest, nn.Linear(config.hidden[-1], 1, bias=not config.softmax))  # softmax drops it

    def forward(self, history: EmbeddedHistory, query_NM: Tensor, places: Grid) -> Tensor:
        """interest [N, E]; zeros where the history has no real entry."""
        entries_GLE = places.of_feed(history.entries_RLE)
        is_real_GSL = places.of_feed(history.is_real_RL).unsqueeze(1)
        hidden_GLSA = self._first_layer(entries_GLE, places.lay(query_NM))
        score_GSL = self.rest(self.first_activation(hidden_GLSA)).squeeze(3).transpose(1, 2)
        weight_GSL = masked_softmax(score_GSL, is_real_GSL) if self.softmax else score_GSL.masked_fill(~is_real_GSL, 0)
        return places.pick(weight_GSL @ entries_GLE)

    def _first_layer(self, entries_GLE: Tensor, query_GSM: Tensor) -> Tensor:
        """[G, L, S, A], before its activation; see the head of this file."""
        rows, columns, matched = query_GSM.shape
        from_query_G1B = torch.addmm(self.bias_A, query_GSM.flatten(0, 1), self.query_MA).view(rows, 1, -1)
        query_MZ1 = query_GSM.permute(2, 0, 1).reshape(matched, rows * columns, 1)
        bracket_EZA = torch.baddbmm(self.entry_EA[:matched].unsqueeze(1), query_MZ1, self.pair_MA.unsqueeze(1))
        if len(self.entry_EA) > matched:
            unmatched = self.entry_EA[matched:].unsqueeze(1).expand(-1, rows * columns, -1)
            bracket_EZA = torch.cat([bracket_EZA, unmatched.to(bracket_EZA.dtype)])
        bracket_GEB = bracket_EZA.view(len(self.entry_EA), rows, -1).transpose(0, 1)
        return torch.baddbmm(from_query_G1B, entries_GLE, bracket_GEB).unflatten(2, (columns, -1))


class Din(nn.Module):
    """Gives `interest.<history>` [N, E] per candidate, and with `matches` also `matches.<history>`."""

    penalties: tuple[str, ...] = ()
    together: Together | None = None

    def __init__(self, config: DinConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        self.schema = schema
        self.histories = histories.chosen(schema, config.histories)
        self.matches = config.matches
        self.attention = nn.ModuleDict({name: TargetAttention(config, inputs.histories[name]) for name in self.histories})
        self.widths = Widths(
            candidate={f"interest.{name}": inputs.histories[name].entry for name in self.histories}
            | {f"matches.{name}": histories.width(schema, name) for name in self.histories if config.matches}
        )

    def forward(
        self,
        embedded: Embedded,
        batch: FeedBatch,
        training: Training | None = None,
        gathered: Mapping[nn.Module, Gathered] | None = None,
    ) -> Interests:
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        candidate = {}
        for name in self.histories:
            query_NM = torch.cat([embedded.candidate[field.name] for _, field in self.schema.matches(name)], dim=1)
            candidate[f"interest.{name}"] = self.attention[name](embedded.histories[name], query_NM, places)
            if self.matches:
                candidate[f"matches.{name}"] = histories.matches(batch, self.schema, name, query_NM.dtype)
        return Interests(candidate=candidate)
