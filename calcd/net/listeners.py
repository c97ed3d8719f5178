"""Listening sockets: bound to endpoints, or inherited from systemd."""

import errno
import logging
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from calcd.config.endpoints import Endpoint
from calcd.config.errors import ConfigError
from calcd.config.networks import is_loopback
from calcd.config.settings import Settings
from calcd.net import unixsocket
from calcd.net.sockopt import enable_pktinfo

log = logging.getLogger(__name__)

# Clients wait in this queue while the serving loop is busy, or while the service restarts behind
# its socket unit. The kernel cuts it to net.core.somaxconn.
BACKLOG = 4096
# Bytes of a TCP socket's send and receive buffers. The kernel doubles this for its own records.
# By default buffers grow to the maxima of tcp_wmem and tcp_rmem: 4 MiB and more for each client.
# The buffers of Unix sockets do not grow.
_BUFFER = 64 << 10
# Attempts to find a port that is free on all addresses of a name.
_PORT_ATTEMPTS = 16
_FIRST_FD = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
_HINTS = {
    errno.EADDRINUSE: "stop the program that listens there, or choose another endpoint",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EAFNOSUPPORT: "a service's sandbox opens no ports: use a socket unit; else this machine "
    "has no such addresses",
    errno.EACCES: "only root can use ports below 1024 and other users' directories",
    errno.ENOENT: "make its directory first",
    errno.EEXIST: "remove it or choose another path",
    errno.ESTALE: "check who may write to its directory",
}


class Listener:
    """A listening socket, or a UDP socket, with its endpoint as bound: port 0 is replaced.

    ``configured`` is the endpoint of the settings: TLS, mode and group cannot be read from a
    socket.
    """

    def __init__(
        self, sock: socket.socket, configured: Endpoint | None = None, inherited: bool = False
    ) -> None:
        # A client that epoll reported may be gone before accept(), which must not block then.
        sock.setblocking(False)
        udp = sock.type == socket.SOCK_DGRAM
        if udp:
            enable_pktinfo(sock)
        elif sock.family != socket.AF_UNIX:
            # Accepted sockets inherit these options, which saves system calls for each.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            # A telnet client sends part of some commands as urgent data. Out of line, recv()
            # would skip it and leave half a command in the stream.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        configured = configured or Endpoint()
        self.socket = sock
        self.inherited = inherited
        self.endpoint = replace(
            _endpoint_of(sock),
            tls=configured.tls and not udp,
            udp=udp,
            http=configured.http,
            mode=configured.mode,
            group=configured.group,
        )
        has_file = self.endpoint.path.startswith("/") and not inherited
        self._file = unixsocket.identity(self.endpoint.path) if has_file else None

    def close(self) -> None:
        """Close the socket; remove its file, unless it was inherited or has been replaced."""
        # The file first: while the socket is open, no other daemon takes the file for stale.
        if self._file is not None and unixsocket.identity(self.endpoint.path) == self._file:
            with suppress(OSError):  # without permission the file stays: the next start removes it
                os.unlink(self.endpoint.path)
        self._file = None
        self.socket.close()


def listen(
    endpoints: Iterable[Endpoint], reuse_port: bool = False
) -> tuple[list[Listener], list[str]]:
    """Listen on every address of every endpoint.

    Return the listeners, and a line for each address that was left out because this machine
    lacks its address family. Raise ``ConfigError`` if an endpoint fails; nothing stays open then.
    """
    listeners: list[Listener] = []
    left_out: list[str] = []
    with ExitStack() as undo:
        for endpoint in endpoints:
            try:
                sockets, missing = _bind(endpoint, reuse_port)
                bound = [Listener(sock, endpoint) for sock in sockets]
                for listener in bound:
                    undo.callback(listener.close)
                for listener in bound:
                    if not listener.endpoint.udp:
                        listener.socket.listen(BACKLOG)
            except OSError as error:
                raise _config_error(endpoint, error) from None
            listeners += bound
            left_out += missing
        undo.pop_all()
    return listeners, left_out


def check(endpoint: Endpoint, reuse_port: bool) -> None:
    """Raise ``ConfigError`` if the endpoint cannot be listened on.

    An address in use is not an error: the running daemon may be the one that uses it.
    """
    try:
        if endpoint.path:
            unixsocket.check(endpoint)
        else:
            for sock in _bind(endpoint, reuse_port)[0]:
                sock.close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise _config_error(endpoint, error) from None


def warn_if_public(
    listeners: Iterable[Listener], settings: Settings, previous: Settings | None = None
) -> None:
    """Log a warning for each endpoint that serves everybody who can reach it over a network.

    Warn too if everybody counts as a proxy. After a reload, skip what was so with the ``previous``
    settings already.
    """
    was_claimable = previous is not None and previous.proxy_protocol_from.are_everybody
    if settings.proxy_protocol_from.are_everybody and not was_claimable:
        log.warning(
            "proxy_protocol_from has a network of all addresses: everybody who can connect can "
            "claim any address, whatever allow says: name the addresses of the proxies alone"
        )
    for listener in listeners:
        if _is_public(listener, settings) and not (previous and _is_public(listener, previous)):
            hint = (
                "let a firewall restrict it, or listen on localhost"
                if listener.endpoint.http
                else "set allow to the networks of its clients, or use tls:// with tls_client_ca"
            )
            message = "%s is open to everybody who can reach it: %s"
            log.warning(message, listener.endpoint, hint)


