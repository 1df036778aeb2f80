"""Makes a leaderboard of a log: every system of the zoo, with the same search, seeds and stopping, above a floor.

    python -m jobs.leaderboard jobs/configs/ebnerd.yaml --set logs.path=FOLDER          # every system that can work on it
    python -m jobs.leaderboard jobs/configs/ebnerd.yaml --systems mmoe,ple,dbmtl        # some

What the experiment's section `compare` says of systems, seeds, rates and metrics stands; without one there are three seeds
and three learning rates. The log is prepared first, if it is not (a dry run makes nothing). Started again after a kill it goes
on, and the table is the same as without. Page and numbers: leaderboard.md and leaderboard.json. Exit code 1 says that a cell
failed.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext

from jobs import screen
from pipelines.compare.execute import overview, state_of_units
from pipelines.steps import LEADERBOARD, board_of, claimed_comparison, comparison_of, leaderboard_step, on_ray, prepare_step


def main(argv: Sequence[str] | None = None) -> None:
    parser = screen.parser(__doc__, config=None)
    parser.add_argument("--systems", metavar="A,B", default="", help="of the zoo; all that can work on the log by default")
    parser.add_argument("--dry-run", action="store_true", help="list cells, parameters and what is done; train nothing")
    parser.add_argument("--table", action="store_true", help="write the page of what is done; train nothing")
    parser.add_argument("--replace", action="store_true", help="throw away results that were made with other settings")
    args = parser.parse_args(argv)
    experiment = screen.experiment_of(args)
    if not (args.dry_run or args.table):
        with on_ray(experiment) if experiment.prepare.parallel == "ray" else nullcontext():
            prepare_step(experiment)
    experiment, left_out = board_of(experiment, [name.strip() for name in args.systems.split(",") if name.strip()])
    for name, reason in left_out.items():
        print(f"Not on the board: {name}: {reason}")
    if args.dry_run or args.table:
        comparison = comparison_of(experiment, folder=LEADERBOARD)
        print(overview(comparison))
        if args.dry_run:
            print(state_of_units(comparison))
        else:
            leaderboard_step(experiment, comparison, left_out, run=False)
        return
    with claimed_comparison(experiment, folder=LEADERBOARD) as comparison:
        print(overview(comparison))
        comparison.begin(replace=args.replace)
        runs = comparison.left() > 0
        with on_ray(experiment) if runs else nullcontext():
            table = leaderboard_step(experiment, comparison, left_out, run=runs)
    if table.failed:
        sys.exit(1)


if __name__ == "__main__":
    screen.run(main)
