"""The server: accepts clients, within limits, and hands each to a thread."""

import errno
import math
import os
import select
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from calcd.config.settings import Settings
from calcd.daemon.ratelimit import bounded
from calcd.net.connection import Address, Handler, host_of, name_of, send_refusal
from calcd.net.limits import Places
from calcd.net.lingering import Parting
from calcd.net.listeners import BACKLOG, Listener
from calcd.net.lobby import Lobby
from calcd.net.registry import Connections
from calcd.net.threads import IdleThreads
from calcd.net.turns import Turns
from calcd.net.udp import Datagrams

if TYPE_CHECKING:
    from ssl import SSLContext

log = bounded(__name__)

_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_NO_ROOM_PAUSE = 0.1  # seconds to the next accept: without a pause the loop would spin
# Clients that are accepted before others are served. One alone would cost a call of the
# system's more for each, and those who wait to be accepted come together.
_AT_ONCE = 8
_ROUND = 0.05  # seconds between two looks at what need not be done for each client
_QUIET_AT_STOP = 0.25  # seconds: idle clients must not hold up the stop
# For so long a thread may compute while another waits for the interpreter: briefly, so that a
# client who asks a great deal keeps nobody waiting. But each that waits wakes as often to look
# for it, and where thousands wait this alone would fill the machine: so from some dozens on it
# grows with them.
_TURN, _TURN_FOR_EACH, _FEW = 0.0001, 0.0001, 50  # seconds; connections
_LAST_THREADS = 1.0  # seconds that threads have to end when their connections are gone


