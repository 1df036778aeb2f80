"""Deep interest evolution network: what a user was interested in, step by step, and how that led to each candidate (Zhou et
al. 2019, "Deep interest evolution network for click-through rate prediction", AAAI, Sec. "Interest Extractor Layer" and
"Interest Evolving Layer").

    # R feeds, N candidates, G x S grid of candidates (rows of one feed), L history length, K compared steps
    # E width of an entry, M width of its matched part, C of a candidate's fields, D width of a state, T = 3 D, A units

Extractor: a GRU over the entries, oldest first, whose states are interests; once per feed. Evolution, per candidate c:

    a_t = softmax_t(h_t W e_c)                      over real entries
    r, u = sigmoid(h_t X + s U + b), two thirds     of X, U and b
    n    = tanh(h_t X + r (s U) + b), the last third
    s   <- (1 - a_t u) s + a_t u n

and s after the newest entry is the interest. s X and s U of all gates are one product each; h_t X does not depend on the
candidate and is computed once per feed. a_t is 0 for padding, which leaves s as it is, so no candidate's history needs a
length of its own, and one without entries stays at 0.

Auxiliary loss, in training: h_t has to tell the next entry x_{t+1} from a negative y,

    -log sigmoid(f(h_t, x_{t+1})) - log(1 - sigmoid(f(h_t, y)))     averaged over the steps,

f being the published code's MLP over both, with sigmoids between its layers; the paper's formula reads as an inner product,
for which state and entry would need one width.

Beside the interest the published code hands on the candidate's product with the sum of the history, place by place, and so
does this where `products` is true, over the attributes that entry and candidate share; with the mean, since histories are of
any length.

Where we differ: the negative is another candidate of the same feed, where the paper draws from all items. Items of other
feeds would make the loss depend on how a batch is divided among workers. So x and y are the attributes that entry and
candidate share (`schema.matches`), and a step whose drawn candidate is the next entry itself is left out. The auxiliary sum
is divided by the real steps (the code also counts padding), and f has no batch normalisation. D is free, where the paper
takes the width of an entry. Gates and attention are the paper's; the published code multiplies r with s before the product,
scales 1 - a_t into the gate that keeps s, and scores h_t and e_c by an MLP.
"""

import itertools
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import config
from models.layers import histories
from models.layers.draws import uniform_RL
from models.layers.embedding import Embedded, HistoryWidths, InterestInputs
from models.layers.grid import Grid, grid
from models.layers.masked import masked_mean, masked_softmax
from models.layers.mlp import check_layers, plain_uniform
from models.layers.named import Named
from models.layers.tables import Gathered
from models.schema import Schema
from models.slots import Interests, SumCount, Together, Training, Widths


@config
class DienConfig:
    """Interest states over each history, and the auxiliary loss that teaches them.

    Attributes:
        histories: which histories are read (`layers.histories.chosen`); None reads all. Each has weights of its own.
        width: of a state. The loop over entries is what a step of training waits for, and it costs the square of this.
        auxiliary: weight of the auxiliary loss; 0 does without.
        hidden: hidden layers of the auxiliary loss's MLP.
        products: also hand on the candidate's products with the mean entry, as the published code does; so do `din` and `hgn`.
    """

    kind: Literal["dien"] = "dien"
    histories: tuple[str, ...] | None = None
    width: int = 64
    auxiliary: float = 1.0
    hidden: tuple[int, ...] = (100, 50)
    products: bool = True

    def __post_init__(self) -> None:
        check_layers("dien", hidden=self.hidden)
        if self.width < 1:
            raise ValueError(f"dien needs width >= 1, got {self.width}.")
        if self.auxiliary < 0:
            raise ValueError(f"dien needs auxiliary >= 0, got {self.auxiliary}; 0 does without the auxiliary loss.")


