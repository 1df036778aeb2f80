"""Writes `docs/config.md` and `docs/columns.md`: `python -m docs.generate`, or `--check` to see whether they are current.

A key's type and default come from its dataclass, its meaning from the `Attributes:` section of the class's docstring; raw
columns come from the catalogue. Meanings are therefore written once, beside the code that they are about.
"""

import argparse
import dataclasses
import functools
import inspect
import json
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

from models.catalogue import WINDOWS, Line, listing
from models.config import to_dict
from models.system import SystemConfig
from pipelines.experiment import Experiment

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent

# Units that a key's name tells.
UNITS = {"seconds": "seconds", "hours": "hours", "hour": "hours", "days": "days", "mb": "MB", "cpus": "CPUs", "gpus": "GPUs"}
WORDS = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    Path: "path",
    date: "date",
    datetime: "date and time",
    Any: "any value",
}
HEAD = """# Configuration

<!-- Written by `python -m docs.generate` from the classes named below. Change the docstrings there, not this page. -->

An experiment is one YAML file. Every job takes it with `--config FILE`, and changes single values with `--set a.b=c`, where
`c` is read as YAML: `--set train.epochs=2`, `--set 'compare.seeds=[0, 1]'`, `--set ray.address=null`.

* A key that is not listed here is refused, together with the known ones. So is a value of the wrong type or out of range.
* `extends: other.yaml`, on the first level of a file, lays the file over another one. Sections are merged key by key, lists
  and single values replace, and `null` takes a key of the other file away, so that its default stands.
* Where a section comes in several kinds, `kind` (in a search's space `type`) tells them apart. A section of another kind
  replaces the one below it whole.
* Times are seconds, hours or days, as the unit beside a key says. A key without a unit is a count, a share or a plain number;
  its meaning tells which.
* A key without a default must be given.
"""


@dataclass(frozen=True)
class Section:
    """One heading of the page.

    Attributes:
        path: of the section in an experiment (`train.optimiser`); items of a list and values of a mapping have `[]` behind it.
        kind: the value of `kind` or `type` that chooses it; empty where there is no choice.
        cls: the class whose spelling it is.
    """

    path: str
    kind: str
    cls: type

    @property
    def title(self) -> str:
        return f"{self.path}: {self.kind}" if self.kind else self.path

    @property
    def anchor(self) -> str:
        return anchor(self.title)


def anchor(title: str) -> str:
    """The anchor that GitHub gives a heading: lower case, signs left out, blanks as hyphens."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def meanings(cls: type) -> dict[str, str]:
    """Meanings of a class's attributes by name, from its docstring and those of its bases. `a, b: text` gives both the text."""
    return {name: text for each in reversed(cls.__mro__) for name, text in _own_meanings(each).items()}


def _own_meanings(cls: type) -> dict[str, str]:
    lines = inspect.cleandoc(cls.__doc__ or "").splitlines()
    if "Attributes:" not in [line.strip() for line in lines]:
        return {}
    found: dict[str, str] = {}
    names: list[str] = []
    indent: int | None = None
    for line in lines[[line.strip() for line in lines].index("Attributes:") + 1 :]:
        depth = len(line) - len(line.lstrip())
        indent = depth if indent is None else indent
        if not line.strip() or depth < indent:
            break
        if depth == indent:
            head, _, text = line.strip().partition(": ")
            names = [name.strip() for name in head.split(",")]
            found |= dict.fromkeys(names, text)
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def said(cls: type) -> str:
    """What a class's docstring says before its sections, as one paragraph; nothing where it has none of its own."""
    text = inspect.cleandoc(cls.__doc__ or "")
    if text.startswith(f"{cls.__name__}("):  # what `dataclass` writes
        return ""
    return " ".join(re.split(r"(?m)^(?:Attributes|Raises):$", text)[0].split())


def sections(path: str, kind: str, cls: type) -> Iterator[Section]:
    """The section of a class and those below it, in the order of their keys."""
    yield Section(path, kind, cls)
    for key, hint in _keys(cls):
        for below, each, inner in _below(f"{path}.{key}" if path != "experiment" else key, hint):
            yield from sections(below, each, inner)


