"""Weighting slot: loss weight per target, or per target and candidate. Only training asks for it.

A filling is built as `Filling(config, schema, widths)`, `widths` of the embedded fields, and is called as
`filling(embedded, training) -> Weights`; `filling.preferences(embedded) -> {target: Tensor_R}` is for reports.
`filling.trained` names the targets whose weight is not 0 for good, `filling.varying` those whose weight differs between
candidates. `filling.reads_preferences` says which running preferences of users batches must hold (`slots.PseudoLabel`), or is
None; a filling that reads any has `start(means)`, which is told their means before training. `filling.counts_in_batch` says
whether it must be told how many candidates a user has in the joint batch (`slots.Training`).
"""

from typing import Annotated

from pydantic import Discriminator

from models.weightings.fixed import Fixed, FixedConfig
from models.weightings.stage import Stage, StageConfig

WeightingConfig = Annotated[FixedConfig | StageConfig, Discriminator("kind")]

WEIGHTINGS = {"fixed": Fixed, "stage": Stage}