class Augru(nn.Module):
    """A GRU per candidate over its feed's inputs, whose update gate the candidate's attention scales."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.input_IT = plain_uniform(inputs, 3 * width, inputs=width)  # as torch's GRU, whose gates share one scale
        self.state_DT = plain_uniform(width, 3 * width, inputs=width)
        self.bias_T = nn.Parameter(torch.zeros(3 * width))

    def forward(self, inputs_RLI: Tensor, weight_GSL: Tensor, places: Grid) -> Tensor:
        """The last state [G, S, D]; zeros where all weights are 0."""
        inputs_GLT = places.of_feed(inputs_RLI @ self.input_IT + self.bias_T)
        # the state keeps its precision under autocast: it is summed up over many steps
        dtype = torch.promote_types(inputs_GLT.dtype, torch.float32)
        state_GSD = torch.zeros(*weight_GSL.shape[:2], self.width, dtype=dtype, device=weight_GSL.device)
        steps = zip(inputs_GLT.unsqueeze(2).unbind(1), weight_GSL.to(dtype).unsqueeze(3).unbind(2), strict=True)
        for input_G1T, weight_GS1 in steps:
            recurrent_GST = state_GSD @ self.state_DT
            two = 2 * self.width
            gates_GS2D = torch.sigmoid(input_G1T[..., :two] + recurrent_GST[..., :two])
            reset_GSD, update_GSD = gates_GS2D.chunk(2, dim=2)
            new_GSD = torch.tanh(input_G1T[..., two:] + reset_GSD * recurrent_GST[..., two:])
            state_GSD = torch.lerp(state_GSD, new_GSD.to(dtype), weight_GS1 * update_GSD)
        return state_GSD


class NextEntry(nn.Module):
    """f(state, matched attributes) of the auxiliary loss: [K, D], [K, M] -> [K]."""

    def __init__(self, width: int, matched: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.state_DA = plain_uniform(width, hidden[0], inputs=width + matched)
        self.entry_MA = plain_uniform(matched, hidden[0], inputs=width + matched)
        self.bias_A = nn.Parameter(torch.zeros(hidden[0]))
        rest: list[nn.Module] = []
        for below, above in itertools.pairwise(hidden):
            rest += [nn.Sigmoid(), nn.Linear(below, above)]
        self.rest = nn.Sequential(*rest, nn.Sigmoid(), nn.Linear(hidden[-1], 1))

    def forward(self, state_KD: Tensor, entries: tuple[Tensor, ...]) -> Tensor:
        """[P, K] for P entries per state, whose part of the first layer is computed once."""
        of_state_KA = torch.addmm(self.bias_A, state_KD, self.state_DA)
        return self.rest(of_state_KA + torch.stack(entries) @ self.entry_MA).squeeze(2)


class Evolution(nn.Module):
    """One history: interest extractor, interest evolution and auxiliary loss."""

    def __init__(self, config: DienConfig, widths: HistoryWidths, candidate: int) -> None:
        super().__init__()
        self.matched = widths.matched
        self.extractor = nn.GRU(widths.entry, config.width, batch_first=True)
        self.candidate_CD = plain_uniform(candidate, config.width, inputs=candidate)
        self.augru = Augru(config.width, config.width)
        self.next_entry = NextEntry(config.width, widths.matched, config.hidden) if config.auxiliary else None

    def states(self, entries_RLE: Tensor) -> Tensor:
        """[R, L, D]; states of padding must be masked, and no real one has seen any."""
        if not entries_RLE.shape[1]:  # which nn.GRU refuses
            return entries_RLE.new_zeros(*entries_RLE.shape[:2], self.extractor.hidden_size)
        return self.extractor(entries_RLE)[0]

    def forward(self, states_RLD: Tensor, is_real_RL: Tensor, candidate_NC: Tensor, places: Grid) -> Tensor:
        """interest [N, D]; zeros where the history has no real entry."""
        query_GSD = places.lay(candidate_NC @ self.candidate_CD)
        score_GSL = query_GSD @ places.of_feed(states_RLD).transpose(1, 2).to(query_GSD.dtype)
        weight_GSL = masked_softmax(score_GSL, places.of_feed(is_real_RL).unsqueeze(1))
        return places.pick(self.augru(states_RLD, weight_GSL, places))

    def auxiliary(
        self, states_RLD: Tensor, entries_RLE: Tensor, negative_RL: Tensor, matched_NM: Tensor, steps_RL: Tensor
    ) -> SumCount:
        """Loss of all steps and their number.

        Args:
            negative_RL: the candidate that step t compares entry t + 1 with, for t < L - 1.
            steps_RL: which of these steps count, bool.
        """
        assert self.next_entry is not None
        feed_K, step_K = steps_RL.nonzero(as_tuple=True)
        state_KD = states_RLD[feed_K, step_K]
        next_KM = entries_RLE[feed_K, step_K + 1, : self.matched]
        score_2K = self.next_entry(state_KD, (next_KM, matched_NM[negative_RL[feed_K, step_K]]))
        score_2K = score_2K.to(torch.promote_types(score_2K.dtype, torch.float32))
        return (F.softplus(-score_2K[0]) + F.softplus(score_2K[1])).sum(), steps_RL.sum()


class Dien(nn.Module):
    """Gives `interest.<history>` [N, D] per candidate, with `products` also `product.<history>` [N, M] and, with the auxiliary
    loss, penalties `dien.<history>`."""

    together: Together | None = None

    def __init__(self, config: DienConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        self.histories = histories.chosen(schema, config.histories)
        self.weight, self.products = config.auxiliary, config.products
        self.fields = [field.name for field in schema.fields_of("candidate") if not field.is_number]
        self.matches = {name: schema.matches(name) for name in self.histories}
        width = sum(inputs.fields.candidate[name] for name in self.fields)
        self.evolution = Named({name: Evolution(config, inputs.histories[name], width) for name in self.histories})
        self.widths = Widths(
            candidate={f"interest.{name}": config.width for name in self.histories}
            | {f"product.{name}": inputs.histories[name].matched for name in self.histories if config.products}
        )
        self.penalties = tuple(f"dien.{name}" for name in self.histories) if config.auxiliary else ()

    def forward(
        self,
        embedded: Embedded,
        batch: FeedBatch,
        training: Training | None = None,
        gathered: Mapping[nn.Module, Gathered] | None = None,
    ) -> Interests:
        if not self.histories:  # then a candidate may have nothing but numbers
            return Interests()
        places = grid(batch.feed_of_candidate_N, batch.feeds)
        candidate_NC = torch.cat([embedded.candidate[name] for name in self.fields], dim=1)
        candidate, penalties = {}, {}
        for index, name in enumerate(self.histories):
            evolution, history = self.evolution[name], embedded.histories[name]
            states_RLD = evolution.states(history.entries_RLE)
            candidate[f"interest.{name}"] = evolution(states_RLD, history.is_real_RL, candidate_NC, places)
            matched_NM = torch.cat([embedded.candidate[field.name] for _, field in self.matches[name]], dim=1)
            if self.products:
                mean_RM = masked_mean(history.entries_RLE[:, :, : matched_NM.shape[1]], history.is_real_RL)
                candidate[f"product.{name}"] = matched_NM * mean_RM.index_select(0, batch.feed_of_candidate_N)
            if self.weight and training is not None:
                negative_RL = negatives(batch, history.is_real_RL[:, 1:].shape[1], training.progress, salt=-1 - index)
                total, count = evolution.auxiliary(
                    states_RLD, history.entries_RLE, negative_RL, matched_NM, self._steps(batch, name, negative_RL)
                )
                penalties[f"dien.{name}"] = (self.weight * total, count)
        return Interests(candidate=candidate, penalties=penalties)

    def _steps(self, batch: FeedBatch, name: str, negative_RL: Tensor) -> Tensor:
        """Steps to a real entry that the drawn candidate differs from."""
        history = batch.histories[name]
        differs_RL = torch.zeros_like(negative_RL, dtype=torch.bool)
        for item, field in self.matches[name]:
            differs_RL |= history.rows[item.name][:, 1:] != batch.candidate[field.name][negative_RL]
        return differs_RL & history.is_real_RL[:, 1:]


def negatives(batch: FeedBatch, steps: int, progress: float, salt: int) -> Tensor:
    """A candidate of the own feed for every step of its history: int64 [R, steps].

    Args:
        salt: as in `layers.draws`; below 0, since couplings and weightings take theirs from 0 upwards.
    """
    count_R = torch.bincount(batch.feed_of_candidate_N, minlength=batch.feeds)
    first_R = count_R.cumsum(0) - count_R
    share_RL = uniform_RL(batch, steps, progress, salt)
    return first_R.unsqueeze(1) + (share_RL * count_R.unsqueeze(1)).long()
