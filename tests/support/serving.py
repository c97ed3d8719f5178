"""A server that runs in this process."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from helpers import TIMEOUT

from calcd.config.endpoints import parse_endpoint
from calcd.config.settings import Settings
from calcd.net.listeners import Listener, listen
from calcd.net.server import Server


@contextmanager
def serving(
    *listeners: Listener, **settings: object
) -> Iterator[tuple[Server, Callable[[], socket.socket]]]:
    """Run a server in this process; give it, and a way to connect to it."""
    if not listeners:
        listeners = tuple(listen([parse_endpoint("tcp://127.0.0.1:0")])[0])
    server = Server(listeners, replace(Settings(), **settings))  # type: ignore[arg-type]
    loop = threading.Thread(target=server.serve_forever)
    loop.start()
    address = listeners[0].socket.getsockname()
    try:
        yield server, lambda: socket.create_connection(address, TIMEOUT)
    finally:
        server.drain(5)
        loop.join()
        server.server_close()
