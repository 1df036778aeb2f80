"""What is known of users, rooms and streamers, on disk, for readers in many processes.

LMDB holds it: one file, memory-mapped, so that replicas of a machine share its pages and start at once. What is written
are the arrays themselves (`pipelines.serve.records`), so that reading is no parsing.

A store is a snapshot: whole or not there, and never written again; who reads it holds a lock by which others see that it is
in use. `store.json` holds the size and the xxh64 of its data,
which are checked before a page is mapped: reading past the end of a mapped file kills a process, and a damaged page may.
(Measured on two shared cores: 1.7 to 2.9 GB/s where the file is in memory, so a store of ten million users of 1 kB costs
four to six seconds once, beside the endpoint that answers meanwhile.)
"""

import errno
import fcntl
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from models.catalogue import PRODUCT, ROOM, STREAMER, Subject, find_stored
from models.config import ConfigError
from pipelines.encode.arrays import whole
from pipelines.logs.ids import as_ids
from pipelines.places import WHOLE, Remote, fetch, is_whole, place, scratch
from pipelines.prepared import SNAPSHOTS, Prepared
from pipelines.runs import discard, read_json, written
from pipelines.serve.records import Layout, Records, User, UserLayout

META = "store.json"
DATA = "data.mdb"
FILES = (META, DATA, "lock.mdb")
LAYOUT = 4  # of the files below; a store of another layout is built anew
# whose columns, among those of a room, are also kept by an id of their own: that of who streams, or of what is on screen
PARTS: Mapping[str, Subject] = {"streamers": STREAMER, "products": PRODUCT}
_MAP_BYTES = 1 << 40  # address space, not disk
_CHUNK = 8192  # rows in one transaction
_PIECE = 1 << 20  # bytes read at once for a hash
_WAY_OUT = "Copy the store again, or delete the folder: it is built again."


class Store:
    """An open store. One process opens a store once; call `close` before opening it again.

    Attributes:
        fingerprint: of the prepared folder it was built from.
        as_of: the first moment that it knows nothing of, ms: the end of the log.
        users: columns of a user.
        rooms: columns of a room, a streamer, a product, by table.
    """

    def __init__(self, path: Path, *, verify: bool = True) -> None:
        """
        Args:
            verify: read all of it once and compare its hash, not its size alone.

        Raises:
            ConfigError: no store there, one of another layout, or one that is cut short or damaged.
        """
        self.path = place(path)
        meta = _meta(self.path)
        if meta is None:
            raise ConfigError(
                f"there is no store at `{path}`. `pipelines.serve.store.build_store` makes one of a prepared folder."
            )
        if meta.get("layout") != LAYOUT:
            raise ConfigError(
                f"the store at `{path}` has layout {meta.get('layout')}, this version reads {LAYOUT}. Build it again."
            )
        if isinstance(self.path, Remote):  # what is mapped has to lie on this machine's disk
            self._copy = Path(tempfile.mkdtemp(dir=scratch())) / self.path.name
            self._let_go = weakref.finalize(self, shutil.rmtree, self._copy.parent, True)
            fetch(self.path, self._copy)
        else:
            self._copy = self.path
            self._let_go = _held(self.path / META, self)
        try:
            _check_data(self._copy, meta, verify=verify)
            self.fingerprint: str = meta["fingerprint"]
            self.as_of: int = meta["as_of"]
            plain, lists = meta["users"]
            self.users = UserLayout(Layout.spelled(plain), {name: Layout.spelled(each) for name, each in lists.items()})
            self.rooms = {table: Layout.spelled(each) for table, each in meta["rooms"].items()}
        except ConfigError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError):
            raise ConfigError(f"the store at `{path}` is damaged: {META} does not hold what it has to. {_WAY_OUT}") from None
        self._identity = _identity(self.path)
        # nobody writes to a finished store, so readers need no locks and may come from a read-only disk
        self._environment = lmdb.open(str(self._copy), readonly=True, lock=False, max_dbs=8, readahead=False)
        self._tables = {name: self._environment.open_db(name.encode(), create=False) for name in ("users", "rooms", *PARTS)}

    def user(self, user_id: int) -> User | None:
        """None for a user the store does not know."""
        with self._environment.begin(self._tables["users"]) as read:
            value = read.get(_key(user_id))
        return None if value is None else self.users.read(value)

    def records(self, table: str, ids: Iterable[int]) -> Records:
        """Columns of `rooms`, `streamers` or `products`, a row for each id."""
        with self._environment.begin(self._tables[table]) as read:
            return Records.of(self.rooms[table], [read.get(_key(each)) for each in ids])

    def first(self, table: str, count: int) -> list[int]:
        """The smallest ids of `users`, `rooms`, `streamers` or `products`."""
        with self._environment.begin(self._tables[table]) as read, read.cursor() as cursor:
            return [int.from_bytes(key, "big", signed=True) for key in islice(cursor.iternext(values=False), count)]

    def is_current(self, path: Path) -> bool:
        """Whether this is what lies at `path` now; a store built anew at the same place is another one."""
        return self.path == place(path) and _identity(self.path) == self._identity

    def close(self) -> None:
        self._environment.close()
        self._let_go()