@functools.cache
def everything() -> dict[type, Section]:
    """The first section of every class, in order. `model`, a mapping in the experiment, is a `SystemConfig`."""
    found = list(sections("experiment", "", Experiment))
    place = next(index for index, section in enumerate(found) if section.path == "train")
    found[place:place] = sections("model", "", SystemConfig)
    first: dict[type, Section] = {}
    for section in found:
        first.setdefault(section.cls, section)
    return first


def _keys(cls: type) -> list[tuple[str, Any]]:
    hints = typing.get_type_hints(cls)
    return [(field.name, hints[field.name]) for field in dataclasses.fields(cls)]


def _choice(cls: type) -> str:
    """The value of `kind` or `type` by which the class is chosen."""
    hints = typing.get_type_hints(cls)
    for name in ("kind", "type"):
        choices = typing.get_args(hints[name]) if typing.get_origin(hints.get(name)) is Literal else ()
        if len(choices) == 1:
            return choices[0]
    return ""


def _below(path: str, hint: Any) -> list[tuple[str, str, type]]:
    """Path, kind and class of the sections that a key's type holds."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return [(path, _choice(typing.cast(type, hint)), typing.cast(type, hint))]
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return [found for arg in args for found in _below(path, arg)]
    if origin in (tuple, dict):
        return [found for arg in args for found in _below(f"{path}[]", arg)]
    return []


def _type(key: str, hint: Any) -> str:
    """A key's type in words, linked where it is a section of its own."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in WORDS:
        return WORDS[hint]
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if dataclasses.is_dataclass(hint):
        section = everything()[typing.cast(type, hint)]
        return f"[{section.kind or 'section'}](#{section.anchor})"
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        listed = [arg for arg in args if arg is not type(None) and (origin is not typing.Annotated or arg is args[0])]
        text = " or ".join(_type(key, arg) for arg in listed)
        return text + (" or null" if type(None) in args else "")
    if origin is tuple and args[-1] is not Ellipsis:
        return f"list of {len(args)}: {_type(key, args[0])}"
    if origin is tuple:
        return f"list of: {_type(key, args[0])}"
    if origin in (dict, Mapping):
        return f"mapping by name of: {_type(key, args[1])}"
    raise TypeError(f"{key} is {hint}, which the page has no words for; add them to docs/generate.py.")


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{_yaml(field.default)}`"
    if field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default_factory()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = _choice(type(value))
        return f"`{{kind: {kind}}}`" if kind else "its own defaults"
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    """A value in YAML's flow style, on one line."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _yaml(to_dict(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value) if isinstance(value, date) else json.dumps(value)


def _unit(key: str) -> str:
    """The unit that a key's name tells (`timeout_seconds`, `cpus_per_trial`)."""
    words = key.split("_")
    return UNITS.get(words[0] if "per" in words else words[-1], "")


def _spoken(text: str) -> str:
    """A docstring's text as Markdown: Python's constants as YAML writes them, no cell ended by a bar."""
    for python, yaml in (("None", "null"), ("True", "true"), ("False", "false")):
        text = re.sub(rf"(?<!`)\b{python}\b(?!`)", f"`{yaml}`", text)
    return text.replace("|", r"\|")


def section_of_page(section: Section, hidden: Sequence[str] = ("kind", "type")) -> str:
    """One heading with its table."""
    cls, known = section.cls, meanings(section.cls)
    file = Path(inspect.getsourcefile(cls) or "").resolve().relative_to(ROOT)
    if not said(cls):
        raise ValueError(f"{file}: {cls.__name__} says nothing of itself; begin its docstring with a sentence.")
    level = "##" if "." not in section.path and not section.kind else "###"
    lines = [f"{level} {section.title}", "", f"{_spoken(said(cls))} ([`{cls.__name__}`](../{file}))".lstrip(), ""]
    rows = []
    for field, (key, hint) in zip(dataclasses.fields(cls), _keys(cls), strict=True):
        if key in hidden and section.kind:
            continue
        if key not in known:
            raise ValueError(f"{file}: {cls.__name__} has no meaning for `{key}`; add it under `Attributes:` of its docstring.")
        what = "[section](#model)" if (cls, key) == (Experiment, "model") else _type(key, hint)
        unit = _unit(key)
        rows.append(f"| `{key}` | {what}{f', {unit}' if unit else ''} | {_default(field)} | {_spoken(known[key])} |")
    if cls is SystemConfig:
        rows.insert(0, f"| `system` | text | none | {SYSTEM} |")
    if section.kind:
        name = "type" if "type" in typing.get_type_hints(cls) and "kind" not in typing.get_type_hints(cls) else "kind"
        lines[2] = f"`{name}: {section.kind}`. {lines[2]}"
    return "\n".join([*lines, "| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows, ""] if rows else lines)


SYSTEM = (
    "a row of the zoo ([all of them](systems.md)). The keys below then change that row, so a default below holds only where "
    "no `system` is named."
)


def page() -> str:
    """The whole page."""
    listed = list(everything().values())
    contents = [
        f"{'  ' if '.' in section.path or section.kind else ''}* [{section.title}](#{section.anchor})" for section in listed
    ]
    return "\n".join([HEAD, *contents, "", *map(section_of_page, listed)])


COLUMNS_HEAD = """# Raw columns

<!-- Written by `python -m docs.generate` from `models/catalogue.py`. Change the declarations there, not this page. -->

A field or a history field of the schema reads one of these columns (`column: streamer_entries.1h`). All are as known strictly
before the feed. A count is 0 where nothing has happened; hours without a past, and attributes that the log does not have, are
missing.

* `of` says whom a column speaks of. What speaks of the feed, the user or the context is a field `of: feed`, everything else a
  field `of: candidate`.
* Windows reach back from the feed: {windows}.
* Derived columns follow from others of the same row: `from ...`.
* How to add a counter: [extend](extend.md#a-counter).
"""


def columns_page() -> str:
    """The whole page of raw columns."""
    windows = ", ".join(f"`.{name}` {_span(span)}" for name, span in WINDOWS.items())
    lines = _with_windows_together(listing())
    of_entries = [line for line in lines if line.name.startswith("HISTORY.")]
    others = [line for line in lines if line not in of_entries]
    head = COLUMNS_HEAD.format(windows=windows)
    return "\n".join([head, *_table(others), "", "## Entries of histories", "", *_table(of_entries), ""])


def _span(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "to the beginning of the log"
    minutes = milliseconds // 60_000
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"


def _with_windows_together(lines: Sequence[Line]) -> list[Line]:
    """Columns that differ in their window alone as one line."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        head, _, window = line.name.rpartition(".")
        found.setdefault(head if window in WINDOWS else line.name, []).append(line)
    return [
        dataclasses.replace(
            group[0],
            name=", ".join([group[0].name, *(f".{line.name.rpartition('.')[2]}" for line in group[1:])]),
            derived_from=tuple(name.rpartition(".")[0] for name in group[0].derived_from),
        )
        if len(group) > 1
        else group[0]
        for group in found.values()
    ]


def _table(lines: Sequence[Line]) -> list[str]:
    rows = ["| column | of | where nothing is known | meaning |", "| --- | --- | --- | --- |"]
    for line in lines:
        name, _, table = line.name.removeprefix("HISTORY.").partition(" (")
        derived = "from " + ", ".join(f"`{name}`" for name in line.derived_from) if line.derived_from else ""
        of = f"{line.of} of {table.rstrip(')')}" if table else line.of
        rows.append(f"| `{name}` | {of} | {line.default or derived} | {line.meaning} |")
    return rows


PAGES = {"config.md": page, "columns.md": columns_page}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page is not current")
    args = parser.parse_args(argv)
    for name, written in PAGES.items():
        file, text = FOLDER / name, written()
        if not args.check:
            file.write_text(text, encoding="utf-8")
            print(f"Written: {file}")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            sys.exit(f"docs/{name} is not what the code says. Run `make docs` and commit the page.")


if __name__ == "__main__":
    main()
