"""Every row of the log is accounted for: sums of rows from step to step."""

from models.config import ConfigError


def rows_agree(step: str, table: str, *, read: int, left: int) -> None:
    """Makes sure that a step read what the steps before it left.

    Raises:
        ConfigError: it did not.
    """
    if read != left:
        raise ConfigError(
            f"{step}: {read:,} rows of {table} were read where the steps before left {left:,}. Delete the folder and prepare "
            "again; where that happens twice, it is a fault of this program: please report it."
        )