def is_built(prepared: Prepared, path: Path) -> bool:
    """Whether the store of this prepared folder is there."""
    there = _meta(path) if is_whole(path) else None
    return there is not None and (there.get("layout"), there.get("fingerprint")) == (LAYOUT, prepared.fingerprint)


def build_store(prepared: Prepared, path: Path) -> Path:
    """Writes the snapshot of a prepared folder as a store; one that is already there for the same folder is kept.

    Raises:
        ConfigError: the prepared folder has no snapshot, files of others are at `path`, or the disk takes no more.
    """
    path = place(path)
    if is_built(prepared, path):
        return path
    if path.is_dir() and (others := sorted(file.name for file in path.iterdir() if file.name not in (*FILES, WHOLE))):
        raise ConfigError(f"{path} holds files that are of no store: {', '.join(others[:3])}. Move them, or delete the folder.")
    for what in SNAPSHOTS:
        if not prepared.snapshot(what):
            raise ConfigError(f"`{prepared.path}` has no snapshot of {what}; prepare it again.")
    with written(path) as draft:
        draft.mkdir()
        # synced once at the end: before it is moved to its place, nobody reads it
        environment = lmdb.open(str(draft), map_size=_MAP_BYTES, max_dbs=8, sync=False, writemap=False)
        try:
            users = environment.open_db(b"users")
            user_schema = _common_schema(prepared.snapshot("users"))
            user_layout = UserLayout.of(user_schema)
            for batch in _batches(prepared.snapshot("users"), user_schema):
                _write(environment, users, batch["user_id"], user_layout.pack(batch))
            room_schema = _common_schema(prepared.snapshot("rooms"))
            names = {"rooms": [name for name in room_schema.names if name != ROOM.key]}
            for part, subject in PARTS.items():
                names[part] = [name for name in names["rooms"] if (known := find_stored(name)) and known.of == subject]
            layouts = {table: Layout.of(map(room_schema.field, columns)) for table, columns in names.items()}
            tables = {table: environment.open_db(table.encode()) for table in layouts}
            for batch in _batches(prepared.snapshot("rooms"), room_schema):
                _write(environment, tables["rooms"], batch["room_id"], _rows(layouts["rooms"], batch))
                for part, subject in PARTS.items():
                    if subject.key in batch.schema.names:
                        # rooms of one streamer carry the same columns of it, as of the same moment; one of them is kept
                        named = batch.filter(batch[subject.key].is_valid())
                        _write(environment, tables[part], named[subject.key], _rows(layouts[part], named))
            environment.sync(True)
        except lmdb.Error as error:
            if os.strerror(errno.EIO) not in str(error):
                raise
            raise ConfigError(
                f"{path} could not be written ({error}): the disk fails, or files may not become as large (ulimit -f)."
            ) from error
        finally:
            environment.close()
        (draft / "lock.mdb").unlink()  # for writers, and there are none any more
        meta = {
            "layout": LAYOUT,
            "fingerprint": prepared.fingerprint,
            "as_of": prepared.manifest.ending,
            "users": [user_layout.plain.spelling(), {name: each.spelling() for name, each in user_layout.lists.items()}],
            "rooms": {table: layout.spelling() for table, layout in layouts.items()},
            "data": {"bytes": (draft / DATA).stat().st_size, "xxh64": _digest(draft / DATA)},
        }
        (draft / META).write_text(json.dumps(meta), encoding="utf-8")
    return path


