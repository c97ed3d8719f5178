"""Endpoints become sockets on which clients are awaited."""

import errno
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from calcd.config.endpoints import Endpoint
from calcd.core.errors import StartError
from calcd.daemon.systemd import inherited_sockets
from calcd.net import unixsocket
from calcd.net.sockopt import enable_pktinfo

# The kernel cuts this to net.core.somaxconn. While the serving loop is busy, or the service
# restarts behind a socket unit, clients wait here.
BACKLOG = 4096
# Bytes that the kernel is asked to hold of what a TCP client does not read, and of what it sends
# and is not read; it takes twice as much, its own records included. Left alone it raises them to
# tcp_wmem's and tcp_rmem's maxima, 4 MiB and more for each client. Unix sockets have a fixed size.
_BUFFER = 64 << 10
# Tries to find a free port that all addresses of one name have free.
_PORT_TRIES = 16
_PLAIN = Endpoint()


class EndpointError(StartError):
    """An endpoint that cannot be listened on; as text, why, and what to do."""


class Listener:
    """A socket for clients, with its endpoint as it really is (the port taken for port 0).

    It listens for connections, or takes datagrams where the endpoint is one for ``udp``.

    ``asked`` is the endpoint that was asked for: it knows what cannot be seen from a socket.
    """

    def __init__(
        self, sock: socket.socket, asked: Endpoint = _PLAIN, inherited: bool = False
    ) -> None:
        # The serving loop learns from the kernel which listener is ready, and a client may be
        # gone again by then: accept() must not wait for the next one.
        sock.setblocking(False)
        udp = sock.type == socket.SOCK_DGRAM
        if udp:
            enable_pktinfo(sock)
        elif sock.family != socket.AF_UNIX:
            # Accepted sockets take these over, which saves a system call each.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            # A telnet client sends some commands as urgent data: they are to be read in their
            # place, not to leave half of themselves behind.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        self.socket = sock
        self.inherited = inherited
        self.tls = asked.tls and not udp
        self.endpoint = replace(
            _endpoint_of(sock), tls=self.tls, udp=udp, mode=asked.mode, group=asked.group
        )
        has_file = self.endpoint.path.startswith("/") and not inherited
        self._file = unixsocket.identity(self.endpoint.path) if has_file else None

    def close(self) -> None:
        """Close the socket; remove its file, unless it was inherited or is another's by now."""
        # The file first: as long as the socket lives, nobody takes it for stale and replaces it.
        if self._file is not None and unixsocket.identity(self.endpoint.path) == self._file:
            with suppress(OSError):  # whoever may not remove it leaves it, for the next start
                os.unlink(self.endpoint.path)
        self._file = None
        self.socket.close()


def listen(
    endpoints: Iterable[Endpoint], reuse_port: bool = False
) -> tuple[list[Listener], list[str]]:
    """Listen on every address of every endpoint.

    Return the listeners, and a line for each address that was left out because this machine
    lacks its family. Raise ``EndpointError`` where one cannot be had; nothing stays open then.
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
                raise EndpointError(f"cannot listen on {endpoint}: {_advice(error)}") from None
            listeners += bound
            left_out += missing
        undo.pop_all()
    return listeners, left_out


def inherited() -> list[Listener]:
    """Take over the sockets handed over by systemd; those it calls ``tls`` are for TLS."""
    try:
        return [
            Listener(sock, Endpoint(tls=name == "tls"), inherited=True)
            for sock, name in inherited_sockets()
        ]
    except (OSError, ValueError) as error:
        raise StartError(f"a socket from systemd cannot be used: {error}") from None


def _bind(endpoint: Endpoint, reuse_port: bool) -> tuple[list[socket.socket], list[str]]:
    """Bind all that an endpoint stands for; for port 0, all of it to the same free port."""
    if endpoint.path:
        return [unixsocket.bind(endpoint)], []
    found = socket.getaddrinfo(endpoint.host, endpoint.port, type=_kind(endpoint))
    # A name may have an address twice, by two lines of the hosts file.
    addresses = list(dict.fromkeys((family, address) for family, *_, address in found))
    for _ in range(_PORT_TRIES - 1 if endpoint.port == 0 else 0):
        with suppress(OSError):  # which the last try does not
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
        if kind == socket.SOCK_STREAM:  # for datagrams it would let two daemons have one port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        undo.pop_all()
    return sock


def _machine_has(family: int) -> bool:
    """Tell whether this machine has a loopback address of the family."""
    try:
        loopback = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        _bind_one(family, socket.SOCK_STREAM, (loopback, 0), False).close()
    except OSError:
        return False
    return True


def _endpoint_of(sock: socket.socket) -> Endpoint:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        # The NUL of an abstract address, which systemd may hand over, is written as @.
        return Endpoint(path=os.fsdecode(name).replace("\0", "@", 1))
    return Endpoint(host=name[0], port=name[1])


def _advice(error: OSError) -> str:
    """Say what is wrong and what to do about it."""
    if isinstance(error, socket.gaierror):
        return f"{error.strerror}: is the name right?"
    hints = {
        errno.EADDRINUSE: "stop the program that listens there, or choose another endpoint",
        errno.EADDRNOTAVAIL: "this machine has no such address",
        errno.EACCES: "a port below 1024 or another's directory needs root",
        errno.ENOENT: "make its directory first",
        errno.EEXIST: "remove it or choose another path",
        errno.ESTALE: "see who may write its directory",
    }
    hint = hints.get(error.errno or 0)
    return f"{error.strerror}: {hint}" if hint else f"{error.strerror}"


def check(endpoint: Endpoint, reuse_port: bool) -> str:
    """Say what would keep the endpoint from being listened on; ``""``: nothing.

    That it is in use is no fault: the daemon whose settings these are may be running.
    """
    try:
        if endpoint.path:
            unixsocket.check(endpoint)
        else:
            for sock in _bind(endpoint, reuse_port)[0]:
                sock.close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return f"cannot listen on {endpoint}: {_advice(error)}"
    return ""
