"""The server: accepts clients, within limits, and hands each to a thread."""

import errno
import logging
import math
import os
import selectors
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic, sleep
from typing import Any

from calcd.endpoints import BACKLOG, Listener
from calcd.errors import RequestError
from calcd.handler import Address, Handler, host_of, name_of
from calcd.parting import Parting
from calcd.places import Places
from calcd.settings import Settings
from calcd.threads import IdleThreads

log = logging.getLogger(__name__)

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_NO_ROOM_PAUSE = 0.1  # seconds to the next try: without a pause the loop would spin
_QUIET_AT_STOP = 0.25  # seconds: idle clients must not hold up the stop
# A thread that waits for the interpreter wakes after each such interval to look for it. Where
# thousands wait their looking alone would fill the machine: they look the more seldom the more
# there are. It makes nobody wait longer: a thread gives the interpreter up with every read.
_LOOK, _LOOK_FOR_EACH = 0.005, 0.0001  # seconds
_STOPS = 128  # groups of threads at the most, woken one after the other
_STOPPED_AT_ONCE = 32  # threads that a group has, where there need not be more groups
_STOP_PAUSE = 0.05  # seconds that a group has before the next is woken
_LAST_THREADS = 1.0  # seconds that threads have to end when their connections are gone


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
        self.socket = listeners[0].socket  # for handle_request, which asks for its timeout
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
        # What threads that wait for their clients wait for as well. All woken at once would
        # fight for the interpreter longer than they have work to do: so there are several.
        groups = max(1, min(_STOPS, settings.max_connections // _STOPPED_AT_ONCE))
        self._stops = [os.eventfd(0) for _ in range(groups)]
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
            sleep(_NO_ROOM_PAUSE)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Give the client a place, or tell it politely that there is none."""
        host = host_of(client_address)
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
            log.error("limit reached: %s", error)
            self._refuse(request, client_address, "the server's machine has no thread left")
            self.shutdown_request(request)

    def _refuse(self, request: socket.socket, client_address: Address, words: str) -> None:
        how = "connection %s ended: requests=0 errors=1 seconds=0.000 how=busy"
        log.info(how, name_of(client_address))
        with suppress(OSError):  # it may have gone already
            request.send(f"{RequestError('BUSY', words)}\n".encode(), socket.MSG_DONTWAIT)

    def shutdown_request(self, request: Any) -> None:
        """Free a connection's place, and close it without a reset."""
        host = self._connections.get(request)
        if host is not None:
            # First of all: a client that sees its connection end may come again at once.
            settings = self.settings
            self.places.free(host, settings.max_connections, settings.max_connections_per_host)
        self._parting.see_out(request)
        with self._gone:  # and last of all: until now the stop waits for it
            self._connections.pop(request, None)
            self._gone.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a bug that ended a connection; called where it is caught."""
        log.exception("connection %s: a bug ended it", name_of(client_address))

    def service_actions(self) -> None:
        """Give a sign of life, each time the serving loop comes round."""
        taken = self.places.taken
        sys.setswitchinterval(max(_LOOK, taken * _LOOK_FOR_EACH))
        self._beat(taken)

    def drain(self, seconds: float) -> int:
        """Stop accepting, answer everything that has arrived, close everything.

        Return how many connections were cut because they were not done in ``seconds``.
        Not to be called from the serving loop's thread.
        """
        deadline = monotonic() + seconds
        os.close(self._stop)
        self.shutdown()
        self._accept_those_who_wait(deadline)
        self.server_close()
        self.stopping = True
        # At the stop nobody new comes, so nobody has to make way for the next to part.
        self._parting.quiet, self._parting.most = _QUIET_AT_STOP, math.inf
        self._tell_all_to_stop(deadline)
        cut = self._wait_for_end(list(self._connections), deadline - monotonic())
        for connection in cut:
            with suppress(OSError):  # it may be closed by now
                connection.shutdown(socket.SHUT_RDWR)
        self._parting.finish(deadline - monotonic())
        self._pool.end(_LAST_THREADS)
        for stop in self._stops:
            os.close(stop)
        return len(cut)

    def stop_for(self, connection: socket.socket) -> int:
        """Give the descriptor that is ready to be read when the connection's thread must stop."""
        return self._stops[connection.fileno() % len(self._stops)]

    def _tell_all_to_stop(self, deadline: float) -> None:
        """Wake the threads, group by group; half of the time is for those that are busy."""
        for left, stop in zip(range(len(self._stops), 0, -1), self._stops, strict=True):
            os.eventfd_write(stop, 1)
            told = [each for each in list(self._connections) if self.stop_for(each) == stop]
            self._wait_for_end(told, min(_STOP_PAUSE, (deadline - monotonic()) / 2 / left))

    def _wait_for_end(
        self, connections: Collection[socket.socket], seconds: float
    ) -> set[socket.socket]:
        """Wait until these connections have ended; return those that have not in ``seconds``."""
        with self._gone:
            self._gone.wait_for(lambda: self._connections.keys().isdisjoint(connections), seconds)
            return self._connections.keys() & set(connections)

    def _accept_those_who_wait(self, deadline: float) -> None:
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
            nobody_waits = not self._ready.get_map() or not self._ready.select(0)
            if nobody_waits or self._no_room or monotonic() > deadline:
                break
            self.handle_request()

    def server_close(self) -> None:
        """Close the listeners."""
        self._ready.close()
        for listener in self._listeners:
            listener.close()
