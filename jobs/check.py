"""Checks logs before anything is prepared or trained: columns, days, labels and ids, with a warning for what is strange.

Reads every row once, in bounded memory, and leaves a page and its numbers in OUTPUT/NAME/check.
"""

from collections.abc import Sequence

from jobs import screen
from models.config import ConfigError
from pipelines.steps import check_step


def main(argv: Sequence[str] | None = None) -> None:
    parser = screen.parser(__doc__)
    parser.add_argument("--strict", action="store_true", help="exit with 2 where a warning is of severity `high`")
    args = parser.parse_args(argv)
    checked = check_step(screen.experiment_of(args))
    high = [finding.name for finding in checked.findings if finding.severity == "high"]
    if args.strict and high:
        raise ConfigError(
            f"the log has {len(high)} warnings of severity `high`: {', '.join(high)}. Mend it, or take what is fine into "
            "`check.accepted`."
        )


if __name__ == "__main__":
    screen.run(main)
