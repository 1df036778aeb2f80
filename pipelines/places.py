"""Where things lie: folders of this machine, and objects of a store behind a URI.

`place` makes a `Path` of what a user wrote. A folder of this machine is an ordinary one: mapped, renamed and linked as
ever. `s3://bucket/runs` (or gs://, abfs://, hdfs://) becomes a `Remote`, which is asked what is there and what is in it
in the same ways, and differs where stores do:

* Objects are whole: one is written by a single call, from a file on this machine's disk or from memory (`put`), and is
  there when that ends, or not at all. Nothing is renamed, appended to or linked.
* A folder is what names of objects have in common, and does not appear at once. So a folder that has to be whole has an
  object `.whole`, which names all others with sizes and digests, is put last and taken away first (`put_folder`).
* Files are read in ranges (`mapped`, `source`), and copied to this machine's disk where a library maps or opens files by
  their names (`here`, `kept`). What is meant for a disk and is handed a `Remote` is refused, and never finds a folder called
  `s3:`.

Faults of the network and of the store are waited for: calls are repeated for `PATIENCE` seconds. Every call may be: reading
changes nothing, and putting an object twice leaves the same object.

Credentials, endpoints and regions come from where the store's own tools take them (for S3 AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, ..., profiles, instance roles); some can also be said as options of the URI, as pyarrow has them:
`s3://bucket/runs?region=eu-central-1&endpoint_override=storage.example.org`.
"""

import atexit
import contextlib
import errno
import fnmatch
import io
import json
import os
import random
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PosixPath, PurePosixPath
from typing import IO, Annotated, Any, TypeVar, cast
from urllib.parse import parse_qsl, quote, unquote, urlencode

import pyarrow as pa
import pyarrow.fs as stores
import xxhash
from pydantic import BeforeValidator

from models.config import ConfigError
from pipelines.paths import local

T = TypeVar("T")
S = TypeVar("S")

PATIENCE = 90.0  # seconds for which a store may be away before a step gives up
KEPT_BYTES = 4 << 30  # of copies that a process keeps from one task to the next
WHOLE = ".whole"

_URI = re.compile(r"(?P<scheme>s3|gs|gcs|abfss?|hdfs|viewfs)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<options>.*))?")
_OPTIONS = ("region", "scheme", "endpoint_override", "anonymous", "force_virtual_addressing", "tls_ca_file_path")  # of S3
_AT_ONCE = 16  # calls to a store side by side
_REFUSED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|INVALID_CLIENT_TOKEN|EXPIRED_TOKEN|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION"
    r"|NO_SUCH_BUCKET|Bucket '.*' not found|HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED|AuthenticationFailed",
    re.IGNORECASE,
)


class StoreFault(ConfigError):
    """A store refuses, or has not answered for long."""


