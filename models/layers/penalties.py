"""Penalties on parameters alone."""

import torch
from torch import Tensor

from models.slots import SumCount


def of_parameters(penalty: Tensor, feeds: int) -> SumCount:
    """The penalty as a sum over a worker's feeds: every worker has the same parameters, so that the workers' sums by their
    counts are the penalty itself."""
    return penalty * feeds, torch.full((), feeds, dtype=penalty.dtype, device=penalty.device)
