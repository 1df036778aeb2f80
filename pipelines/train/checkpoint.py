"""Checkpoints: everything a run needs to go on to the weights it would have had.

A checkpoint is a folder that appears whole or not at all, so a run can be killed at any moment; the last two are kept.
Training goes on while one is written: rank 0 copies weights and states, and a thread writes the copy. Until that is done
rank 0 holds as much memory more as the files are large: the weights, and the optimisers' states (with Adam twice
the weights, with row-wise Adagrad one number a table row).

    weights.safetensors   the ranker now
    best.safetensors      the ranker after its best epoch (a hard link where it can be)
    state.pt              learner (optimisers) and random states by rank
    progress.json         position, history, best epoch so far
"""

import json
import os
import random
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from models.config import ConfigError
from models.learners.workers import WorkerGroup
from pipelines.places import Remote, fetch, here, is_whole
from pipelines.runs import discard, read_json, sweep, written
from pipelines.train.heartbeat import with_heartbeat
from pipelines.train.process_group import all_objects, from_rank_0
from pipelines.train.progress import Progress, read_progress

KEPT = 2

_NAME = re.compile(r"[0-9]{9,}-[0-9]{4,}")  # steps and epochs; what else lies in the folder is not ours


@dataclass(frozen=True)
class _Snapshot:
    """A copy, in the CPU's memory, of all that a checkpoint consists of; training may go on."""

    weights: dict[str, torch.Tensor]
    state: dict[str, Any]
    progress: dict[str, Any]
    is_best: bool

    @property
    def name(self) -> str:
        """Of the checkpoint's folder; later ones come later in the alphabet."""
        return f"{self.progress['total_steps']:09d}-{self.progress['epoch']:04d}"

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.weights.values(), *_tensors(self.state)))


