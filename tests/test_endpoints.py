"""Endpoint URLs: what one may be."""

import pytest

from calcd.endpoints import Endpoint, parse_endpoint


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("tcp://localhost:12000", Endpoint(host="localhost", port=12000)),
        ("tcp://a-b.c_d.example.:1", Endpoint(host="a-b.c_d.example.", port=1)),
        ("tcp://0.0.0.0:65535", Endpoint(host="0.0.0.0", port=65535)),
        ("tcp://[::1]:0", Endpoint(host="::1", port=0)),
        ("tcp://[fe80::1%eth0]:80", Endpoint(host="fe80::1%eth0", port=80)),
        ("unix:///run/calcd/calcd.sock", Endpoint(path="/run/calcd/calcd.sock")),
        ("unix:///" + "x" * 106, Endpoint(path="/" + "x" * 106)),
    ],
)
def test_a_url_is_read_and_written_back(url: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(url) == endpoint
    assert str(endpoint) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "12000",
        "localhost:12000",
        "tcp://localhost",
        "tcp://:12000",
        "tcp://localhost:65536",
        "tcp://localhost:\u0661",
        "tcp://localhost:+1",
        "tcp://localhost:12000/",
        "tcp://::1:12000",
        "tcp://[::1]",
        "tcp://[::1:12000",
        "tcp://a..b:1",
        "tcp://.a:1",
        "tcp://" + "a" * 64 + ":1",
        "tcp://a\0b:1",
        "tcp://*:12000",
        "udp://localhost:12000",
        "http://localhost:12000",
    ],
)
def test_what_is_no_url_is_told_what_one_is(url: str) -> None:
    with pytest.raises(ValueError, match=r"^tcp://HOST:PORT, with \[\] round an IPv6 address, or"):
        parse_endpoint(url)


@pytest.mark.parametrize(
    "url",
    [
        "unix:/run/calcd.sock",
        "unix://",
        "unix:///",
        "unix://run/calcd.sock",
        "unix:///run/",
        "unix:///run/a\x1bb",
        "unix:///run/a?mode=666",
        "unix:///" + "x" * 107,
        "unix:///" + "é" * 54,
    ],
)
def test_a_unix_path_is_absolute_and_short_enough(url: str) -> None:
    with pytest.raises(ValueError, match=r"^unix:// and an absolute path of at most 107 bytes$"):
        parse_endpoint(url)
