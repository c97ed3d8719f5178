"""The settings that the daemon soaks with.

Its deadlines are short, so that all of them come to pass, but longer than the clients' own process
may stand still on a busy machine: who is late by no fault of the daemon's would count as lost.
"""

from collections.abc import Iterator
from itertools import cycle

LINE_TIMEOUT, IDLE_TIMEOUT, SEND_TIMEOUT = 6, 6, 4  # seconds
MOST = 100  # connections
PROXY = "127.0.0.2"

_ALWAYS = f"""[calcd]
line_timeout = {LINE_TIMEOUT}
idle_timeout = {IDLE_TIMEOUT}
send_timeout = {SEND_TIMEOUT}
message_wait = 0.3
proxy_protocol_from = {PROXY}
"""
_IN_TURN = (
    f"max_connections = {MOST}",
    f"max_connections = {MOST + 20}\nlog_level = debug",
    f"max_connections = {MOST}\nprecision = 34\ndrain_timeout = 3",
    "max_connections = nonsense",  # which leaves what was
    f"max_connections = {MOST}\nlog_level = warning",
)


def files(**always: str) -> Iterator[str]:
    """Give files of settings without an end, for one reload each."""
    more = "".join(f"{name} = {value}\n" for name, value in always.items())
    for changed in cycle(_IN_TURN):
        yield f"{_ALWAYS}{more}{changed}\n"
