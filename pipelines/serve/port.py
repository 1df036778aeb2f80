"""Whether the endpoint will be able to listen, asked before anything is started for it, and who else listens there.

Ray's proxy opens its port so that others may open it too (SO_REUSEPORT): a second one would get every other request, and
nobody would notice. It needs that to come back at once after a crash, while connections of before are still ending. So
the port is asked without it before the start, and its listeners are counted afterwards.
"""

import errno
import socket

from models.config import ConfigError
from pipelines.ray_private import Listener, listeners
from pipelines.serve.config import ServeConfig


def check_port(config: ServeConfig) -> None:
    """Refuses an address at which no endpoint can be opened by this process now.

    Raises:
        ConfigError: the port is taken or not allowed, or the host is none of this machine.
    """
    where = f"serve.port {config.port} of serve.host {config.host}"
    try:
        family, address = _address(config)
        with socket.socket(family, socket.SOCK_STREAM) as asked:
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are just ending do not count
            asked.bind(address)
    except socket.gaierror as error:
        raise ConfigError(
            f"serve.host is `{config.host}`, which is no address ({error.strerror}). Set it to 127.0.0.1."
        ) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            holders = " and ".join(map(str, listeners(config.port))) or "another process"
            raise ConfigError(f"{where} is taken by {holders}. Stop that one, or set serve.port to another number.") from None
        reasons = {
            errno.EACCES: "may not be opened by this user. Set serve.port to 1024 or more.",
            errno.EADDRNOTAVAIL: "cannot be opened, since this machine has no such address. Set serve.host to 127.0.0.1.",
        }
        raise ConfigError(f"{where} {reasons.get(error.errno or 0, f'cannot be opened: {error.strerror}.')}") from None


def check_alone(config: ServeConfig) -> None:
    """After the start: refuses a port that a second process of this machine opened at the same moment.

    Raises:
        ConfigError: several processes listen there; each would get a share of the requests.
    """
    found: list[Listener] = listeners(config.port, _address(config)[1][0])
    if len(found) > 1:
        raise ConfigError(
            f"serve.port {config.port} is shared by {' and '.join(map(str, found))}: each would get a part of the requests. "
            "Stop one of them, or set serve.port to another number."
        )


def _address(config: ServeConfig) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Where Ray's proxy listens: a name is one of IPv4 for it (`localhost` may be both)."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    found = socket.getaddrinfo(config.host, config.port, family=family, type=socket.SOCK_STREAM)[0][4]
    return family, (str(found[0]), config.port)