class Server(socketserver.ThreadingTCPServer):
    """Serves the clients of any number of listeners, each client in a thread; and datagrams.

    ``settings`` may be replaced at any time: limits hold at once, the rest for new clients.
    ``tls``, which is what connections to TLS listeners begin with, may be replaced too.
    ``beat`` is called with the number of open connections, as long as the serving loop goes
    round: every 0.05 s while there are clients to be answered in it.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        settings: Settings,
        beat: Callable[[int], None] = lambda _: None,
        tls: "SSLContext | None" = None,
    ) -> None:
        # Not TCPServer's own __init__: it makes a socket, which a sandbox may forbid; ours
        # come bound, and there may be several.
        socketserver.BaseServer.__init__(self, "", Handler)
        self._listener = listeners[0]  # the one that is ready
        self.settings = settings
        self.tls = tls
        self.places = Places()
        self.stopping = False
        self.turns = Turns()
        self._listeners = listeners
        self._beat = beat
        self._no_room = False
        self._accept_again = 0.0  # when, after a pause; 0: there is none
        self._poll = select.epoll()
        self._awaited = {listener.socket.fileno(): listener for listener in listeners}
        for fd in self._awaited:
            self._poll.register(fd, select.EPOLLIN)
        self._lobby = Lobby(self._poll, self._hand_on)
        # A pipe whose other end is closed is ready: so a stop need not wait for a poll.
        self._stop_seen, self._stop = os.pipe()
        self._poll.register(self._stop_seen, select.EPOLLIN)
        self._draining = False
        self._loop_ended = threading.Event()
        self.connections = Connections(settings.max_connections)
        self._pool = IdleThreads("connection")
        udp_ports = {each.endpoint.port for each in listeners if each.endpoint.udp}
        self._datagrams = Datagrams(self._pool, self.turns, udp_ports)
        self._parting = Parting()
        self._parting.start()

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Accept clients until ``drain`` is called; ``poll_interval`` is in seconds.

        Not BaseServer's own, which waits for one listener alone.
        """
        wait, look_round_at = 0.0, 0.0
        try:
            while not self._draining:
                self._serve_ready(wait)
                wait = _ROUND
                if (now := monotonic()) >= look_round_at:
                    look_round_at = now + _ROUND
                    wait = self._look_round(now, poll_interval)
        finally:
            self._loop_ended.set()

    def _look_round(self, now: float, poll_interval: float) -> float:
        """Do what need not be done for each client; return how long to wait for the next."""
        self.service_actions()
        if self._accept_again and now >= self._accept_again:
            self._accept_again = 0.0
            self._await_clients(select.EPOLLIN)
        anybody_here = self._lobby.send_on()
        return _ROUND if anybody_here or self._accept_again else poll_interval

    def _serve_ready(self, seconds: float) -> bool:
        """Wait so long for whoever comes, and serve them; say whether anybody new came."""
        new = False
        for fd, _ in self._poll.poll(seconds):
            if (listener := self._awaited.get(fd)) and listener.endpoint.udp:
                new |= self._datagrams.serve(listener, self.settings)
            elif listener:
                self._listener = listener
                for _ in range(_AT_ONCE):
                    if not self._accept():
                        break
                new = True
            else:
                self._lobby.look(fd)
        return new

    def _accept(self) -> bool:
        """Let a client of the listener that is ready in; say whether there was one."""
        try:
            request, client_address = self.get_request()
        except (OSError, MemoryError):
            return False
        try:
            if self.verify_request(request, client_address):
                self.process_request(request, client_address)
            else:
                self.shutdown_request(request)
        except Exception:
            self.handle_error(request, client_address)
            self.shutdown_request(request)
        return True

    def get_request(self) -> tuple[socket.socket, Address]:
        """Accept a client of the listener that is ready; OSError if its client is gone."""
        try:
            accepted = self._listener.socket.accept()
        except (OSError, MemoryError) as error:
            self._pause_without_room(error)
            raise
        if self._no_room:
            self._no_room = False
            log.info("limit left: the system has room for connections again")
        return accepted

    def _pause_without_room(self, error: OSError | MemoryError) -> None:
        """Let new clients wait in the backlog while the system has no descriptor or memory."""
        number = getattr(error, "errno", errno.ENOMEM)
        if number in _NO_ROOM:
            if not self._no_room:
                self._no_room = True
                log.error("limit reached: cannot accept: %s: clients wait", os.strerror(number))
            self._accept_again = monotonic() + _NO_ROOM_PAUSE
            self._await_clients(0)

    def _await_clients(self, events: int) -> None:
        for fd, listener in self._awaited.items():
            if not listener.endpoint.udp:  # datagrams need no descriptor
                self._poll.modify(fd, events)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Give the client a place, or tell it politely why there is none for it."""
        host = host_of(client_address)
        settings = self.settings
        if not settings.allow.allows(host):
            code, words = "FORBIDDEN", f"clients from {host} may not connect here"
        elif words := self.places.take(
            host, settings.max_connections, settings.max_connections_per_host
        ):
            code = "BUSY"
        else:
            return True
        how = "connection %s ended: requests=0 errors=1 seconds=0.000 how=%s"
        log.info(how, name_of(client_address), code.lower())
        send_refusal(request, code, words, self._listener.tls)
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve the client here, as far as that needs no waiting for it, nor a handshake."""
        tls = self.tls if self._listener.tls else None
        try:
            handler = Handler(request, client_address, self, tls)
            self.connections.add(handler)
        except BaseException:  # else nobody would know that the connection has a place
            self._free_place(client_address)
            raise
        if tls:
            self._hand_on(handler)
        else:
            self._lobby.enter(handler)

    def _hand_on(self, handler: Handler) -> None:
        """Let a client have a thread that is idle or new; one that has ended needs none."""
        if handler.ended:
            self._carry_on(handler)
            return
        try:
            self._pool.run(partial(self._carry_on, handler))
        except (RuntimeError, MemoryError) as error:  # the system refuses a thread
            log.error("limit reached: %s", str(error) or "no memory")
            handler.turn_away("the server's machine has no thread left")
            self._carry_on(handler)

    def _carry_on(self, handler: Handler) -> None:
        """Serve a client to its end."""
        try:
            try:
                handler.handle()
            finally:
                handler.finish()
        except Exception:
            self.handle_error(handler.request, handler.client_address)
        finally:
            self.shutdown_request(handler.request)

    def shutdown_request(self, request: Any) -> None:
        """Free a connection's place, and close it without a reset."""
        handler = self.connections.handler_of(request)
        closed = handler is not None and handler.client_has_closed
        if handler is not None:
            # First of all: a client that sees its connection end may come again at once.
            self._free_place(handler.client_address)
        self._parting.see_out(request, closed)
        self.connections.forget(request)  # and last of all

    def _free_place(self, client_address: Any) -> None:
        host, settings = host_of(client_address), self.settings
        self.places.free(host, settings.max_connections, settings.max_connections_per_host)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a bug that ended a connection; called where it is caught."""
        log.exception("connection %s: a bug ended it", name_of(client_address))

    def service_actions(self) -> None:
        """Give a sign of life, each time the serving loop looks round."""
        taken = self.places.taken
        sys.setswitchinterval(max(_TURN, (taken - _FEW) * _TURN_FOR_EACH))
        self._datagrams.tell()
        self._beat(taken)

    def drain(self, seconds: float) -> int:
        """Stop accepting, answer everything that has arrived, close everything.

        Return how many connections were cut because they were not done in ``seconds``.
        Not to be called from the serving loop's thread.
        """
        deadline = monotonic() + seconds
        # At the stop nobody new comes, so nobody has to make way for the next to part.
        self._parting.quiet, self._parting.most = _QUIET_AT_STOP, math.inf
        # Before all that waits: threads that are busy end at once then, and leave the
        # interpreter to the serving loop, which among many of them gets it but seldom.
        self.stopping = True
        self._draining = True
        os.close(self._stop)
        self._loop_ended.wait()
        self._accept_those_who_wait(deadline)
        self._lobby.send_on(0)
        self._datagrams.finish(deadline)
        self.server_close()
        cut = self.connections.stop(deadline)
        self._parting.finish(deadline - monotonic())
        self._pool.end(_LAST_THREADS)
        self.connections.close()
        return cut

    def _accept_those_who_wait(self, deadline: float) -> None:
        """Accept the clients that the kernel has connected already: closing would reset them.

        Those of an inherited listener wait for the next instance instead.
        """
        self._poll.unregister(self._stop_seen)
        os.close(self._stop_seen)
        for listener in self._listeners:
            if listener.inherited:
                self._poll.unregister(listener.socket)
        for _ in range(BACKLOG):
            if not self._serve_ready(0) or self._no_room or monotonic() > deadline:
                break

    def server_close(self) -> None:
        """Close the listeners."""
        self._poll.close()
        for listener in self._listeners:
            listener.close()
