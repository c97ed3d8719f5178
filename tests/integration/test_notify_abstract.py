"""A service manager whose notify socket has an abstract address."""

import os
import socket
import subprocess
import sys

from helpers import TIMEOUT, clean_environment, wait_until


def test_a_manager_with_an_abstract_address_gets_every_message() -> None:
    name = f"calcd-test-{os.getpid()}"
    received: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.setblocking(False)

        def has(state: str) -> bool:
            try:
                while True:
                    received.extend(manager.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return state in received

        with subprocess.Popen(
            [sys.executable, "-m", "calcd", "-l", "tcp://127.0.0.1:0"],
            env=clean_environment(NOTIFY_SOCKET=f"@{name}"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                wait_until(lambda: has("READY=1"), "READY=1")
                process.terminate()
                assert process.wait(TIMEOUT) == 0
            finally:
                process.kill()
        assert has("STOPPING=1")
