"""A ranker for each level of the schema, which `cmlir` and `finetune` train and which is then saved and served.

Each level predicts with weights of its own, which for CMLIR are the shared part plus the level's own (Yu et al. 2023,
"Curriculum multi-level learning for imbalanced live-stream recommendation", Sec. 4): kept as their sum, so that predicting
knows nothing of how they were trained.

    # R feeds, N candidates, C levels
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.losses import Losses
from models.ranker import Ranker, RankerConfig
from models.schema import Schema
from models.slots import Insight, Probe, Together


class Leveled(nn.Module):
    """C rankers that start alike; a candidate is predicted by that of its level.

    Args:
        tied: levels share one copy of the embedding tables.

    Attributes:
        levels: the rankers, in the order of the schema's level names.
        trained: names of the targets that they learn, which are those they predict.

    Raises:
        ConfigError: as `Ranker`, or fewer than one level.
    """

    def __init__(self, schema: Schema, config: RankerConfig, table_sizes: Mapping[str, int], *, tied: bool) -> None:
        super().__init__()
        self.schema = schema
        self.config = config
        first = Ranker(schema, config, table_sizes)
        self.levels = nn.ModuleList([first, *(deepcopy(first) for _ in schema.levels.names[1:])])
        self.trained = first.trained
        # prefix in the state dict of what is an alias -> that of the original; safetensors refuses to write one tensor twice
        self._aliases: dict[str, str] = {}
        # constants of the losses are fitted to the data once, for all levels
        self._tie("losses")
        for name in first.table_sets() if tied else ():
            self._tie(name)

    @property
    def rankers(self) -> list[Ranker]:
        return [each for each in self.levels if isinstance(each, Ranker)]

    @property
    def first(self) -> Ranker:
        return self.rankers[0]

    @property
    def penalties(self) -> tuple[str, ...]:
        return self.first.penalties

    @property
    def curriculum_epochs(self) -> int:
        return self.first.curriculum_epochs

    @property
    def is_probed(self) -> bool:
        return self.first.is_probed

    @property
    def together(self) -> Together | None:
        return self.first.together

    @property
    def losses(self) -> Losses:
        return self.first.losses

    @property
    def fusion(self) -> Any:
        """Of the first level; those of the others are built alike."""
        return self.first.fusion

    @property
    def coupling(self) -> Any:
        """Of the first level; those of the others are built alike."""
        return self.first.coupling

    @property
    def weighting(self) -> Any:
        """Of the first level; those of the others are built alike."""
        return self.first.weighting

    def predict(self, batch: FeedBatch, *, untaught: bool = False, judged: bool = False) -> dict[str, Tensor]:
        """As `Ranker.predict`: [N] by target that is trained for.

        A feed is embedded once for every level among its candidates.
        """
        parts = self._each(batch)
        if len(parts) == 1:
            ((ranker, _, whole),) = parts
            return ranker.predict(whole, untaught=untaught, judged=judged)
        answers = [(of_level_N, ranker.predict(part, untaught=untaught, judged=judged)) for ranker, of_level_N, part in parts]
        names = answers[0][1]
        return {name: _assembled([(of_level_N, answer[name]) for of_level_N, answer in answers]) for name in names}

    def insight(self, batch: FeedBatch) -> Insight:
        """As `Ranker.insight`; preferences of a feed's user are means over the levels of its candidates."""
        parts = [(of_level_N, ranker.insight(part)) for ranker, of_level_N, part in self._each(batch)]
        first = parts[0][1]
        gathered = lambda of, name: _assembled([(of_level_N, of(part)[name]) for of_level_N, part in parts])
        return Insight(
            gates={name: gathered(lambda part: part.gates, name) for name in first.gates},
            edges={edge: gathered(lambda part: part.edges, edge) for edge in first.edges},
            preferences={
                name: _mean_of_feeds(batch, [(of_level_N, part.preferences[name]) for of_level_N, part in parts])
                for name in first.preferences
            },
        )

    def probe(self, batch: FeedBatch) -> dict[str, Probe]:
        """As `Ranker.probe`, of every level's ranker on the whole batch; names end with the level's."""
        found = {}
        for level, ranker in zip(self.schema.levels.names, self.rankers, strict=True):
            for name, probe in ranker.probe(batch).items():
                found[f"{name}.{level}"] = replace(probe, says=f"for {level}, {probe.says}")
        return found

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """What the levels share appears once."""
        state = super().state_dict(*args, **kwargs)
        for key in [key for key in state if key.startswith(tuple(self._aliases))] if self._aliases else ():
            del state[key]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads what `state_dict` gave."""
        whole = dict(state_dict)
        for alias, original in self._aliases.items():
            whole |= {alias + key[len(original) :]: value for key, value in state_dict.items() if key.startswith(original)}
        return super().load_state_dict(whole, strict, assign)

    def _each(self, batch: FeedBatch) -> list[tuple[Ranker, Tensor, FeedBatch]]:
        """By level that has candidates: its ranker, which candidates are its, and the batch of them alone."""
        found = []
        for level, ranker in enumerate(self.rankers):
            of_level_N = batch.level_N == level
            if of_level_N.all():
                return [(ranker, of_level_N, batch)]
            if of_level_N.any():
                found.append((ranker, of_level_N, batch.of_candidates(of_level_N)))
        return found

    def _tie(self, name: str) -> None:
        """Lets the module of this name be one object in all levels."""
        original = self.first.get_submodule(name)
        for level, ranker in enumerate(self.levels):
            if level:
                ranker.set_submodule(name, original)
                self._aliases[f"levels.{level}.{name}."] = f"levels.0.{name}."


def _assembled(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """[N, ...] from values of the candidates that each mask [N] names."""
    of_level_N, values = parts[0]
    whole = values.new_zeros(len(of_level_N), *values.shape[1:])
    for of_level_N, values in parts:
        whole[of_level_N] = values
    return whole


def _mean_of_feeds(batch: FeedBatch, parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """[R] from values of the feeds that have any of the candidates that each mask [N] names."""
    _, values = parts[0]
    sum_R, count_R = (torch.zeros(batch.feeds, dtype=values.dtype, device=values.device) for _ in range(2))
    for of_level_N, values in parts:
        feeds = batch.feed_of_candidate_N[of_level_N].unique()
        sum_R[feeds] += values
        count_R[feeds] += 1
    return sum_R / count_R
