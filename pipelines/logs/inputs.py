"""Finding the files of a data set as its owner ships them: plain or compressed CSV, Parquet, unpacked or still in a zip.

A source names the files that it knows by the stem of their names (`click`, `log_standard_*`). Each is looked for in the
folder that the user named, in the folders of it (two levels: data sets unpack into `NAME/data/`), and in zips that lie
there; the folder may also be such a zip itself.
"""

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from models.config import ConfigError
from pipelines.logs.layout import is_hidden

_COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_FORMS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".parq": "parquet", ".pq": "parquet"}
_PACKED = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar", ".bz2", ".xz")
_LEVELS = 2  # of folders below the one that the user named
_SHOWN = 12  # names in a message


@dataclass(frozen=True)
class Wanted:
    """A file, or files of one kind, that a source knows.

    Attributes:
        kind: how the source calls it.
        stems: names of files without their endings; `*` stands for anything.
        needed: whether the source can do without.
        gives: what is missing without it, for the line that says so.
        form: `csv` or `parquet`, as its owner ships it; both are read.
    """

    kind: str
    stems: tuple[str, ...]
    needed: bool = True
    gives: str = ""
    form: str = "csv"

    def __str__(self) -> str:
        return " or ".join(f"{stem}.{self.form}" for stem in self.stems)


@dataclass(frozen=True)
class Input:
    """One file to be read.

    Attributes:
        kind: which of the files that the source knows.
        path: on the disk: the file itself, or the zip that it is in.
        member: its name in that zip; empty for a file of its own.
        form: `csv` or `parquet`.
        compression: of a CSV file: `gzip`, `zstd` or none.
        size: bytes as they lie there, unpacked for a member of a zip.
        name: as accounts call it: its path below the folder that the user named.
    """

    kind: str
    path: Path
    member: str
    form: str
    compression: str
    size: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)


@dataclass(frozen=True)
class Found:
    """What of a data set is there.

    Attributes:
        inputs: in the order in which the source names its kinds, of one kind by name.
        missing: kinds that are not there and not needed.
        others: names of files that the source does not know.
    """

    inputs: tuple[Input, ...]
    missing: tuple[Wanted, ...]
    others: tuple[str, ...]

    @property
    def paths(self) -> list[Path]:
        """The files on the disk, each once."""
        return list(dict.fromkeys(each.path for each in self.inputs))

    def of(self, kind: str) -> list[Input]:
        return [each for each in self.inputs if each.kind == kind]

    def remarks(self) -> list[str]:
        lines = [f"{wanted} is not there: no {wanted.gives}." for wanted in self.missing]
        if self.others:
            more = f" and {len(self.others) - _SHOWN} more" if len(self.others) > _SHOWN else ""
            lines.append(f"not read, since nothing here needs it: {', '.join(self.others[:_SHOWN])}{more}.")
        return lines


def find(place: Path, wanted: Sequence[Wanted], *, name: str, key: str = "logs.path") -> Found:
    """The files of a data set in a folder or zip.

    Args:
        name: of the data set, for messages.
        key: of the configuration, which named the place.

    Raises:
        ConfigError: no such place, a needed file is not in it, a file is there twice, a zip is damaged.
    """
    if not place.exists():
        raise ConfigError(f"{key}: {place} does not exist. {_looked_for(wanted, name)}")
    candidates = list(_entries(place))
    files = [entry for entry in candidates if not entry.member]
    packed = [entry for entry in candidates if entry.member]
    inputs: list[Input] = []
    known: set[Input] = set()
    missing: list[Wanted] = []
    for each in wanted:
        mine = _matching(files, each)
        inside = _matching(packed, each)
        known.update(mine, inside)
        chosen = mine or inside  # unpacked, and the zip still lies beside it
        _refuse_twice(chosen, key)
        if chosen:
            inputs += [replace(entry, kind=each.kind) for entry in sorted(chosen, key=lambda entry: (_base(entry), str(entry)))]
        elif each.needed:
            raise ConfigError(_nothing(place, each, wanted, candidates, name, key))
        else:
            missing.append(each)
    others = [entry.name for entry in candidates if entry not in known and (not entry.member or not files)]
    return Found(tuple(inputs), tuple(missing), tuple(sorted(others)))


