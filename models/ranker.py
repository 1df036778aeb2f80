"""A ranker is a choice per slot: embedding -> interest -> fusion -> coupling, and a weighting for training.

# R feeds, N candidates, H width
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as default
from typing import Literal

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import ConfigError, config
from models.couplings import COUPLINGS, CouplingConfig
from models.couplings.esmm import EsmmConfig
from models.couplings.independent import IndependentConfig
from models.fusions import FUSIONS, FusionConfig
from models.fusions.shared_bottom import SharedBottomConfig
from models.interests import INTERESTS, InterestConfig
from models.interests.pooling import PoolingConfig
from models.layers.dropout import number_dropouts, rows_N
from models.layers.embedding import Embedded, Embedding
from models.layers.numbers import NumbersConfig, RawConfig
from models.layers.tables import Gathered, TableSet
from models.layers.unknown import with_hidden_ids
from models.layers.wide import Wide
from models.losses import Losses
from models.schema import LOG, STAGES, Schema
from models.slots import STAGE, Compared, Insight, Interests, Probe, SumCount, Together, Training, Vectors, Weights, Widths
from models.weightings import WEIGHTINGS, WeightingConfig
from models.weightings.fixed import FixedConfig


@config
class RankerConfig:
    """One filling for each slot of a ranker.

    Attributes:
        embedding_width: of tables whose fields declare none.
        numbers: how float fields enter.
        wide: add a part that is linear in the fields themselves (`layers.wide`).
        stage: read the user's rule-based stage as a feature (PLE_stage of the STAN paper); the schema must declare `stages`.
        hidden_ids: share of the candidates' vocabulary ids hidden in training, so that ids born later are met
            (`layers.unknown`); 0 for ids that live long.
        interest: what is made of histories.
        fusion: how inputs become one vector a target.
        coupling: how a target's outputs depend on its parents.
        weighting: of the targets' losses.
        children: which candidates a target with parents is learnt over. `all`: every one, with label 0 where a parent did not
            happen. `entered`: those whose parents happened, say whose room was entered; its prediction is then what it learnt
            times the chances of what is above it. The papers do not say which.
    """

    embedding_width: int = 16
    numbers: NumbersConfig = default(default_factory=RawConfig)
    wide: bool = False
    stage: bool = False
    hidden_ids: float = 0.0
    interest: InterestConfig = default(default_factory=PoolingConfig)
    fusion: FusionConfig = default(default_factory=SharedBottomConfig)
    coupling: CouplingConfig = default(default_factory=IndependentConfig)
    weighting: WeightingConfig = default(default_factory=FixedConfig)
    children: Literal["all", "entered"] = "all"

    def __post_init__(self) -> None:
        if self.embedding_width < 1:
            raise ValueError(f"a ranker needs embedding_width >= 1, got {self.embedding_width}.")
        if not 0 <= self.hidden_ids < 1:
            raise ValueError(f"a ranker needs 0 <= hidden_ids < 1, got {self.hidden_ids}.")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A batch as training sees it.

    Attributes:
        outputs: by target, as a coupling gives them (`slots.Coupled`).
        weights: of the targets in the loss.
        penalties: losses that parts add, by name.
        compared: rows for the ranker's `together`; None without such losses.
        over: bool [N] by target, the candidates that it is learnt over; all for one that is not named.
    """

    outputs: Mapping[str, Tensor]
    weights: Weights
    penalties: Mapping[str, SumCount]
    compared: Compared | None
    over: Mapping[str, Tensor] = default(default_factory=dict)


