"""What a service says to systemd and gets from it: sd_notify(3) and sd_listen_fds(3)."""

import os
import socket
import struct
import time
from contextlib import ExitStack, suppress

_FIRST_FD = 3  # SD_LISTEN_FDS_START
_IP = (socket.AF_INET, socket.AF_INET6)
_PATIENCE = struct.pack("@ll", 1, 0)  # a second, as SO_SNDTIMEO takes it
_STATUS_EVERY = 5.0  # seconds between status lines, where there is no watchdog to feed


class Notifier:
    """Sends states to the service manager; without one (no NOTIFY_SOCKET) it does nothing.

    The socket is opened once and kept: the watchdog's beat must go on when there is no
    descriptor left to open another.
    """

    def __init__(self) -> None:
        path = os.environ.get("NOTIFY_SOCKET", "")
        # @ stands for the NUL of an abstract address.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if path else None
        if self._socket is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)

    def send(self, *states: str, wait: bool = True) -> None:
        """Send states such as ``READY=1``; a manager that does not listen changes nothing.

        ``wait`` says whether to wait, for a second at most, until a busy one can take them.
        """
        if self._socket is not None:
            flags = 0 if wait else socket.MSG_DONTWAIT
            with suppress(OSError):
                self._socket.sendto("\n".join(states).encode(), flags, self._address)

    def reloading(self) -> None:
        """Say that a reload has begun; ``READY=1`` says that it is over."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()


class Beat:
    """The serving loop's sign of life: feeds systemd's watchdog, and keeps the status line."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._next = 0.0
        watched = _watchdog_seconds()
        self._states = ["WATCHDOG=1"] if watched else []
        # Between two beats. The loop comes round at least as often, so a beat may be twice as
        # late: half of systemd's time, as sd_watchdog_enabled(3) asks.
        self.seconds = watched / 4 if watched else _STATUS_EVERY

    def __call__(self, connections: int) -> None:
        """Beat, if it is time to; ``connections`` are those that are open."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self.seconds
            self._notifier.send(
                *self._states, f"STATUS=connections open: {connections}", wait=False
            )


def _watchdog_seconds() -> float:
    """Return within how many seconds systemd wants a beat; 0: it does not watch."""
    if os.environ.get("WATCHDOG_PID") not in (None, str(os.getpid())):
        return 0
    try:
        return int(os.environ["WATCHDOG_USEC"]) / 1e6
    except (KeyError, ValueError):
        return 0


def inherited_sockets() -> list[tuple[socket.socket, str]]:
    """Return the sockets handed over by systemd, and hide them from child processes.

    Each comes with its FileDescriptorName=, where that is known. They are meant for this process
    only if LISTEN_PID says so. Raise ``ValueError`` where one is neither a listening stream
    socket nor one for UDP.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count, names = (os.environ.get(name, "") for name in ("LISTEN_FDS", "LISTEN_FDNAMES"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if not count.isdecimal():
        raise ValueError(f"LISTEN_FDS is {count!r} and should be a number")
    name_of = names.split(":") if names else [""] * int(count)
    if len(name_of) != int(count):  # which of them is which, nobody can tell
        raise ValueError(f"LISTEN_FDNAMES is {names!r} and should have {count} names")
    with ExitStack() as undo:
        sockets = [
            (undo.enter_context(_awaiting_clients(fd)), name)
            for fd, name in enumerate(name_of, start=_FIRST_FD)
        ]
        undo.pop_all()
    return sockets


def _awaiting_clients(fd: int) -> socket.socket:
    with ExitStack() as undo:
        try:
            os.set_inheritable(fd, False)
            sock = undo.enter_context(socket.socket(fileno=fd))
        except OSError as error:
            raise ValueError(f"descriptor {fd}: {error.strerror}") from None
        accepts = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        is_udp = sock.type == socket.SOCK_DGRAM and sock.family in _IP
        if not (is_udp or (accepts and sock.type == socket.SOCK_STREAM)):
            raise ValueError(
                f"descriptor {fd} is neither a listening stream socket nor one for UDP: its unit "
                "needs ListenStream= and Accept=no, or ListenDatagram= with a port"
            )
        undo.pop_all()
    return sock
