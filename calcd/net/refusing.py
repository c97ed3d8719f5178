"""A server that refuses every client, and says so: for a daemon that cannot start."""

from collections.abc import Sequence
from typing import Any

from calcd.config.settings import Settings
from calcd.core.errors import RequestError
from calcd.net.clients import refuse
from calcd.net.listeners import Listener
from calcd.net.server import Server


class RefusingServer(Server):
    """Sends each client an error and ends its connection; ``refused`` counts them."""

    def __init__(self, listeners: Sequence[Listener], error: RequestError) -> None:
        """Take stream listeners: a datagram would be answered."""
        super().__init__(listeners, Settings())
        self._error = error
        self.refused = 0

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Refuse the client."""
        tls = self._acceptor.listener.endpoint.tls
        refuse(request, self._error, self.settings, tls)
        self.refused += 1
        return False