class Remote(PosixPath):
    """An object of a store, or what its objects' names have in common. Made by `place`.

    Its first part says which store, with a null character in it: no disk has such a name, so a path that is taken for one of
    a disk is nowhere, and not in a folder called `s3:`.
    """

    __slots__ = ()

    # -- names ---------------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        scheme, options = self.parts[0].split(":\0")
        rest = "/".join(quote(part, safe="@:+=,!*'()&$;~ ") for part in self.parts[1:])
        return f"{scheme}://{rest}" + (f"?{unquote(options)}" if options else "")

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"

    def __fspath__(self) -> str:
        raise ConfigError(f"`{self}` lies in a store of objects, and this needs a folder on a disk. Name one.")

    def as_posix(self) -> str:
        return str(self)

    def resolve(self, strict: bool = False) -> "Remote":
        return self

    def absolute(self) -> "Remote":
        return self

    def expanduser(self) -> "Remote":
        return self

    def is_absolute(self) -> bool:
        return True

    def relative_to(self, *other: Any, **_: Any) -> PurePosixPath:  # type: ignore[override]
        above = other[0].parts
        if self.parts[: len(above)] != above:
            raise ValueError(f"{self} is not below {other[0]}")
        return PurePosixPath(*self.parts[len(above) :])

    def is_relative_to(self, *other: Any) -> bool:
        return isinstance(other[0], Remote) and self.parts[: len(other[0].parts)] == other[0].parts

    @property
    def key(self) -> str:
        """As the file system of the store has it."""
        return "/".join([_store(*self.parts[:2])[1], *self.parts[2:]]).removesuffix("/")

    @property
    def store(self) -> stores.FileSystem:
        return _store(*self.parts[:2])[0]

    # -- questions -------------------------------------------------------------------------------------------------------

    def info(self) -> stores.FileInfo:
        return again(lambda: self.store.get_file_info(self.key), self)

    def exists(self, **_: Any) -> bool:
        return self.info().type != stores.FileType.NotFound

    def is_file(self, **_: Any) -> bool:
        return self.info().type == stores.FileType.File

    def is_dir(self, **_: Any) -> bool:
        return self.info().type == stores.FileType.Directory

    def is_symlink(self) -> bool:
        return False

    def stat(self, **_: Any) -> os.stat_result:
        """Size and time alone.

        Raises:
            FileNotFoundError: there is no such object.
        """
        found = self.info()
        if found.type == stores.FileType.NotFound:
            raise _missing(self)
        size, at = found.size or 0, (found.mtime_ns or 0) / 1e9
        times = {"st_atime_ns": found.mtime_ns, "st_mtime_ns": found.mtime_ns, "st_ctime_ns": found.mtime_ns}
        return os.stat_result((0, 0, 0, 1, 0, 0, size, int(at), int(at), int(at)), times)

    def iterdir(self) -> Generator["Remote", None, None]:
        """What is there now; of a folder that is not, nothing."""
        yield from (self / found.base_name for found in self._listed(recursive=False))

    def objects(self) -> list["Remote"]:
        """All below, in order of their names."""
        found = [each.path for each in self._listed(recursive=True) if each.type == stores.FileType.File]
        return sorted(self.joinpath(*path[len(self.key) + 1 :].split("/")) for path in found)

    def _listed(self, *, recursive: bool) -> list[stores.FileInfo]:
        asked = stores.FileSelector(self.key, recursive=recursive, allow_not_found=True)
        return [each for each in again(lambda: self.store.get_file_info(asked), self) if each.path.rstrip("/") != self.key]

    def glob(self, pattern: str, **_: Any) -> Generator["Remote", None, None]:  # type: ignore[override]
        first, _slash, rest = pattern.partition("/")
        for found in sorted(self._listed(recursive=False), key=lambda each: each.base_name):
            if fnmatch.fnmatchcase(found.base_name, first):
                entry = self / found.base_name
                if not rest:
                    yield entry
                elif found.type == stores.FileType.Directory:
                    yield from entry.glob(rest)

    def rglob(self, pattern: str, **_: Any) -> Generator["Remote", None, None]:  # type: ignore[override]
        yield from (each for each in self.objects() if fnmatch.fnmatchcase(each.name, pattern))

    # -- contents ----------------------------------------------------------------------------------------------------------

    def open(self, mode: str = "r", buffering: int = -1, encoding: str | None = None, *rest: Any, **more: Any) -> IO[Any]:  # type: ignore[override]
        if mode not in ("r", "rb"):
            raise ConfigError(f"`{self}` lies in a store of objects, where files are not opened for writing ({mode}).")
        raw = Object(self)
        if mode == "rb":
            return cast(IO[Any], io.BufferedReader(raw, 1 << 20))
        return io.TextIOWrapper(io.BufferedReader(raw, 1 << 20), encoding or "utf-8", newline=more.get("newline"))

    def read_bytes(self) -> bytes:
        """All of it, as it is at one moment: what is written anew meanwhile is asked for anew."""

        def read() -> pa.Buffer:
            with self.store.open_input_file(self.key) as file:
                found = file.read_buffer(size := file.size())
            if found.size != size:
                raise OSError(f"{found.size} of {size} bytes came")
            return found

        return again(read, self).to_pybytes()

    def read_text(self, encoding: str | None = None, errors: str | None = None, *_: Any) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: Any) -> int:
        put(bytes(data), self)
        return len(data)

    def write_text(self, data: str, encoding: str | None = None, *_: Any, **__: Any) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8"))

    def touch(self, *_: Any, **__: Any) -> None:
        put(b"", self)

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Folders are names."""

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            again(lambda: self.store.delete_file(self.key), self)
        except FileNotFoundError:
            if not missing_ok:
                raise


# -- spelling ----------------------------------------------------------------------------------------------------------------


def place(where: str | Path) -> Path:
    """The folder or object that is meant; for one of this machine as `pipelines.paths.local`.

    Raises:
        ConfigError: it is spelled wrongly, or lies where nothing is read.

    >>> place("s3://shop/live%20logs/day=1").name, str(place("s3://shop/logs/") / "users")
    ('day=1', 's3://shop/logs/users')
    """
    if isinstance(where, Path):
        return where
    found = _URI.fullmatch(where.strip())
    if found is None:
        return local(where)
    scheme, authority, options = found["scheme"].replace("gcs", "gs"), found["authority"], found["options"] or ""
    if scheme in ("s3", "gs") and "@" in authority:
        raise ConfigError(
            f"`{scheme}://...@{authority.rpartition('@')[2]}`: keys do not belong into a path, which is logged. Give "
            "them in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or in a profile."
        )
    if not authority and scheme not in ("hdfs", "viewfs"):
        raise ConfigError(f"`{where}` names no bucket. Write {scheme}://BUCKET/FOLDER.")
    if scheme == "s3" and (unknown := sorted(dict(parse_qsl(options)).keys() - set(_OPTIONS))):
        raise ConfigError(f"`{where}`: `{unknown[0]}` is no option of S3 here; there are: {', '.join(_OPTIONS)}.")
    parts = [unquote(part) for part in found["path"].split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise ConfigError(f"`{where}`: names of objects have no `.` and `..`. Write the whole name.")
    spelled = urlencode(sorted(parse_qsl(options)))
    return Remote(f"{scheme}:\0{quote(spelled, safe='=&%')}", quote(authority, safe="@:") or "-", *parts)


Place = Annotated[Path, BeforeValidator(lambda where: place(where) if isinstance(where, str) else where)]


@cache
def _store(kind: str, authority: str) -> tuple[stores.FileSystem, str]:
    """The file system, and what paths in it begin with."""
    scheme, options = kind.split(":\0")
    authority = "" if authority == "-" else authority
    try:
        if scheme != "s3":
            return stores.FileSystem.from_uri(f"{scheme}://{authority}/" + (f"?{unquote(options)}" if options else ""))
        known: dict[str, Any] = dict(parse_qsl(unquote(options)))
        for name in ("anonymous", "force_virtual_addressing"):
            if name in known:
                known[name] = known[name].lower() in ("1", "true", "yes")
        # pyarrow takes these from the environment for some of its ways to make a file system, and not for this one
        if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
            known.setdefault("endpoint_override", endpoint)
        if not {"region", "endpoint_override"} & known.keys() and not {"AWS_REGION", "AWS_DEFAULT_REGION"} & os.environ.keys():
            known["region"] = stores.resolve_s3_region(authority)
        retries = stores.AwsStandardS3RetryStrategy(max_attempts=3)
        # delayed: what is small is put by one call
        settled = {"retry_strategy": retries, "connect_timeout": 5, "request_timeout": 20, "allow_delayed_open": True}
        return stores.S3FileSystem(**settled, **known), authority
    except (OSError, ValueError, TypeError) as error:
        raise StoreFault(f"{scheme}://{authority} cannot be reached: {_reason(error)}.") from None


def reach(path: Path) -> tuple[str, stores.FileSystem | None]:
    """A path as libraries on pyarrow's file systems take it; None for this machine's."""
    return (path.key, path.store) if isinstance(path, Remote) else (str(path), None)


# -- calls -------------------------------------------------------------------------------------------------------------------


def again(call: Callable[[], T], path: Remote) -> T:
    """What a call to a store returns, once it does.

    Raises:
        FileNotFoundError: there is no such object.
        StoreFault: the store refuses, or does not answer for `PATIENCE` seconds.
    """
    began, wait, told = time.monotonic(), 0.2, False
    while True:
        try:
            return call()
        except (FileNotFoundError, NotADirectoryError):
            raise _missing(path) from None
        except (OSError, pa.ArrowException) as error:
            reason = _reason(error)
            if "NO_SUCH_KEY" in reason:
                raise _missing(path) from None
            if isinstance(error, PermissionError) or _REFUSED.search(reason):
                way_out = "Look after the name of the bucket, its policy and the credentials."
                raise StoreFault(f"{path}: the store refuses: {reason}. {way_out}") from None
            if time.monotonic() - began > PATIENCE:
                raise StoreFault(
                    f"{path}: the store has not answered for {PATIENCE:.0f} s ({reason}). Look after the network and the "
                    "endpoint (AWS_ENDPOINT_URL); started again, the same command goes on."
                ) from None
            if not told and time.monotonic() - began > PATIENCE / 6:
                print(f"{path}: the store does not answer ({reason}); waiting for at most {PATIENCE:.0f} s", flush=True)
                told = True
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, 5.0)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(". ")[:300] or type(error).__name__


def _missing(path: Path) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "there is no such object", str(path))


def side_by_side(call: Callable[[S], T], items: Iterable[S]) -> list[T]:
    """`call` of every item, side by side: for calls that wait for a store or a disk."""
    waiting = list(items)
    if len(waiting) < 2:
        return [call(item) for item in waiting]
    with ThreadPoolExecutor(min(_AT_ONCE, len(waiting)), "places") as threads:
        return list(threads.map(call, waiting))


# -- reading -----------------------------------------------------------------------------------------------------------------


class Object(io.RawIOBase):
    """An object, read in ranges.

    Raises:
        FileNotFoundError: there is no such object.
    """

    def __init__(self, path: Remote) -> None:
        self._path, self._at = path, 0
        self._held: tuple[int, pa.Buffer] = (0, pa.py_buffer(b""))
        self._file = again(lambda: path.store.open_input_file(path.key), path)
        self.size: int = again(self._file.size, path)

    def at(self, begin: int, size: int) -> pa.Buffer:
        """
        Raises:
            FileNotFoundError: the object is gone, or shorter than it was.
        """
        size = max(0, min(size, self.size - begin))
        if not size:
            return pa.py_buffer(b"")
        first, held = self._held
        if first <= begin and begin + size <= first + held.size:
            return held.slice(begin - first, size)

        def read() -> pa.Buffer:
            self._file.seek(begin)
            found = self._file.read_buffer(size)
            if found.size != size:
                raise OSError(f"{found.size} of {size} bytes came")
            return found

        return again(read, self._path)

    def hold(self, begin: int, end: int) -> pa.Buffer:
        """Reads a range at once; what lies in it is not read again until another one is held."""
        found = self.at(begin, end - begin)
        first, held = self._held
        if not first <= begin <= end <= first + held.size:
            self._held = (begin, found)
        return found

    def read_buffer(self, size: int) -> pa.Buffer:
        found = self.at(self._at, size)
        self._at += found.size
        return found

    def read(self, size: int | None = -1) -> bytes:
        return self.read_buffer(self.size if size is None or size < 0 else size).to_pybytes()

    def readinto(self, buffer: Any) -> int:
        found = self.read_buffer(len(buffer))
        buffer[: found.size] = memoryview(found).cast("B")
        return found.size

    def seek(self, to: int, whence: int = 0) -> int:
        self._at = max(0, to + (0, self._at, self.size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


_END = 1 << 16  # bytes: most footers are shorter


def mapped(path: Path | str) -> pa.MemoryMappedFile | Object:
    """A file to be read in pieces (`seek`, `read_buffer`): mapped on a disk, in ranges from a store."""
    path = place(path)
    return Object(path) if isinstance(path, Remote) else pa.memory_map(str(path))


def source(path: Path, *, whole_below: int = _END) -> Path | pa.PythonFile:
    """A Parquet file for pyarrow's readers: the path of one on a disk, and ranges from a store.

    Args:
        whole_below: bytes; a smaller one in a store is read at once, of a larger one the end, where the footer is.
    """
    if not isinstance(path, Remote):
        return path
    file = Object(path)
    file.hold(0 if file.size <= whole_below else max(0, file.size - _END), file.size)
    return pa.PythonFile(file, mode="r")


# -- this machine's disk -----------------------------------------------------------------------------------------------------


def scratch() -> Path:
    """A folder of this process on this machine's disk (TMPDIR), gone when it ends; those of dead ones are removed."""
    return _scratch(os.getpid())


