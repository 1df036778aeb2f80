"""What all jobs share: `--config FILE --set a.b=c`, one-line errors, exit codes."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from pipelines.experiment import Experiment, load_experiment, load_spelling, spelled_as_before
from pipelines.faults import told


def parser(description: str | None, *, config: str | None = "jobs/configs/quickstart.yaml") -> argparse.ArgumentParser:
    """The options every job has.

    Args:
        config: the experiment where none is named; None wants it named, as the first argument.
    """
    made = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # options are looked for by their names, and handed on
    )
    if config is None:
        made.add_argument("config", help="experiment file")
    else:
        made.add_argument("--config", default=config, help="experiment file (default: %(default)s)")
    made.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="change one value of the experiment; may be repeated"
    )
    made.add_argument("--debug", action="store_true", help="show where an error was raised")
    return made


def experiment_of(args: argparse.Namespace) -> Experiment:
    for line in spelled_as_before(load_spelling(args.config, args.set)):
        print(line)
    return load_experiment(args.config, args.set)


def run(main: Callable[[Sequence[str] | None], None]) -> None:
    """Runs a job's main: 0 when it is done, 2 with one line when the input is at fault, 1 with a trace for our faults."""
    for stream in (sys.stdout, sys.stderr):  # names are of any language, whatever the locale; progress shows as it happens
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    try:
        main(None)
    except KeyboardInterrupt:
        print("Stopped. Start the same command again to go on.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # who read our lines has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        line = told(error)
        if line is None or "--debug" in sys.argv:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
