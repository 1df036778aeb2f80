"""Every row of the log is accounted for: sums of rows from step to step, and the rules by which sound rows are left out."""

from collections.abc import Mapping

from models.config import ConfigError
from pipelines.prepared import TableAccount

LATE = "arrived from prepare.until on"
PAST_MOST = "of users past prepare.user_most"
UNUSED = "of an action that no target or counter asks for"
_WAY_OUT = "Delete the folder and prepare again; where that happens twice, it is a fault of this program: please report it."


def rows_agree(step: str, table: str, *, read: int, left: int) -> None:
    """Makes sure that a step read what the steps before it left.

    Raises:
        ConfigError: it did not.
    """
    if read != left:
        raise ConfigError(f"{step}: {read:,} rows of {table} were read where the steps before left {left:,}. {_WAY_OUT}")


def adds_up(account: Mapping[str, TableAccount]) -> None:
    """Makes sure that every table's rows are kept, quarantined or left out.

    Raises:
        ConfigError: they are not.
    """
    for table, each in account.items():
        if not each.is_whole:
            raise ConfigError(f"the account of `{table}` does not add up ({each}). {_WAY_OUT}")