@cache
def _scratch(own: int) -> Path:
    for old in Path(tempfile.gettempdir()).glob("liverank-*-*"):
        with contextlib.suppress(OSError, ValueError):
            pid = int(old.name.split("-")[1])
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                if time.time() - old.stat().st_mtime > 3600 and old.stat().st_uid == os.getuid():
                    shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"liverank-{own}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def aside(name: str) -> Iterator[Path]:
    """A path of that name on this machine's disk, for a file or folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(dir=scratch(), ignore_cleanup_errors=True) as folder:
        yield Path(folder) / name


@contextmanager
def here(path: Path) -> Iterator[Path]:
    """The file or folder itself, or a copy on this machine's disk of one in a store, which is gone afterwards.

    Raises:
        FileNotFoundError: there is none.
        ConfigError: a folder that says what it holds does not hold it.
    """
    if not isinstance(path, Remote):
        yield path
        return
    with aside(path.name) as copy:
        fetch(path, copy)
        yield copy


def fetch(path: Path, copy: Path) -> None:
    """Copies an object, or a folder with all that is in it, to this machine's disk; raises as `here`."""
    if not isinstance(path, Remote):
        shutil.copytree(path, copy) if path.is_dir() else shutil.copyfile(path, copy)
        return
    found = path.info().type
    if found == stores.FileType.NotFound:
        raise _missing(path)
    if found == stores.FileType.File:
        _fetch_one(path, copy)
        return
    objects = [found for found in path.objects() if found.name != WHOLE]
    names = [found.relative_to(path) for found in objects]
    for folder in {copy / name.parent for name in names}:
        folder.mkdir(parents=True, exist_ok=True)
    digests = side_by_side(lambda name: _fetch_one(cast(Remote, path / name), copy / name), names)
    try:
        noted = json.loads((path / WHOLE).read_bytes())
    except FileNotFoundError:  # of another maker, or copied there by hand
        return
    came = {name.as_posix(): ((copy / name).stat().st_size, digest) for name, digest in zip(names, digests, strict=True)}
    if wrong := [
        name for name, (size, digest) in noted.items() if name not in came or came[name] != (size, digest or came[name][1])
    ]:
        raise ConfigError(f"{path / wrong[0]} is not what was written. Copy the whole folder again, or make it anew.")


