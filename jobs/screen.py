"""What all jobs share: `--config FILE --set a.b=c`, one-line errors, exit codes."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence

from models.config import ConfigError
from pipelines.experiment import Experiment, load_experiment


def parser(description: str | None, *, config: str = "jobs/configs/quickstart.yaml") -> argparse.ArgumentParser:
    """The options every job has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--config", default=config, help="experiment file (default: %(default)s)")
    made.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="change one value of the experiment; may be repeated"
    )
    made.add_argument("--debug", action="store_true", help="show where an error was raised")
    return made


def experiment_of(args: argparse.Namespace) -> Experiment:
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
    except Exception as error:
        told = next((cause for cause in _causes(error) if isinstance(cause, ConfigError)), None)
        if told is None or "--debug" in sys.argv:
            raise
        print(f"error: {told}", file=sys.stderr)
        sys.exit(2)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what lies behind it, also across Ray, whose errors keep their origin in `cause`."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        here = waiting.pop(0)
        if here is None or any(here is known for known in seen):
            continue
        seen.append(here)
        yield here
        waiting += [getattr(here, "cause", None), here.__cause__, here.__context__]
