"""Which files a table of a log has. Everything in its folder is read, or refused by name with the reason.

A Parquet file is told by its first and last four bytes where its name does not say so: Athena, Hive, Impala and BigQuery
write names without an extension. Links to files and folders are followed. Left alone are only hidden and marker files:
names that begin with `.` or `_` (as Spark and Hive have it), and checksums (`.crc`).

Columns may stand in the names of folders (`dt=2025-11-29/`), as Hive and Spark write them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from models.config import ConfigError
from pipelines.places import Remote

PARQUET = (".parquet", ".parq", ".pq")
_NOT_DONE = (".tmp", ".temp", ".partial", ".inprogress", ".crdownload", ".bak", ".old", ".orig", ".swp", "~")
_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
_OF_ITS_OWN = {  # folders whose files only the format's own reader may choose among: removed rows lie beside those that count
    "_delta_log": "Delta",
    ".hoodie": "Hudi",
}
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def is_hidden(name: str) -> bool:
    return name.startswith((".", "_")) or name.lower().endswith(".crc")


def is_parquet_name(name: str) -> bool:
    return name.lower().endswith(PARQUET)


def stem(name: str) -> str:
    """A file's or folder's name without an extension that says Parquet."""
    end = next((end for end in PARQUET if name.lower().endswith(end)), "")
    return name[: len(name) - len(end)]


def parquet_files(place: Path) -> list[Path]:
    """The file itself, or all files in and below a folder, in order of their names.

    Raises:
        ConfigError: a file that is no Parquet or not finished, a link to nothing or in a circle, a file or folder that is there
            twice, a name that is not UTF-8.
    """
    if isinstance(place, Remote):
        return _objects(place)
    found: dict[Path, Path] = {}
    files = [_checked(place)] if not place.is_dir() else _below(place, {_real(place): place})
    for file in sorted(files):
        other = found.setdefault(_real(file), file)
        if other != file:
            raise ConfigError(f"{file} and {other} are one file, by links; its rows would count twice. Remove one of them.")
    return list(found.values())


def hidden_parquet(folder: Path) -> list[Path]:
    """Parquet files that are not read because their name is hidden; not those that only tell of others, as `_metadata` does."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    found: list[Path] = []
    for entry in entries:
        if not is_hidden(entry.name):
            found += hidden_parquet(entry) if entry.is_dir() and not entry.is_symlink() else []
        elif entry.is_dir():
            found += [entry] if any(is_parquet_name(file.name) for file in entry.rglob("*")) else []
        elif entry.name not in ("_metadata", "_common_metadata") and entry.is_file() and _begins(entry) == _MAGIC:
            found.append(entry)
    return found


def path_values(file: Path, table: Path) -> dict[str, str | None]:
    """Columns in the names of the folders between a table and its file; the innermost of one name counts.

    >>> path_values(Path("logs/users/dt=2025-11-29/city=S%C3%A3o%20Paulo/0.parquet"), Path("logs/users"))
    {'dt': '2025-11-29', 'city': 'São Paulo'}
    """
    if file == table:
        return {}
    pairs = [part.partition("=") for part in file.relative_to(table).parts[:-1]]
    return {unquote(name): _value(value) for name, equals, value in pairs if equals and name}


def _value(spelled: str) -> str | None:
    return None if spelled in ("", _HIVE_NULL) else unquote(spelled)


def _below(folder: Path, above: dict[Path, Path]) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name in _OF_ITS_OWN:
            raise _of_its_own(folder, entry.name)
        if is_hidden(entry.name):
            continue
        if not _is_utf8(entry.name):
            raise ConfigError(f"{entry}: this name is not UTF-8. Rename it.")
        if entry.is_dir():
            real = _real(entry)
            if real in above:
                raise ConfigError(f"{entry} links back to {above[real]}, in a circle. Remove the link.")
            yield from _below(entry, {**above, real: entry})
        else:
            yield _checked(entry)


def _objects(place: Remote) -> list[Path]:
    """As `parquet_files`, of a store, by one listing of all that lies below."""
    if place.is_file():
        return [_named_well(place)]
    found: list[Path] = []
    for file in place.objects():
        parts = file.relative_to(place).parts
        for depth, part in enumerate(parts):
            if part in _OF_ITS_OWN:
                raise _of_its_own(place.joinpath(*parts[:depth]), part)
        if not any(map(is_hidden, parts)):
            found.append(_named_well(file))
    return found


def _of_its_own(folder: Path, name: str) -> ConfigError:
    return ConfigError(
        f"{folder} is a {_OF_ITS_OWN[name]} table ({name}): files of older versions lie among those that count, so it cannot "
        "be read file by file. Export its rows as plain Parquet."
    )


def _real(path: Path) -> Path:
    """What a path leads to; of links in a circle some path of them, where `Path.resolve` gives up or not by version."""
    return Path(os.path.realpath(path))


def _is_utf8(name: str) -> bool:
    return name == name.encode("utf-8", "replace").decode()  # other bytes are lone surrogates in names


def _checked(file: Path) -> Path:
    if not file.exists():
        real = _real(file)
        where = f"links to {real}, which is not there" if not real.is_symlink() else "is a link in a circle"
        raise ConfigError(f"{file} {where}. Mend the link or remove it.")
    if not file.is_file():
        raise ConfigError(f"{file} is neither a file nor a folder. Take it out of the log.")
    return _named_well(file)


def _named_well(file: Path) -> Path:
    if file.name.lower().endswith(_NOT_DONE):
        raise ConfigError(
            f"{file} looks like an unfinished or older copy, so it is not read. Rename it to end in .parquet if it belongs to "
            "the table, or take it out of the log."
        )
    if is_parquet_name(file.name):
        return file
    begins = _begins(file)
    if begins == _ENCRYPTED:
        raise ConfigError(f"{file} is encrypted Parquet, which is not read. Write it without encryption.")
    if begins != _MAGIC:
        what = f"it begins with {begins!r}" if begins else "it is empty"
        raise ConfigError(f"{file} is not Parquet ({what}), and only Parquet is read. Convert it, or take it out of the log.")
    return file


def _begins(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(4)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}).") from None
