"""Threads that share a Calculator. What is fair is counted in turns, not in time."""

import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial

import pytest
from certificates import Certificates
from client_helpers import HOST, Script, Servers, receive
from helpers import TIMEOUT, Daemon, wait_until

from calcd.client import Calculator
from calcd.client.fairlock import FairLock
from calcd.client.protocol import STATE_LOST

connect = partial(Calculator, HOST, timeout=TIMEOUT)


def start(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def lock_of(calculator: Calculator) -> FairLock:
    return calculator._lock


def wait_for_waiting(lock: FairLock, count: int) -> None:
    wait_until(lambda: lock.waiting == count, f"{count} threads to wait")


# -- Replies -------------------------------------------------------------------------------------


def test_each_thread_gets_its_own_replies(shared_daemon: Daemon) -> None:
    def work(number: int) -> None:
        base = number * 1000
        for each in range(base, base + 100):
            assert calculator.evaluate(f"SOMA {each} 0") == each
            requests = [f"SOMA {each} 0.{digit}" for digit in range(5)]
            results = [each + Decimal(f"0.{digit}") for digit in range(5)]
            assert calculator.evaluate_many(requests) == results

    with connect(shared_daemon.port) as calculator, ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_requests_of_one_call_are_not_interrupted(shared_daemon: Daemon) -> None:
    """They may use the same name as those of other threads."""

    def work(number: int) -> None:
        for _ in range(50):
            assert calculator.evaluate_many([f"x = {number}", "x * 2"]) == [number, number * 2]

    with connect(shared_daemon.port) as calculator, ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


# -- Turns ---------------------------------------------------------------------------------------


def test_a_lock_is_given_in_the_order_of_arrival() -> None:
    lock = FairLock()
    turns: list[int] = []

    def work(number: int) -> None:
        with lock:
            turns.append(number)

    with lock:
        threads = []
        for number in range(10):
            threads.append(start(partial(work, number)))
            wait_for_waiting(lock, number + 1)
    work(10)  # this thread lets all others go first
    for thread in threads:
        thread.join()
    assert turns == list(range(11))
    assert not lock.locked


def test_a_thread_that_asks_in_a_loop_lets_each_waiting_thread_go_first(serve: Servers) -> None:
    """Not one request of the loop comes before that of a thread that waits already."""
    rounds = 20
    order: list[bytes] = []

    def answer_when_another_waits(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            for number in range(rounds):
                assert lines.readline() == b"loop\n"
                other = start(partial(calculator.evaluate, f"other {number}"))
                wait_for_waiting(lock_of(calculator), 1)
                connection.sendall(b"1\n")
                order.append(lines.readline())
                connection.sendall(b"2\n")
                other.join()
            assert lines.readline() == b"loop\n"
            connection.sendall(b"3\n")

    with connect(serve(answer_when_another_waits)) as calculator:
        while calculator.evaluate("loop") != 3:
            pass
    assert order == [b"other %d\n" % number for number in range(rounds)]


def test_waiting_threads_are_served_in_the_order_of_arrival(serve: Servers) -> None:
    order: list[bytes] = []
    others: list[threading.Thread] = []

    def answer_when_all_wait(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            assert lines.readline() == b"first\n"
            for number in range(10):
                others.append(start(partial(calculator.evaluate, f"other {number}")))
                wait_for_waiting(lock_of(calculator), number + 1)
            connection.sendall(b"1\n")
            for _ in others:
                order.append(lines.readline())
                connection.sendall(b"2\n")

    with connect(serve(answer_when_all_wait)) as calculator:
        calculator.evaluate("first")
        for other in others:
            other.join()
    assert order == [b"other %d\n" % number for number in range(10)]


def test_a_thread_that_gives_up_its_place_holds_nobody_up() -> None:
    """Ctrl-C reaches the main thread, which waits."""
    lock = FairLock()
    entered = threading.Event()
    leave = threading.Event()

    def hold() -> None:
        with lock:
            entered.set()
            assert leave.wait(TIMEOUT)

    def interrupt() -> None:
        wait_for_waiting(lock, 1)
        os.kill(os.getpid(), signal.SIGINT)

    holder = start(hold)
    assert entered.wait(TIMEOUT)
    interrupter = start(interrupt)
    with pytest.raises(KeyboardInterrupt):
        lock.__enter__()
    interrupter.join()
    assert lock.waiting == 0
    leave.set()
    holder.join()
    with lock:
        pass
    assert not lock.locked


# -- Lost state ----------------------------------------------------------------------------------


def test_each_thread_is_told_once_that_its_settings_are_lost(serve: Servers) -> None:
    """The second would otherwise take a result with the default precision for its own."""
    told = threading.Barrier(2, timeout=TIMEOUT)

    def first(connection: socket.socket) -> None:
        receive(connection, b"PRECISION 5\n")
        connection.sendall(b"5\n")
        receive(connection, b"a\n")
        connection.sendall(b"1\n")

    def second(connection: socket.socket) -> None:
        for _ in range(3):
            receive(connection, b"b\n")
            connection.sendall(b"2\n")

    def other() -> None:
        assert calculator.evaluate("a") == 1
        told.wait()
        told.wait()
        with pytest.raises(ConnectionError, match=STATE_LOST):
            calculator.evaluate("b")
        assert calculator.evaluate("b") == 2

    with connect(serve(first, second)) as calculator, ThreadPoolExecutor(1) as pool:
        assert calculator.evaluate("PRECISION 5") == 5
        checked = pool.submit(other)
        told.wait()
        with pytest.raises(ConnectionError, match=STATE_LOST):
            calculator.evaluate("b")
        assert calculator.evaluate("b") == 2
        told.wait()
        checked.result()
        late = ThreadPoolExecutor(1)  # a new thread had nothing that was lost
        with late:
            assert late.submit(calculator.evaluate, "b").result() == 2


# -- Close ---------------------------------------------------------------------------------------


def until_closed(connection: socket.socket, asked: threading.Event) -> None:
    """Take a request, and do not reply."""
    assert connection.recv(100)
    asked.set()
    assert connection.recv(100) == b""


@pytest.mark.parametrize("tls", [False, True])
def test_close_ends_a_request_that_another_thread_waits_for(
    tls: bool, serve: Servers, certificates: Certificates
) -> None:
    asked = threading.Event()
    script: Script = partial(until_closed, asked=asked)
    context = None

    def secured(plain: socket.socket) -> None:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificates.server.cert, certificates.server.key)
        with server.wrap_socket(plain, server_side=True) as connection:
            until_closed(connection, asked)

    if tls:
        script = secured
        context = ssl.create_default_context(cafile=str(certificates.authority.cert))

    calculator = connect(serve(script), tls=context)
    with ThreadPoolExecutor(2) as pool:
        waits = pool.submit(calculator.evaluate, "a")
        assert asked.wait(TIMEOUT)
        has_no_turn = pool.submit(calculator.evaluate, "b")
        wait_for_waiting(lock_of(calculator), 1)
        calculator.close()
        with pytest.raises(ConnectionAbortedError, match="the calculator was closed"):
            waits.result()
        with pytest.raises(ValueError, match="is closed"):
            has_no_turn.result()


def test_a_signal_handler_may_close_but_not_ask(serve: Servers) -> None:
    asked = threading.Event()
    calculator = connect(serve(partial(until_closed, asked=asked)))

    def handle(*_: object) -> None:
        with pytest.raises(RuntimeError, match="another reply of the same calculator"):
            calculator.evaluate("b")
        calculator.close()

    def interrupt() -> None:
        assert asked.wait(TIMEOUT)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    interrupter = start(interrupt)
    try:
        with pytest.raises(ConnectionAbortedError, match="the calculator was closed"):
            calculator.evaluate("a")
    finally:
        interrupter.join()
        signal.signal(signal.SIGUSR1, before)