def _is_public(listener: Listener, settings: Settings) -> bool:
    endpoint = listener.endpoint
    is_local = endpoint.path or is_loopback(endpoint.host)
    needs_certificate = endpoint.tls and settings.tls_client_ca
    is_restricted = settings.allow.networks and not endpoint.http  # allow is not for metrics
    return not (is_restricted or is_local or needs_certificate)


def inherited() -> list[Listener]:
    """Return listeners for the sockets from systemd.

    Those named ``tls`` are for TLS, and those named ``metrics`` for metrics.

    They are for this process only if LISTEN_PID is its pid (sd_listen_fds(3)). Child processes do
    not inherit them. Raise ``ConfigError`` if one is neither a listening stream socket nor UDP.
    """
    listeners: list[Listener] = []
    try:
        with ExitStack() as undo:
            for fd, name in enumerate(_inherited_names(), start=_FIRST_FD):
                sock = undo.enter_context(_inherited_socket(fd))
                configured = Endpoint(tls=name == "tls", http=name == "metrics")
                if configured.http and sock.type != socket.SOCK_STREAM:
                    raise ValueError(
                        "metrics are not served over UDP: its unit needs ListenStream="
                    )
                listeners.append(Listener(sock, configured, inherited=True))
            undo.pop_all()
    except (OSError, ValueError) as error:
        raise ConfigError(f"a socket from systemd cannot be used: {error}") from None
    return listeners


def _inherited_names() -> list[str]:
    """Return the FileDescriptorName= of each socket from systemd, or ``""``."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count, names = (os.environ.get(name, "") for name in ("LISTEN_FDS", "LISTEN_FDNAMES"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if not count.isdecimal():
        raise ValueError(f"LISTEN_FDS is {count!r} and should be a number")
    socket_names = names.split(":") if names else [""] * int(count)
    if len(socket_names) != int(count):
        raise ValueError(f"LISTEN_FDNAMES is {names!r} and should have {count} names")
    return socket_names


def _inherited_socket(fd: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ValueError(f"descriptor {fd}: {error.strerror}") from None
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    is_udp = sock.type == socket.SOCK_DGRAM and sock.family in (socket.AF_INET, socket.AF_INET6)
    if not (is_udp or (listens and sock.type == socket.SOCK_STREAM)):
        sock.close()
        raise ValueError(
            f"descriptor {fd} is neither a listening stream socket nor a UDP socket: its unit "
            "needs ListenStream= and Accept=no, or ListenDatagram= with a port"
        )
    return sock


def _bind(endpoint: Endpoint, reuse_port: bool) -> tuple[list[socket.socket], list[str]]:
    """Bind every address of an endpoint; for port 0, all of them to the same free port."""
    if endpoint.path:
        return [unixsocket.bind(endpoint)], []
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=_kind(endpoint))
    # Two lines of the hosts file may give a name the same address twice.
    addresses = list(dict.fromkeys((family, address) for family, *_, address in found))
    for _ in range(_PORT_ATTEMPTS - 1 if endpoint.port == 0 else 0):
        with suppress(OSError):  # the last attempt, below, raises
            return _bind_addresses(endpoint, addresses, reuse_port)
    return _bind_addresses(endpoint, addresses, reuse_port)


def _bind_addresses(
    endpoint: Endpoint, addresses: Sequence[tuple[int, tuple[Any, ...]]], reuse_port: bool
) -> tuple[list[socket.socket], list[str]]:
    sockets: list[socket.socket] = []
    missing = []
    port = endpoint.port
    with ExitStack() as undo:
        for family, (host, _, *scope) in addresses:
            try:
                sock = _bind_one(family, _kind(endpoint), (host, port, *scope), reuse_port)
            except OSError as error:
                if len(addresses) == 1 or _machine_has(family):
                    raise
                missing.append(f"{endpoint}: {host} left out: {error.strerror}")
                continue
            sockets.append(undo.enter_context(sock))
            port = sock.getsockname()[1]
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        undo.pop_all()
    return sockets, missing


def _kind(endpoint: Endpoint) -> int:
    return socket.SOCK_DGRAM if endpoint.udp else socket.SOCK_STREAM


def _bind_one(family: int, kind: int, address: tuple[Any, ...], reuse_port: bool) -> socket.socket:
    with ExitStack() as undo:
        sock = undo.enter_context(socket.socket(family, kind))
        if kind == socket.SOCK_STREAM:  # for UDP it would let two daemons bind the same port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        undo.pop_all()
    return sock


def _machine_has(family: int) -> bool:
    """Return True if this machine has a loopback address of the family."""
    try:
        loopback = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        _bind_one(family, socket.SOCK_STREAM, (loopback, 0), False).close()
    except OSError:
        return False
    return True


def _endpoint_of(sock: socket.socket) -> Endpoint:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        # The NUL of an abstract address, which systemd may pass on, is written as @.
        return Endpoint(path=os.fsdecode(name).replace("\0", "@", 1))
    return Endpoint(host=name[0], port=name[1])


def _config_error(endpoint: Endpoint, error: OSError) -> ConfigError:
    unresolved = isinstance(error, socket.gaierror)
    hint = "is the name right?" if unresolved else _HINTS.get(error.errno or 0, "")
    reason = f"cannot listen on {endpoint}: {error.strerror}"
    return ConfigError(reason, hint, setting="metrics" if endpoint.http else "listen")
