"""Warnings about endpoints that are open to everybody."""

import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers import Daemons
from listening import listening, needs_ipv6

from calcd.config.endpoints import Endpoint
from calcd.config.settings import Settings, read_settings
from calcd.net.listeners import Listener, warn_if_public

CERTIFICATE = {"tls_certificate": "/c"}


def warned(
    caplog: pytest.LogCaptureFixture, *listeners: Listener, **settings: str
) -> list[tuple[str, str]]:
    """Return level and endpoint of the warnings with these settings."""
    caplog.clear()
    warn_if_public(listeners, read_settings(None, settings))
    return [
        (record.levelname, record.getMessage().split(" is open ")[0]) for record in caplog.records
    ]


@pytest.mark.parametrize(
    ("url", "settings", "open_to_all"),
    [
        ("tcp://0.0.0.0:0", {}, True),
        ("tcp://0.0.0.0:0", {"allow": "10.0.0.0/8"}, False),
        ("tcp://0.0.0.0:0", {"allow": "0.0.0.0/0"}, False),
        ("tcp://0.0.0.0:0", CERTIFICATE | {"tls_client_ca": "/c"}, True),
        ("tls://0.0.0.0:0", CERTIFICATE, True),
        ("tls://0.0.0.0:0", CERTIFICATE | {"tls_client_ca": "/c"}, False),
        ("tls://0.0.0.0:0", CERTIFICATE | {"allow": "::1"}, False),
        ("udp://0.0.0.0:0", {}, True),
        ("udp://0.0.0.0:0", CERTIFICATE | {"tls_client_ca": "/c"}, True),
        ("udp://0.0.0.0:0", {"allow": "10.0.0.0/8"}, False),
        ("udp://127.0.0.1:0", {}, False),
        ("tcp://127.0.0.1:0", {}, False),
        ("tcp://127.1.2.3:0", {}, False),
        ("tcp://localhost:0", {}, False),
        pytest.param("tcp://[::1]:0", {}, False, marks=needs_ipv6),
        pytest.param("tcp://[::]:0", {}, True, marks=needs_ipv6),
    ],
)
def test_an_endpoint_that_other_machines_reach_without_restriction_is_warned_of(
    caplog: pytest.LogCaptureFixture, url: str, settings: dict[str, str], open_to_all: bool
) -> None:
    with listening(url) as listeners:
        expected = [("WARNING", str(each.endpoint)) for each in listeners] if open_to_all else []
        assert warned(caplog, *listeners, **settings) == expected


def test_a_unix_socket_is_local(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with listening(f"unix://{tmp_path}/sock") as listeners:
        assert warned(caplog, *listeners) == []


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "tls", "open_to_all"),
    [
        ("::ffff:127.0.0.1", False, False),
        ("::ffff:0.0.0.0", False, True),
        ("::ffff:0.0.0.0", True, False),
    ],
)
def test_inherited_sockets_are_checked_too(
    caplog: pytest.LogCaptureFixture, host: str, tls: bool, open_to_all: bool
) -> None:
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_INET6))
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((host, 0))
        listener = Listener(sock, Endpoint(tls=tls), inherited=True)
        told = warned(caplog, listener, tls_client_ca="/c", **CERTIFICATE)
        assert told == ([("WARNING", str(listener.endpoint))] if open_to_all else [])


def test_a_reload_warns_only_of_new_public_endpoints(caplog: pytest.LogCaptureFixture) -> None:
    closed = read_settings(None, {"allow": "::1"})
    with listening("tcp://0.0.0.0:0") as listeners:
        warn_if_public(listeners, Settings(), Settings())
        warn_if_public(listeners, closed, Settings())
        assert caplog.messages == []
        warn_if_public(listeners, Settings(), closed)
        assert caplog.messages == [
            f"{listeners[0].endpoint} is open to everybody who can reach it: set allow to the "
            "networks of its clients, or use tls:// with tls_client_ca"
        ]


def test_everybody_as_a_proxy_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    some, everybody, also = (
        read_settings(None, {"proxy_protocol_from": text})
        for text in ("10.0.0.0/8 unix", "10.0.0.0/8 0.0.0.0/0", "::/0")
    )
    warn_if_public([], some)
    warn_if_public([], some, everybody)
    warn_if_public([], also, everybody)
    assert caplog.messages == []
    warn_if_public([], everybody)
    warn_if_public([], also, some)
    assert len(caplog.messages) == 2
    assert all("can claim any address, whatever allow says: " in each for each in caplog.messages)


def test_a_daemon_warns_at_its_start_and_when_allow_is_removed(
    start_daemon: Daemons, tmp_path: Path
) -> None:
    settings = tmp_path / "calcd.conf"
    bare = "[calcd]\nlisten = tcp://127.0.0.1:0 tcp://0.0.0.0:0\n"
    settings.write_text(bare)
    daemon = start_daemon("-c", str(settings))
    (line,) = daemon.logs("is open to everybody")
    assert f"warning: {daemon.endpoints[1]} is open to everybody who can reach it: " in line
    for number, more in enumerate(("", "allow = ::1\n", "", ""), start=2):
        settings.write_text(bare + more)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.logs("settings in force", number)
    assert daemon.stop() == 0
    assert len(daemon.logs("is open to everybody")) == 2
