"""The listening sockets of a server: which of them clients are accepted from, and when."""

import errno
import logging
import os
import select
import socket
from collections.abc import Sequence

from calcd.net.clients import Address
from calcd.net.listeners import Listener

log = logging.getLogger(__name__)

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Acceptor:
    """Accepts clients of listeners, and leaves them in the backlog while the system has no room.

    ``listener`` is the one whose client is accepted next. ``no_room`` tells that the last attempt
    failed for want of descriptors or memory; then the listeners are not watched (``paused``) until
    ``resume``. Of the serving loop alone.
    """

    def __init__(self, listeners: Sequence[Listener], poll: select.epoll) -> None:
        """Register the listeners, which are ready to accept, with ``poll``."""
        self.listener = listeners[0]
        self.no_room = self.paused = False
        self._poll = poll
        self._listeners = listeners
        self._by_fd = {listener.socket.fileno(): listener for listener in listeners}
        for fd in self._by_fd:
            poll.register(fd, select.EPOLLIN)

    def get(self, fd: int) -> Listener | None:
        """Return the listener with this descriptor."""
        return self._by_fd.get(fd)

    def accept(self) -> tuple[socket.socket, Address]:
        """Accept a client of ``listener``; raise OSError or MemoryError if there is none."""
        try:
            accepted = self.listener.socket.accept()
        except (OSError, MemoryError) as error:
            if getattr(error, "errno", errno.ENOMEM) in _OUT_OF_RESOURCES:
                self._pause(error)
            raise
        if self.no_room:
            self.no_room = False
            log.info("below the limit again: the system has room for connections")
        return accepted

    def _pause(self, error: OSError | MemoryError) -> None:
        if not self.no_room:
            self.no_room = True
            reason = os.strerror(getattr(error, "errno", errno.ENOMEM))
            log.error("limit reached: cannot accept: %s: clients wait", reason)
        self._watch(0)

    def resume(self) -> None:
        """Watch the listeners again, if accepting was paused: without a pause it would spin."""
        if self.paused:
            self._watch(select.EPOLLIN)

    def _watch(self, events: int) -> None:
        self.paused = not events
        for fd, listener in self._by_fd.items():
            if not listener.endpoint.udp:  # datagrams need no descriptor
                self._poll.modify(fd, events)

    def leave(self, inherited: bool) -> None:
        """Accept no more from the listeners that are ``inherited``, or from those that are not."""
        for fd, listener in list(self._by_fd.items()):
            if listener.inherited == inherited:
                self._poll.unregister(fd)
                del self._by_fd[fd]

    def close(self) -> None:
        """Close the listeners."""
        for listener in self._listeners:
            listener.close()