_BLOCK = 32 << 20


def _fetch_one(path: Remote, copy: Path) -> str:
    """Copies an object and returns the xxh3 of what came."""
    digest = xxhash.xxh3_64()
    with contextlib.closing(Object(path)) as file, copy.open("wb") as target:
        for at in range(0, file.size, _BLOCK):
            block = file.at(at, _BLOCK)
            digest.update(block)
            target.write(block)
    return digest.hexdigest()


_lock = threading.Lock()
_kept: dict[tuple[str, str], Path] = {}


def kept(path: Path, digest: str) -> Path | None:
    """A copy on this machine's disk of an object whose content has this digest (16 hex digits of xxh3), kept by this process
    until `tidy`; the file itself where it lies on a disk. None where the object holds something else.

    Raises:
        FileNotFoundError: there is none.
    """
    if not isinstance(path, Remote):
        return path
    known = str(path), digest
    with _lock:
        if (copy := _kept.pop(known, None)) is not None:
            _kept[known] = copy  # the last in the order of use
            return copy
    folder = Path(tempfile.mkdtemp(dir=scratch()))
    if _fetch_one(path, folder / path.name) != digest:
        shutil.rmtree(folder)
        return None
    with _lock:
        _kept[known] = folder / path.name
    return folder / path.name


def tidy() -> None:
    """Removes copies that were not used for longest, where they have become many; nobody may be reading one."""
    total = 0
    for known in reversed(list(_kept)):
        total += _kept[known].stat().st_size
        if total > KEPT_BYTES:
            shutil.rmtree(_kept.pop(known).parent, ignore_errors=True)


