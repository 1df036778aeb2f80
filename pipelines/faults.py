"""Whose fault an error is: what a user can change is told in one line, everything else is ours and keeps its trace."""

import errno
from collections.abc import Iterator
from pathlib import Path

from models.config import ConfigError

_OF_A_FILE = {
    errno.ENOENT: "it is not there. Was it moved or deleted meanwhile?",
    errno.EACCES: "this user may not read or write it. Change its permissions, or name another folder.",
    errno.EPERM: "this user may not change it. Change its permissions, or name another folder.",
    errno.EROFS: "it lies on a disk that can only be read. Name another `output`.",
    errno.ENOTDIR: "a part of this path is a file where a folder is needed. Move the file, or name another folder.",
    errno.EEXIST: "a file of this name is where a folder is needed. Move it, or name another folder.",
    errno.EISDIR: "it is a folder where a file is needed.",
    errno.ENAMETOOLONG: "its name is too long. Take shorter names of folders or of the run.",
    errno.ELOOP: "its symbolic links go in a circle.",
    errno.EIO: "the disk cannot read or write it. Look after the disk, and start again.",
    errno.ESTALE: "the file server has lost it. Start again.",
}
_ANYWHERE = {
    errno.ENOSPC: "there is no space left on the disk. Make room and start again.",
    errno.EDQUOT: "the disk quota is used up. Make room and start again.",
    errno.EFBIG: "the file would be larger than is allowed. Raise the limit (ulimit -f) and start again.",
    errno.EMFILE: "too many files are open. Raise the limit (ulimit -n) and start again.",
    errno.ENFILE: "too many files are open on this machine. Close other programs and start again.",
    errno.EAGAIN: "the machine starts no more processes or threads. Raise the limit (ulimit -u), or close other programs.",
    errno.ENOMEM: "there is no memory left. Close other programs, or work on less at a time.",
}
_LOOP = "Symlink loop from "


def told(error: BaseException) -> str | None:
    """What a user is told of an error and can do about it, in a line; None where the fault is ours.

    The error counts and what it was raised from, also across Ray, whose errors keep their origin in `cause`. What merely
    was being handled when it was raised counts for a `ConfigError` only.
    """
    for cause in _causes(error, handled=True):
        if isinstance(cause, ConfigError):
            return str(cause)
    return next((line for cause in _causes(error) if (line := _line(cause)) is not None), None)


def _line(error: BaseException) -> str | None:
    if isinstance(error, FloatingPointError) and str(error):
        return str(error)
    if type(error).__name__ == "OutOfMemoryError":  # of PyTorch, which data steps do without
        return "the GPU has no memory left. Lower train.batch_feeds or the widths of the model, or set train.device to cpu."
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):
        return f"{_ANYWHERE[errno.ENOMEM]} Memory goes by prepare.rows_per_bucket, train.batch_feeds and the model's widths."
    if isinstance(error, UnicodeEncodeError) and error.encoding.lower() not in ("utf-8", "utf8"):  # a name of a file
        return f"`{error.object}` cannot be spelled in this locale ({error.encoding}). Set LC_ALL=C.UTF-8, or PYTHONUTF8=1."
    if isinstance(error, RuntimeError) and str(error).startswith(_LOOP):  # of `Path.resolve` before Python 3.13
        return f"{str(error).removeprefix(_LOOP).strip(chr(39))}: {_OF_A_FILE[errno.ELOOP]}"
    if not isinstance(error, OSError) or error.errno is None:
        return None
    names = [str(name) for name in (error.filename, error.filename2) if isinstance(name, str | Path)]
    if error.errno in _ANYWHERE:
        return ": ".join([*names[-1:], _ANYWHERE[error.errno]])
    return f"{' to '.join(names)}: {_OF_A_FILE[error.errno]}" if names and error.errno in _OF_A_FILE else None


def _causes(error: BaseException, *, handled: bool = False) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        here = waiting.pop(0)
        if here is None or any(here is known for known in seen):
            continue
        seen.append(here)
        yield here
        waiting += [getattr(here, "cause", None), here.__cause__, here.__context__ if handled else None]
