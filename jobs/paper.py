"""Makes a paper's tables: a pilot, then every row in several simulated worlds, and a page with the paper's own figures beside.

    python -m jobs.paper pimm                            # all of it; goes on where it was
    python -m jobs.paper pimm --pilot                    # learning rates, and how small an effect can be seen
    python -m jobs.paper pimm --set logs.users=40000     # another size
    python -m jobs.paper pimm --variants main plain      # these kinds of worlds alone
    python -m jobs.paper pimm --in-process               # cells one after the other, without Ray
    python -m jobs.paper pimm --again main/1/pimm/0      # one cell anew from nothing, held against the page

Papers are the files of jobs/configs/papers/. Pages go to docs/results/: NAME.md, NAME.json and pictures. Cells run side by side
on Ray, or with --in-process one after the other, with the same digits; finished ones are never run again. Exit code 1 says that
a cell failed, or is not the same again.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from jobs import screen
from models.config import ConfigError
from pipelines.compare.execute import InProcess
from pipelines.experiment import load_experiment
from pipelines.papers import Study, again, carry_out, overview, table_of
from pipelines.paths import local
from pipelines.steps import on_ray

PAPERS = Path(__file__).parent / "configs" / "papers"


def main(argv: Sequence[str] | None = None) -> None:
    known = ", ".join(sorted(file.stem for file in PAPERS.glob("*.yaml")))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help=f"of the paper ({known}), or a file of your own")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change one value; may be repeated")
    parser.add_argument("--to", default="docs/results", metavar="FOLDER", help="of the page (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="say what there is to do")
    parser.add_argument("--pilot", action="store_true", help="run the pilot alone")
    parser.add_argument("--variants", nargs="+", metavar="VARIANT", help="run these kinds of worlds alone, in this order")
    parser.add_argument("--in-process", action="store_true", help="run all in this process, one cell after the other")
    parser.add_argument("--table", action="store_true", help="write the page of what is done; run nothing")
    parser.add_argument("--again", metavar="VARIANT/WORLD/ROW/SEED", help="make one cell anew and hold it against the page")
    parser.add_argument("--replace", action="store_true", help="throw away results that were made with other settings")
    parser.add_argument("--debug", action="store_true", help="show where an error was raised")
    args = parser.parse_args(argv)
    file = Path(args.name) if args.name.endswith((".yaml", ".yml")) else PAPERS / f"{args.name}.yaml"
    if not file.is_file():
        raise ConfigError(f"no paper `{args.name}`. There are: {known}.")
    experiment = load_experiment(file, args.set)
    if args.in_process:
        experiment = replace(experiment, prepare=replace(experiment.prepare, parallel="none"))
    study, folder = Study(experiment, tuple(args.set)), local(args.to)
    if unknown := [name for name in args.variants or () if name not in study.variants]:
        raise ConfigError(f"--variants: `{unknown[0]}` is not one of: {', '.join(study.variants)}.")
    print(overview(study))
    if args.dry_run:
        return
    if args.table:
        print(f"Page: {table_of(study, folder)}")
        return
    with nullcontext() if args.in_process else on_ray(study.experiment):
        if args.again:
            output = study.folder / "again"
            if not again(study, args.again, folder, output, lambda line: print(line, flush=True)):
                sys.exit(1)
            return
        failed = carry_out(
            study,
            folder,
            lambda line: print(line, flush=True),
            executor=InProcess() if args.in_process else None,
            pilot_alone=args.pilot,
            variants=tuple(args.variants or study.variants),
            replace=args.replace,
        )
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    screen.run(main)
