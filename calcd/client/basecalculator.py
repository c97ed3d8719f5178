"""The arguments of `Calculator` and `AsyncCalculator`: where the server is, and how to connect."""

import os
from abc import ABC, abstractmethod

from calcd.client.calculatorsession import CalculatorSession
from calcd.client.endpoint import Endpoint
from calcd.client.protocol import MAX_TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl

# What a hint tells a program to use.
PARAMETERS = {
    "tls": "tls=",
    "servername": "servername=",
    "trust": "SSLContext.load_verify_locations",
    "certificate": "SSLContext.load_cert_chain",
}


class BaseCalculator(ABC):
    """What both calculators are made of."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 12000,
        *,
        path: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
        tls: "ssl.SSLContext | None" = None,
        servername: str | None = None,
    ) -> None:
        endpoint = make_endpoint(host, port, path)
        set_tls(endpoint, tls, servername)
        endpoint.timeout = check_timeout(timeout)
        self._session = CalculatorSession(endpoint)
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Do what remains to be done at the start."""

    @property
    @abstractmethod
    def _connected(self) -> bool:
        """Whether there is a connection."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._session.describe(self._connected)}>"


def make_endpoint(host: str, port: int, path: str | os.PathLike[str] | None) -> Endpoint:
    """Return where the server is. Raise TypeError or ValueError for a wrong argument."""
    if path is not None:
        path = os.fsdecode(path)
        if not path:
            raise ValueError("path must not be empty")
        return Endpoint(host, str(port), path)
    if not isinstance(host, str):
        raise TypeError(f"host must be a str, not {host!r}")
    if not host:
        raise ValueError("host must not be empty")
    if not isinstance(port, int | str) or isinstance(port, bool):
        raise TypeError(f"port must be an int, not {port!r}")
    if not str(port).isdecimal() or not 0 < int(port) < 65536:  # getaddrinfo takes it modulo 65536
        raise ValueError(f"port must be 1 to 65535, not {port!r}")
    return Endpoint(host, str(int(port)))


def check_timeout(timeout: float | None) -> float | None:
    """Return a timeout in seconds. Raise TypeError or ValueError if it is none."""
    if timeout is None:
        return None
    if not isinstance(timeout, int | float) or isinstance(timeout, bool):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    if not 0 < timeout <= MAX_TIMEOUT:
        limit = f"more than 0 seconds, and at most {MAX_TIMEOUT:.0f}"
        raise ValueError(f"timeout must be {limit}, not {timeout}")
    return timeout


def set_tls(endpoint: Endpoint, tls: "ssl.SSLContext | None", servername: str | None) -> None:
    """Set how to use TLS. Raise TypeError or ValueError for a wrong argument."""
    endpoint.hints = PARAMETERS
    if servername is not None:
        if not isinstance(servername, str):
            raise TypeError(f"servername must be a str, not {servername!r}")
        if tls is None:
            raise ValueError("servername is only meaningful with tls")
        endpoint.servername = servername
    if tls is None:
        return
    from ssl import SSLContext

    if not isinstance(tls, SSLContext):
        raise TypeError(f"tls must be an ssl.SSLContext, not {tls!r}")
    if tls.check_hostname and not endpoint.servername:  # no name would be checked
        raise ValueError("tls over a Unix socket needs servername, or check_hostname = False")
    endpoint.tls = tls
