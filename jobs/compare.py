"""Compares systems x seeds on the prepared feeds (section `compare`) and writes the table: HTML, Markdown, JSON.

Finished cells are never run again; started again after a kill it goes on. Exit code 1 says that a cell failed.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext

from jobs import screen
from pipelines.compare.execute import overview, state_of_units
from pipelines.steps import claimed_comparison, compare_step, comparison_of, on_ray


def main(argv: Sequence[str] | None = None) -> None:
    parser = screen.parser(__doc__)
    parser.add_argument("--dry-run", action="store_true", help="list cells, parameters and what is done; run nothing")
    parser.add_argument("--table", action="store_true", help="write the table of what is done; run nothing")
    parser.add_argument("--only", metavar="A,B", default="", help="run these systems or baselines only; the table shows all")
    parser.add_argument("--replace", action="store_true", help="throw away results that were made with other settings")
    args = parser.parse_args(argv)
    experiment = screen.experiment_of(args)
    only = [label.strip() for label in args.only.split(",") if label.strip()]
    if args.dry_run or args.table:
        comparison = comparison_of(experiment, only=only)
        print(overview(comparison))
        if args.dry_run:
            print(state_of_units(comparison))
        else:
            compare_step(experiment, comparison, run=False)
        return
    with claimed_comparison(experiment, only=only) as comparison:
        print(overview(comparison))
        comparison.begin(replace=args.replace)
        runs = comparison.left() > 0
        with on_ray(experiment) if runs else nullcontext():
            compared = compare_step(experiment, comparison, run=runs)
    if compared.failed:
        sys.exit(1)


if __name__ == "__main__":
    screen.run(main)
