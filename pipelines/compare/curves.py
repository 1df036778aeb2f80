"""Settings of systems varied: which systems a curve asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.config import ConfigError, to_dict
from models.schema import Schema
from pipelines.compare.config import EPOCHS, CompareConfig, Curve, System, check_labels, spelled, system_of


@dataclass(frozen=True, kw_only=True)
class Varied:
    """A curve's systems, in the order of the axis.

    Attributes:
        values: of the axis; numbers from small to large, others as they are given, behind the system's own.
        systems: of the values; rows of the table where they are the same.
        own: place of the system that is varied.
    """

    curve: Curve
    values: tuple[Any, ...]
    systems: tuple[System, ...]
    own: int


def varied_of(compare: CompareConfig, schema: Schema, systems: Sequence[System]) -> tuple[Varied, ...]:
    """The curves in their order. Values that make the same system, here or in the table, share it.

    Args:
        systems: rows of the table.

    Raises:
        ConfigError: a value that does not fit its axis, one that stands twice, labels that are too much alike.
    """
    known = list(systems)
    curves = []
    for curve in compare.curves:
        own = next(system for system in systems if system.label == curve.of)
        chosen: dict[str, tuple[Any, System]] = {own.label: (_setting(own, curve.axis), own)}
        for value in curve.values:
            try:
                system = system_of(compare, schema, curve.of, curve, value)
            except ConfigError as error:
                raise ConfigError(f"compare.curves: {curve.label(value)}: {error}") from None
            if (system.model, system.epochs) == (own.model, own.epochs):
                continue
            system = next((other for other in known if _is_alike(other, system)), system)
            if system.label in chosen:
                raise ConfigError(f"compare.curves: {curve.axis} has the value {spelled(value)} twice.")
            chosen[system.label] = value, system
            known += [system] if system not in known else []
        points = list(chosen.values())
        if all(isinstance(value, int | float) for value, _ in points):
            points.sort(key=lambda point: point[0])
        curves.append(
            Varied(
                curve=curve,
                values=tuple(value for value, _ in points),
                systems=tuple(system for _, system in points),
                own=[system.label for _, system in points].index(own.label),
            )
        )
    try:
        check_labels([system.label for system in known], "curves")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return tuple(curves)


def _is_alike(one: System, other: System) -> bool:
    """Whether they are the same but for their labels."""
    return (one.model, one.schema, one.epochs, one.rate) == (other.model, other.schema, other.epochs, other.rate)


def _setting(system: System, axis: str) -> Any:
    if axis == EPOCHS:
        return system.epochs
    here: Any = to_dict(system.model)
    for part in axis.split(".")[1:]:
        here = here.get(part) if isinstance(here, dict) else None
    return here
