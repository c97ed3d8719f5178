"""Serves metrics over HTTP: few threads, short deadlines, and at a pace that costs little.

Clients of this port are not trusted more than calcd's own. Hostile ones can keep others from the
metrics, but not calcd from its work.
"""

import logging
import os
import select
import socket
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException
from io import BufferedReader
from math import inf
from socketserver import BaseServer, ThreadingMixIn
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

from calcd.daemon.metrics import registry_of
from calcd.net.listeners import Listener
from calcd.net.stats import Stats

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

_THREADS = 8  # clients of one listener at once; more wait in its queue
_DEADLINE = 5.0  # seconds for a client to ask and to take its answer
_CHECK = 0.5  # seconds between two looks for clients beyond the deadline
# Seconds between two clients of a listener. An answer takes about 2 ms of CPU time, in which the
# serving loop competes for the GIL.
_PACE = 0.05
_MAX_HEAD = 1 << 14  # bytes of a request's line and headers
_PATH = "/metrics"


class MetricsServer:
    """Serves what ``stats`` has counted to the clients of the listeners, until ``close``."""

    def __init__(self, listeners: Sequence[Listener], stats: Stats) -> None:
        """Start a thread for each listener; RuntimeError if the system refuses one."""
        # Compressing takes longer than sending to a Prometheus nearby.
        library = make_wsgi_app(registry_of(stats.read), disable_compression=True)
        self._servers = [_HttpServer(listener, _application(library)) for listener in listeners]
        self._threads = [
            threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
            for server in self._servers
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads, and cut the clients; the listeners stay open."""
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def _application(library: "WSGIApplication") -> "WSGIApplication":
    """Return an application that has the metrics at one path, and says so at the others."""

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method != "GET":
            headers, text = [("Allow", "GET")], f"{method} is not allowed: use GET"
            return _plain(start_response, HTTPStatus.METHOD_NOT_ALLOWED, text, headers)
        if path == "/":
            return _plain(start_response, HTTPStatus.OK, f"calcd: metrics are at {_PATH}")
        if path != _PATH:
            return _plain(start_response, HTTPStatus.NOT_FOUND, f"metrics are at {_PATH}")
        try:
            return library(environ, start_response)
        except Exception:
            if environ.pop("HTTP_ACCEPT", None):  # such as a version that is no number
                return answer(environ, start_response)
            log.exception("metrics: a bug lost an answer")
            return _plain(start_response, HTTPStatus.INTERNAL_SERVER_ERROR, "see calcd's log")

    return answer


def _plain(
    start_response: "StartResponse",
    status: HTTPStatus,
    text: str,
    headers: Sequence[tuple[str, str]] = (),
) -> Iterable[bytes]:
    kind = ("Content-Type", "text/plain; charset=utf-8")
    start_response(f"{status.value} {status.phrase}", [kind, *headers])
    return [f"{text}\n".encode()]


class _Head(BufferedReader):
    """Reads the lines of a request's head, of ``_MAX_HEAD`` bytes at most.

    A first line that is longer is cut. Beyond that, reading raises ``HTTPException``, which is
    answered by 431. The library bounds each line and their number, but 6 MB of them would take
    300 MB of memory.
    """

    _left = _MAX_HEAD
    _is_first = True

    def readline(self, size: int | None = -1, /) -> bytes:
        most = self._left + 1
        line = super().readline(most if size is None or size < 0 else min(size, most))
        self._left -= len(line)
        is_first, self._is_first = self._is_first, False
        if self._left < 0 and not is_first:
            raise HTTPException(f"it has more than {_MAX_HEAD} bytes")
        return line


class _Handler(WSGIRequestHandler):
    """Answers one request of a connection, and logs at debug only."""

    def setup(self) -> None:
        super().setup()
        self.rfile = _Head(self.rfile.detach())

    def address_string(self) -> str:
        return str(self.client_address[0])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
        log.debug("metrics for %s: " + format, self.address_string(), *args)


class _HttpServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, listener: Listener, application: "WSGIApplication") -> None:
        # Not WSGIServer's own __init__: it makes a socket, and asks DNS for the host's name.
        BaseServer.__init__(self, listener.socket.getsockname(), _Handler)
        self.socket = listener.socket
        self.server_name, self.server_port = (
            listener.endpoint.host or "unix",
            listener.endpoint.port,
        )
        self.setup_environ()
        self.set_app(application)
        self._free = threading.Semaphore(_THREADS)
        self._lock = threading.Lock()
        self._deadlines: dict[socket.socket, float] = {}
        self._closing = False
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC)

    def serve_forever(self, poll_interval: float = _CHECK) -> None:
        """Serve until ``shutdown``. socketserver's own wakes up though there are no clients."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        poll.register(self._wake_fd, select.POLLIN)
        while not self._closing:
            ready = poll.poll(poll_interval * 1000 if self._deadlines else None)
            if self.fileno() in dict(ready):
                self.handle_request()
            self.cut(monotonic())

    def shutdown(self) -> None:
        """End ``serve_forever`` soon."""
        self._closing = True
        os.eventfd_write(self._wake_fd, 1)

    def server_close(self) -> None:
        """Cut the clients; the listener stays open."""
        self.cut(inf)
        os.close(self._wake_fd)

    def cut(self, now: float) -> None:
        """Cut the clients whose deadline is over: a timeout for each read is no bound for all."""
        with self._lock:
            for request, deadline in self._deadlines.items():
                if deadline <= now:
                    with suppress(OSError):  # its client has reset it
                        request.shutdown(socket.SHUT_RDWR)

    # What socketserver calls

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            request, address = self.socket.accept()
        except OSError:
            sleep(_PACE)  # without descriptors it would spin
            raise
        return request, address if isinstance(address, tuple) else ("unix", 0)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, as soon as there may be one more."""
        while not self._free.acquire(timeout=_CHECK):
            self.cut(inf if self._closing else monotonic())
        with self._lock:
            self._deadlines[request] = monotonic() + _DEADLINE
        super().process_request(request, client_address)
        sleep(_PACE)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            has_thread = self._deadlines.pop(request, None) is not None
        super().shutdown_request(request)
        if has_thread:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        log.debug("metrics for %s: not answered", client_address[0], exc_info=True)
