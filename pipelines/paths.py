"""Paths as users spell them, and names of folders."""

import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

from pydantic import AfterValidator, BeforeValidator

from models.config import ConfigError

LONGEST = 150  # bytes of a name: file systems take 255, and folders for drafts and claims have longer names
_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # two characters at least: C:/ is a disk
# how a path begins that says where something lies; two strokes behind a colon are an address
_ROOT = r"(?:file://[\w.-]*)?(?:~[\w.-]*|\.{1,2})?(?:(?<!:)/+|/(?!/))"
_QUOTED = re.compile(rf"([`'\"]){_ROOT}([^`'\"\n]*)\1")  # it may hold spaces
_BARE = re.compile(rf"(?<![\w/.~-]){_ROOT}(?:[^\s/`'\"]+/+)*([^\s/`'\"]+)/?")


def local(path: str | Path) -> Path:
    """The path that is meant: `~` is the home folder, and `file:///data/logs` is `/data/logs`.

    Raises:
        ConfigError: it is empty; it lies somewhere that is not read as a folder (s3://, hdfs:// ...); there is no such home; it
            begins with a variable of a shell, which nobody fills in here.

    >>> local("file:///data/live%20logs")
    PosixPath('/data/live logs')
    """
    text = str(path)
    if not text.strip():
        raise ConfigError(f"a path is empty ({text!r}). Name a folder; `.` is the current one.")
    if (variable := _VARIABLE.match(text)) is not None:
        raise ConfigError(
            f"`{text}` begins with `{variable[0]}`, and variables are not filled in here. Write the whole path, or `~`."
        )
    scheme = _SCHEME.match(text.lstrip())
    if scheme is not None and scheme[1].lower() != "file":
        raise ConfigError(
            f"`{text}` lies in storage of its own ({scheme[1]}), where this is not read. Mount the storage or copy it, and "
            "name that folder."
        )
    if scheme is not None:
        host, slash, rest = text.lstrip()[len(scheme[1]) + 1 :].removeprefix("//").partition("/")
        if host not in ("", "localhost") or not slash:
            raise ConfigError(f"`{text}` names the machine `{host}`. Mount its folder, and write file:///folder or /folder.")
        text = "/" + unquote(rest)
    if "\0" in text:
        raise ConfigError(f"{text!r} is no path: it holds a null character.")
    if text != text.encode("utf-8", "replace").decode():
        raise ConfigError(f"{text!r} is a path that is not UTF-8. Rename its folder, or put a link of another name to it.")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"`{text}` begins with `~`, but its home folder is not known. Write the whole path.") from None


def without_paths(text: str) -> str:
    """The same with the last name of each path alone, for who is not to know where things lie on this machine.

    >>> without_paths("the store `/data/live stores/1` is damaged; see ~/logs/today.txt")
    'the store `1` is damaged; see today.txt'
    """
    text = _QUOTED.sub(lambda found: f"{found[1]}{found[2].rstrip('/').rpartition('/')[2]}{found[1]}", text)
    return _BARE.sub(r"\1", text)


def folder_name(name: str) -> str:
    """The name itself, if a folder can have it.

    Raises:
        ConfigError: it is no single, visible word of a path.
    """
    reasons = {
        "it is empty": not name,
        "it holds a `/`, a `\\` or a character that cannot be seen": not name.isprintable() or "/" in name or "\\" in name,
        "it begins with a dot": name.startswith("."),
        "it begins or ends with a space": name != name.strip(),
        f"it has more than {LONGEST} bytes": len(name.encode("utf-8", "surrogatepass")) > LONGEST,
    }
    for reason, holds in reasons.items():
        if holds:
            shown = name if len(name) <= 40 else f"{name[:40]}..."
            raise ConfigError(f"name is {shown!r}; it names a folder, so it must be one word of a path, but {reason}.")
    return name


def _number_as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value  # YAML spells a whole number in one way only (see `yaml_text`)


LocalPath = Annotated[Path, BeforeValidator(lambda path: local(path) if isinstance(path, str) else path)]
FolderName = Annotated[str, BeforeValidator(_number_as_text), AfterValidator(folder_name)]
