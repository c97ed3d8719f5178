"""Where the server is, and how to connect to it."""

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", "12000"
# What a hint tells to use, in the words of calcc's user. A program has others.
HINTS = {
    "tls": "--ssl",
    "servername": "--ssl-servername",
    "trust": "--ssl-trustfile",
    "certificate": "--ssl-cert",
}

Address = tuple[int, str | tuple[object, ...]]  # family, and the address as connect(2) takes it


def is_port(text: str) -> bool:
    """Return whether a text is the number of a port."""
    return text.isascii() and text.isdecimal() and len(text) < 6 and 0 < int(text) < 65536


class Endpoint:
    """Where the server is, and how to connect to it."""

    def __init__(self, host: str, port: str, path: str | None = None) -> None:
        self.host, self.port = host, port
        self.path = path  # of a Unix socket, in place of host and port
        self.name = f"{host} port {port}" if path is None else path  # in messages
        self.family = ""  # -4 or -6
        self.udp = False
        self.tls: ssl.SSLContext | None = None
        self.servername: str | None = None  # the name that the server's certificate must have
        if path is None:  # certificates have no scope, as in fe80::1%eth0, and no final dot
            self.servername = host.partition("%")[0].removesuffix(".")
        self.timeout: float | None = None  # seconds for one step; None: no limit
        self.retry = 0.0  # seconds to wait for a server that is not there yet
        self.deadline = float("inf")  # for everything, by the monotonic clock
        self.verbose = self.check_only = False
        self.addresses: list[Address] = []  # where the server was reached
        self.hints = HINTS

    def within(self, seconds: float) -> "Endpoint":
        """Return a copy whose deadline is at most this number of seconds from now."""
        import copy

        endpoint = copy.copy(self)
        endpoint.deadline = min(self.deadline, time.monotonic() + seconds)
        return endpoint

    def time_left(self) -> float | None:
        """Return the seconds that the next step may take, None for no limit.

        Raise TimeoutError after the deadline.
        """
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return self.timeout if left == float("inf") else min(left, self.timeout or left)

    def hint(self) -> str:
        """Return what may be wrong if there was no reply at all."""
        return "" if self.tls or self.udp else f": does it speak TLS ({self.hints['tls']})?"
