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

A sample is an impression. The candidates of a feed are shown at one moment, so that none is later than another: they
share one draw, at the count of the feed's first, c = earlier impressions + 1. The counter is raised before it is used, so
the first sample ever has c = 1 and Beta(1 + preference, 2 - preference).

No gradient flows through gamma, in any form: weight times loss would be made smaller by preferring nothing.
"""

from collections import Counter
from collections.abc import Mapping
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
from models.slots import SumCount, Training, Weights, Widths

DEFAULT_WIDTH = 16
SLOT_SALT = -1  # of the hash that gives a user a slot; targets have 0, 1, ...


@config
class StageConfig:
    """Weights that follow what a user is inclined to.

    Attributes:
        fields: feed-level fields that are read; None reads all.
        width: of a field in the matrix; others are brought to it by a linear map. None takes the most common width above 1
            (the largest of equally common ones), or 16 if there is none.
        window: days, one of the schema's `preference_days`; None takes the first.
        beta: `closed` takes a user's preferences for constant, so that the Beta follows from the count of earlier impressions
            in the window: any order of data, any number of workers. `running` is Algorithm 1 itself: counts and sums per
            user, in the order in which samples come, from anew every epoch; for data in order of time, on one worker.
            `none` weighs by the preference itself (STAN w/o Beta).
        users: slots for `running`, by a hash of the user's id; 8 bytes each, and 8 more a target. Users in one slot count
            as one.
    """

    kind: Literal["stage"] = "stage"
    fields: tuple[str, ...] | None = None
    width: int | None = None
    window: float | None = None
    beta: Literal["closed", "running", "none"] = "closed"
    users: int = 1_000_000

    def __post_init__(self) -> None:
        if self.fields is not None and (not self.fields or len(set(self.fields)) < len(self.fields)):
            raise ValueError(f"stage needs fields that are named once, at least one; got {list(self.fields)}.")
        if self.width is not None and self.width < 1:
            raise ValueError(f"stage needs width >= 1, got {self.width}.")
        if self.users < 1:
            raise ValueError(f"stage needs users >= 1, got {self.users}.")


class Stage(nn.Module):
    """Weights per candidate; a penalty `preference.<target>` for every target with a positive loss weight.

    A preference's squared error counts once a candidate: samples are impressions, in Eq. 11 as in Eq. 14, so a feed weighs
    the same in both losses.

    In training gamma is drawn, in evaluation mode it is the Beta's mean.

    Attributes:
        needs_one_worker: whether it keeps state of users, which several workers would not share.

    Raises:
        ConfigError: all loss weights are 0, no feed-level field, an unknown field or window.
    """

    reads_preferences = True

    count_S: Tensor
    inclined_TS: Tensor
    epoch: Tensor

    def __init__(self, config: StageConfig, schema: Schema, widths: Widths) -> None:
        super().__init__()
        self.loss_weights = {target.name: target.loss_weight for target in schema.targets}
        self.trained = tuple(name for name, weight in self.loss_weights.items() if weight > 0)
        if not self.trained:
            raise ConfigError("every target has loss_weight 0, so there is nothing to train; give one a positive weight.")
        self.net = PreferenceNet(len(self.trained), _chosen(widths.feed, config.fields), config.width)
        self.penalties = tuple(f"preference.{name}" for name in self.trained)
        self.window = _place(config.window, schema)
        self.beta = config.beta
        self.needs_one_worker = config.beta == "running"
        if config.beta == "running":
            # Algorithm 1's beta follows from its alpha and c: alpha + beta = 2 + c (c + 1) / 2
            self.register_buffer("count_S", torch.zeros(config.users, dtype=torch.int64))
            self.register_buffer("inclined_TS", torch.zeros(len(self.trained), config.users, dtype=torch.float64))
            self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

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
        candidates_R = _candidates(batch)
        penalties = {}
        for name, preference_R in zip(self.trained, preference_TR.unbind(0), strict=True):
            label_R = batch.preferences[name][:, self.window].to(preference_R.dtype)
            is_known_R = ~label_R.isnan()
            error_R = label_R.where(is_known_R, 0.0) - preference_R
            counted_R = (candidates_R * is_known_R).to(error_R.dtype)
            penalties[f"preference.{name}"] = ((error_R.square() * counted_R).sum(), counted_R.sum())
        return penalties

    def _gamma(self, preference_TR: Tensor, training: Training) -> Tensor:
        if self.beta == "none":
            return preference_TR
        batch, exact_TR = training.batch, preference_TR.to(torch.float64)
        if self.beta == "running":
            alpha_TR, sum_R = self._running(exact_TR, training)
        else:
            if batch.earlier_RW is None:
                raise ValueError(
                    "the batch has no counts of earlier impressions, which weighting `stage` reads; prepare the data again, "
                    "or use `weighting.beta: none`."
                )
            total_R = _triangle(batch.earlier_RW[:, self.window] + 1)
            alpha_TR, sum_R = 1 + exact_TR * total_R, 2 + total_R
        if self.training:
            share_TR = torch.stack([uniform_R(batch, training.progress, salt) for salt in range(len(self.trained))])
            gamma_TR = beta_quantile(alpha_TR, sum_R - alpha_TR, share_TR)
        else:
            gamma_TR = alpha_TR / sum_R
        return gamma_TR.to(preference_TR.dtype)

    def _running(self, preference_TR: Tensor, training: Training) -> tuple[Tensor, Tensor]:
        """alpha [T, R] and alpha + beta [R] at every feed's first candidate. In training the batch is added to the state."""
        batch, epoch = training.batch, int(training.progress)
        slot_R = (uniform_R(batch, 0.0, SLOT_SALT) * len(self.count_S)).to(torch.int64)
        candidates_R = _candidates(batch)
        if self.training and epoch != self.epoch:
            self.count_S.zero_()
            self.inclined_TS.zero_()
            self.epoch.fill_(epoch)
        earlier_R = self.count_S[slot_R] + _sum_before(candidates_R, slot_R)
        total_R = _triangle(earlier_R + candidates_R) - _triangle(earlier_R)  # of the counts of the feed's candidates
        inclined_TR = preference_TR * total_R
        before_TR = self.inclined_TS[:, slot_R] + torch.stack([_sum_before(each_R, slot_R) for each_R in inclined_TR])
        if self.training:
            self.count_S.index_add_(0, slot_R, candidates_R)
            self.inclined_TS.index_add_(1, slot_R, inclined_TR.to(self.inclined_TS.dtype))
        return 1 + before_TR + preference_TR * (earlier_R + 1), 2 + _triangle(earlier_R + 1)


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


def _candidates(batch: FeedBatch) -> Tensor:
    """[R], int64: how many candidates each feed has."""
    return torch.bincount(batch.feed_of_candidate_N, minlength=batch.feeds)


def _triangle(count: Tensor) -> Tensor:
    """1 + 2 + ... + count, float64."""
    exact = count.to(torch.float64)
    return exact * (exact + 1) / 2


def _sum_before(value_R: Tensor, slot_R: Tensor) -> Tensor:
    """[R]: sum of the values of earlier rows with the same slot."""
    order_R = slot_R.argsort(stable=True)
    sorted_R, slots_R = value_R[order_R], slot_R[order_R]
    before_R = sorted_R.cumsum(0) - sorted_R
    sum_R = torch.empty_like(before_R)
    sum_R[order_R] = before_R - before_R[torch.searchsorted(slots_R, slots_R)]
    return sum_R
