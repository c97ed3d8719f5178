"""The server: accepts clients, within limits, and hands each to a thread."""

import errno
import logging
import os
import selectors
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any

from calcd.endpoints import BACKLOG, Listener
from calcd.errors import RequestError
from calcd.handler import Handler, name_of
from calcd.parting import Parting
from calcd.places import Places
from calcd.settings import Settings
from calcd.threads import IdleThreads

log = logging.getLogger(__name__)

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_NO_ROOM_PAUSE = 0.1  # seconds to the next try: without a pause the loop would spin
_QUIET_AT_STOP = 0.25  # seconds: idle clients must not hold up the stop
_LAST_THREADS = 1.0  # seconds that threads have to end when their connections are gone

Address = tuple[str, int] | str


class Server(socketserver.ThreadingTCPServer):
    """Serves the clients of any number of listeners, each client in a thread.

    ``settings`` may be replaced at any time: limits hold at once, the rest for new clients.
    ``beat`` is called with the number of open connections, each time the serving loop comes
    round.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        settings: Settings,
        beat: Callable[[int], None] = lambda _: None,
    ) -> None:
        # Not TCPServer's own __init__: it makes a socket, which a sandbox may forbid; ours
        # come bound, and there may be several.
        socketserver.BaseServer.__init__(self, "", Handler)
        self.settings = settings
        self.places = Places()
        self.stopping = False
        self._listeners = listeners
        self._beat = beat
        self._no_room = False
        # serve_forever waits for this selector's own descriptor, which is ready when a listener
        # is, or when the pipe's other end is closed: so a stop need not wait for a poll.
        self._ready = selectors.DefaultSelector()
        for listener in listeners:
            self._ready.register(listener.socket, selectors.EVENT_READ, listener.socket)
        self._stop_seen, self._stop = os.pipe()
        self._ready.register(self._stop_seen, selectors.EVENT_READ)
        self._gone = threading.Condition()
        self._connections: dict[socket.socket, str] = {}  # to the host of each
        self._pool = IdleThreads("connection")
        self._parting = Parting()
        self._parting.start()

    def fileno(self) -> int:
        """Give the descriptor that serve_forever waits for."""
        return self._ready.fileno()

    def get_request(self) -> tuple[socket.socket, Address]:
        """Accept a client of a listener that is ready; OSError if its client is gone."""
        for key, _ in self._ready.select(0):
            if key.data is not None:
                listener: socket.socket = key.data
                try:
                    accepted = listener.accept()
                except OSError as error:
                    self._pause_without_room(error)
                    raise
                if self._no_room:
                    self._no_room = False
                    log.info("limit left: the system has room for connections again")
                return accepted
        raise BlockingIOError

    def _pause_without_room(self, error: OSError) -> None:
        """Let clients wait in the backlog while the system has no descriptor or memory."""
        if error.errno in _NO_ROOM:
            if not self._no_room:
                self._no_room = True
                log.error("limit reached: cannot accept: %s: clients wait", error.strerror)
            time.sleep(_NO_ROOM_PAUSE)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Give the client a place, or tell it politely that there is none."""
        host = client_address[0] if client_address else ""
        settings = self.settings
        no_place = self.places.take(
            host, settings.max_connections, settings.max_connections_per_host
        )
        if no_place:
            self._refuse(request, client_address, no_place)
            return False
        with self._gone:
            self._connections[request] = host
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand the client to a thread that is idle or new."""
        try:
            self._pool.run(partial(self.process_request_thread, request, client_address))
        except RuntimeError as error:  # the system refuses a thread
            log.error("limit reached: %s: connection %s refused", error, name_of(client_address))
            self._refuse(request, client_address, "the server's machine has no thread left")
            self.shutdown_request(request)

    def _refuse(self, request: socket.socket, client_address: Address, words: str) -> None:
        log.debug("connection %s refused: %s", name_of(client_address), words)
        with suppress(OSError):  # it may have gone already
            request.send(f"{RequestError('BUSY', words)}\n".encode(), socket.MSG_DONTWAIT)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection without a reset, and free its place."""
        if request.fileno() >= 0:  # else the client closed first, and so did its handler
            self._parting.see_out(request)
        with self._gone:
            host = self._connections.pop(request, None)
            if not self._connections:
                self._gone.notify_all()
        if host is not None:
            settings = self.settings
            self.places.free(host, settings.max_connections, settings.max_connections_per_host)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a bug that ended a connection; called where it is caught."""
        log.exception("connection %s: a bug ended it", name_of(client_address))

    def service_actions(self) -> None:
        """Give a sign of life, each time the serving loop comes round."""
        self._beat(self.places.taken)

    def drain(self, seconds: float) -> int:
        """Stop accepting, answer everything that has arrived, close everything.

        Return how many connections were cut because they were not done in ``seconds``.
        Not to be called from the serving loop's thread.
        """
        deadline = monotonic() + seconds
        os.close(self._stop)
        self.shutdown()
        self._accept_those_who_wait()
        self.server_close()
        self.stopping = True
        with self._gone:
            for connection in self._connections:
                _shut(connection, socket.SHUT_RD)  # wakes a thread that waits for its client
            self._gone.wait_for(lambda: not self._connections, deadline - monotonic())
            cut = len(self._connections)
            for connection in self._connections:
                _shut(connection, socket.SHUT_RDWR)
        self._parting.finish(deadline - monotonic(), _QUIET_AT_STOP)
        self._pool.end(_LAST_THREADS)
        return cut

    def _accept_those_who_wait(self) -> None:
        """Accept the clients that the kernel has connected already: closing would reset them.

        Those of an inherited listener wait for the next instance instead.
        """
        self._ready.unregister(self._stop_seen)
        os.close(self._stop_seen)
        for listener in self._listeners:
            if listener.inherited:
                self._ready.unregister(listener.socket)
        self.timeout = 0
        for _ in range(BACKLOG):
            if not self._ready.get_map() or not self._ready.select(0):
                break
            self.handle_request()

    def server_close(self) -> None:
        """Close the listeners."""
        self._ready.close()
        for listener in self._listeners:
            listener.close()


def _shut(connection: socket.socket, how: int) -> None:
    with suppress(OSError):  # it may be closed already
        connection.shutdown(how)