class Ranker(nn.Module):
    """Predicts every target of a schema for every candidate of a batch of feeds.

    Args:
        schema: what a feed holds and which targets hang on which.
        config: the fillings.
        table_sizes: rows of each table, row 0 included.

    Attributes:
        penalties: names of all losses that its parts may add in training, as sums over workers.
        together: losses that compare the rows of all workers; None without.
        trained: names of the targets that it learns, which are those it predicts.
        curriculum_epochs: until training is shown no more than predicting (`couplings`).
        contrasted: histories beside which it wants an entry of another user, in training (`batch.Others`).
        is_probed: whether a part has anything to tell to `probe`.

    Raises:
        ValueError: a table without a size.
        ConfigError: a filling that cannot work on this schema.
    """

    def __init__(self, schema: Schema, config: RankerConfig, table_sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.schema = schema
        self.config = config
        self.embedding = Embedding(schema, table_sizes, config.embedding_width, config.numbers)
        self.interest = INTERESTS[config.interest.kind](config.interest, schema, self.embedding.inputs)
        widths: Widths = self.embedding.widths | self.interest.widths
        self.stages = None
        if config.stage:
            if schema.stages is None:
                raise ConfigError("`model.stage` reads users' stages, but the schema declares none; add `schema.stages`.")
            self.stages = nn.Embedding(len(STAGES), config.embedding_width)
            nn.init.normal_(self.stages.weight, std=0.01)  # as the tables' rows
            widths = widths | Widths(feed={STAGE: config.embedding_width})
        self.fusion = FUSIONS[config.fusion.kind](config.fusion, schema, widths)
        self.wide = Wide(schema, table_sizes) if config.wide else None
        # the wide part stands beside a target's vector, so that every coupling can take it in before its last layer
        target_widths = {name: width + config.wide for name, width in self.fusion.widths.items()}
        self.coupling = COUPLINGS[config.coupling.kind](config.coupling, schema, target_widths)
        self.weighting = WEIGHTINGS[config.weighting.kind](config.weighting, schema, self.embedding.widths)
        number_dropouts(self)
        self.losses = Losses(schema, entered=config.children == "entered")
        self.penalties: tuple[str, ...] = (*self.interest.penalties, *self.coupling.penalties, *self.weighting.penalties)
        self.together: Together | None = self.interest.together
        self.trained: tuple[str, ...] = self.weighting.trained
        self.curriculum_epochs: int = self.coupling.curriculum_epochs
        self.contrasted: tuple[str, ...] = getattr(self.interest, "contrasted", ())
        self.is_probed = hasattr(self.interest, "probe")
        if config.children == "entered":
            self._check_children()

    def _check_children(self) -> None:
        """That a child's chance given its parents can be learnt, and multiplied with theirs."""
        speaks_of_all = (
            "esmm"
            if isinstance(self.config.coupling, EsmmConfig)
            else "aitm's calibrator"
            if "aitm.calibrator" in self.coupling.penalties
            else None
        )
        if speaks_of_all is not None:
            raise ConfigError(
                f"`model.children: entered` learns chances given that parents happened, but coupling {speaks_of_all} speaks of "
                "chances over all candidates. Take `children: all`, or a coupling without it."
            )
        for name in self.trained:
            untrained = [ancestor for ancestor in self.schema.ancestors(name) if ancestor not in self.trained]
            if untrained:
                raise ConfigError(
                    f"`model.children: entered` predicts `{name}` as a product with the chance of `{untrained[0]}`, which is "
                    f"not trained. Give `{untrained[0]}` a loss weight, or take `children: all`."
                )

    def table_sets(self) -> dict[str, TableSet]:
        """All embedding tables by module name; every other parameter is dense."""
        return {name: module for name, module in self.named_modules() if isinstance(module, TableSet)}

    def for_training(self, batch: FeedBatch, progress: float) -> FeedBatch:
        """The batch as a learner should see it: with some ids hidden, where the config says so.

        Args:
            progress: as in `outcome`.
        """
        return with_hidden_ids(batch, self.schema, self.config.hidden_ids, progress)

    def gather(self, batch: FeedBatch) -> dict[nn.Module, Gathered]:
        """The table rows that the batch reads, as leaves to differentiate (see `layers.tables`)."""
        return {tables: tables.gather(batch) for tables in self.table_sets().values()}

    def forward(self, batch: FeedBatch, gathered: Mapping[nn.Module, Gathered] | None = None) -> dict[str, Tensor]:
        """Outputs by target (`slots.Coupled`): logits of binary targets, what the heads of values read.

        Args:
            gathered: from `gather` for the same batch; None reads the tables themselves.
        """
        _, vectors, _ = self._inputs(batch, None, gathered)
        return dict(self.coupling(self._with_wide(self.fusion(vectors), batch, gathered), None).outputs)

    def predict(self, batch: FeedBatch, *, untaught: bool = False, judged: bool = False) -> dict[str, Tensor]:
        """[N] by target that is trained for: probabilities of binary targets, expectations of values in the label's unit.

        Args:
            untaught: those of weight 0 as well, which no loss of their own has taught anything. What they are worth is what
                other targets hand on; they are for judging, and for nothing else.
            judged: as in `Losses.predictions`.
        """
        predicted = self.losses.predictions(self(batch), judged=judged)
        return (
            predicted
            if untaught
            else {name: each for name, each in predicted.items() if name.removeprefix(LOG) in self.trained}
        )

    def outcome(
        self,
        batch: FeedBatch,
        gathered: Mapping[nn.Module, Gathered] | None = None,
        *,
        progress: float = 0.0,
        of_user_R: Tensor | None = None,
    ) -> Outcome:
        """Outputs, and what else training needs.

        Args:
            gathered: as in `forward`.
            progress: epochs that training has behind it, fractions included.
            of_user_R: as in `slots.Training`.
        """
        beliefs = self.losses.beliefs(batch.labels, batch.early)
        training = Training(progress=progress, batch=batch, beliefs=beliefs, of_user_R=of_user_R)
        embedded, vectors, interests = self._inputs(batch, training, gathered)
        coupled = self.coupling(self._with_wide(self.fusion(vectors), batch, gathered), training)
        weights = self.weighting(embedded, training)
        return Outcome(
            outputs=coupled.outputs,
            weights=weights,
            penalties={**interests.penalties, **coupled.penalties, **weights.penalties},
            compared=interests.compared,
            over=self.losses.over(batch.labels, batch.early),
        )

    def insight(self, batch: FeedBatch) -> Insight:
        """What the parts show of themselves on a batch."""
        embedded, vectors, _ = self._inputs(batch, None, None)
        return Insight(
            gates=self.fusion.gates(vectors),
            edges=self.coupling.edges(self._with_wide(self.fusion(vectors), batch, None)),
            preferences=self.weighting.preferences(embedded),
        )

    def probe(self, batch: FeedBatch) -> dict[str, Probe]:
        """Numbers by name that tell on a batch whether its parts do what they are there for; none of parts without any."""
        return self.interest.probe(self.embedding(batch), batch) if self.is_probed else {}

    def _inputs(
        self, batch: FeedBatch, training: Training | None, gathered: Mapping[nn.Module, Gathered] | None
    ) -> tuple[Embedded, Vectors, Interests]:
        """What the fusion reads, and what it was made of."""
        embedded = self.embedding(batch, gathered)
        interests = self.interest(embedded, batch, training, gathered)
        stage = {}
        if self.stages is not None:
            if batch.stage_R is None:
                raise ValueError("the batch has no stages of users, which `model.stage` reads; prepare the data again.")
            stage[STAGE] = self.stages(batch.stage_R)
        vectors = Vectors(
            feed={**embedded.feed, **interests.feed, **stage},
            candidate={**embedded.candidate, **interests.candidate},
            feed_of_candidate_N=batch.feed_of_candidate_N,
            level_N=batch.level_N,
            rows_N=rows_N(training),
        )
        return embedded, vectors, interests

    def _with_wide(
        self, vectors: dict[str, Tensor], batch: FeedBatch, gathered: Mapping[nn.Module, Gathered] | None
    ) -> dict[str, Tensor]:
        if self.wide is None:
            return vectors
        wide_NT = self.wide(batch, gathered)
        return {
            name: torch.cat([vectors[name], wide_NT[:, index : index + 1]], dim=1)
            for index, name in enumerate(self.schema.target_names)
        }
