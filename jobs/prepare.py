"""Turns logs into feed tables: clean, attribute labels, histories and counters point in time, encode, split by day.

Started again after a kill it goes on; on finished work it does nothing.
"""

from collections.abc import Sequence
from contextlib import nullcontext

from jobs import screen
from pipelines.steps import on_ray, prepare_step


def main(argv: Sequence[str] | None = None) -> None:
    parser = screen.parser(__doc__)
    parser.add_argument(
        "--dry-run", action="store_true", help="check and print the plan; only logs that are not canonical yet are converted"
    )
    args = parser.parse_args(argv)
    experiment = screen.experiment_of(args)
    if args.dry_run:
        prepare_step(experiment, dry_run=True)
        return
    with on_ray(experiment) if experiment.prepare.parallel == "ray" else nullcontext():
        prepared = prepare_step(experiment)
    assert prepared is not None
    print(f"Prepared: {prepared.path}")


if __name__ == "__main__":
    screen.run(main)
