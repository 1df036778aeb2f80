"""Checkpoints: everything a run needs to go on to the weights it would have had.

A checkpoint is a folder that appears whole or not at all, so a run can be killed at any moment; the last two are kept.

    weights.safetensors   the ranker now
    best.safetensors      the ranker after its best epoch (a hard link where it can be)
    state.pt              learner (optimisers) and random states by rank
    progress.json         position, history, best epoch so far
"""

import json
import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from models.learners.world import World
from pipelines.bundle import save_weights
from pipelines.runs import written
from pipelines.train.world import from_rank_0, gather_objects

KEPT = 2


@dataclass(kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        epoch, step: the next step to take.
        total_steps: steps taken in all epochs.
        losses: by target (sum, count) of the epoch so far.
        told: what the learner told in the epoch so far: by name the mean over a stretch of steps, and as `progress` the epochs
            behind its end, fractions included.
        telling: by name (sum, count) of the stretch that is not over.
        candidates, seconds: of the epoch so far, of training alone; this rank's candidates until the epoch is closed.
        history: a record for each finished epoch.
        best_epoch: index into the history; None before the first validation.
        stopped: why training is over; None while it is not.
    """

    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    losses: dict[str, tuple[float, float]] = field(default_factory=dict)
    told: list[dict[str, float]] = field(default_factory=list)
    telling: dict[str, tuple[float, int]] = field(default_factory=dict)
    candidates: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    stopped: str | None = None

    def add(self, losses: Mapping[str, tuple[float, float]], candidates: int) -> None:
        """Counts a step's losses, (sum, count) by target over all ranks, and this rank's candidates."""
        for name, (total, count) in losses.items():
            past_total, past_count = self.losses.get(name, (0.0, 0.0))
            self.losses[name] = (past_total + total, past_count + count)
        self.candidates += candidates

    def tell(self, told: Mapping[str, float]) -> None:
        """Counts what the learner tells of a step."""
        for name, value in told.items():
            past_total, past_count = self.telling.get(name, (0.0, 0))
            self.telling[name] = (past_total + value, past_count + 1)

    def close_telling(self, epochs: float) -> None:
        """Ends a stretch of steps; where nothing was told, nothing is noted. `epochs`: behind its end."""
        if self.telling:
            self.told.append({"progress": epochs, **{name: total / count for name, (total, count) in self.telling.items()}})
        self.telling = {}


class Checkpoints:
    """The checkpoints of one run, in one folder that all workers reach.

    Args:
        device: where weights and optimiser states are loaded to.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.folder = folder
        self.device = device

    def latest(self) -> Path | None:
        """The last whole checkpoint."""
        return max(self.folder.glob("[0-9]*"), default=None)

    def restore(self, ranker: nn.Module, learner: Any, world: World) -> Progress:
        """Puts the last checkpoint into ranker, learner and random states; on every rank. Starts at nothing without one.

        A rank that the checkpoint does not know, because there were fewer, keeps its own random state.
        """
        path = from_rank_0(self.latest(), world)
        if path is None:
            return Progress()
        state = torch.load(path / "state.pt", map_location=self.device, weights_only=True)
        ranker.load_state_dict(load_file(path / "weights.safetensors"))
        learner.load_state_dict(state["learner"])
        if world.rank < len(state["random"]):
            _set_random_state(state["random"][world.rank])
        return read_progress(path)

    def save(self, ranker: nn.Module, learner: Any, progress: Progress, world: World, *, best: bool = False) -> None:
        """Writes a checkpoint; every rank gives its random state, rank 0 writes.

        Args:
            best: these weights are the best so far.
        """
        random_states = gather_objects(_random_state(), world)
        if random_states is None:
            return
        before = self.latest()
        with written(self.folder / f"{progress.total_steps:09d}-{progress.epoch:04d}") as path:
            path.mkdir()
            save_weights(path / "weights.safetensors", ranker)
            if best:
                _link(path / "weights.safetensors", path / "best.safetensors")
            elif before is not None and (before / "best.safetensors").exists():
                _link(before / "best.safetensors", path / "best.safetensors")
            torch.save({"learner": learner.state_dict(), "random": random_states}, path / "state.pt")
            (path / "progress.json").write_text(json.dumps(asdict(progress)))
        for old in sorted(self.folder.glob("[0-9]*"))[:-KEPT]:
            shutil.rmtree(old)


def read_progress(path: Path) -> Progress:
    """The progress a checkpoint holds."""
    spelling = json.loads((path / "progress.json").read_text())
    sums = [{name: (total, count) for name, (total, count) in spelling.pop(key, {}).items()} for key in ("losses", "telling")]
    return Progress(losses=sums[0], telling=sums[1], **spelling)


def _link(source: Path, target: Path) -> None:
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
