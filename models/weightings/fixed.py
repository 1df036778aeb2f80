"""The schema's loss weights, or those of its roots alone."""

from typing import Literal

from torch import Tensor, nn

from models.config import ConfigError, config
from models.layers.embedding import Embedded
from models.schema import Schema
from models.slots import Training, Weights, Widths


@config
class FixedConfig:
    """The schema's loss weights.

    Attributes:
        targets: `roots` trains for the targets without parents alone (single-task models, where the click is the only one);
            the others are not predicted.
    """

    kind: Literal["fixed"] = "fixed"
    targets: Literal["all", "roots"] = "all"


class Fixed(nn.Module):
    """The same weight for every candidate.

    Raises:
        ConfigError: all weights that count are 0.
    """

    penalties: tuple[str, ...] = ()
    varying: tuple[str, ...] = ()
    reads_preferences = None
    counts_in_batch = False

    def __init__(self, config: FixedConfig, schema: Schema, widths: Widths) -> None:
        super().__init__()
        trained = [target for target in schema.targets if config.targets == "all" or not target.parents]
        if not any(target.loss_weight for target in trained):
            every = "every target" if config.targets == "all" else "every target without parents"
            raise ConfigError(f"{every} has loss_weight 0, so there is nothing to train; give one a positive weight.")
        weights = {target.name: 0.0 for target in schema.targets} | {target.name: target.loss_weight for target in trained}
        self.trained = tuple(name for name, weight in weights.items() if weight)
        self.weights = Weights(targets=weights)

    def forward(self, embedded: Embedded, training: Training) -> Weights:
        return self.weights

    def preferences(self, embedded: Embedded) -> dict[str, Tensor]:
        return {}
