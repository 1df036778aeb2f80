"""Searches over paths of the experiment, or over the graph of its targets (section `tune`), and registers the winner's bundle.

A search that was stopped goes on and loses at most the epochs it was in; a finished one says where its results are.
"""

from collections.abc import Sequence

from jobs import screen
from pipelines.steps import on_ray, register_step, search_plan, search_step


def main(argv: Sequence[str] | None = None) -> None:
    parser = screen.parser(__doc__)
    parser.add_argument("--resume", action="store_true", help="go on with the search that is there; without one, refuse")
    parser.add_argument("--restart", action="store_true", help="throw away what an earlier search left")
    parser.add_argument("--dry-run", action="store_true", help="check and show what would be searched, and stop")
    args = parser.parse_args(argv)
    experiment = screen.experiment_of(args)
    for line in search_plan(experiment, resume=args.resume, restart=args.restart):
        print(line)
    if args.dry_run:
        return
    with on_ray(experiment):
        found = search_step(experiment, restart=args.restart)
    print(f"Bundle: {register_step(experiment, found.bundle_path)}")


if __name__ == "__main__":
    screen.run(main)
