"""The answer to a signal: from the daemon, to the process that sent it, and to nobody else."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from helpers import TIMEOUT, Daemons, clean_environment

from calcd.config.errors import ConfigError
from calcd.daemon import answers
from calcd.daemon.answers import Answer, Answerer, send_signal

# A daemon, as far as signals go: it answers each SIGHUP as its arguments say.
DAEMON = """
import signal, sys
from calcd.daemon.answers import Answer, Answerer
answerer = Answerer()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
print(flush=True)
ignored = int(sys.argv[1])
while True:
    sender = signal.sigwaitinfo([signal.SIGHUP]).si_pid
    if ignored:
        ignored -= 1
    else:
        answerer.send(sender, Answer(sys.argv[2] == "done", sys.argv[3:]))
"""


@contextmanager
def other(code: str, *arguments: object) -> Iterator[tuple[int, int]]:
    """Run a process; give its pid, and a pidfd of it."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        env=clean_environment(),
    ) as process:
        fd = os.pidfd_open(process.pid)
        try:
            assert process.stdout
            assert process.stdout.readline() == b"\n"
            yield process.pid, fd
        finally:
            os.close(fd)
            process.kill()


@pytest.mark.parametrize("answer", [Answer(True, []), Answer(False, ["one", "otro é"])])
def test_the_sender_gets_the_answer(answer: Answer) -> None:
    word = "done" if answer.done else "failed"
    with other(DAEMON, 0, word, *answer.sentences) as (pid, fd):
        assert send_signal(fd, pid, signal.SIGHUP, TIMEOUT) == answer


def test_a_signal_that_was_merged_with_another_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "_RESEND", 0.05)
    with other(DAEMON, 2, "done") as (pid, fd):
        assert send_signal(fd, pid, signal.SIGHUP, TIMEOUT) == (True, [])


def test_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_RESEND", 0.02)
    with other(DAEMON, 1 << 30, "done") as (pid, fd):
        assert send_signal(fd, pid, signal.SIGHUP, 0.1) is None


def test_an_answer_of_another_process_is_not_believed() -> None:
    forger = """
import socket, sys, time
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as forger:
    print(flush=True)
    while True:
        try:
            forger.sendto(b"done", "\\0calcd-answer-" + sys.argv[1])
        except OSError:  # it does not wait yet
            pass
        time.sleep(0.001)
"""
    with other(DAEMON, 0, "failed", "true") as (pid, fd), other(forger, os.getpid()):
        assert send_signal(fd, pid, signal.SIGHUP, TIMEOUT) == (False, ["true"])


def test_an_address_that_another_has_taken_is_an_error_and_nothing_is_sent() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as squatter:
        squatter.bind(f"\0calcd-answer-{os.getpid()}")
        with other(DAEMON, 0, "done") as (pid, fd), pytest.raises(ConfigError) as told:
            send_signal(fd, pid, signal.SIGHUP, TIMEOUT)
    assert (
        str(told.value) == f"cannot get an answer of pid {pid}: Address already in use: try again"
    )


def test_a_daemon_that_ends_instead() -> None:
    code = "import time; print(flush=True); time.sleep(1000)"
    with other(code) as (pid, fd), pytest.raises(ProcessLookupError):
        send_signal(fd, pid, signal.SIGUSR1, TIMEOUT)  # nohup(1) has SIGHUP ignored


def test_an_answer_that_nobody_waits_for_does_no_harm() -> None:
    answerer = Answerer()
    answerer.send(0, Answer(True))
    answerer.send(os.getpid(), Answer(True, ["x" * 1_000_000]))
    answerer.close()


def test_a_long_answer_is_cut() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0calcd-answer-{os.getpid()}")
        answerer = Answerer()
        answerer.send(os.getpid(), Answer(True, ["x" * 1_000_000]))
        answerer.close()
        assert receiver.recv(1 << 20) == b"done\n" + b"x" * ((1 << 16) - 5)


def test_many_reloads_at_once_are_all_answered(start_daemon: Daemons) -> None:
    """Signals that are pending at once are one, with one sender."""
    daemon = start_daemon()
    command = [sys.executable, "-m", "calcd", "-s", "reload"]
    environment = clean_environment(MAINPID=str(daemon.process.pid), INVOCATION_ID="test")
    reloads = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(4)
    ]
    assert [reload.communicate(timeout=TIMEOUT)[0] for reload in reloads] == [b""] * 4
    assert [reload.returncode for reload in reloads] == [0] * 4
