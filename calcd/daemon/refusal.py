"""What a daemon that cannot start does with the clients of sockets that systemd holds.

systemd starts a service again at once if a client waits in its socket. Without a pause the starts
would reach the start limit within a second, and systemd would close the socket. So a daemon that
cannot start, for which a client waits, stays for a while and tells its clients ``ERR BUSY``.
"""

import logging
import select
import signal
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from time import monotonic

from calcd.core.errors import RequestError
from calcd.daemon import signals
from calcd.daemon.log import print_error
from calcd.daemon.systemd import Notifier
from calcd.net.listeners import Listener
from calcd.net.refusing import RefusingServer

# Seconds. So there are 10 starts in the 30 s of StartLimitIntervalSec, which allows 15: an
# operator may restart the service, too.
_STAY = 3.0
_DRAIN = 1.0  # seconds until the last clients have their error
_DISCARD = 0.5  # seconds for the datagrams of a socket


def refuse_clients(listeners: Sequence[Listener]) -> None:
    """Refuse the clients of these listeners for 3 seconds, or until a signal; close the listeners.

    If none waits, do it at once. Datagrams are discarded: their clients ask again.
    """
    signals.block(signals.ALL)
    if _some_wait(listeners):
        _stay(listeners)
    for listener in listeners:
        listener.close()


def _stay(listeners: Sequence[Listener]) -> None:
    # No log is open, and without a handler warnings would go to stderr.
    logging.getLogger().addHandler(logging.NullHandler())
    # Who asks for metrics expects HTTP, and waits in the queue.
    streams = [each for each in listeners if not (each.endpoint.udp or each.endpoint.http)]
    with closing(Notifier()) as notifier:
        notifier.send("STATUS=cannot start: clients get ERR BUSY")
        refused = _refuse(streams)
    for listener in listeners:
        if listener.endpoint.udp:
            _discard(listener)
    if refused:
        print_error(f"{refused} clients got ERR BUSY, as calcd cannot start")


def _some_wait(listeners: Sequence[Listener]) -> bool:
    poll = select.poll()
    for listener in listeners:
        poll.register(listener.socket, select.POLLIN)
    return bool(poll.poll(0))


def _refuse(listeners: Sequence[Listener]) -> int:
    """Refuse clients; return how many."""
    if not listeners:
        signal.sigtimedwait(signals.STOPS, _STAY)
        return 0
    error = RequestError("BUSY", "the server cannot start: ask again later")
    with RefusingServer(listeners, error) as server:
        threading.Thread(target=server.serve_forever, name="refusing", daemon=True).start()
        signal.sigtimedwait(signals.STOPS, _STAY)
        server.drain(_DRAIN)
        return server.refused


def _discard(listener: Listener) -> None:
    until = monotonic() + _DISCARD  # in a flood there is always one more
    with suppress(OSError):  # there is nothing more
        while monotonic() < until:
            listener.socket.recv(1)