def input_of(path: Path, name: str, kind: str) -> Input:
    """A file of its own, told by the ending of its name; CSV where that says nothing.

    Raises:
        ConfigError: it is packed in a way that is not read.
    """
    found = _of(path, name, kind)
    if not found.form and path.name.lower().endswith(_PACKED):
        raise ConfigError(f"{path} is packed in a way that is not read. Unpack it, or pack it as .gz or .zst.")
    return found if found.form else replace(found, form="csv")


def _told_by(name: str) -> tuple[str, str]:
    """Form and compression, as the endings of a name tell them; an empty form where they do not."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1], "") if suffixes else ""
    if compression:
        suffixes.pop()
    form = _FORMS.get(suffixes[-1], "") if suffixes else ""
    return ("", "") if form == "parquet" and compression else (form, compression)


def _base(entry: Input) -> str:
    return PurePosixPath(entry.member or entry.path.name).name


def _stem(entry: Input) -> str:
    name = _base(entry)
    for endings in (_COMPRESSIONS, _FORMS):
        suffix = PurePosixPath(name).suffix
        if suffix.lower() in endings:
            name = name[: -len(suffix)]
    return name


def _matching(entries: Iterable[Input], wanted: Wanted) -> list[Input]:
    return [entry for entry in entries if entry.form and any(fnmatchcase(_stem(entry), stem) for stem in wanted.stems)]


def _entries(place: Path) -> Iterator[Input]:
    """All files in reach, whether a source knows them or not."""
    if place.is_file():
        with place.open("rb") as opened:
            is_zip = zipfile.is_zipfile(opened)
        if not is_zip:
            raise ConfigError(f"{place} is neither a folder nor a zip. Name the folder that holds the files.")
        yield from _members(place, place.name)
        return
    for file in _below(place, _LEVELS):
        name = file.relative_to(place).as_posix()
        if file.suffix.lower() == ".zip":
            yield from _members(file, name)
        else:
            yield _of(file, name)


def _of(file: Path, name: str, kind: str = "") -> Input:
    form, compression = _told_by(file.name)
    return Input(kind, file, "", form, compression, file.stat().st_size, name)


def _below(folder: Path, levels: int) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if is_hidden(entry.name):
            continue
        if entry.is_dir():
            if levels:
                yield from _below(entry, levels - 1)
        elif entry.exists():
            yield entry
        else:
            raise ConfigError(f"{entry} is a link to nothing. Mend it or remove it.")


def _members(file: Path, name: str) -> Iterator[Input]:
    try:
        with file.open("rb") as opened, zipfile.ZipFile(opened) as packed:
            members = packed.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ConfigError(f"{file} is not a whole zip ({error}). Fetch it again.") from None
    for member in members:
        hidden = any(is_hidden(part) for part in PurePosixPath(member.filename).parts)
        if not member.is_dir() and not hidden:
            form, compression = _told_by(member.filename)
            inside = f"{name}:{member.filename}"
            yield Input("", file, member.filename, form, compression, member.file_size, inside)


def _refuse_twice(chosen: Sequence[Input], key: str) -> None:
    seen: dict[str, Input] = {}
    for entry in chosen:
        other = seen.setdefault(_stem(entry), entry)
        if other is not entry:
            raise ConfigError(f"{key}: both {other} and {entry} are there; its rows would count twice. Leave one of them.")


def _looked_for(wanted: Sequence[Wanted], name: str) -> str:
    listed = ", ".join(str(each) for each in wanted if each.needed)
    return f"{name} is looked for there: {listed} (plain, as .csv.gz, .csv.zst or .parquet, or in a zip)."


def _nothing(place: Path, absent: Wanted, wanted: Sequence[Wanted], candidates: Sequence[Input], name: str, key: str) -> str:
    there = sorted(_base(entry) for entry in candidates)
    shown = ", ".join(there[:_SHOWN]) + (" ..." if len(there) > _SHOWN else "") if there else "nothing"
    packed = [each for each in there if each.lower().endswith(_PACKED) and not _told_by(each)[0]]
    way_out = f" Unpack {packed[0]} first." if packed else ""
    return f"{key}: {place} has no {absent}. {_looked_for(wanted, name)} There is: {shown}.{way_out}"
