"""Deep interest network: a history weighed by each candidate (Zhou et al. 2018, "Deep interest network for
click-through rate prediction", Sec. 4.3).

    # R feeds, N candidates, G x S grid of candidates (rows of one feed), L history length
    # E width of an entry, M width of its matched part, A units of the first attention layer

An entry's weight is an MLP over [q, k, q - k, q * k], q the candidate's and k the entry's attributes; no softmax, as
published. The first layer is linear, so with W = [Wq, Wk, Wd, Wp]

    [q, k, q - k, q * k] W  =  q (Wq + Wd)  +  k (Wk - Wd)  +  (q * k) Wp.

The first part is computed once per candidate, the second once per history entry, and only the last per pair: as
k (diag(q) Wp), one product a feed for all its candidates, without a copy of the history per candidate.

Where we differ: the two sums in brackets are one weight each (the same functions with fewer parameters). Attributes of
an entry that no candidate field matches (say its stay time) stand beside k in the second part. Activation `dice` learns
the point and the slope of its rectifier instead of taking them from the batch, see `Dice`.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import config
from models.layers import histories
from models.layers.embedding import Embedded, EmbeddedHistory, HistoryWidths
from models.layers.grid import Grid, grid
from models.layers.mlp import check_layers, plain_uniform
from models.schema import Schema
from models.slots import Interests, Widths


@config
class DinConfig:
    """Attributes:
    histories: which histories are read; None reads all. Each has attention weights of its own.
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


class Dice(nn.Module):
    """p x + (1 - p) alpha x with p = sigmoid(slope x + shift) (Zhou et al. 2018, Eq. 3).

    The paper has slope = 1 / sqrt(var x), shift = -mean x / sqrt(var x) over the batch. Here both are parameters: with
    batch statistics a row's output depends on the rows beside it, and two workers do not equal one. A trained Dice of
    the paper's kind, which predicts with fixed statistics, is the same function.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))
        self.slope = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        p = torch.addcmul(self.shift, self.slope, x).sigmoid()
        return x * torch.addcmul(self.alpha, 1 - self.alpha, p)


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
        entry_GLA = places.of_feed(F.linear(history.entries_RLE, self.entry_EA.t(), self.bias_A))
        query_GSA = places.lay(query_NM @ self.query_MA)
        # k (diag(q) Wp) for all S candidates of a row at once
        scaled_GMSA = places.lay(query_NM).transpose(1, 2).unsqueeze(3) * self.pair_MA.unsqueeze(1)
        pair_GLSA = (entries_GLE[..., : self.matched] @ scaled_GMSA.flatten(2)).unflatten(2, (places.columns, -1))
        hidden_GLSA = pair_GLSA + query_GSA.unsqueeze(1) + entry_GLA.unsqueeze(2)
        score_GSL = self.rest(self.first_activation(hidden_GLSA)).squeeze(3).transpose(1, 2)
        if self.softmax:
            # the lowest number rather than -inf: all padding gives equal weights, masked below, and not nan
            score_GSL = score_GSL.masked_fill(~is_real_GSL, torch.finfo(score_GSL.dtype).min).softmax(2)
        weight_GSL = score_GSL.masked_fill(~is_real_GSL, 0)
        return places.pick(weight_GSL @ entries_GLE)


class Din(nn.Module):
    """Gives `interest.<history>` [N, E] per candidate, and with `matches` also `matches.<history>`."""

    penalties: tuple[str, ...] = ()

    def __init__(self, config: DinConfig, schema: Schema, history_widths: dict[str, HistoryWidths]) -> None:
        super().__init__()
        self.schema = schema
        self.histories = histories.chosen(schema, config.histories)
        self.matches = config.matches
        self.attention = nn.ModuleDict({name: TargetAttention(config, history_widths[name]) for name in self.histories})
        self.widths = Widths(
            candidate={f"interest.{name}": history_widths[name].entry for name in self.histories}
            | {f"matches.{name}": histories.width(schema, name) for name in self.histories if config.matches}
        )

    def forward(self, embedded: Embedded, batch: FeedBatch) -> Interests:
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        candidate = {}
        for name in self.histories:
            query_NM = torch.cat([embedded.candidate[field.name] for _, field in self.schema.matches(name)], dim=1)
            candidate[f"interest.{name}"] = self.attention[name](embedded.histories[name], query_NM, places)
            if self.matches:
                candidate[f"matches.{name}"] = histories.matches(batch, self.schema, name, query_NM.dtype)
        return Interests(candidate=candidate)
