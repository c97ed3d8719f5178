"""The server: accepts clients within limits, and serves each in the serving loop or a thread.

It is half-sync/half-async. The serving loop answers every client that never makes it wait: to
hand a client to a thread, and the GIL from thread to thread, costs more than to answer a request.
A client that begins a line, takes no replies, sends much at once or speaks TLS gets a thread.
"""

import logging
import math
import os
import select
import socket
import socketserver
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from calcd.config.settings import Settings
from calcd.core.budget import CALL_LIMIT
from calcd.core.errors import RequestError
from calcd.core.job import Job, Outcome
from calcd.net.acceptor import Acceptor
from calcd.net.clients import (
    Address,
    host_of,
    is_address,
    name_of,
    new_proxied_session,
    new_session,
    refuse,
)
from calcd.net.connection import Connection, Wait
from calcd.net.deadline import Deadline
from calcd.net.idle import IdleConnections
from calcd.net.limits import ConnectionLimiter, RefusedError
from calcd.net.lingering import LingeringCloser
from calcd.net.listeners import BACKLOG, Listener
from calcd.net.registry import Registry
from calcd.net.semaphore import FairSemaphore
from calcd.net.sockopt import bytes_readable
from calcd.net.stats import Counted, Stats
from calcd.net.threads import IdleThreads
from calcd.net.udp import Datagrams
from calcd.net.workers import Workers

if TYPE_CHECKING:
    from ssl import SSLContext

    from calcd.core.proxied import ProxiedSession
    from calcd.core.proxyprotocol import Header
    from calcd.core.session import Session
    from calcd.core.tls import TlsSession

log = logging.getLogger(__name__)

_READ, _JOB = Wait.READ, Wait.JOB  # looked up once: see Connection
# Each thread that works competes with the serving loop for the GIL. A second one may compute while
# the first is in a system call or does TLS's cryptography, which need no GIL.
_TURNS = 2
_ACCEPTS = 8  # clients that are accepted before others are served: they come together
_TICK = 0.05  # seconds between two rounds of housekeeping
_LOOP_READ = 1 << 14  # bytes of one read: small, so that one client does not delay the others
_LAST_THREADS = 1.0  # seconds that threads have to end when their connections are gone
_LINGER_AT_STOP = 0.25  # seconds: idle clients must not hold up the stop


class Drained(NamedTuple):
    """What a drain has done: connections that it cut, and requests that it answered."""

    cut: int
    answered: int


