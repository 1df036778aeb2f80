"""Losses per candidate, and the way between a label's unit and the space a target is trained in.

# N candidates
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from models.schema import Schema, Target


def transformed(target: Target, values: Tensor) -> Tensor:
    """From the label's unit into the space the target is trained in."""
    return values.log1p() if target.transform == "log1p" else values


def in_label_unit(target: Target, outputs: Tensor) -> Tensor:
    """A target's raw outputs as a probability, or as a value in the label's unit, at least 0."""
    if target.is_binary:
        return outputs.sigmoid()
    return (outputs.expm1() if target.transform == "log1p" else outputs).clamp(min=0)


def candidate_losses(outputs: Mapping[str, Tensor], labels: Mapping[str, Tensor], schema: Schema) -> dict[str, Tensor]:
    """Loss [N] by target: cross-entropy of a binary target, squared error of a value in its transformed space.

    Raises:
        ValueError: labels of a target are missing.
    """
    missing = [target.name for target in schema.targets if target.name not in labels]
    if missing:
        raise ValueError(f"the batch has no labels for: {', '.join(missing)}. Training needs one per target of the schema.")
    losses = {}
    for target in schema.targets:
        output_N = outputs[target.name]
        label_N = labels[target.name].to(output_N.dtype)
        losses[target.name] = (
            F.binary_cross_entropy_with_logits(output_N, label_N, reduction="none")
            if target.is_binary
            else (output_N - transformed(target, label_N)).square()
        )
    return losses


def sum_count(losses_N: Tensor) -> tuple[Tensor, Tensor]:
    return losses_N.sum(), torch.full((), len(losses_N), dtype=losses_N.dtype, device=losses_N.device)