# -- writing -----------------------------------------------------------------------------------------------------------------


@cache
def _writers(pid: int) -> ThreadPoolExecutor:
    # Not in the caller's thread: an interrupt between the calls below would end an upload early, as an object cut short.
    return ThreadPoolExecutor(_AT_ONCE, "put")


_put: dict[str, tuple[int, str]] = {}


def put(content: bytes | Path, path: Remote) -> None:
    """Writes an object, which is there as a whole or not at all.

    Raises:
        StoreFault: the store refuses, or does not answer.
    """
    _writers(os.getpid()).submit(_send, content, path).result()


def _send(content: bytes | Path, path: Remote) -> str:
    empty = isinstance(content, Path) and not content.stat().st_size  # which cannot be mapped
    buffer = pa.py_buffer(b"" if empty else content) if empty or isinstance(content, bytes) else _whole_map(content)

    def send() -> None:
        # hdfs:// shows a file while it is written, but can rename
        key = (
            f"{path.key}.{os.getpid()}-{threading.get_ident()}.draft"
            if path.parts[0].startswith(("hdfs", "viewfs"))
            else path.key
        )
        stream = path.store.open_output_stream(key)
        stream.write(buffer)
        stream.close()
        if key != path.key:
            path.store.move(key, path.key)

    again(send, path)
    digest = xxhash.xxh3_64_hexdigest(buffer)
    with _lock:
        _put[str(path)] = (buffer.size, digest)
    return digest


