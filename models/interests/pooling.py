"""Mean of a history's entries, once per feed (the history input of WDL+ in the eLiveRec paper).

# R feeds, L history length, E width of an entry
"""

from collections.abc import Mapping
from typing import Literal

from torch import nn

from models.batch import FeedBatch
from models.config import config
from models.layers import histories
from models.layers.embedding import Embedded, InterestInputs
from models.layers.masked import masked_mean
from models.layers.tables import Gathered
from models.schema import Schema
from models.slots import Interests, Together, Training, Widths


@config
class PoolingConfig:
    """The mean of each history.

    Attributes:
        histories: which histories are read (`layers.histories.chosen`); None reads all.
        matches: also count, per candidate, the entries that share its attributes (`layers.histories.matches`).
    """

    kind: Literal["pooling"] = "pooling"
    histories: tuple[str, ...] | None = None
    matches: bool = False


class Pooling(nn.Module):
    """Gives `interest.<history>` [R, E] per feed, and with `matches` also `matches.<history>` per candidate."""

    penalties: tuple[str, ...] = ()
    together: Together | None = None

    def __init__(self, config: PoolingConfig, schema: Schema, inputs: InterestInputs) -> None:
        super().__init__()
        self.schema = schema
        self.histories = histories.chosen(schema, config.histories)
        self.matches = config.matches
        self.widths = Widths(
            feed={f"interest.{name}": inputs.histories[name].entry for name in self.histories},
            candidate={f"matches.{name}": histories.width(schema, name) for name in self.histories if config.matches},
        )

    def forward(
        self,
        embedded: Embedded,
        batch: FeedBatch,
        training: Training | None = None,
        gathered: Mapping[nn.Module, Gathered] | None = None,
    ) -> Interests:
        feed, candidate = {}, {}
        for name in self.histories:
            history = embedded.histories[name]
            feed[f"interest.{name}"] = masked_mean(history.entries_RLE, history.is_real_RL)
            if self.matches:
                candidate[f"matches.{name}"] = histories.matches(batch, self.schema, name, history.entries_RLE.dtype)
        return Interests(feed=feed, candidate=candidate)
