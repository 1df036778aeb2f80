"""Files and folders that are whole or not there: written beside their place, flushed, renamed."""

import errno
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from models.config import ConfigError
from pipelines.places import Remote, aside, put, put_folder, remove_tree
from pipelines.runs import processes

QUIET = 60.0  # seconds without a write after which the writer of a draft counts as dead
FULL = 2**20  # bytes free on a disk below which any error in writing is taken for want of space

_DRAFT = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]+)-(?P<pid>\d+)-[0-9a-f]{8}\.(?P<kind>draft|old)")


@contextmanager
def written(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A path to write a file or a folder to. It takes the place of `path` when all went well, and is gone otherwise.

    What was at `path` before stays until then, also where this process is killed, the machine stops or the disk is full.
    For a place in a store it is a path on this machine's disk, whose content is put there at the end; a folder is then
    replaced object by object, and does not count as whole meanwhile (`pipelines.places`).

    Args:
        durable: wait until it is on the disk. Without that a machine that stops may leave less than was written, under its
            name; it is for files whose readers know what they have to hold.

    Raises:
        ConfigError: the disk is full.
    """
    if isinstance(path, Remote):
        with aside(path.name) as draft, full_disk_told(draft):
            yield draft
            put_folder(draft, path) if draft.is_dir() else put(draft, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)
    try:
        with full_disk_told(path):
            yield draft
            _open_to_others(draft)
            if durable:
                flush(draft)
        if not draft.is_dir():
            draft.replace(path)
            return
        old = draft_of(path, "old")
        if path.is_dir():  # a folder is not renamed over another one
            path.rename(old)
        draft.rename(path)
        _flush_entry(path.parent)  # the new one has its name before an old one goes, this one or a checkpoint
        discard(old)
    finally:
        _remove(draft)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """A file that is there whole or not at all; `durable` as in `written`."""
    with written(path, durable=durable) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """As `write_text`, for a plain value."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path, *, way_out: str, of: type = dict) -> Any:
    """What `write_json` wrote.

    Args:
        way_out: what a user can do where the file is damaged, as a sentence.
        of: `dict` or `list`, which the file holds.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it is cut short, or holds something else.
    """
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # no JSON, or no UTF-8
        raise ConfigError(f"{path} is damaged ({error}). {way_out}") from None
    if not isinstance(found, of):
        wanted = "a list" if of is list else "an object"
        raise ConfigError(f"{path} is damaged (it holds {json.dumps(found)[:20]}, not {wanted}). {way_out}")
    return found


def discard(path: Path) -> None:
    """Throws a file or folder away, if it is there. Killed meanwhile, the next claim removes the rest.

    In a store it goes object by object: first what says that a folder is whole, last the `run.json` that says whose it is.
    """
    if isinstance(path, Remote):
        remove_tree(path, last="run.json")
        return
    draft = draft_of(path)
    with suppress(FileNotFoundError):
        path.rename(draft)
        _remove(draft)


def draft_of(path: Path, kind: str = "draft") -> Path:
    """A name beside `path` that no other writer takes, on no machine."""
    return path.with_name(f".{path.name}.{processes.host()}-{os.getpid()}-{secrets.token_hex(4)}.{kind}")


def sweep(folder: Path, name: str) -> None:
    """Removes what dead writers left: of `folder / name` beside it, and of everything in it.

    A writer is dead if its process is gone from this machine or, where that cannot be known, if it has written nothing
    for `QUIET` seconds.
    """
    if isinstance(folder, Remote):  # where objects are whole, and drafts lie on the writers' own disks
        return
    found = [path for path in folder.iterdir() if (match := _DRAFT.fullmatch(path.name)) and match["name"] == name]
    for where, folders, files in os.walk(folder / name):
        drafts = {each for each in (*folders, *files) if _DRAFT.fullmatch(each)}
        found += [Path(where) / each for each in drafts]
        folders[:] = [each for each in folders if each not in drafts]
    for draft in found:
        match = _DRAFT.fullmatch(draft.name)
        assert match is not None
        if not _writer_is_gone(draft, match["host"], int(match["pid"])):
            continue
        place = draft.with_name(match["name"])
        if match["kind"] == "old" and not place.exists():  # killed between the two renames of a folder that is replaced
            draft.rename(place)
        else:
            _remove(draft)


def flush(path: Path) -> None:
    """Waits until a file, or all files of a folder, are on the disk."""
    for each in (*path.rglob("*"), path) if path.is_dir() else (path,):
        _flush_entry(each)


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Libraries tell of a full disk in errors of their own kinds; a user gets one line.

    Raises:
        ConfigError: there is no space for `path`.
    """
    try:
        yield
    except Exception as error:
        codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        free = shutil.disk_usage(path.parent).free
        told = getattr(error, "errno", None) in codes or os.strerror(errno.ENOSPC) in str(error)
        if isinstance(error, ConfigError) or (not told and free >= FULL):
            raise
        raise ConfigError(
            f"no space to write {path} ({free / 2**20:,.0f} MiB are free there; a quota may leave less). What was there "
            "before is as it was. Make room and start again."
        ) from error


def _writer_is_gone(draft: Path, host: str, pid: int) -> bool:
    if host == processes.host() and processes.began(pid) is None:
        return True
    try:
        last = max(path.lstat().st_mtime for path in (draft, *draft.rglob("*")))
    except FileNotFoundError:  # it has just become what it was to be
        return False
    return time.time() - last > QUIET


def _open_to_others(draft: Path) -> None:
    """Gives files that a library made for this user alone (safetensors does) the rights that the umask gave their folder."""
    if not draft.is_dir():
        return
    usual = draft.stat().st_mode & 0o666
    for path in draft.rglob("*"):
        mode = path.stat().st_mode
        if path.is_file() and mode & usual != usual:
            with suppress(PermissionError):  # another user's, linked to
                path.chmod(mode | usual)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush_entry(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
