"""The daemon's signals: which there are, who sent one, and how to wait for them in a thread."""

import signal
import threading
from collections.abc import Callable, Set
from typing import NamedTuple

STOPS = {signal.SIGTERM, signal.SIGINT}
RELOAD, REOPEN, SHOW = signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2
ALL = {*STOPS, RELOAD, REOPEN, SHOW}


class Received(NamedTuple):
    """A signal, and the pid of the process that sent it; 0: the kernel."""

    signal: signal.Signals
    sender: int


def signals_to_wait_for(background: bool) -> Set[signal.Signals]:
    """Return the signals that the daemon waits for.

    In the foreground, a signal that was ignored at the start stays ignored: a shell starts a
    background job with SIGINT ignored, and nohup ignores SIGHUP. With -d the daemon has a session
    of its own, and gets only signals that are sent to it.
    """
    may_be_ignored = set() if background else {signal.SIGINT, signal.SIGHUP}
    ignored = {each for each in may_be_ignored if signal.getsignal(each) == signal.SIG_IGN}
    return ALL - ignored


def block(signals: Set[signal.Signals]) -> None:
    """Block the signals in this thread, and in all threads and processes that it starts.

    They are then for ``wait`` alone: none ends the process before its cleanup. The workers must not
    take them either: a terminal's Ctrl-C and "systemctl stop" signal them together with the daemon,
    and their jobs are still to be done.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)


def wait(signals: Set[signal.Signals]) -> Received:
    """Wait for one of the signals, which must be blocked in all threads."""
    info = signal.sigwaitinfo(signals)
    return Received(signal.Signals(info.si_signo), info.si_pid)


class SignalThread:
    """Handles signals while the main thread does something else.

    Start it before the first client: later the system may refuse a thread.
    """

    def __init__(self, signals: Set[signal.Signals]) -> None:
        self._signals = signals
        self._handle: Callable[[Received], None] | None = None  # None: it is over
        self._begun = threading.Event()
        self._thread: threading.Thread | None = None  # not made before a fork, which would end it

    def start(self) -> None:
        """Start the thread, which waits for ``begin`` or ``end``."""
        self._thread = threading.Thread(target=self._run, name="signals", daemon=True)
        self._thread.start()

    def begin(self, handle: Callable[[Received], None]) -> None:
        """Call ``handle`` for each signal from now on. The caller must not wait for signals."""
        self._handle = handle
        self._begun.set()

    def end(self) -> None:
        """End the thread."""
        self._handle = None
        self._begun.set()
        thread = self._thread
        while thread and thread.is_alive():  # it may have taken another signal meanwhile
            signal.pthread_kill(thread.ident or 0, SHOW)
            thread.join(0.1)

    def _run(self) -> None:
        """Wait until there is something to do; then handle signals until ``end`` is called."""
        self._begun.wait()
        while self._handle is not None:
            received = wait(self._signals)
            if (handle := self._handle) is not None:
                handle(received)
