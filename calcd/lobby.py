"""Where clients stand until they ask a second time.

Many ask once and close. To hand such a client to a thread costs more than to answer it: so the
serving loop does that itself, as far as it need not wait for the client. Who asks again, has
begun a line, takes no replies or just stands there is handed to a thread.
"""

import select
from collections.abc import Callable
from time import monotonic

from calcd.handler import Handler

LONGEST = 0.2  # seconds that a client may stand here


class Lobby:
    """Serves new clients, in the serving loop's thread; ``hand_on`` takes who leaves it.

    ``poll`` is what the serving loop waits with: it is to call ``look`` for a descriptor that
    is ready and not its own, and ``send_on`` each time it comes round.
    """

    def __init__(self, poll: select.epoll, hand_on: Callable[[Handler], None]) -> None:
        self._poll = poll
        self._hand_on = hand_on
        self._standing: dict[int, Handler] = {}  # by descriptor, who came first stands first

    def enter(self, handler: Handler) -> None:
        """Take a new client in, and answer what it has asked already."""
        if handler.glance():
            fd = handler.request.fileno()
            self._poll.register(fd, select.EPOLLIN)
            self._standing[fd] = handler
        else:
            self._hand_on(handler)

    def look(self, fd: int) -> None:
        """Answer a client that has sent something; it leaves if there is more to it."""
        handler = self._standing.get(fd)
        if handler is not None and not handler.glance():
            self._leave(fd)

    def send_on(self, seconds: float = LONGEST) -> None:
        """Let those leave who have stood here for so long."""
        if self._standing:
            before = monotonic() - seconds
            for fd, handler in list(self._standing.items()):
                if handler.began > before:
                    break
                self._leave(fd)

    @property
    def patience(self) -> float | None:
        """Seconds until somebody must leave; None: nobody is here."""
        first = next(iter(self._standing.values()), None)
        return None if first is None else max(0.0, first.began + LONGEST - monotonic())

    def _leave(self, fd: int) -> None:
        handler = self._standing.pop(fd)
        if not handler.client_has_closed:  # else its descriptor is closed at once
            self._poll.unregister(fd)
        self._hand_on(handler)