class Checkpoints:
    """The checkpoints of one run, in one folder that all workers reach.

    As a context manager it waits at the end for what is being written.

    Args:
        device: where weights and optimiser states are loaded to.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.folder = folder
        self.device = device
        self._thread: threading.Thread | None = None  # writes the last checkpoint
        self._error: ConfigError | None = None  # why it could not

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            self._finish_writing()
        except ConfigError as failure:
            if error is None:
                raise
            error.add_note(str(failure))  # what ended the training counts more

    def latest(self) -> Path | None:
        """The last whole checkpoint."""
        return next((path for path in self._newest_first() if damage(path) is None), None)

    def discard_damaged(self, say: Callable[[str], None]) -> None:
        """Throws away checkpoints that are not whole any more, and says which one is taken instead."""
        damaged = {path: reason for path in self._newest_first() if (reason := damage(path)) is not None}
        last = self.latest()
        way_out = "there is none before it; training begins anew." if last is None else f"going on from {last.name}."
        for path, reason in damaged.items():
            say(f"The checkpoint {path} is damaged or cut short ({reason}); {way_out}")
            discard(path)

    def _newest_first(self) -> list[Path]:
        return sorted((path for path in self.folder.glob("*") if _NAME.fullmatch(path.name) and is_whole(path)), reverse=True)

    def restore(self, ranker: nn.Module, learner: Any, group: WorkerGroup) -> Progress:
        """Puts the last checkpoint into ranker, learner and random states; on every rank. Starts at nothing without one.

        A rank that the checkpoint does not know, because there were fewer, keeps its own random state.
        """
        path = from_rank_0(self.latest(), group)
        if path is None:
            return Progress()

        def read() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
            with here(path) as folder:
                state = torch.load(folder / "state.pt", map_location=self.device, weights_only=True)
                return state, load_file(folder / "weights.safetensors")

        state, weights = with_heartbeat(read, group)
        _check_names(path, ranker, weights)
        ranker.load_state_dict(weights)
        learner.load_state_dict(state["learner"])
        if group.rank < len(state["random"]):
            _set_random_state(state["random"][group.rank])
        return read_progress(path)

    def save(self, ranker: nn.Module, learner: Any, progress: Progress, group: WorkerGroup, *, best: bool = False) -> None:
        """Has a checkpoint written: every rank gives its random state, rank 0 copies the rest and begins to write.

        Returns when the copy is made. If the checkpoint before is still being written, it is waited for first.

        Args:
            best: these weights are the best so far.

        Raises:
            ConfigError: the checkpoint before could not be written.
        """
        random_states = all_objects(_random_state(), group)

        def copy_and_begin() -> None:
            self._finish_writing()
            if group.rank == 0:
                snapshot = _Snapshot(
                    weights=_copied(ranker.state_dict()),
                    state=_copied({"learner": learner.state_dict(), "random": random_states}),
                    progress=progress.to_dict(),
                    is_best=best,
                )
                self._thread = threading.Thread(target=self._write_or_note, args=[snapshot], name="checkpoint", daemon=True)
                self._thread.start()

        with_heartbeat(copy_and_begin, group)

    def wait(self, group: WorkerGroup) -> None:
        """Returns when the last checkpoint is whole on the disk; every rank takes part.

        Raises:
            ConfigError: it could not be written.
        """
        with_heartbeat(self._finish_writing, group)

    def _finish_writing(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write_or_note(self, snapshot: _Snapshot) -> None:
        try:
            self._write(snapshot)
        except ConfigError as error:  # handed to whoever waits, as all others: the disk is full
            self._error = error
        except Exception as error:
            self._error = ConfigError(
                f"the checkpoint after step {snapshot.progress['total_steps']} could not be written to {self.folder}: "
                f"{_cause(error)}. It takes {snapshot.bytes / 1e6:,.1f} MB; make room, and start again to go on from the one "
                "before."
            )
            self._error.__cause__ = error

    def _write(self, snapshot: _Snapshot) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder.parent, self.folder.name)  # a worker that Ray started anew finds what the lost one had half written
        before = self.latest()
        with written(self.folder / snapshot.name) as path:
            path.mkdir()
            save_file(snapshot.weights, path / "weights.safetensors")
            if snapshot.is_best:
                _link(path / "weights.safetensors", path / "best.safetensors")
            elif before is not None and (before / "best.safetensors").exists():
                _link(before / "best.safetensors", path / "best.safetensors")
            with (path / "state.pt").open("wb") as file:
                torch.save(snapshot.state, file)
            (path / "progress.json").write_text(json.dumps(snapshot.progress), encoding="utf-8")
        for old in self._newest_first()[KEPT:]:
            discard(old)


def _check_names(path: Path, ranker: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    if differing := sorted(ranker.state_dict().keys() ^ weights.keys()):
        raise ConfigError(
            f"{path} was written by another version of this program: its weights have other names ({differing[0]}). Train "
            "again with --restart (resume=False)."
        )


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint, as far as it can be seen without reading it all: files that are cut short are.

    Raises:
        OSError: it cannot be read, which may pass: no reason to throw it away.
    """
    if isinstance(path, Remote):  # it was put as a whole, and whoever reads it compares digests
        return None
    try:
        progress = read_json(path / "progress.json", way_out="")
        has_best = progress["best_epoch"] is not None or (path / "best.safetensors").exists()
        for name in ("weights.safetensors", *["best.safetensors"] * has_best):
            (path / name).open("rb").close()  # `safe_open` takes a file that may not be read for a damaged one
            with safe_open(path / name, "pt") as file:  # compares the header with the file's length
                file.keys()
        with zipfile.ZipFile(path / "state.pt") as archive:  # its directory stands at the end
            archive.namelist()
    except (FileNotFoundError, ValueError, KeyError, SafetensorError, zipfile.BadZipFile) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _copied(value: Any) -> Any:
    """The same value with its tensors copied into the CPU's memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def _cause(error: BaseException) -> str:
    """What the operating system said, wherever it is hidden, or else the first line of the error."""
    here: BaseException | None = error
    while here is not None:
        if isinstance(here, OSError) and here.strerror:
            return here.strerror
        here = here.__cause__ or here.__context__
    return str(error).splitlines()[0] if str(error) else repr(error)


def _link(source: Path, target: Path) -> None:
    if isinstance(source, Remote):
        fetch(source, target)
        return
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _random_state() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),  # plain values, so that loading runs no pickled code
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