def _whole_map(file: Path) -> pa.Buffer:
    with pa.memory_map(str(file)) as found:
        return found.read_buffer()


def as_put(path: Path) -> tuple[int, str] | None:
    """Size and xxh3 of what this process last put there; None where it has not."""
    with _lock:
        return _put.get(str(path))


def put_folder(folder: Path, path: Remote) -> None:
    """Puts all files of a folder; what else was there is removed. It counts as whole (`is_whole`) at the end, not before."""
    (path / WHOLE).unlink(missing_ok=True)
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    names = [file.relative_to(folder).as_posix() for file in files]
    waiting = [
        _writers(os.getpid()).submit(_send, file, path.joinpath(*name.split("/")))
        for file, name in zip(files, names, strict=True)
    ]
    digests = [sent.result() for sent in waiting]
    remove([old for old in path.objects() if old.relative_to(path).as_posix() not in {*names, WHOLE}])
    noted = {name: [file.stat().st_size, digest] for file, name, digest in zip(files, names, digests, strict=True)}
    put(json.dumps(noted, indent=0).encode(), path / WHOLE)


def mark_whole(folder: Remote) -> None:
    """From now on the folder counts as whole, with the objects that many have put into it; told by their sizes alone."""
    objects = [path for path in folder.objects() if path.name != WHOLE]
    sizes = side_by_side(lambda path: path.stat().st_size, objects)
    noted = {path.relative_to(folder).as_posix(): [size, ""] for path, size in zip(objects, sizes, strict=True)}
    put(json.dumps(noted, indent=0).encode(), folder / WHOLE)


def is_whole(path: Path) -> bool:
    """Whether a file or folder is there as a whole: on a disk it appears at once; in a store a folder says so."""
    if not isinstance(path, Remote):
        return path.exists()
    found = path.info().type
    return found == stores.FileType.File or (found == stores.FileType.Directory and (path / WHOLE).is_file())


def remove_tree(path: Remote, last: str = "") -> None:
    """Removes an object, or a folder with all that is in it; first what says that it is whole, and this object of it last."""
    (path / WHOLE).unlink(missing_ok=True)
    if path.is_dir() and last and (path / last).is_file():
        found = path._listed(recursive=False)
        side_by_side(remove_tree, [path / entry.base_name for entry in found if entry.base_name != last])
        (path / last).unlink(missing_ok=True)
    elif path.is_dir():
        with contextlib.suppress(FileNotFoundError):  # not object by object, which leaves marks of folders that are empty
            again(lambda: path.store.delete_dir(path.key), path)
    else:
        path.unlink(missing_ok=True)


def remove(objects: Iterable[Remote]) -> None:
    side_by_side(lambda path: path.unlink(missing_ok=True), objects)