class Server(socketserver.ThreadingTCPServer):
    """Serves the clients of any number of listeners, and datagrams.

    ``settings`` may be replaced at any time: limits hold at once, the rest for new clients. So may
    ``tls``, the context for connections of TLS listeners. ``on_tick`` is called with the number of
    open connections as long as the serving loop runs: every 0.05 s while it serves clients, else
    every ``poll_interval``. ``stats`` counts what the server does.
    """

    daemon_threads = True  # a connection that does not end must not hold up the exit

    def __init__(
        self,
        listeners: Sequence[Listener],
        settings: Settings,
        on_tick: Callable[[int], None] = lambda _: None,
        tls: "SSLContext | None" = None,
    ) -> None:
        # Not TCPServer's own __init__: it makes a socket, which a sandbox may forbid; ours
        # come bound, and there may be several.
        socketserver.BaseServer.__init__(
            self, listeners[0].socket.getsockname(), socketserver.BaseRequestHandler
        )
        self.settings, self.tls = settings, tls
        # Of the client that was accepted last: the settings then, and whether a proxy connected.
        self._at_accept, self._is_proxy = settings, False
        self.limiter = ConnectionLimiter()
        self.registry = Registry(settings.max_connections)
        self.stats = Stats(self.registry.connections)
        self.stats.include(self._count)
        self._read_stats = self.stats.fields  # one for all sessions
        self._turns = FairSemaphore(_TURNS)
        self._lingering = LingeringCloser()
        self._threads = IdleThreads("connection")
        self._on_tick = on_tick
        self._in_loop = IdleConnections()
        self._active = False  # since the last tick the loop has served a client
        self._woken = 0.0  # when it last served somebody after more than a tick of nothing
        self._poll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll.register(self._wake_fd, select.EPOLLIN)
        self._acceptor = Acceptor(listeners, self._poll)
        self._workers = Workers(self._poll)
        self._datagrams = Datagrams(self._turns, self._workers.submit, listeners, self.stats)
        self._shutdown_requested = False
        self._loop_ended = threading.Event()
        self._loop_ended.set()
        self._stop_lock = threading.Lock()  # any thread may call drain and server_close
        self._draining = False
        self._drain_deadline = Deadline()
        self._lingering.start()

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to serve."""
        return self._poll.fileno()

    # The serving loop

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve until ``shutdown`` or ``drain`` is called; ``poll_interval`` is in seconds."""
        self._loop_ended.clear()
        wait, next_tick = 0.0, monotonic()
        try:
            while not (self._shutdown_requested or self._draining):
                self._serve_ready(wait)
                wait = next_tick - (now := monotonic())
                if wait <= 0:
                    self.stats.observe_lag(max(0.0, now - max(next_tick, self._woken)))
                    next_tick, wait = now + _TICK, _TICK
                    self.service_actions()
                    self._acceptor.resume()
                    for connection in self._in_loop.pop_expired(now):
                        self._leave_loop(connection, connection.expire())
                    if not (self._active or self._acceptor.paused):
                        wait = min(poll_interval, self._in_loop.next_deadline - now)
                    self._active = False
        finally:
            self._shutdown_requested = False
            self._loop_ended.set()

    def shutdown(self) -> None:
        """End ``serve_forever``, and wait for that; not to be called from its thread.

        Where it does not run yet, it ends as soon as it is called.
        """
        self._shutdown_requested = True
        self._wake()
        self._loop_ended.wait()

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def handle_request(self) -> None:
        """Serve what is ready; wait for it ``timeout`` seconds, or for ever if that is None."""
        self._acceptor.resume()
        self._serve_ready(-1 if self.timeout is None else self.timeout)

    def service_actions(self) -> None:
        """Do the housekeeping; called by ``serve_forever`` every 0.05 s while it serves clients."""
        self._datagrams.report_dropped()
        self._workers.adjust(self.settings)
        self._on_tick(self.limiter.active)

    def _count(self) -> Counted:
        return {"connections_limit": {"": self.settings.max_connections}}

    def _serve_ready(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for clients, and serve them; return whether any new one came."""
        new = False
        ready = self._poll.poll(seconds)
        if seconds > _TICK:
            self._woken = monotonic()
        for fd, _ in ready:
            if connection := self._in_loop.pop(fd):
                self._serve_in_loop(connection)
                continue
            listener = self._acceptor.get(fd)
            if listener and listener.endpoint.udp:
                new |= self._datagrams.serve(listener, self.settings)
            elif listener:
                self._acceptor.listener, new = listener, True
                for _ in range(_ACCEPTS):
                    if not self._accept():
                        break
            elif fd == self._wake_fd:
                os.eventfd_read(fd)
            else:
                self._workers.serve(fd, self.settings)
        return new

    def _serve_in_loop(self, connection: Connection, new: bool = False) -> None:
        """Serve a client without waiting; it stays in the loop if it waits to ask the next.

        A ``new`` one is not registered with epoll.
        """
        try:
            wait = connection.step(_LOOP_READ, CALL_LIMIT)
            if wait is _READ and connection.is_within_line:
                wait = connection.step(_LOOP_READ, CALL_LIMIT)  # its end may have arrived already
        except Exception:
            self.handle_error(connection.sock, connection.address)
            connection.end("bug")
            wait = None
        self._active = True
        stays = wait is _READ and connection.is_prompt and not self._draining
        if stays and (not new or self._watch(connection)):
            # A part of a header moves no deadline.
            self._in_loop.add(connection, is_last=new or not connection.awaits_header)
        elif new:
            self._hand_over(connection, wait)
        else:
            self._leave_loop(connection, wait)

    def _watch(self, connection: Connection) -> bool:
        """Register a connection with epoll; return False if the system has no room for it."""
        try:
            self._poll.register(connection.sock, select.EPOLLIN)
        except OSError as error:  # ENOMEM, or ENOSPC: see epoll_ctl(2)
            log.error("limit reached: cannot watch a connection: %s", error.strerror)
            return False
        return True

    def _empty_loop(self) -> None:
        """End the connections of the loop at the stop, in threads where more has arrived."""
        for connection in self._in_loop.pop_all():
            wait: Wait | None = _READ
            if not bytes_readable(connection.sock):
                try:
                    wait = connection.stop()
                except Exception:
                    self.handle_error(connection.sock, connection.address)
                    connection.end("bug")
                    wait = None
            self._leave_loop(connection, wait)

    def _leave_loop(self, connection: Connection, wait: Wait | None) -> None:
        if not connection.closed_by_client:  # else its descriptor is closed at once
            self._poll.unregister(connection.sock)
        self._hand_over(connection, wait)

    def _hand_over(self, connection: Connection, wait: Wait | None) -> None:
        """Serve a client in a thread from now on, or have its job done, or close its connection."""
        sock = connection.sock
        if wait is None:
            self._close(connection)
            return
        if connection.job and wait is _JOB:
            self._submit(connection, connection.job)
            return
        try:
            self._threads.run(partial(self.process_request_thread, sock, connection.address))
        except (RuntimeError, MemoryError) as error:  # the system refuses a thread
            log.error("limit reached: %s", str(error) or "no memory")
            busy = RequestError("BUSY", "the server's machine has no thread left")
            if connection.reject(busy):
                self.stats.refuse("no-thread", busy.code)
            self.shutdown_request(sock)

    def _submit(self, connection: Connection, job: Job) -> None:
        """Have a connection's job done; until then it costs no thread."""
        connection.waits_for_job = True
        done = partial(self._complete, connection)
        self._workers.submit(connection.host, job, done)

    def _complete(self, connection: Connection, outcome: Outcome | None) -> None:
        """Go on with a connection whose job is done."""
        connection.waits_for_job = False
        try:
            connection.complete(outcome)
        except Exception:
            self.handle_error(connection.sock, connection.address)
            connection.end("bug")
        self._serve_in_loop(connection, new=True)

    # Accepting

    def _accept(self) -> bool:
        """Accept a client of the listener that is ready; return whether there was one."""
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
        """Accept a client of the listener that is ready; raise OSError or MemoryError if none."""
        sock, address = self._acceptor.accept()
        self._at_accept = settings = self.settings
        self._is_proxy = host_of(address) in settings.proxy_protocol_from
        return sock, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Count the client in, or refuse it; return whether it is to be served.

        The client of a proxy is not known yet: a place is taken for it, and ``_identify`` decides.
        """
        host, settings = host_of(client_address), self._at_accept
        try:
            if self._is_proxy:
                host = ""
            else:
                _check_allowed(host, settings)
            self.limiter.acquire(host, settings)
        except RefusedError as error:
            self.stats.refuse(error.reason, error.code)
            message = "connection %s ended: requests=0 errors=1 seconds=0.000 how=%s"
            log.info(message, name_of(client_address), error.code.lower())
            refuse(request, error, settings, self._acceptor.listener.endpoint.tls)
            return False
        return True

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve the client in the loop; with TLS in a thread, which waits for its handshake."""
        settings = self._at_accept  # a connection keeps those that it began with
        tls = self.tls if self._acceptor.listener.endpoint.tls else None
        proxied = self._is_proxy
        try:
            if log.isEnabledFor(logging.DEBUG):  # a name takes time
                name, active = name_of(client_address), self.limiter.active
                log.debug("connection %s opened: open=%d", name, active)
            session: Session | TlsSession | ProxiedSession
            if proxied:
                begin = partial(self._identify, request, settings, tls)
                session = new_proxied_session(client_address, settings, bool(tls), begin)
            else:
                session = new_session(client_address, settings, tls, self._read_stats)
            stop_fd = self.registry.stop_fd(request)
            connection = Connection(
                request, client_address, session, settings, stop_fd, bool(tls), proxied
            )
            self.registry.add(connection)
        except BaseException:  # else nobody would know that the connection is counted
            self.limiter.release("" if proxied else host_of(client_address), settings)
            raise
        if tls:
            self._hand_over(connection, _READ)
        else:
            self._serve_in_loop(connection, new=True)

    def _identify(
        self, sock: socket.socket, settings: Settings, tls: "SSLContext | None", header: "Header"
    ) -> "Session | TlsSession":
        """Begin to serve the client that a PROXY header names; return its session.

        Raise ``RequestError`` if it may not connect. A health check of version 1 names the proxy's
        own end of the connection, as the specification recommends (section 2.1). Called in the
        loop or in a thread. The connection is found by its socket: a reference would make a cycle.
        """
        connection = self.registry.get(sock)
        if connection is None:
            raise LookupError("a connection that is served must be registered")
        proxy, host = connection.address, header.host
        of_proxy = header.of_proxy or is_address(proxy, host, header.port)
        if host and not of_proxy:
            connection.address = (host, header.port)
            if log.isEnabledFor(logging.DEBUG):
                name = name_of(connection.address)
                log.debug("connection %s comes from the proxy %s", name, name_of(proxy))
            try:
                _check_allowed(host, settings)
                self.limiter.assign(host, self.settings)
            except RefusedError as error:  # its session counts the error
                self.stats.refuse(error.reason)
                raise
            connection.host = host
        session = new_session(connection.address, settings, tls, self._read_stats)
        connection.identify(session, quiet=of_proxy)
        return session

    # The end of a connection

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread to its end, or until it has a job."""
        connection = self.registry.get(request)
        if connection is None:
            return
        try:
            if job := connection.run(self._turns):
                self._submit(connection, job)
                return
        except Exception:
            self.handle_error(request, client_address)
        self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Close without a reset what was accepted, whether it was served or refused."""
        if connection := self.registry.get(request):
            self._close(connection)
        else:
            self._lingering.close(request)

    def _close(self, connection: Connection) -> None:
        """Log a connection's end, release its slot, and close it without a reset."""
        try:
            connection.log_end()
        except Exception:
            self.handle_error(connection.sock, connection.address)
        self.stats.end(connection)
        # Before the close: a client that sees its connection end may come again at once.
        self.limiter.release(connection.host, self.settings)
        self._lingering.close(connection.sock, connection.closed_by_client)
        self.registry.remove(connection.sock)  # the last thing: a drain waits for it

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a bug that ended a connection; called where it is caught."""
        log.exception("connection %s: a bug ended it", name_of(client_address))

    # The stop

    def drain(self, seconds: float) -> Drained:
        """Stop accepting, answer everything that has arrived, close everything.

        Cut the connections that are not done in ``seconds``, or when ``end_drain`` is called. Not
        to be called from the serving loop's thread. A second call does nothing.
        """
        with self._stop_lock:
            if self._draining:
                return Drained(0, 0)
            deadline = self._drain_deadline
            deadline.set(seconds)
            before = self.stats.count_requests()
            self._draining = True
            # No new client comes, so none has to make way for the next one that lingers.
            self._lingering.timeout, self._lingering.limit = _LINGER_AT_STOP, math.inf
            self.shutdown()
            self._accept_backlog(deadline)
            self._empty_loop()
            # Jobs are still to be done: from now on this thread serves what is ready.
            self._datagrams.finish(deadline, self._serve_ready)
            self._acceptor.close()
            cut = self.registry.drain(deadline, self._serve_ready, self._wake)
            self._workers.close()
            for connection in cut:
                if connection.waits_for_job:
                    self.shutdown_request(connection.sock)
            self._lingering.finish(deadline)
            self._threads.end(_LAST_THREADS)
            return Drained(len(cut), self.stats.count_requests() - before)

    def end_drain(self) -> None:
        """Let a drain that is under way cut its connections at once; without one, do nothing.

        May be called from any thread.
        """
        self._drain_deadline.pass_now()
        self._wake()

    def _accept_backlog(self, deadline: Deadline) -> None:
        """Accept the clients that the kernel has connected already, and then no more.

        A close would reset them. Those of an inherited listener wait for the next instance instead.
        """
        self._acceptor.leave(inherited=True)
        for _ in range(BACKLOG):
            if not (self._serve_ready(0) and deadline.left()) or self._acceptor.no_room:
                break
        self._acceptor.leave(inherited=False)

    def server_close(self) -> None:
        """Close the listeners, and cut every connection that is still open."""
        self.drain(0)
        with self._stop_lock:
            if not self._poll.closed:
                self._poll.close()
                os.close(self._wake_fd)
                self.registry.close()


def _check_allowed(host: str, settings: Settings) -> None:
    if not settings.allow.allows(host):
        template = "clients from {} may not connect here"
        raise RefusedError("forbidden", "FORBIDDEN", template, host)
