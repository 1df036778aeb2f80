"""Linear maps that every level bends in its own way (STAR, see `fusions.star`).

    # R feeds, N candidates, N_c those of level c, C levels, B members of a bank, I input width, H output width
    # F/C summed width of the feed/candidate vectors in MixedLinear's manner

Level c applies W * W_c (elementwise) and b + b_c. W_c starts at 1 and b_c at 0, so that all levels start alike. Rows come
grouped by level, one tensor for each; that of a level without rows is empty.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.dropout import Dropout
from models.layers.mixed import MixedLinear
from models.layers.mlp import LinearBank
from models.slots import Vectors, Widths


class ByLevel:
    """Candidates sorted into levels and back.

    Attributes:
        rows: [N_c] of each level, int64, ascending.
    """

    def __init__(self, level_N: Tensor, levels: int) -> None:
        order_N = level_N.argsort(stable=True)
        self.rows = order_N.split(torch.bincount(level_N, minlength=levels).tolist())
        self._place_N = order_N.argsort()

    def divided(self, values_N: Tensor | None) -> list[Tensor | None]:
        """The values of each level's candidates; None for None."""
        return [None if values_N is None else values_N.index_select(0, rows) for rows in self.rows]

    def together(self, groups: Sequence[Tensor]) -> Tensor:
        """[B, N, H] in the candidates' order, from [B, N_c, H] of each level."""
        return torch.cat(list(groups), dim=1).index_select(1, self._place_N)


class StarMixedLinear(nn.Module):
    """`Vectors` -> [N_c, outputs] of each level, each output linear in all vectors of both levels; a ReLU follows.

    As in `layers.mixed`, feed vectors are multiplied once per feed, here once per feed and level.
    """

    def __init__(self, levels: int, widths: Widths, outputs: int) -> None:
        super().__init__()
        self.shared = MixedLinear(widths, outputs, before_relu=True)
        ones = lambda like: None if like is None else nn.Parameter(torch.ones(levels, *like.shape))
        self.feed = ones(self.shared.feed)
        self.candidate = ones(self.shared.candidate)
        self.bias_CH = nn.Parameter(torch.zeros(levels, outputs))

    def forward(self, vectors: Vectors, by_level: ByLevel) -> list[Tensor]:
        return [self._one(vectors, level, rows) for level, rows in enumerate(by_level.rows)]

    def _one(self, vectors: Vectors, level: int, rows: Tensor) -> Tensor:
        bias_H = self.shared.bias + self.bias_CH[level]
        feed_FH, candidate_CH = _bent(self.shared.feed, self.feed, level), _bent(self.shared.candidate, self.candidate, level)
        candidate_NC = None if vectors.candidate_NC is None else vectors.candidate_NC.index_select(0, rows)
        if feed_FH is None or vectors.feed_RF is None:
            assert candidate_CH is not None and candidate_NC is not None  # MixedLinear refuses to read nothing
            return torch.addmm(bias_H, candidate_NC, candidate_CH)
        feed_RH = torch.addmm(bias_H, vectors.feed_RF, feed_FH)
        output = feed_RH.index_select(0, vectors.feed_of_candidate_N.index_select(0, rows))
        if candidate_CH is None or candidate_NC is None:
            return output
        return output.addmm_(candidate_NC.to(output.dtype), candidate_CH.to(output.dtype))  # in place, as in MixedLinear


def _bent(shared: Tensor | None, own: Tensor | None, level: int) -> Tensor | None:
    return None if shared is None or own is None else shared * own[level]


class StarMlpBank(nn.Module):
    """B MLPs of the same shape: [B, N_c, I] of each level -> [B, N_c, H]. No hidden layer gives the inputs themselves."""

    def __init__(self, levels: int, members: int, inputs: int, hidden: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.width = hidden[-1] if hidden else inputs
        self.dropouts = nn.ModuleList([Dropout(dropout) for _ in hidden])
        pairs = list(zip([inputs, *hidden], hidden, strict=False))
        self.shared = nn.ModuleList([LinearBank(members, below, above, before_relu=True) for below, above in pairs])
        self.weights = nn.ParameterList([torch.ones(levels, members, below, above) for below, above in pairs])
        self.biases = nn.ParameterList([torch.zeros(levels, members, 1, above) for _, above in pairs])

    def forward(self, groups: Sequence[Tensor], rows: Sequence[Tensor | None]) -> list[Tensor]:
        """Args: `rows` as in `layers.dropout`, of the candidates of each level."""
        return [self._one(level, x_BNI, rows_N) for level, (x_BNI, rows_N) in enumerate(zip(groups, rows, strict=True))]

    def _one(self, level: int, x_BNI: Tensor, rows_N: Tensor | None) -> Tensor:
        layers = zip(self.shared, self.weights, self.biases, self.dropouts, strict=True)
        for shared, weight_CBIH, bias_CB1H, drop in layers:
            weight_BIH = shared.weight_BIH * weight_CBIH[level]  # type: ignore[operator]  # mypy sees a plain Module
            x_BNH = torch.baddbmm(shared.bias_B1H + bias_CB1H[level], x_BNI, weight_BIH)  # type: ignore[operator]
            x_BNI = drop(x_BNH.relu_(), rows_N)
        return x_BNI
