"""The one number that decides which epoch was best."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.config import ConfigError
from models.metrics.names import direction, value_of
from models.schema import Schema


@dataclass(frozen=True)
class Monitor:
    """A metric of the validation split and the way in which it is better.

    Attributes:
        path: `target.metric` or `mean.metric`; None is the mean AUC over binary targets that are trained for, or where
            there are none the mean squared error (of transformed values) over the values.
        trained: names of the targets that are trained for; None takes those with a loss weight.

    Raises:
        ConfigError: no such target or metric.
    """

    schema: Schema
    path: str | None = None
    trained: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.path is None:
            return
        try:
            direction(self.path)
        except KeyError as error:
            raise ConfigError(f"train.monitor: {error.args[0]}") from None
        known = (*(self.trained or self.schema.target_names), "mean")
        if self.path.split(".")[0] not in known:
            raise ConfigError(f"train.monitor is `{self.path}`, which begins with none that is trained: {', '.join(known)}.")

    @property
    def name(self) -> str:
        return self.path or self._default()[0]

    def value(self, metrics: dict[str, Any]) -> float:
        """The number.

        Raises:
            ConfigError: the validation split does not define it (one class only, say).
        """
        _, paths = self._default() if self.path is None else ("", [self.path])
        try:
            values = [value for value in (value_of(metrics, path) for path in paths) if value is not None]
        except KeyError as error:
            raise ConfigError(f"train.monitor: {error.args[0]}") from None
        if not values:
            raise ConfigError(
                f"train.monitor: {', '.join(paths)} is not defined on the validation split ({metrics['rows']} candidates; "
                "an AUC needs positives and negatives). Use more validation days or another monitor, mean.log_loss say."
            )
        return float(np.mean(values))

    def is_better(self, value: float, than: float) -> bool:
        way = direction(self.path or self._default()[1][0])
        merit = {"max": lambda x: x, "min": lambda x: -x, "one": lambda x: -abs(x - 1)}[way]
        return merit(value) > merit(than)

    def _default(self) -> tuple[str, list[str]]:
        weighted = self.trained or tuple(target.name for target in self.schema.targets if target.loss_weight > 0)
        trained = [target for target in self.schema.targets if not weighted or target.name in weighted]
        binary = [f"{target.name}.auc" for target in trained if target.is_binary]
        return ("auc", binary) if binary else ("mse_transformed", [f"{target.name}.mse_transformed" for target in trained])
