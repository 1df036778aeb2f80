"""Trains one system on the prepared feeds and registers its bundle."""

from collections.abc import Sequence
from contextlib import nullcontext

from jobs import screen
from pipelines.steps import on_ray, register_step, train_step


def main(argv: Sequence[str] | None = None) -> None:
    parser = screen.parser(__doc__)
    parser.add_argument("--restart", action="store_true", help="throw away what an earlier training left in the run's folder")
    args = parser.parse_args(argv)
    experiment = screen.experiment_of(args)
    with on_ray(experiment) if experiment.train.workers else nullcontext():
        result = train_step(experiment, restart=args.restart)
    print(f"Bundle: {register_step(experiment, result.bundle_path)}")


if __name__ == "__main__":
    screen.run(main)
