"""Searches over paths of the experiment (section `tune`), and registers the best trial's bundle.

Started again after a kill it goes on; a finished search says so.
"""

from collections.abc import Sequence

from jobs import screen
from pipelines.cluster import connected
from pipelines.stages import register_stage, search_stage


def main(argv: Sequence[str] | None = None) -> None:
    experiment = screen.experiment_of(screen.parser(__doc__).parse_args(argv))
    with connected(experiment.ray):
        result = search_stage(experiment)
    print(f"Bundle: {register_stage(experiment, result.bundle_path)}")


if __name__ == "__main__":
    screen.run(main)
