"""An output of its own per target; the target graph plays no part."""

from typing import Literal

from torch import Tensor, nn

from models.config import config
from models.layers.heads import Heads
from models.schema import Schema
from models.slots import Coupled, Training


@config
class IndependentConfig:
    """Nothing to choose."""

    kind: Literal["independent"] = "independent"


class Independent(nn.Module):
    """One linear map for each target, of its own vector."""

    penalties: tuple[str, ...] = ()
    curriculum_epochs = 0
    carries = "nothing"

    def __init__(self, config: IndependentConfig, schema: Schema, widths: dict[str, int]) -> None:
        super().__init__()
        self.heads = Heads(schema, widths)

    def forward(self, vectors: dict[str, Tensor], training: Training | None) -> Coupled:
        return Coupled(outputs=self.heads(vectors))

    def edges(self, vectors: dict[str, Tensor]) -> dict[tuple[str, str], Tensor]:
        return {}
