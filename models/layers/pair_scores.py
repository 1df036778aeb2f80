"""A score for every pair of a candidate and an entry of its feed's history, by an MLP (the attention of DIN, Zhou et al. 2018,
"Deep interest network for click-through rate prediction", Sec. 4.3).

    # R feeds, N candidates, G x S grid of candidates (rows of one feed), L history length
    # E width of an entry, M width of its matched part, A units of the first layer, Z = G S, B = S A

The MLP reads [q, k, q - k, q * k], q the candidate's and k the entry's attributes. The first layer is linear, so with
W = [Wq, Wk, Wd, Wp]

    [q, k, q - k, q * k] W  =  q (Wq + Wd)  +  k (Wk - Wd + diag(q) Wp).

The first part is computed once per candidate; the second is one matrix product a feed, of its history with the brackets
of all its candidates side by side. No history is copied per candidate, and neither is q * k ever written down. What is
left per pair is that product, the activations and the layers above.

Where we differ: Wq + Wd and Wk - Wd are one weight each (the same functions with fewer parameters). Attributes of an
entry that no candidate field matches (say its stay time) stand beside k. Activation `dice` is `layers.dice`, which does
not look at other rows of the batch.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.layers.dice import Dice
from models.layers.mlp import plain_uniform

Activation = Literal["dice", "prelu", "relu", "sigmoid"]


def activation(kind: Activation, width: int) -> nn.Module:
    match kind:
        case "dice":
            return Dice(width)
        case "prelu":
            return nn.PReLU()
        case "sigmoid":
            return nn.Sigmoid()
    return nn.ReLU()


class PairScores(nn.Module):
    """One history's entries, scored by each candidate.

    Args:
        matched, entry: widths M and E; the matched part of an entry comes first.
        hidden: hidden layers of the MLP.
        bias: of the last layer; a softmax over the scores would not see it.
    """

    def __init__(self, matched: int, entry: int, hidden: Sequence[int], kind: Activation, *, bias: bool) -> None:
        super().__init__()
        first = hidden[0]
        inputs = 3 * matched + entry
        self.query_MA = plain_uniform(matched, first, inputs=inputs)
        self.entry_EA = plain_uniform(entry, first, inputs=inputs)
        self.pair_MA = plain_uniform(matched, first, inputs=inputs)
        self.bias_A = nn.Parameter(torch.zeros(first))
        self.first_activation = activation(kind, first)
        rest: list[nn.Module] = []
        for below, above in itertools.pairwise(hidden):
            rest += [nn.Linear(below, above), activation(kind, above)]
        self.rest = nn.Sequential(*rest, nn.Linear(hidden[-1], 1, bias=bias))

    def forward(self, entries_GLE: Tensor, query_GSM: Tensor) -> Tensor:
        """score [G, S, L]; padding has scores too, which must be masked."""
        hidden_GLSA = self._first_layer(entries_GLE, query_GSM)
        return self.rest(self.first_activation(hidden_GLSA)).squeeze(3).transpose(1, 2)

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
