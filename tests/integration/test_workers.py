"""Workers: expensive lines in processes of their own, with a limit of CPU time."""

import errno
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from background_daemon import Background
from certificates import Certificates
from helpers import (
    TIMEOUT,
    Daemon,
    Daemons,
    ask,
    clean_environment,
    datagrams_to,
    read_all,
    wait_until,
)

from calcd.config.settings import Settings
from calcd.core.job import Job, Outcome, State
from calcd.net.workers import Worker, Workers

EXPENSIVE = b"EXP 0.1234\n"  # with 1000 digits
LONG = b"= " + b"+".join(1200 * [b"exp(1/3)"]) + b"\n"  # a second of CPU time, with 1000 digits
PRECISE = ("--precision", "1000")


def workers_of(pid: int) -> list[int]:
    """Return the pids of a daemon's workers."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(each)
        for task in os.listdir(f"/proc/{pid}/task")
        if int(task) != pid
        for each in Path(f"/proc/{pid}/task/{task}/children").read_text().split()
    ]


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def busy_worker(daemon: Daemon) -> int:
    """Wait until a worker has used CPU time for a line; return its pid."""
    found: list[int] = []

    def busy() -> bool:
        for pid in workers_of(daemon.process.pid):
            with suppress(FileNotFoundError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                if b"calcd.net.worker" in command and state[0] == "R" and int(state[11]) > 10:
                    found[:] = [pid]
        return bool(found)

    wait_until(busy, "a busy worker")
    return found[0]


@pytest.fixture
def precise(start_daemon: Daemons) -> Daemon:
    """Give a daemon that computes with 1000 digits; a line may take long."""
    return start_daemon(*PRECISE, "--line-cpu-timeout", "20")


# One worker


def by_hand(*lines: bytes, limit: str = "5") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "calcd.net.worker", limit],
        input=b"".join(line + b"\n" for line in lines),
        capture_output=True,
        timeout=TIMEOUT,
        env=clean_environment(),
        check=False,
    )


def job(line: str, precision: int = 34, **variables: str) -> bytes:
    state = {
        "precision": precision,
        "rounding": "half-even",
        "exact": False,
        "language": "en",
        "answer": "",
        "variables": variables,
    }
    return json.dumps({"line": line, "state": state}).encode()


def test_a_worker_can_be_run_by_hand() -> None:
    done = by_hand(job("SOMA 1 2"), job("y = x^2", x="1.5"), job("DIV 1 0"))
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["reply"] for each in outcomes] == [
        *("3", "2.25", "ERR DIVISION-BY-ZERO division by zero"),
    ]
    assert outcomes[1]["state"]["variables"] == {"x": "1.5", "y": "2.25"}
    assert [each["is_error"] for each in outcomes] == [False, False, True]
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_kernel_ends_a_worker_whose_job_takes_too_long() -> None:
    done = by_hand(job("SOMA 1 2"), job(LONG.decode().strip(), 1000), limit="0.1")
    assert json.loads(done.stdout)["reply"] == "3"
    assert done.returncode == -signal.SIGPROF


def test_the_limit_is_for_each_job() -> None:
    done = by_hand(*(10 * [job("EXP 0.1234", 700)]), limit="0.2")
    assert done.stdout.count(b"\n") == 10


# A line


def test_an_expensive_line_is_answered_by_a_worker(precise: Daemon) -> None:
    with precise.connect() as client:
        assert workers_of(precise.process.pid) == []  # none is started before there is a job
        assert ask(client, EXPENSIVE).startswith(b"1.1313")
        assert len(workers_of(precise.process.pid)) == 1
        assert ask(client, b"x = exp(2)\n").startswith(b"7.389")
        assert ask(client, b"= x - ans\n") == b"0." + 34 * b"0" + b"\n"
        assert ask(client, b"EXP 1E9\n").startswith(b"ERR OVERFLOW ")


def test_replies_keep_their_order_and_line_ends(precise: Daemon) -> None:
    replies = precise.ask(
        b"PING\r\n" + EXPENSIVE[:-1] + b"\r\nSOMA 1 1\n" + EXPENSIVE + b"SOMA 2 2"
    )
    first, second, third, fourth, fifth = replies.split(b"\n")[:-1]
    assert (first, third, fifth) == (b"PONG\r", b"2", b"4")
    assert second == fourth + b"\r"


def test_a_line_that_takes_too_long_is_an_error_and_the_next_is_answered(
    start_daemon: Daemons,
) -> None:
    daemon = start_daemon(*PRECISE, "--line-cpu-timeout", "0.1", "--workers", "1")
    with daemon.connect() as client:
        for _ in range(3):
            assert ask(client, LONG) == (
                b"ERR INVALID-OPERATION the request takes more than 0.1 s of CPU time: "
                b"use fewer digits, or split it\n"
            )
            assert ask(client, b"EXP 0\n") == b"1\n"
    daemon.logs(r"warning: worker \d+ ended: its line took more than 0\.1 s of CPU time", 3)


@pytest.mark.parametrize(
    ("signum", "name"),
    [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV"), (signal.SIGRTMIN + 1, "signal 35")],
)
def test_a_worker_that_is_killed_costs_one_request(precise: Daemon, signum: int, name: str) -> None:
    with precise.connect() as client, precise.connect() as other:
        client.sendall(LONG + b"SOMA 2 2\n")
        os.kill(busy_worker(precise), signum)
        assert read_lines(client, 2) == [
            b"ERR INTERNAL the process that worked on it was ended: ask again",
            b"4",
        ]
        assert ask(other, EXPENSIVE).startswith(b"1.1313")
    precise.logs(rf"warning: worker \d+ ended: {name}$")


def read_lines(client: socket.socket, count: int) -> list[bytes]:
    received = b""
    while received.count(b"\n") < count:
        received += client.recv(1 << 16)
    return received.splitlines()


def test_a_daemon_whose_parent_ignores_its_children_can_wait_for_its_own(
    start_daemon: Daemons,
) -> None:
    ignore = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    daemon = start_daemon(*PRECISE, "--line-cpu-timeout", "0.1", code=ignore)
    with daemon.connect() as client:
        assert ask(client, LONG).startswith(b"ERR INVALID-OPERATION ")
        assert ask(client, EXPENSIVE).startswith(b"1.1313")


def test_a_worker_without_memory_costs_one_request(start_daemon: Daemons) -> None:
    daemon = start_daemon(*PRECISE, "--line-cpu-timeout", "20", "--max-line", str(1 << 20))
    with daemon.connect() as client:
        ask(client, EXPENSIVE)
        (worker,) = workers_of(daemon.process.pid)
        size = int(Path(f"/proc/{worker}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(worker, resource.RLIMIT_AS, (size, size))
        client.sendall(b"UPPER " + 1_000_000 * b"x" + b"\n")
        (reply,) = read_lines(client, 1)
        assert reply == b"ERR INVALID-OPERATION the request takes too much memory: split it"
        assert ask(client, b"SOMA 2 2\n") == b"4\n"


def test_a_line_over_tls_is_answered_by_a_worker(
    start_daemon: Daemons, certificates: Certificates
) -> None:
    import ssl

    pair = certificates.server
    tls = ("--tls-certificate", str(pair.cert), "--tls-key", str(pair.key))
    daemon = start_daemon("-l", "tls://127.0.0.1:0", *tls, *PRECISE)
    trusted = ssl.create_default_context(cafile=certificates.authority.cert)
    plain = socket.create_connection(("127.0.0.1", daemon.port_of("tls")), TIMEOUT)
    with trusted.wrap_socket(plain, server_hostname="localhost") as client:
        client.sendall(b"PING\n" + 2 * EXPENSIVE + b"SOMA 1 1\n")
        first, second, third, last = read_lines(client, 4)
        assert (first, last) == (b"PONG", b"2")
        assert second == third
        assert ask(client, EXPENSIVE) == second + b"\n"


def test_a_client_that_sends_no_newline_gets_the_reply_of_a_worker(precise: Daemon) -> None:
    with precise.connect() as client:
        for request, reply in ((b"SOMA 2 2", b"4\n"), (b"EXP 0.1234", b"1.13"), (b"2+2", b"4\n")):
            client.sendall(request)
            assert client.recv(2000).startswith(reply)


# Many lines


def test_a_connection_with_a_job_costs_no_thread_and_delays_nobody(precise: Daemon) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(precise.connect()) for _ in range(60)]
        for client in clients:
            client.sendall(LONG)
        busy_worker(precise)
        with precise.connect() as other:
            for _ in range(100):
                assert ask(other, b"SOMA 2 2\n") == b"4\n"
        # main, the serving loop, the log, lingering; and one for the other client, when it idles
        wait_until(lambda: precise.count_threads() <= 6, "no thread to be left")
        assert len(workers_of(precise.process.pid)) == len(os.sched_getaffinity(0))
        assert precise.stop(signal.SIGTERM) == 0


def test_too_many_jobs_of_a_host_are_refused_and_the_connections_stay(
    start_daemon: Daemons,
) -> None:
    daemon = start_daemon("--precision", "400", "--workers", "1", "--line-cpu-timeout", "20")
    with ExitStack() as stack:
        clients = [stack.enter_context(daemon.connect()) for _ in range(300)]
        for client in clients:
            client.sendall(EXPENSIVE)
        replies = [read_lines(client, 1)[0] for client in clients]
        refusal = (
            b"ERR OVERLOADED the server cannot take this expensive request now: ask again later"
        )
        assert 0 < replies.count(refusal) <= 300 - 256
        for client, reply in zip(clients, replies, strict=True):
            assert reply == refusal or reply.startswith(b"1.1313")
            assert ask(client, b"SOMA 2 2\n") == b"4\n"


def test_clients_whose_jobs_are_refused_delay_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calcd.net.workers._MAX_QUEUED", 0)
    refused = 0

    def ask_again(outcome: Outcome | None) -> None:
        nonlocal refused
        assert outcome is None
        refused += 1
        if refused < 100:
            workers.submit("192.0.2.1", Job("EXP 1", State(1000)), ask_again)

    with select.epoll() as poll, closing(Workers(poll)) as workers:
        workers.submit("192.0.2.1", Job("EXP 1", State(1000)), ask_again)
        for rounds in range(1, 101):
            ((fd, _),) = poll.poll(TIMEOUT)
            workers.serve(fd, Settings())
            assert refused == rounds  # others are served before the next one
        assert poll.poll(0) == []


def test_hosts_take_turns(start_daemon: Daemons) -> None:
    """Each line of the crowd takes a second: in the order of arrival, the other would wait 40."""
    options = ("--workers", "1", "--line-cpu-timeout", "20", "--drain-timeout", "0.1")
    daemon = start_daemon(*PRECISE, *options)
    with ExitStack() as stack:
        crowd = []
        for _ in range(40):
            client = socket.create_connection(
                (daemon.host, daemon.port), TIMEOUT, source_address=("127.0.0.2", 0)
            )
            crowd.append(stack.enter_context(client))
            client.sendall(LONG)
        busy_worker(daemon)
        with daemon.connect() as other:
            assert ask(other, EXPENSIVE).startswith(b"1.1313")
        answered, _, _ = select.select(crowd, [], [], 0)
        assert len(answered) < 20


# Datagrams


def test_an_expensive_datagram_is_answered(start_daemon: Daemons) -> None:
    daemon = start_daemon("-l", "udp://127.0.0.1:0", "--precision", "300")
    with datagrams_to(daemon) as client:
        client.send(b"PING\nEXP 0.1234\nSOMA 2 2\nEXP 0.1234")
        first, second, third, fourth = client.recv(1 << 16).splitlines()
        assert (first, third) == (b"PONG", b"4")
        assert second == fourth


def test_expensive_datagrams_beyond_a_bound_are_dropped(start_daemon: Daemons) -> None:
    options = ("--workers", "1", "--line-cpu-timeout", "20", "--drain-timeout", "0.1")
    daemon = start_daemon("-l", "udp://127.0.0.1:0", *PRECISE, *options)
    with datagrams_to(daemon) as client:
        for _ in range(100):
            client.send(b"+".join(60 * [b"log(2,3)"]))  # small, so that the kernel holds them all
        client.send(b"SOMA 2 2")
        before = 0
        while client.recv(1 << 16) != b"4\n":  # some of the others may be done before
            before += 1
        assert before < 16  # most of those that were taken still wait
    assert daemon.stop() == 0
    counts = re.findall(r"(\d+) datagrams dropped: too many expensive ones at once", daemon.log)
    assert 20 < sum(map(int, counts)) <= 36


# Settings


def test_a_reload_changes_the_number_of_workers(start_daemon: Daemons, tmp_path: Path) -> None:
    file = tmp_path / "calcd.conf"

    def write(workers: int, limit: float = 20) -> None:
        file.write_text(
            f"[calcd]\nlisten = tcp://127.0.0.1:0\nprecision = 1000\nworkers = {workers}\n"
            f"line_cpu_timeout = {limit}\n"
        )

    write(3)
    daemon = start_daemon("-c", str(file))

    def reload() -> None:
        count = daemon.log.count("settings in force")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.logs("settings in force", count + 1)

    with ExitStack() as stack:
        clients = [stack.enter_context(daemon.connect()) for _ in range(8)]

        def all_ask() -> list[int]:
            for client in clients:
                client.sendall(EXPENSIVE)
            for client in clients:
                assert read_lines(client, 1)[0].startswith(b"1.1313")
            return workers_of(daemon.process.pid)

        assert len(all_ask()) == 3
        write(1)
        reload()
        wait_until(lambda: len(workers_of(daemon.process.pid)) == 1, "two workers to end")
        assert len(all_ask()) == 1
        write(1, 10)
        before = all_ask()
        reload()
        after = all_ask()
        assert len(after) == 1
        assert after != before  # it has the new limit
        write(0)
        for _ in range(2):  # the second one changes nothing, and does not warn again
            reload()
            assert all_ask() == []
    assert len(daemon.logs("warning: workers = 0: ")) == 1


def test_without_workers_the_daemon_computes(start_daemon: Daemons) -> None:
    daemon = start_daemon(*PRECISE, "--workers", "0", "--line-cpu-timeout", "0.001")
    with daemon.connect() as client, daemon.connect() as other:
        other.sendall(EXPENSIVE)
        assert ask(client, EXPENSIVE) == read_lines(other, 1)[0] + b"\n"
        assert workers_of(daemon.process.pid) == []
    daemon.logs("warning: workers = 0: expensive lines have no time limit, and all clients wait")


def test_a_worker_that_writes_no_outcome_is_replaced(precise: Daemon) -> None:
    with precise.connect() as client:
        ask(client, EXPENSIVE)
        (worker,) = workers_of(precise.process.pid)
        with open(f"/proc/{worker}/fd/1", "wb") as output:
            output.write(b"[1]\n")
        wait_until(lambda: has_ended(worker), "the worker to be ended")
        assert ask(client, EXPENSIVE).startswith(b"1.1313")


# The end


def test_jobs_are_done_before_the_daemon_ends(start_daemon: Daemons) -> None:
    # They take seconds: on a machine that does other things, more than the default drain.
    precise = start_daemon(*PRECISE, "--line-cpu-timeout", "20", "--drain-timeout", str(TIMEOUT))
    with ExitStack() as stack:
        clients = [stack.enter_context(precise.connect()) for _ in range(4)]
        for client in clients:
            client.sendall(LONG + b"SOMA 2 2\n")
        busy_worker(precise)
        workers = workers_of(precise.process.pid)
        precise.process.terminate()
        for client in clients:
            first, second = read_all(client).splitlines()
            assert (first[:6], second) == (b"1674.7", b"4")
    assert precise.process.wait(TIMEOUT) == 0
    assert "stopped: 0 connections cut" in precise.log
    assert all(map(has_ended, workers))


def test_an_expensive_request_without_a_newline_is_answered_at_the_stop(
    start_daemon: Daemons,
) -> None:
    daemon = start_daemon(*PRECISE, "--message-wait", "60", "--line-timeout", "60")
    with daemon.connect() as client:
        client.sendall(EXPENSIVE[:-1])
        daemon.process.terminate()
        assert read_all(client).startswith(b"1.1313")
    daemon.logs("requests=1 errors=0 .* how=stopped")
    assert daemon.process.wait(TIMEOUT) == 0


def test_jobs_that_take_longer_than_a_drain_are_cut_and_counted(start_daemon: Daemons) -> None:
    daemon = start_daemon(
        *(*PRECISE, "--workers", "1", "--line-cpu-timeout", "60", "--drain-timeout", "0.3")
    )
    with ExitStack() as stack:
        clients = [stack.enter_context(daemon.connect()) for _ in range(5)]
        for client in clients:
            client.sendall(LONG)
        busy_worker(daemon)
        workers = workers_of(daemon.process.pid)
        daemon.process.terminate()
        answers = [read_until_cut(client) for client in clients]
        assert daemon.process.wait(TIMEOUT) == 0
    cut = answers.count(b"")
    assert cut >= 3
    assert f"stopped: {cut} connections cut" in daemon.log
    assert len(daemon.logs("how=cut")) == cut
    assert all(map(has_ended, workers))


def read_until_cut(client: socket.socket) -> bytes:
    try:
        return read_all(client)
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_no_worker_outlives_a_daemon_that_is_killed(precise: Daemon, busy: bool) -> None:
    with precise.connect() as client:
        assert ask(client, EXPENSIVE)
        if busy:
            client.sendall(LONG)
            busy_worker(precise)
        workers = workers_of(precise.process.pid)
        assert workers
        precise.process.kill()
        precise.process.wait(TIMEOUT)
    wait_until(lambda: all(map(has_ended, workers)), "the workers to end")


def test_no_worker_outlives_a_daemon_in_the_background(background: Background) -> None:
    for end in (signal.SIGTERM, signal.SIGKILL):
        background.serve(*PRECISE)
        assert background.ask(EXPENSIVE).startswith(b"1.1313")
        pid = background.pid
        with background.connect() as client:
            assert ask(client, EXPENSIVE)
            workers = workers_of(pid)
            assert workers
            os.kill(pid, end)
        wait_until(lambda: all(map(has_ended, [*workers, pid])), "the workers to end")  # noqa: B023


def test_a_worker_has_no_descriptor_of_the_daemons_and_a_lower_priority(precise: Daemon) -> None:
    with precise.connect() as client:
        assert ask(client, EXPENSIVE)
        (worker,) = workers_of(precise.process.pid)
        assert sorted(os.listdir(f"/proc/{worker}/fd")) == ["0", "1", "2"]
        assert os.getpriority(os.PRIO_PROCESS, worker) == 5
        limits = resource.prlimit(worker, resource.RLIMIT_AS)
        assert limits == (1 << 29, 1 << 29)


@pytest.mark.parametrize("cpu_limit", [0, 0.25], ids=["thread", "process"])
@pytest.mark.parametrize("failure", ["pipe", "start"])
def test_a_worker_that_cannot_be_started_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch, cpu_limit: float, failure: str
) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    before = os.listdir("/proc/self/fd")
    pipes = iter([os.pipe()] if failure == "pipe" else [os.pipe(), os.pipe()])
    monkeypatch.setattr(os, "pipe", lambda: next(pipes, None) or refuse())
    monkeypatch.setattr(os, "posix_spawn", refuse)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(BlockingIOError):
        Worker(cpu_limit)
    assert os.listdir("/proc/self/fd") == before


def test_a_worker_keeps_a_limit_of_memory_that_is_lower(start_daemon: Daemons) -> None:
    lower = 400 << 20
    code = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({lower}, {lower}))"
    daemon = start_daemon(*PRECISE, code=code)
    with daemon.connect() as client:
        assert ask(client, EXPENSIVE).startswith(b"1.1313")
        (worker,) = workers_of(daemon.process.pid)
        assert resource.prlimit(worker, resource.RLIMIT_AS) == (lower, lower)


def test_a_worker_that_has_written_nothing_is_not_taken_for_ended() -> None:
    worker = Worker(0)  # a thread
    assert worker.read() is None
    worker.close()


def test_a_daemon_that_can_start_no_worker_refuses_the_line(start_daemon: Daemons) -> None:
    code = "import os\ndef refuse(*_, **__): raise BlockingIOError(11, os.strerror(11))\n"
    daemon = start_daemon(*PRECISE, code=f"{code}os.posix_spawn = refuse")
    with daemon.connect() as client:
        for _ in range(3):
            assert ask(client, EXPENSIVE).startswith(b"ERR OVERLOADED ")
            assert ask(client, b"SOMA 2 2\n") == b"4\n"
    assert len(daemon.logs("error: cannot start a worker: ")) == 1
