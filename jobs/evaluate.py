"""Writes the report of one or several bundles beside popularity, boosted counters and, for simulated logs, the truth."""

from collections.abc import Sequence

from jobs import screen
from pipelines.steps import bundle_of, evaluate_step


def main(argv: Sequence[str] | None = None) -> None:
    parser = screen.parser(__doc__)
    parser.add_argument(
        "--bundle", action="append", metavar="FOLDER", help="a bundle; may be repeated (default: the newest registered one)"
    )
    args = parser.parse_args(argv)
    experiment = screen.experiment_of(args)
    evaluate_step(experiment, [bundle_of(experiment, path) for path in args.bundle or [None]])


if __name__ == "__main__":
    screen.run(main)
