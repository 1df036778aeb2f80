"""Configuration as frozen dataclasses: a YAML or JSON file is a spelling of them.

Unknown keys are refused together with the known ones, and every complaint names the path of the value it is about.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, dataclass_transform

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type[T]) -> type[T]:
    """Class decorator: a frozen, keyword-only dataclass whose spelling allows no unknown keys."""
    cls.__pydantic_config__ = {"extra": "forbid", "allow_inf_nan": False}  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True, kw_only=True)(cls)


class ConfigError(ValueError):
    """A value that a configuration does not allow; the message says where, what was found and what would do."""


def from_dict(cls: type[T], spelling: Mapping[str, Any], *, where: str = "") -> T:
    """Builds `cls` (made by `config`) from plain dicts, lists and scalars.

    Raises:
        ConfigError: an unknown key, a missing one, a wrong type or a value the class itself refuses.
    """
    try:
        value = _adapter(cls).validate_python(dict(spelling))  # type: ignore[arg-type]  # classes are hashable
    except ValidationError as error:
        lines = [_complaint(cls, item, where) for item in error.errors(include_url=False)]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None
    lines = [f"`{path}` is {was}: input should be a number." for path, was in _truths_as_numbers(spelling, value, where)]
    lines += [f"`{path}` is {was}: no number here may be beyond 2**63." for path, was in _too_large(spelling, where)]
    if lines:
        raise ConfigError("\n".join(lines))
    return value


def to_dict(value: Any) -> dict[str, Any]:
    """The plain spelling of a config: `from_dict(type(value), to_dict(value)) == value`."""
    return _adapter(type(value)).dump_python(value, mode="json")  # type: ignore[arg-type]  # classes are hashable


def replaced(spelling: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of nested dicts with the value at the dotted `path` set; missing dicts on the way are made.

    >>> replaced({"train": {"epochs": 1}}, "train.epochs", 3)
    {'train': {'epochs': 3}}
    """
    head, _, rest = path.partition(".")
    inner = spelling.get(head)
    if rest:
        if inner is not None and not isinstance(inner, Mapping):
            raise ConfigError(f"`{path}`: `{head}` is {inner!r}, not a section, so nothing can be set below it.")
        value = replaced(inner or {}, rest, value)
    return {**spelling, head: value}


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`, section by section; a section of another `kind` replaces, so no key of the old one remains.

    >>> overlaid({"kind": "a", "x": 1, "y": 2}, {"y": 3})
    {'kind': 'a', 'x': 1, 'y': 3}
    >>> overlaid({"s": {"kind": "a", "x": 1}}, {"s": {"kind": "b"}})
    {'s': {'kind': 'b'}}
    """
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and value.get("kind", old.get("kind")) == old.get("kind"):
            value = overlaid(old, value)
        result[key] = value
    return result


@functools.cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    return TypeAdapter(cls)  # costly to make, and the same for good


def _truths_as_numbers(spelling: Any, value: Any, path: str) -> Iterator[tuple[str, bool]]:
    """Where `true` and `false`, which Python takes for 1 and 0, have become numbers."""
    if isinstance(spelling, bool) and not isinstance(value, bool):
        yield path, spelling
    elif isinstance(spelling, Mapping):
        for key, each in spelling.items():
            inner = value.get(key) if isinstance(value, Mapping) else getattr(value, key, each)
            yield from _truths_as_numbers(each, inner, f"{path}.{key}" if path else str(key))
    elif isinstance(spelling, list | tuple) and isinstance(value, list | tuple):
        for place, (each, inner) in enumerate(zip(spelling, value, strict=False)):
            yield from _truths_as_numbers(each, inner, f"{path}.{place}")


def _too_large(spelling: Any, path: str) -> Iterator[tuple[str, int]]:
    """Whole numbers that int64, in which arrays and files count, does not hold."""
    if isinstance(spelling, int) and not -(2**63) <= spelling < 2**63:
        yield path, spelling
    elif isinstance(spelling, Mapping):
        for key, each in spelling.items():
            yield from _too_large(each, f"{path}.{key}" if path else str(key))
    elif isinstance(spelling, list | tuple):
        for place, each in enumerate(spelling):
            yield from _too_large(each, f"{path}.{place}")


def _complaint(cls: type, item: Mapping[str, Any], where: str) -> str:
    path = [part for part in item["loc"]]
    dotted = ".".join(str(part) for part in ([where] if where else []) + path)
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "unexpected_keyword_argument":
        owner = _class_at(cls, path[:-1])
        known = ", ".join(field.name for field in dataclasses.fields(owner)) if owner else "?"
        return f"`{dotted}` is not a known key. Known here: {known}."
    if item["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"}:
        return f"`{dotted}` is missing."
    if item["type"] in {"value_error", "assertion_error"}:
        return f"{dotted + ': ' if dotted else ''}{message}"
    if item["type"] == "string_type" and isinstance(item["input"], bool | int | float):
        spelled = str(item["input"]).lower() if isinstance(item["input"], bool) else item["input"]
        # 1.10 and 1e3 have lost their spelling, so no spelling is proposed
        return f"`{dotted}` is {spelled} to YAML, not text. Put it in quotes as you spelled it (and in the shell's)."
    return f"`{dotted}` is {item['input']!r}: {message[0].lower() + message[1:]}."


def _class_at(cls: Any, path: list[Any]) -> type | None:
    """The dataclass that a pydantic error location leads to, or None where a union hides it."""
    for part in path:
        candidates: list[Any] = [cls]
        while candidates:
            here: Any = candidates.pop(0)
            if dataclasses.is_dataclass(here):
                if part == getattr(here, "__name__", None) or part == getattr(here, "kind", None):
                    cls = here
                    break
                hints = typing.get_type_hints(here, include_extras=False)
                if part in hints:
                    cls = hints[part]
                    break
            elif typing.get_origin(here) in (typing.Union, types.UnionType, tuple, list, dict):
                args = [arg for arg in typing.get_args(here) if arg is not Ellipsis and arg is not type(None)]
                if isinstance(part, int) or typing.get_origin(here) is dict:
                    cls = args[-1]
                    break
                candidates.extend(args)
    if typing.get_origin(cls) in (typing.Union, types.UnionType):
        found: list[Any] = [arg for arg in typing.get_args(cls) if dataclasses.is_dataclass(arg)]
        return found[0] if len(found) == 1 else None
    return cls if isinstance(cls, type) and dataclasses.is_dataclass(cls) else None
