"""Heads of value targets: how a value is learnt, and which expectations follow from what a model gives for it.

A value (seconds, money) is mostly 0 and has a long tail, so it is learnt by its logarithm z = log(1 + y) or by classes. What
is wanted of it is E[y] in its own unit, and exp(E[z]) - 1 is no such thing: it is smaller, often by a factor. Every head
therefore gives both expectations: E[y], which is answered, and E[z], by which couplings hand on and errors in the logarithm
are judged.

    # N candidates, K classes of a binned value, Q quantiles, B knots
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.schema import Target

SMALLEST = 0.1  # deviation of a log-normal, in those of training days: one row learnt by heart must not rule all steps
KNOTS = 32  # of a smearing, at most


class ValueHead(Protocol):
    """From the output of a coupling for a value target."""

    def fit(self, quantiles_Q: Tensor) -> None:
        """Sets what is known before training.

        Args:
            quantiles_Q: the positive labels' quantiles at Q evenly spaced shares from 0 to 1, ascending, float64.
        """

    def loss(self, output: Tensor, label_N: Tensor) -> Tensor:
        """[N], of labels in their own unit."""

    def expected(self, output: Tensor) -> Tensor:
        """[N]: E[y], at least 0, in the label's unit."""

    def expected_log(self, output: Tensor) -> Tensor:
        """[N]: E[log(1 + y)], at least 0; of a linear head as `expected`."""


class Linear(nn.Module):
    """A number in the label's own unit, learnt by squared error, whose minimum is the expectation."""

    def __init__(self, target: Target) -> None:
        super().__init__()

    def fit(self, quantiles_Q: Tensor) -> None:
        pass

    def loss(self, output_N: Tensor, label_N: Tensor) -> Tensor:
        return (output_N - label_N.to(output_N.dtype)).square()

    def expected(self, output_N: Tensor) -> Tensor:
        return output_N.clamp(min=0)

    def expected_log(self, output_N: Tensor) -> Tensor:
        return self.expected(output_N)


class Log1p(nn.Module):
    """A number in the logarithm, learnt by squared error.

    `expected` is exp(E[z]) - 1, which is below E[y]; a `Smearing` makes up for it. It never exceeds the largest label.
    """

    ceiling: Tensor

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.register_buffer("ceiling", torch.tensor(40.0))  # of the logarithm

    def fit(self, quantiles_Q: Tensor) -> None:
        self.ceiling.copy_(_ceiling(quantiles_Q))

    def loss(self, output_N: Tensor, label_N: Tensor) -> Tensor:
        return (output_N - label_N.to(output_N.dtype).log1p()).square()

    def expected(self, output_N: Tensor) -> Tensor:
        return output_N.clamp(min=0).minimum(self.ceiling).expm1()

    def expected_log(self, output_N: Tensor) -> Tensor:
        return output_N.clamp(min=0)


class Binned(nn.Module):
    """Logits of classes: 0, and bins that hold equal shares of the positive labels of training days.

    Edges and means belong to the weights: `fit` sets them before training, and they are saved with the ranker.
    """

    edges_E: Tensor
    means_K: Tensor
    logs_K: Tensor

    def __init__(self, target: Target) -> None:
        super().__init__()
        assert target.bins is not None
        self.register_buffer("edges_E", torch.arange(1.0, target.bins))
        self.register_buffer("means_K", torch.arange(target.bins + 1.0))
        self.register_buffer("logs_K", torch.arange(target.bins + 1.0).log1p())

    def fit(self, quantiles_Q: Tensor) -> None:
        bins = len(self.means_K) - 1
        share_Q = torch.linspace(0, 1, len(quantiles_Q), dtype=torch.float64)
        places = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
        edges = interpolated(places, share_Q, quantiles_Q)
        self.edges_E.copy_(edges[1:-1])
        # means over a bin: of the quantiles at evenly spaced shares inside of it
        inside = (torch.arange(64, dtype=torch.float64) + 0.5) / 64 / bins
        values = interpolated((places[:-1, None] + inside).flatten(), share_Q, quantiles_Q).reshape(bins, 64)
        for means_K, of_values in ((self.means_K, values), (self.logs_K, values.log1p())):
            means_K[0] = 0
            means_K[1:].copy_(of_values.mean(1))

    def classes(self, label_N: Tensor) -> Tensor:
        """Class of every label, int64."""
        bin_N = torch.searchsorted(self.edges_E, label_N.to(self.edges_E.dtype).contiguous(), right=True)
        return torch.where(label_N > 0, bin_N + 1, 0)

    def loss(self, logits_NK: Tensor, label_N: Tensor) -> Tensor:
        return F.cross_entropy(logits_NK, self.classes(label_N), reduction="none")

    def expected(self, logits_NK: Tensor) -> Tensor:
        return logits_NK.softmax(1) @ self.means_K.to(logits_NK.dtype)

    def expected_log(self, logits_NK: Tensor) -> Tensor:
        return logits_NK.softmax(1) @ self.logs_K.to(logits_NK.dtype)