def discard_unused(path: Path) -> bool:
    """Throws a store away unless somebody reads it, and returns whether it did; of one in a bucket readers have copies."""
    if isinstance(path, Remote):
        discard(path)
        return True
    try:
        with (path / META).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            discard(path)
            return True
    except OSError:  # somebody reads it, or the disk knows no locks
        return False


def _held(file: Path, owner: object) -> weakref.finalize:
    """Holds a lock that others share, until the owner is gone or the result is called. A disk without locks is as well."""
    handle = os.open(file, os.O_RDONLY)
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return weakref.finalize(owner, os.close, handle)


def _check_data(path: Path, meta: Mapping[str, Any], *, verify: bool) -> None:
    try:
        size = (path / DATA).stat().st_size
    except FileNotFoundError:
        raise ConfigError(f"the store at `{path}` is not whole: {DATA} is missing. {_WAY_OUT}") from None
    if size != (expected := meta["data"]["bytes"]):
        raise ConfigError(f"the store at `{path}` is not whole: {DATA} has {size:,} of {expected:,} bytes. {_WAY_OUT}")
    if verify and _digest(path / DATA) != meta["data"]["xxh64"]:
        raise ConfigError(f"the store at `{path}` is damaged: {DATA} is not what was written (its xxh64 differs). {_WAY_OUT}")


def _digest(file: Path) -> str:
    digest = xxhash.xxh64()
    with file.open("rb") as stream:
        while chunk := stream.read(_PIECE):
            digest.update(chunk)
    return digest.hexdigest()


def _meta(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path / META, way_out="Delete the folder; it is built again.")
    except FileNotFoundError:
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        file = (path / DATA).stat()
    except FileNotFoundError:
        return None
    return (file.st_mtime_ns, file.st_size) if isinstance(path, Remote) else (file.st_dev, file.st_ino)


def _key(number: int) -> bytes:
    return int(number).to_bytes(8, "big", signed=True)


def _write(environment: lmdb.Environment, table: Any, ids: pa.Array, values: Sequence[bytes]) -> None:
    items = [(_key(each), value) for each, value in zip(as_ids(ids).to_pylist(), values, strict=True)]
    with environment.begin(table, write=True) as write, write.cursor() as cursor:
        cursor.putmulti(items)


def _rows(layout: Layout, batch: pa.RecordBatch) -> list[bytes]:
    return layout.block([batch[name] for name in layout.names], batch.num_rows).rows()


def _common_schema(files: Sequence[Path]) -> pa.Schema:
    """Columns of all files without dictionaries, which a single row could not carry."""
    schemas = []
    for file in files:
        fields = pq.read_schema(file)
        plain = [item.with_type(item.type.value_type) if pa.types.is_dictionary(item.type) else item for item in fields]
        schemas.append(pa.schema(plain))
    return pa.unify_schemas(schemas, promote_options="permissive")


def _batches(files: Sequence[Path], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=_CHUNK):
            columns = [
                whole(batch[item.name]).cast(item.type)
                if item.name in batch.schema.names
                else pa.nulls(batch.num_rows, item.type)
                for item in schema
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)
