"""Writes the logs of a simulated live-stream world, with the truth beside them; with more days, goes on with the same world.

Worlds with the premises of papers are in jobs/configs/worlds/; logs.users is their size, and a premise has a strength from 0
(the plain world) to 1, for example --set logs.levels.strength=1. docs/worlds.md describes them.
"""

from collections.abc import Sequence

from jobs import screen
from models.config import ConfigError
from pipelines.logs import SimulateConfig
from pipelines.steps import logs_of


def main(argv: Sequence[str] | None = None) -> None:
    experiment = screen.experiment_of(screen.parser(__doc__).parse_args(argv))
    if not isinstance(experiment.logs, SimulateConfig):
        raise ConfigError(
            f"`logs.kind` is {experiment.logs.kind!r}; simulated logs need `logs: {{kind: simulate, users: 2000}}`."
        )
    logs = logs_of(experiment)
    print(f"Logs: {logs.path}")


if __name__ == "__main__":
    screen.run(main)
