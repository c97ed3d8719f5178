"""The answer to a signal: the daemon tells the process that sent it what came of it.

A signal has no answer of its own. So ``calcd -s reload`` binds a Unix socket whose abstract address
has its pid in it, sends the signal, and waits. The daemon has the sender's pid from the kernel
(siginfo_t in sigaction(2)) and sends a datagram there. The kernel adds the daemon's pid to it
(SCM_CREDENTIALS in unix(7)), so no other process can forge an answer. This needs no file, which
the service's sandbox could not write, and it works between any two users.
"""

import os
import select
import signal
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

from calcd.config.errors import ConfigError

_MAX_SIZE = 1 << 16  # bytes of an answer; the rest is cut
_SEND_TIMEOUT = 1.0  # seconds, while another process fills the receiver's queue
_RESEND = 1.0  # seconds: of two signals that are pending at once, the kernel keeps one sender
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Answer(NamedTuple):
    """What came of a signal: whether it was done, and sentences for the operator."""

    done: bool
    sentences: Sequence[str] = ()


class Answerer:
    """The daemon's end. The socket stays open, to answer even when no descriptor is left."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_SEND_TIMEOUT)

    def send(self, pid: int, answer: Answer) -> None:
        """Send an answer to the process ``pid``, if it waits for one."""
        text = "\n".join(("done" if answer.done else "failed", *answer.sentences))
        with suppress(OSError):  # kill(1), and most others, wait for none
            self._socket.sendto(text.encode("utf-8", "replace")[:_MAX_SIZE], _address(pid))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def send_signal(process: int, pid: int, signum: signal.Signals, timeout: float) -> Answer | None:
    """Send a signal to a daemon; return its answer, or None if it has not answered in time.

    ``process`` is a pidfd of ``pid``; ``timeout`` is in seconds. Raise ``ProcessLookupError`` if
    the process has ended, ``PermissionError`` if it is another user's, and ``ConfigError`` if
    there is no way for an answer.
    """
    deadline = monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            receiver.bind(_address(os.getpid()))
        except OSError as error:  # another process may have taken it: any process can
            reason = f"cannot get an answer of pid {pid}: {error.strerror}"
            raise ConfigError(reason, "try again") from None
        while (left := deadline - monotonic()) > 0:
            signal.pidfd_send_signal(process, signum)
            if answer := _receive(receiver, process, pid, min(_RESEND, left)):
                return answer
    return None


def _address(pid: int) -> str:
    return f"\0calcd-answer-{pid}"


def _receive(receiver: socket.socket, process: int, pid: int, seconds: float) -> Answer | None:
    deadline = monotonic() + seconds
    while (left := deadline - monotonic()) > 0:
        ready = select.select([receiver.fileno(), process], [], [], left)[0]
        if receiver.fileno() in ready:
            data, ancillary, *_ = receiver.recvmsg(
                _MAX_SIZE, socket.CMSG_SPACE(_CREDENTIALS.size), socket.MSG_DONTWAIT
            )
            if any(_CREDENTIALS.unpack(value)[0] == pid for *_, value in ancillary):
                word, *sentences = data.decode("utf-8", "replace").split("\n")
                return Answer(word == "done", sentences)
        elif process in ready:
            raise ProcessLookupError
    return None