class ZeroInflated(nn.Module):
    """Whether there is a value at all, and a log-normal of how much (Wang, Liu & Miao 2019, "A deep probabilistic model for
    customer lifetime value prediction", Eq. 5-6).

    The output is a logit of y > 0, and of z of a positive y the mean (less 1) and, through a softplus, the deviation, in
    units of the mean and the deviation that `fit` found of training days. Differences: it is 1 + y that is log-normal, so that
    E[z] has a closed form too and values below 1 have no long tail downwards, and the expectation of a positive y never
    exceeds the largest label.
    """

    mean: Tensor
    deviation: Tensor
    ceiling: Tensor

    def __init__(self, target: Target) -> None:
        super().__init__()
        for name, value in (("mean", 1.0), ("deviation", 1.0), ("ceiling", 40.0)):
            self.register_buffer(name, torch.tensor(value))

    def fit(self, quantiles_Q: Tensor) -> None:
        logs_Q = quantiles_Q.log1p()
        self.mean.copy_(logs_Q.mean() if logs_Q[-1] > 0 else torch.tensor(1.0))
        self.deviation.copy_(logs_Q.std().clamp(min=0.01))
        self.ceiling.copy_(_ceiling(quantiles_Q))

    def of(self, output_N3: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logit of y > 0, mean and deviation of the logarithm of a positive one; [N] each."""
        logit_N, mean_N, deviation_N = output_N3.unbind(1)
        mean_N = self.mean * (1 + mean_N)
        return logit_N, mean_N, self.deviation * (F.softplus(deviation_N) + SMALLEST)

    def loss(self, output_N3: Tensor, label_N: Tensor) -> Tensor:
        logit_N, mean_N, deviation_N = self.of(output_N3)
        label_N = label_N.to(output_N3.dtype)
        is_any_N = label_N > 0
        gap_N = (label_N.log1p() - mean_N) / deviation_N
        density_N = deviation_N.log() + 0.5 * math.log(2 * math.pi) + 0.5 * gap_N.square()
        any_N = F.binary_cross_entropy_with_logits(logit_N, is_any_N.to(logit_N.dtype), reduction="none")
        return any_N + density_N.where(is_any_N, 0)

    def expected(self, output_N3: Tensor) -> Tensor:
        logit_N, mean_N, deviation_N = self.of(output_N3)
        log_N = (mean_N + 0.5 * deviation_N.square()).clamp(min=0).minimum(self.ceiling)
        return logit_N.sigmoid() * log_N.expm1()

    def expected_log(self, output_N3: Tensor) -> Tensor:
        logit_N, mean_N, _ = self.of(output_N3)
        return logit_N.sigmoid() * mean_N.clamp(min=0)


HEADS = {"linear": Linear, "log1p": Log1p, "bins": Binned, "zero_inflated": ZeroInflated}


class Smearing(nn.Module):
    """Makes an expectation of exp(E[z]) - 1, or mends one, by what validation has shown (Duan 1983, "Smearing estimate: a
    nonparametric retransformation method").

    Duan's estimate of E[y] is the mean of exp(E[z] + r) - 1 over residuals r, that is (1 + exp(E[z]) - 1) times a factor. He
    takes all residuals together. Those of a value that is mostly 0 depend on the prediction, so here they are taken from
    candidates with predictions alike: knots at bins of predictions, straight lines between them in the logarithm, his
    constant factor beyond. Bins that do not ascend are pooled (Ayer et al. 1955), so no order changes.

    Without `set` it changes nothing.
    """

    at_B: Tensor
    becomes_B: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("at_B", torch.arange(float(KNOTS)))
        self.register_buffer("becomes_B", torch.arange(float(KNOTS)))

    def forgotten(self) -> None:
        """As before `set`."""
        for buffer_B in (self.at_B, self.becomes_B):
            buffer_B.copy_(torch.arange(float(KNOTS)))

    def set(self, predicted_B: Tensor, observed_B: Tensor) -> None:
        """
        Args:
            predicted_B, observed_B: mean log(1 + prediction), and mean label, in bins of predictions, ascending; float64. At
                most `KNOTS`; none changes nothing.
        """
        self.forgotten()
        if not len(predicted_B):
            return
        missing = torch.arange(1.0, KNOTS - len(predicted_B) + 1, dtype=torch.float64)  # where the last factor goes on
        for buffer_B, known_B in ((self.at_B, predicted_B), (self.becomes_B, observed_B.log1p())):
            buffer_B.copy_(torch.cat([known_B, known_B[-1] + missing]))

    def forward(self, value_N: Tensor) -> Tensor:
        """[N], at least 0."""
        at_N = value_N.log1p()
        at_B, becomes_B = self.at_B.to(at_N.dtype), self.becomes_B.to(at_N.dtype)
        right_N = torch.searchsorted(at_B, at_N.contiguous()).clamp(1, KNOTS - 1)
        left_N = right_N - 1
        slope_N = (becomes_B[right_N] - becomes_B[left_N]) / (at_B[right_N] - at_B[left_N])
        is_beyond_N = at_N > at_B[-1]
        slope_N = torch.where((at_N < at_B[0]) | is_beyond_N, 1.0, slope_N)
        from_N = torch.where(is_beyond_N, right_N, left_N)
        return (becomes_B[from_N] + slope_N * (at_N - at_B[from_N])).expm1().clamp(min=0)


def interpolated(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Linear interpolation between ascending points (x, y)."""
    right = torch.searchsorted(x, at).clamp(1, len(x) - 1)
    share = (at - x[right - 1]) / (x[right] - x[right - 1])
    return y[right - 1] + share * (y[right] - y[right - 1])


def _ceiling(quantiles_Q: Tensor) -> Tensor:
    """The logarithm of the largest label; where there is no positive label, no bound."""
    return quantiles_Q[-1].log1p() if quantiles_Q[-1] > 0 else torch.tensor(40.0)
