"""One score that orders a feed.

# N candidates
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from models.schema import Schema


def fused_score(predictions: Mapping[str, Tensor], schema: Schema, weights: Mapping[str, float] | None = None) -> Tensor:
    """[N]: sum of fusion weight times probability, or times the expected value in its own unit.

    Args:
        predictions: [N] by target, as `Ranker.predict` gives them.
        weights: instead of the schema's fusion weights for what is predicted; targets that are not named count 0.

    Raises:
        ValueError: a weight for something that is not predicted, or no weight other than 0.
    """
    if weights is None:
        weights = {name: schema.target(name).fusion_weight for name in predictions}
    unknown = [name for name in weights if name not in predictions]
    if unknown:
        raise ValueError(f"fusion weights name {', '.join(unknown)}; predicted are: {', '.join(predictions)}.")
    used = {name: weight for name, weight in weights.items() if weight != 0}
    if not used:
        raise ValueError(
            f"all fusion weights of what is predicted ({', '.join(predictions)}) are 0, so no candidate is better than "
            "another; give one a weight."
        )
    return torch.stack([weight * predictions[name] for name, weight in used.items()]).sum(0)
