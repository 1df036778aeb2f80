"""Files that are recognised again: who made one notes its size and a digest, and who reads it is handed the note.

Nothing is found by listing a folder: a file that is not seen (a network file system's cache), was cut short, or is another
one of that name would make a smaller table, and nobody would know.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import xxhash

from models.config import ConfigError
from pipelines.places import Remote, as_put, kept

_BLOCK = 1 << 20
_SIGNATURE = "digest"


class DamagedFile(ConfigError):
    """A file that was noted is gone, or is not what it was.

    Attributes:
        path: as its note has it.
        why: `is not there`, `has 10 bytes, not 12`, ...
    """

    def __init__(self, path: str, why: str, told: str) -> None:
        super().__init__(told)
        self.path, self.why = path, why


@dataclass(frozen=True)
class FileNote:
    """A file as its maker left it.

    Attributes:
        path: below the folder of the run, with `/`.
        rows: of the table in it; 0 for what is no table.
        bytes: its size.
        digest: 16 hex digits; of the whole file, or of what in it says what the rest has to be.
    """

    path: str
    rows: int
    bytes: int
    digest: str

    def spelled(self) -> list[str | int]:
        """As JSON has it, shorter than by names: there may be many thousands."""
        return [self.path, self.rows, self.bytes, self.digest]


def signed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A plain value with a digest of all the rest, so that another one in its place is seen."""
    return {**value, _SIGNATURE: xxhash.xxh3_64_hexdigest(json.dumps(value, sort_keys=True).encode())}


def unsigned(value: Mapping[str, Any]) -> dict[str, Any]:
    """What was signed.

    Raises:
        ValueError: it is not what it was.
    """
    plain = {name: each for name, each in value.items() if name != _SIGNATURE}
    if signed(plain) != value:
        raise ValueError("it does not hold what was written to it")
    return plain


def noted(file: Path, folder: Path, *, rows: int = 0) -> FileNote:
    """The note of a whole file below `folder`; of one that this process has put in a store, of what it put."""
    name = file.relative_to(folder).as_posix()
    if (put := as_put(file)) is not None:
        return FileNote(name, rows, *put)
    return FileNote(name, rows, file.stat().st_size, digest_of(file))


def digest_of(file: Path) -> str:
    """16 hex digits of all that is in a file, block by block."""
    digest, block = xxhash.xxh3_64(), bytearray(_BLOCK)
    view = memoryview(block)
    with file.open("rb", buffering=0) as stream:
        while size := stream.readinto(block):
            digest.update(view[:size])
    return digest.hexdigest()


def there(note: FileNote, folder: Path, way_out: str = "") -> Path:
    """The file of a note, once it is there in its full length.

    Args:
        way_out: what a user can do where it is not, as a sentence.

    Raises:
        DamagedFile: it is not.
    """
    file = folder / note.path
    with reading(note, folder, way_out):
        size = file.stat().st_size
    if size != note.bytes:
        raise damaged(note, folder, f"has {size:,} bytes, not {note.bytes:,}", way_out)
    return file


def whole(note: FileNote, folder: Path, way_out: str = "") -> Path:
    """The file of a note, once all of it is what it was; read once by a process while it stays as it is.

    Of a file in a store it is a copy on this machine's disk, with the same name.

    Args:
        way_out: as for `there`.

    Raises:
        DamagedFile: it is not.
    """
    if isinstance(folder, Remote):
        with reading(note, folder, way_out):
            copy = kept(folder / note.path, note.digest)
        if copy is None:
            raise damaged(note, folder, "does not hold what was written to it", way_out)
        return copy
    file = there(note, folder, way_out)
    with reading(note, folder, way_out):
        status = os.stat(file)
        if _digest(file, status.st_mtime_ns, status.st_ino) != note.digest:
            raise damaged(note, folder, "does not hold what was written to it", way_out)
    return file


@cache
def _digest(file: Path, changed: int, number: int) -> str:
    return digest_of(file)


@contextmanager
def reading(note: FileNote, folder: Path, way_out: str = "") -> Iterator[None]:
    """Tells of a file that vanishes while it is read.

    Raises:
        DamagedFile: it has.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise damaged(note, folder, "is not there", way_out) from None


def damaged(note: FileNote, folder: Path, why: str, way_out: str = "") -> DamagedFile:
    return DamagedFile(note.path, why, f"{folder / note.path} {why}. {way_out}".rstrip())
