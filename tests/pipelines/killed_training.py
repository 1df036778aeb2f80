"""A training that kills itself at a chosen moment: `python killed_training.py DATA OUTPUT MOMENT`.

MOMENT is `step:17` (before the 17th step this process takes, all checkpoints so far being whole), `save:3` (in its 3rd
checkpoint, everything but the last file written), or `never`.
"""

import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

from models.learners.joint import Joint
from models.zoo import resolve
from pipelines.prepared import Prepared
from pipelines.train import TrainConfig, checkpoint, train

MODEL = resolve({"system": "mmoe", "embedding_width": 4, "fusion": {"experts": 2, "hidden": [8], "towers": [4]}})
CONFIG = TrainConfig(epochs=3, batch_feeds=16, checkpoint_every_steps=3, patience=3, shuffle_row_groups=4)


def dies(function, at: int, wait_for=None):
    """The function, whose `at`-th call kills this process first: no handler runs, nothing is flushed."""
    calls = 0

    def calling(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == at:
            if wait_for is not None:
                wait_for()
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return calling


def checkpoints_are_whole() -> None:
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join()


if __name__ == "__main__":
    data, output, moment = sys.argv[1:]
    what, _, at = moment.partition(":")
    if what == "step":
        Joint.step = dies(Joint.step, int(at), checkpoints_are_whole)  # type: ignore[method-assign]
    if what == "save":
        checkpoint.torch.save = dies(checkpoint.torch.save, int(at))  # type: ignore[attr-defined]
    train(Prepared.open(data), MODEL, replace(CONFIG), output=Path(output))
