"""Where clients are served who need not be waited for: in the serving loop, without a thread.

To hand a client to a thread, and the interpreter from thread to thread, costs more than to
answer a request. So whoever asks and takes the replies promptly is answered by the loop. Who
has begun a line, takes no replies, asks a great deal at once or falls silent gets a thread.
"""

import select
from collections.abc import Callable
from time import monotonic

from calcd.net.connection import Handler

SILENCE = 0.2  # seconds after which a client must leave


class Lobby:
    """Serves clients in the serving loop's thread; ``hand_on`` takes who must leave.

    ``poll`` is what the serving loop waits with: it is to call ``look`` for a descriptor that
    is ready and not its own, and ``send_on`` every now and then.
    """

    def __init__(self, poll: select.epoll, hand_on: Callable[[Handler], None]) -> None:
        self._poll = poll
        self._hand_on = hand_on
        self._here: dict[int, Handler] = {}  # by descriptor; whoever asked last comes last

    def enter(self, handler: Handler) -> None:
        """Take a new client in, and answer what it has asked already."""
        if handler.glance():
            fd = handler.request.fileno()
            self._poll.register(fd, select.EPOLLIN)
            self._here[fd] = handler
        else:
            self._hand_on(handler)

    def look(self, fd: int) -> None:
        """Answer a client that has sent something."""
        handler = self._here.pop(fd, None)
        if handler is not None:
            if handler.glance():
                self._here[fd] = handler
            else:
                self._see_off(fd, handler)

    def send_on(self, seconds: float = SILENCE) -> bool:
        """Let those leave who have been silent for so long; say whether anybody stays."""
        before = monotonic() - seconds
        while self._here:
            fd, handler = next(iter(self._here.items()))
            if handler.idle_since > before:
                return True
            del self._here[fd]
            self._see_off(fd, handler)
        return False

    def _see_off(self, fd: int, handler: Handler) -> None:
        if not handler.client_has_closed:  # else its descriptor is closed at once
            self._poll.unregister(fd)
        self._hand_on(handler)
