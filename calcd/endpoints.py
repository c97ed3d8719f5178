"""Endpoint URLs: where clients are awaited."""

import os
import re
from dataclasses import dataclass

_UNIX_PATH_MOST = 107  # bytes: sun_path less its final NUL

_LABEL = "[0-9A-Za-z_-]{1,63}"
_TCP = re.compile(
    rf"tcp://(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|({_LABEL}(?:\.{_LABEL})*\.?)):([0-9]{{1,5}})"
)
_UNIX = re.compile(r"unix://(/[^?#]*[^/?#])")


@dataclass(frozen=True)
class Endpoint:
    """Where clients are awaited: ``host`` and ``port`` for tcp, ``path`` for unix."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"tcp://{joined(self.host, self.port)}"


def joined(host: str, port: int) -> str:
    """Write an address and port as a URL does: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_endpoint(url: str) -> Endpoint:
    """Read an endpoint URL; raise ``ValueError`` that completes "expected ..."."""
    if (tcp := _TCP.fullmatch(url)) and int(tcp[3]) < 1 << 16:
        return Endpoint(host=tcp[1] or tcp[2], port=int(tcp[3]))
    unix = _UNIX.fullmatch(url) if url.isprintable() else None
    if unix and len(os.fsencode(unix[1])) <= _UNIX_PATH_MOST:
        return Endpoint(path=unix[1])
    if url.startswith("unix:"):
        raise ValueError(f"unix:// and an absolute path of at most {_UNIX_PATH_MOST} bytes")
    raise ValueError("tcp://HOST:PORT, with [] round an IPv6 address, or unix:///PATH")
