"""Softmax gates over experts.

# N rows, T targets, E experts, O own experts of a target, C shared experts, X = T O + C, H width
"""

import torch
from torch import Tensor


def mixture(scores_NTE: Tensor, experts_NEH: Tensor) -> Tensor:
    """[T, N, H]: for every target, the experts weighted by the softmax of its scores."""
    return (scores_NTE.softmax(2) @ experts_NEH).transpose(0, 1)


def own_and_shared(scores_NTM: Tensor, experts_XNH: Tensor, specific: int) -> Tensor:
    """[T, N, H]: for every target, its own O experts and the shared ones weighted by the softmax of its scores.

    Args:
        scores_NTM: M = O + C, a target's own experts first.
        experts_XNH: a target's own experts side by side, target after target; then the C shared ones.
        specific: O.
    """
    targets = scores_NTM.shape[1]
    weight_NTM = scores_NTM.softmax(2)
    # a target's weights for the experts of other targets are 0, so that one product mixes for all targets
    own_TT1 = torch.eye(targets, dtype=weight_NTM.dtype, device=weight_NTM.device).unsqueeze(2)
    specific_NTX = (own_TT1 * weight_NTM[..., :specific].unsqueeze(2)).flatten(2)
    weight_NTX = torch.cat([specific_NTX, weight_NTM[..., specific:]], dim=2)
    return (weight_NTX @ experts_XNH.transpose(0, 1)).transpose(0, 1)
