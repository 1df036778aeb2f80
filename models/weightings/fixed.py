"""The schema's loss weights, or those of its roots alone, for all users or those of one stage."""

from typing import Literal

from torch import Tensor, nn

from models.config import ConfigError, config
from models.layers.embedding import Embedded
from models.schema import STAGES, Schema
from models.slots import Training, Weights, Widths


@config
class FixedConfig:
    """The schema's loss weights.

    Attributes:
        targets: `roots` trains for the targets without parents alone (single-task models, where the click is the only one);
            the others are not predicted.
        stage: trains on the candidates of users in this stage of their life cycle alone (Li et al. 2023, STAN, Fig. 5); None
            trains on all. Needs `schema.stages`.
    """

    kind: Literal["fixed"] = "fixed"
    targets: Literal["all", "roots"] = "all"
    stage: Literal["new", "wander", "stick", "loyal"] | None = None


class Fixed(nn.Module):
    """The same weight for every candidate.

    Raises:
        ConfigError: all weights that count are 0; a stage is named, and the schema has none.
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
        if config.stage is not None and schema.stages is None:
            raise ConfigError(
                f"weighting.stage is `{config.stage}`, but the schema sorts users into no stages; give it `stages`."
            )
        self.stage = None if config.stage is None else STAGES.index(config.stage)

    def forward(self, embedded: Embedded, training: Training) -> Weights:
        if self.stage is None:
            return self.weights
        batch = training.batch
        if batch.stage_R is None:
            raise ValueError("the batch has no stages, by which weighting `fixed` is to choose users; prepare the data again.")
        counted_N = (batch.stage_R == self.stage)[batch.feed_of_candidate_N].float()
        return Weights(targets={name: weight * counted_N if weight else 0.0 for name, weight in self.weights.targets.items()})

    def preferences(self, embedded: Embedded) -> dict[str, Tensor]:
        return {}
