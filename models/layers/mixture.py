"""Softmax gates over experts.

# N rows, T targets, E experts, H width
"""

from torch import Tensor


def mixture(scores_NTE: Tensor, experts_NEH: Tensor) -> Tensor:
    """[T, N, H]: for every target, the experts weighted by the softmax of its scores."""
    return (scores_NTE.softmax(2) @ experts_NEH).transpose(0, 1)
