"""Endpoint URLs: where the server listens."""

import os
import re
from dataclasses import dataclass

from calcd.core.errors import printable

_MAX_UNIX_PATH = 107  # bytes: sun_path less its final NUL
UNIX_MODE = 0o666  # open to all, like a port; the directory restricts access

_LABEL = "[0-9A-Za-z_-]{1,63}"
_NETWORK = re.compile(
    r"(tcp|tls|udp|http)://"
    rf"(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|({_LABEL}(?:\.{_LABEL})*\.?)):([0-9]{{1,5}})"
)
_UNIX = re.compile(r"unix://(/[^?#]*[^/?#])(?:\?([^#]*))?")
# Parameters of a Unix socket: the grammar of each, and what an error says was expected.
_PARAMETERS = {
    "mode": (re.compile("0?[0-7]{3}"), "a mode in octal digits, such as mode=0660"),
    "group": (re.compile("[^=?/]{1,32}"), "a group's name or number, such as group=calcd"),
}


@dataclass(frozen=True)
class Endpoint:
    """An address to listen on: ``host`` and ``port`` of a network, or ``path`` for unix.

    Metrics are served over HTTP (``http``), calcd's protocol over all others. A Unix socket's file
    has a ``mode`` and a ``group``, by name or number; ``""``: the daemon's.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False
    udp: bool = False
    http: bool = False
    mode: int = UNIX_MODE
    group: str = ""

    def __str__(self) -> str:
        if not self.path:
            schemes = {"tls": self.tls, "udp": self.udp, "http": self.http}
            scheme = next((name for name, is_it in schemes.items() if is_it), "tcp")
            return f"{scheme}://{join_host_port(self.host, self.port)}"
        given = [f"mode={self.mode:04o}"] if self.mode != UNIX_MODE else []
        given += [f"group={self.group}"] if self.group else []
        return f"unix://{self.path}" + ("?" + "&".join(given) if given else "")


def join_host_port(host: str, port: int) -> str:
    """Return host and port as in a URL, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_endpoint(url: str) -> Endpoint:
    """Parse an endpoint URL. The text of a ``ValueError`` says what was expected."""
    endpoint = _network_endpoint(url)
    if endpoint and not endpoint.http:
        return endpoint
    unix = _UNIX.fullmatch(url) if url.isprintable() else None
    if unix and len(os.fsencode(unix[1])) <= _MAX_UNIX_PATH:
        given = {} if unix[2] is None else _parameters(unix[2])
        mode = int(given["mode"], 8) if "mode" in given else UNIX_MODE
        return Endpoint(path=unix[1], mode=mode, group=given.get("group", ""))
    if url.startswith("unix:"):
        raise ValueError(f"unix:// and an absolute path of at most {_MAX_UNIX_PATH} bytes")
    raise ValueError(
        "tcp://HOST:PORT, or the same with tls:// or udp://, with [] round an IPv6 address, "
        "or unix:///PATH"
    )


def parse_metrics_endpoint(url: str) -> Endpoint:
    """Parse the URL where metrics are served; ``ValueError`` as ``parse_endpoint`` raises it."""
    endpoint = _network_endpoint(url)
    if endpoint and endpoint.http:
        return endpoint
    raise ValueError("http://HOST:PORT, with [] round an IPv6 address, and without a path")


def _network_endpoint(url: str) -> Endpoint | None:
    found = _NETWORK.fullmatch(url)
    if found is None or int(found[4]) >= 1 << 16:
        return None
    scheme, address, name, port = found.groups()
    tls, udp, http = (scheme == name for name in ("tls", "udp", "http"))
    return Endpoint(address or name, int(port), tls=tls, udp=udp, http=http)


def _parameters(query: str) -> dict[str, str]:
    """Parse what follows the ? in the URL of a Unix socket."""
    given: dict[str, str] = {}
    for part in query.split("&"):
        name, _, text = part.partition("=")
        if name not in _PARAMETERS:
            raise ValueError(f"mode=, group= or both with & after the ?, not {printable(part)}")
        if name in given:
            raise ValueError(f"{name}= only once after the ?, not {printable(part)} too")
        grammar, expected = _PARAMETERS[name]
        if not grammar.fullmatch(text):
            raise ValueError(f"{expected}, not {printable(part)}")
        given[name] = text
    return given
