"""Stage-adaptive weights (Li et al. 2023, "STAN: stage-adaptive network for multi-task recommendation by learning user
lifecycle-based representation", Sec. 3.2-3.4).

    # R feeds, N candidates, T trained targets, F feed-level fields (d1), D their width (d2), S slots of users

A net reads the feed's fields as a matrix U [F, D] and tells, per target t, how much the user is inclined to it:

    U' = softmax((W_Q U)(W_K U)^T / sqrt(F)) W_V U      W [F, F] mix fields; the softmax runs over what is attended (Eq. 7)
    s_t = U' * softmax(U' W_t)                          W_t [D, D]; elementwise product (Eq. 8)
    preference_t = sigmoid(w_t . vec(s_t) + b_t)                                        (Eq. 9)

The paper writes W_t U', whose shapes do not fit; W_t can only act on the width. Its softmax runs over fields here, since
it is to weigh "the importance of different features". The preference learns the mean of the user's labels before the feed
(Eq. 10-11); a user without any teaches nothing.

The weight of target t in the loss of a feed is loss_weight_t gamma_t (Eq. 5, 13), gamma_t drawn from Beta(alpha, beta),
which gathers the preferences of the user's samples, a later one counting more (Algorithm 1): at the user's c-th sample,

    alpha = 1 + sum over i <= c of i preference_i,      beta = 1 + sum over i <= c of i (1 - preference_i).

A sample is an impression. A preference hardly moves from one of a user's samples to the next, so it is taken for constant here,
and the Beta follows from c alone: alpha = 1 + preference c (c + 1) / 2, and so on. (Algorithm 1 itself would have to read
samples in order of time and keep sums of every user.)

Two things the paper does not say, and both decide what the weights are; see `StageConfig`.

* Algorithm 1 runs over "the input". As all that came before a sample, with hundreds of impressions a user, gamma is the
  preference itself, and the Beta does nothing; as the batch, a user's samples are few, and gamma is drawn from a wide Beta. The
  paper's own data has 8 impressions a user.
* Eq. 10 is a mean over samples. Of impressions, the preference of an order is tiny, and its loss counts next to nothing for all
  but new users; of entered rooms it is the conversion rate of which Sec. 5 speaks (.7 and .2).

The candidates of a feed are shown at one moment, so that none is later than another: they share one draw, at the count of the
feed's first. The counter is raised before it is used, so the first sample ever has c = 1 and Beta(1 + preference, 2 -
preference).

Before training, `start` sets the output's bias so that preferences begin at the mean of what they learn. Beginning at one half,
weights would fall up to ninety times in the first steps, while Adam's second moments still knew the larger gradients.

No gradient flows through gamma, in any form: weight times loss would be made smaller by preferring nothing.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from models.batch import FeedBatch
from models.config import ConfigError, config
from models.layers.beta import beta_quantile
from models.layers.draws import uniform_R
from models.layers.embedding import Embedded
from models.layers.heads import at_least_float32
from models.layers.mlp import LinearBank, plain_uniform
from models.schema import Schema
from models.slots import PseudoLabel, SumCount, Training, Weights, Widths, candidates_of_feeds, candidates_of_users

DEFAULT_WIDTH = 16
SMALLEST_START = 1e-4  # of a preference; nothing is known of what never happened


@config
class StageConfig:
    """Weights that follow what a user is inclined to.

    Attributes:
        fields: feed-level fields that are read; None reads all.
        width: of a field in the matrix; others are brought to it by a linear map. None takes the most common width above 1
            (the largest of equally common ones), or 16 if there is none.
        window: days, one of the schema's `preference_days`; None takes the first.
        pseudo_label: what a preference is a rate of. `impression`: the mean label of all earlier impressions of the user.
            `click`: orders, seconds and so on a click, the rates by which rule-based stages are told; the click itself, and
            what does not follow from it, of an impression. The schema's `stages` name the click.
        counter: what a user's c counts. `running`: all earlier impressions of the window. `batch`: the user's candidates of
            the joint batch, which share one gamma.
        beta: whether gamma is drawn; else it is the preference itself (STAN w/o Beta).
    """

    kind: Literal["stage"] = "stage"
    fields: tuple[str, ...] | None = None
    width: int | None = None
    window: float | None = None
    pseudo_label: PseudoLabel = "impression"
    counter: Literal["running", "batch"] = "running"
    beta: bool = True

    def __post_init__(self) -> None:
        if self.fields is not None and (not self.fields or len(set(self.fields)) < len(self.fields)):
            raise ValueError(f"stage needs fields that are named once, at least one; got {list(self.fields)}.")
        if self.width is not None and self.width < 1:
            raise ValueError(f"stage needs width >= 1, got {self.width}.")


class Stage(nn.Module):
    """Weights per candidate; a penalty `preference.<target>` for every target with a positive loss weight.

    A preference's squared error counts once a candidate: samples are impressions, in Eq. 11 as in Eq. 14, so a feed weighs
    the same in both losses.

    In training gamma is drawn, in evaluation mode it is the Beta's mean.

    Raises:
        ConfigError: all loss weights are 0, no feed-level field, an unknown field or window, rates of a click without `stages`.
    """

    def __init__(self, config: StageConfig, schema: Schema, widths: Widths) -> None:
        super().__init__()
        self.loss_weights = {target.name: target.loss_weight for target in schema.targets}
        self.trained = tuple(name for name, weight in self.loss_weights.items() if weight > 0)
        if not self.trained:
            raise ConfigError("every target has loss_weight 0, so there is nothing to train; give one a positive weight.")
        if config.pseudo_label == "click" and schema.stages is None:
            raise ConfigError(
                "`weighting.pseudo_label: click` counts by the click that `schema.stages` names, but the schema declares none; "
                "add `stages`, or take `pseudo_label: impression`."
            )
        self.net = PreferenceNet(len(self.trained), _chosen(widths.feed, config.fields), config.width)
        self.penalties = tuple(f"preference.{name}" for name in self.trained)
        self.varying = self.trained
        self.window = _place(config.window, schema)
        self.config = config
        self.reads_preferences: PseudoLabel = config.pseudo_label
        self.counts_in_batch = config.beta and config.counter == "batch"

    @torch.no_grad()
    def start(self, means: Mapping[str, Sequence[float | None]]) -> None:
        """Lets preferences begin at what they learn in the mean.

        Args:
            means: by target, of its pseudo-labels in each of the schema's windows over all training candidates; None where
                there is none, and the preference begins at one half.
        """
        for place, name in enumerate(self.trained):
            mean = means[name][self.window]
            if mean is not None:
                mean = min(max(mean, SMALLEST_START), 1 - SMALLEST_START)
                self.net.output.bias_B1H[place].fill_(math.log(mean / (1 - mean)))

    def forward(self, embedded: Embedded, training: Training) -> Weights:
        """Raises: ValueError if the batch lacks preferences or counts of earlier impressions."""
        batch = training.batch
        preference_TR = self.net(embedded)
        gamma_TR = self._gamma(preference_TR.detach(), training)
        weights: dict[str, float | Tensor] = dict.fromkeys(self.loss_weights, 0.0)
        for name, gamma_R in zip(self.trained, gamma_TR.unbind(0), strict=True):
            weights[name] = self.loss_weights[name] * gamma_R[batch.feed_of_candidate_N]
        return Weights(targets=weights, penalties=self._penalties(preference_TR, batch))

    def preferences(self, embedded: Embedded) -> dict[str, Tensor]:
        """[R] by trained target, in (0, 1)."""
        return dict(zip(self.trained, self.net(embedded).unbind(0), strict=True))

    def _penalties(self, preference_TR: Tensor, batch: FeedBatch) -> dict[str, SumCount]:
        missing = [name for name in self.trained if name not in batch.preferences]
        if missing:
            raise ValueError(
                f"the batch has no running preferences of {', '.join(f'`{name}`' for name in missing)}, which weighting "
                "`stage` learns; prepare the data again."
            )
        candidates_R = candidates_of_feeds(batch)
        penalties = {}
        for name, preference_R in zip(self.trained, preference_TR.unbind(0), strict=True):
            label_R = batch.preferences[name][:, self.window].to(preference_R.dtype)
            is_known_R = ~label_R.isnan()
            error_R = label_R.where(is_known_R, 0.0) - preference_R
            counted_R = (candidates_R * is_known_R).to(error_R.dtype)
            penalties[f"preference.{name}"] = ((error_R.square() * counted_R).sum(), counted_R.sum())
        return penalties

    def _gamma(self, preference_TR: Tensor, training: Training) -> Tensor:
        if not self.config.beta:
            return preference_TR
        batch = training.batch
        total_R = _triangle(self._samples(training))
        alpha_TR, sum_R = 1 + preference_TR.to(torch.float64) * total_R, 2 + total_R
        if self.training:
            share_TR = torch.stack([uniform_R(batch, training.progress, salt) for salt in range(len(self.trained))])
            gamma_TR = beta_quantile(alpha_TR, sum_R - alpha_TR, share_TR)
        else:
            gamma_TR = alpha_TR / sum_R
        return gamma_TR.to(preference_TR.dtype)

    def _samples(self, training: Training) -> Tensor:
        """c of every feed, int64 [R]."""
        batch = training.batch
        if self.counts_in_batch:
            return candidates_of_users(batch) if training.of_user_R is None else training.of_user_R
        if batch.earlier_RW is None:
            raise ValueError(
                "the batch has no counts of earlier impressions, which weighting `stage` reads; prepare the data again, "
                "or use `weighting.beta: false`."
            )
        return batch.earlier_RW[:, self.window] + 1


class PreferenceNet(nn.Module):
    """Eq. 6-9: embedded fields -> [T, R] in (0, 1), at least float32.

    Args:
        fields: width of each field that is read.
        width: of all fields in the matrix, see `StageConfig`.
    """

    def __init__(self, targets: int, fields: Mapping[str, int], width: int | None) -> None:
        super().__init__()
        self.fields = tuple(fields)
        self.width = width or _most_common_width(fields)
        others = sorted({each for each in fields.values() if each != self.width})
        self.of_width = {each: tuple(name for name in fields if fields[name] == each) for each in others}
        self.maps = nn.ModuleDict(
            {f"width_{each}": LinearBank(len(self.of_width[each]), each, self.width, before_relu=False) for each in others}
        )
        count = len(fields)
        self.query_FF = plain_uniform(count, count, inputs=count)
        self.key_FF = plain_uniform(count, count, inputs=count)
        self.value_FF = plain_uniform(count, count, inputs=count)
        self.importance_T1DD = plain_uniform(targets, 1, self.width, self.width, inputs=self.width)
        self.output = LinearBank(targets, count * self.width, 1, before_relu=False)

    def forward(self, embedded: Embedded) -> Tensor:
        user_RFD = self._matrix(embedded)
        scores_RFF = (self.query_FF @ user_RFD) @ (self.key_FF @ user_RFD).transpose(1, 2) / len(self.fields) ** 0.5
        mixed_RFD = scores_RFF.softmax(2) @ (self.value_FF @ user_RFD)
        important_TRFD = (mixed_RFD @ self.importance_T1DD).softmax(2)
        logit_TR1 = self.output((mixed_RFD * important_TRFD).flatten(2))
        return at_least_float32(logit_TR1).squeeze(2).sigmoid()

    def _matrix(self, embedded: Embedded) -> Tensor:
        vectors = dict(embedded.feed)
        for each, names in self.of_width.items():
            narrow_BRW = torch.stack([vectors[name] for name in names])
            vectors.update(zip(names, self.maps[f"width_{each}"](narrow_BRW).unbind(0), strict=True))
        return torch.stack([vectors[name] for name in self.fields], dim=1)


def _chosen(widths: Mapping[str, int], fields: tuple[str, ...] | None) -> dict[str, int]:
    if not widths:
        raise ConfigError(
            "weighting `stage` tells users apart by their fields, but the schema has no field `of: feed`; add one, "
            "or use weighting `fixed`."
        )
    unknown = [name for name in fields or () if name not in widths]
    if unknown:
        raise ConfigError(f"`weighting.fields` names {unknown}, which are not feed-level fields. Those are: {list(widths)}.")
    return {name: width for name, width in widths.items() if fields is None or name in fields}


def _place(window: float | None, schema: Schema) -> int:
    if window is None:
        return 0
    if window not in schema.preference_days:
        raise ConfigError(
            f"`weighting.window` is {window} days, which is none of the schema's preference_days: "
            f"{list(schema.preference_days)}."
        )
    return schema.preference_days.index(window)


def _most_common_width(fields: Mapping[str, int]) -> int:
    times = Counter(width for width in fields.values() if width > 1)
    return max(times, key=lambda width: (times[width], width)) if times else DEFAULT_WIDTH


def _triangle(count: Tensor) -> Tensor:
    """1 + 2 + ... + count, float64."""
    exact = count.to(torch.float64)
    return exact * (exact + 1) / 2
