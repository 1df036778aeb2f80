"""Weighting slot: loss weight per target, or per target and candidate. Only training asks for it.

A filling is built as `Filling(config, schema, widths)`, `widths` of the embedded fields, and is called as
`filling(embedded, training) -> Weights`; `filling.preferences(embedded) -> {target: Tensor_R}` is for reports.
`filling.trained` names the targets whose weight is not 0 for good; `filling.reads_preferences` says whether batches must
hold users' running preferences, and `filling.needs_one_worker` whether it keeps state of users that several workers would
not share.
"""

from typing import Annotated

from pydantic import Discriminator

from models.weightings.fixed import Fixed, FixedConfig
from models.weightings.stage import Stage, StageConfig

WeightingConfig = Annotated[FixedConfig | StageConfig, Discriminator("kind")]

WEIGHTINGS = {"fixed": Fixed, "stage": Stage}
