"""Weighting slot: loss weight per target, or per target and candidate. Only training asks for it.

A filling is built as `Filling(config, schema, widths)`, `widths` of the embedded fields, and is called as
`filling(embedded, training) -> Weights`; `filling.preferences(embedded) -> {target: Tensor_R}` is for reports.
"""

from models.weightings.fixed import Fixed, FixedConfig

WeightingConfig = FixedConfig

WEIGHTINGS = {"fixed": Fixed}
