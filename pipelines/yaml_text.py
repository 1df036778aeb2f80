"""YAML as this project reads it: version 1.2 in what a word is, and nothing twice.

PyYAML reads version 1.1, in which `no` and `on` are booleans, 010 is 8, 12:30 is 750, 1e-3 is a word and 2026-11-29 a date.
Here a value is true or false only if that is written, a number only if it is spelled as one, and everything else, dates
included, is text: names stay what they are, and a configuration that wants a date or a boolean makes one of the text.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from models.config import ConfigError

_WORDS = {
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", ("~", "n", "N", "")),
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", tuple("tTfF")),
    # a whole number in its one spelling, so that text made of it is what was written
    "tag:yaml.org,2002:int": (r"0|-?[1-9][0-9]*", tuple("-0123456789")),
    "tag:yaml.org,2002:float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+|[0-9]+\.[0-9]*)|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        tuple("-+.0123456789"),
    ),
    "tag:yaml.org,2002:merge": (r"<<", ("<",)),
}


class _Loader(yaml.SafeLoader):
    """Plain values only."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  # filled below; those of version 1.1 are not inherited

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        for key, _ in node.value:
            lines = [other.start_mark.line + 1 for other, _ in node.value if _same(other, key)]
            if len(lines) > 1:
                raise ConfigError(f"`{key.value}` stands twice in one section, in lines {' and '.join(map(str, lines))}.")
        return super().construct_mapping(node, deep)


def _same(one: yaml.Node, other: yaml.Node) -> bool:
    return isinstance(one, yaml.ScalarNode) and (one.tag, one.value) == (other.tag, other.value)  # tags tell 1 from "1"


for _tag, (_pattern, _first) in _WORDS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))


def read_value(text: str, where: str) -> Any:
    """The value that YAML text spells.

    Args:
        where: it stands, for messages.

    Raises:
        ConfigError: it is no YAML, or has a key twice in a section.
    """
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{where}: {error} One of them would be lost; leave one.") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{where} is not YAML that can be read: it is nested too deeply, or in itself.") from None
    except ValueError as error:  # a number of thousands of digits, say
        raise ConfigError(f"{where} holds a value that cannot be read: {error}") from None


def read_file(path: Path) -> Any:
    """The value that a UTF-8 file spells, with or without a byte order mark.

    Raises:
        ConfigError: as `read_value`; or it is not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text (byte {error.start}: {error.reason}). Save it in the encoding UTF-8."
        ) from None
    return read_value(text, str(path))
