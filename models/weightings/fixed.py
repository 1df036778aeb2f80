"""The schema's loss weights."""

from typing import Literal

from torch import Tensor, nn

from models.config import ConfigError, config
from models.layers.embedding import Embedded
from models.schema import Schema
from models.slots import Training, Weights, Widths


@config
class FixedConfig:
    kind: Literal["fixed"] = "fixed"


class Fixed(nn.Module):
    """Raises: ConfigError if all weights are 0."""

    penalties: tuple[str, ...] = ()
    reads_preferences = False
    needs_one_worker = False

    def __init__(self, config: FixedConfig, schema: Schema, widths: Widths) -> None:
        super().__init__()
        if not any(target.loss_weight for target in schema.targets):
            raise ConfigError("every target has loss_weight 0, so there is nothing to train; give one a positive weight.")
        self.weights = Weights(targets={target.name: target.loss_weight for target in schema.targets})

    def forward(self, embedded: Embedded, training: Training) -> Weights:
        return self.weights

    def preferences(self, embedded: Embedded) -> dict[str, Tensor]:
        return {}
