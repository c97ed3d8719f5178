"""Endpoint URLs."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calcd.config.endpoints import Endpoint, parse_endpoint, parse_metrics_endpoint


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("tcp://localhost:12000", Endpoint(host="localhost", port=12000)),
        ("tcp://a-b.c_d.example.:1", Endpoint(host="a-b.c_d.example.", port=1)),
        ("tcp://0.0.0.0:65535", Endpoint(host="0.0.0.0", port=65535)),
        ("tcp://[::1]:0", Endpoint(host="::1", port=0)),
        ("tcp://[fe80::1%eth0]:80", Endpoint(host="fe80::1%eth0", port=80)),
        ("unix:///run/calcd/calcd.sock", Endpoint(path="/run/calcd/calcd.sock")),
        ("tls://calcd.example:12001", Endpoint(host="calcd.example", port=12001, tls=True)),
        ("tls://[::]:12001", Endpoint(host="::", port=12001, tls=True)),
        ("udp://localhost:12000", Endpoint(host="localhost", port=12000, udp=True)),
        ("udp://[fe80::1%eth0]:0", Endpoint(host="fe80::1%eth0", port=0, udp=True)),
        ("unix:///a?mode=0660", Endpoint(path="/a", mode=0o660)),
        ("unix:///a?group=ops", Endpoint(path="/a", group="ops")),
        ("unix:///a?mode=0000&group=1000", Endpoint(path="/a", mode=0, group="1000")),
        ("unix:///" + "x" * 106, Endpoint(path="/" + "x" * 106)),
    ],
)
def test_a_url_is_parsed_and_formatted(url: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(url) == endpoint
    assert str(endpoint) == url


def test_metrics_are_served_over_http_alone() -> None:
    endpoint = parse_metrics_endpoint("http://[::1]:9112")
    assert endpoint == Endpoint(host="::1", port=9112, http=True)
    assert str(endpoint) == "http://[::1]:9112"
    for url in (
        *(
            "tcp://localhost:9112",
            "unix:///run/metrics",
            "https://localhost:9112",
            "localhost:9112",
        ),
        *("http://localhost", "http://localhost:9112/", "http://localhost:65536", "9112", ""),
    ):
        with pytest.raises(ValueError, match=r"^http://HOST:PORT, .* without a path$"):
            parse_metrics_endpoint(url)


EXPECTED = (
    "tcp://HOST:PORT, or the same with tls:// or udp://, with [] round an IPv6 address, "
    "or unix:///PATH"
)


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
        "http://localhost:12000",
        "tcp://[::1:12000",
        "tcp://a..b:1",
        "tcp://.a:1",
        "tcp://" + "a" * 64 + ":1",
        "tcp://a\0b:1",
        "tcp://*:12000",
        "tls:localhost:12000",
        "tls://localhost",
        "TLS://localhost:12000",
        "tls://localhost:12000?group=ops",
        "udp://localhost",
        "udp://localhost:12000?mode=0660",
    ],
)
def test_a_wrong_url_is_reported_with_what_was_expected(url: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(EXPECTED)}$"):
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
        "unix:///run/a#b",
        "unix:///run/a?mode=0660#b",
        "unix:///run/?mode=0660",
        "unix:///" + "x" * 107,
        "unix:///" + "é" * 54,
    ],
)
def test_a_unix_path_is_absolute_and_short_enough(url: str) -> None:
    with pytest.raises(ValueError, match=r"^unix:// and an absolute path of at most 107 bytes$"):
        parse_endpoint(url)


@pytest.mark.parametrize(
    ("query", "endpoint"),
    [
        ("mode=660", Endpoint(path="/a", mode=0o660)),
        ("mode=0666", Endpoint(path="/a")),
        ("group=ops&mode=0700", Endpoint(path="/a", mode=0o700, group="ops")),
        ("group=0", Endpoint(path="/a", group="0")),
    ],
)
def test_a_unix_sockets_parameters_may_be_written_in_other_ways(
    query: str, endpoint: Endpoint
) -> None:
    assert parse_endpoint(f"unix:///a?{query}") == endpoint
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("", "mode=, group= or both with & after the ?, not ''"),
        ("mode=0660&", "mode=, group= or both with & after the ?, not ''"),
        ("mdoe=0660", "mode=, group= or both with & after the ?, not 'mdoe=0660'"),
        ("Mode=0660", "mode=, group= or both with & after the ?, not 'Mode=0660'"),
        ("mode=0660;group=a", "a mode in octal digits, such as mode=0660, not 'mode=0660;group=a'"),
        ("mode=0660&mode=0660", "mode= only once after the ?, not 'mode=0660' too"),
        ("group=a&mode=0660&group=b", "group= only once after the ?, not 'group=b' too"),
        ("mode", "a mode in octal digits, such as mode=0660, not 'mode'"),
        ("mode=", "a mode in octal digits, such as mode=0660, not 'mode='"),
        ("mode=0o660", "a mode in octal digits, such as mode=0660, not 'mode=0o660'"),
        ("mode=0668", "a mode in octal digits, such as mode=0660, not 'mode=0668'"),
        ("mode=66", "a mode in octal digits, such as mode=0660, not 'mode=66'"),
        ("mode=1777", "a mode in octal digits, such as mode=0660, not 'mode=1777'"),
        ("mode=\u0666\u0666\u0660", "a mode in octal digits, such as mode=0660, not "),
        ("group=", "a group's name or number, such as group=calcd, not 'group='"),
        ("group=a=b", "a group's name or number, such as group=calcd, not 'group=a=b'"),
        ("group=" + "a" * 33, "a group's name or number, such as group=calcd, not 'group=aaa"),
    ],
)
def test_a_wrong_parameter_is_reported_with_what_was_expected(query: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(told)}"):
        parse_endpoint(f"unix:///a?{query}")


_HOSTS = st.one_of(
    st.from_regex(r"[0-9A-Za-z_-]{1,63}(\.[0-9A-Za-z_-]{1,63}){0,3}", fullmatch=True),
    st.ip_addresses().map(str),
)
_PATHS = st.text(st.characters(categories=["L", "N", "P"], exclude_characters="?#")).map(
    lambda text: f"/{text}x"
)


@given(
    st.builds(Endpoint, _HOSTS, st.integers(0, 65535), tls=st.booleans())
    | st.builds(Endpoint, _HOSTS, st.integers(0, 65535), udp=st.booleans())
    | st.builds(
        Endpoint,
        path=_PATHS.filter(lambda path: len(path.encode()) < 108),
        mode=st.integers(0, 0o777),
        group=st.from_regex("[0-9a-z_-]{0,32}", fullmatch=True),
    )
)
def test_any_endpoint_can_be_parsed_after_formatting(endpoint: Endpoint) -> None:
    assert parse_endpoint(str(endpoint)) == endpoint
