"""The figures of TLS and UDP, beside a C server: behind HAProxy, and with datagrams."""

from collections.abc import Iterator
from contextlib import ExitStack

from . import programs, sums
from .figures import beside, rate, wait
from .load import Bench, Contestant, Row
from .programs import MissingError

_AHEAD = 32  # datagrams: their replies fit in a socket's buffer


def tls(bench: Bench) -> Iterator[Row]:
    """Round trips and handshakes over TLS; HAProxy speaks it for the C server."""
    with ExitStack() as stack:
        try:
            bench.build("ask-tls")
            pem = programs.certificate(bench.directory)
            echo = bench.start(stack, "echo")["echo"].target
            proxy = programs.haproxy(bench.log("haproxy"), pem, int(echo))
            peer = Contestant("haproxy", sums.echo, f"tls:{stack.enter_context(proxy)}")
        except MissingError as missing:
            bench.notes.append(f"left out: {missing}")
            return
        calcd = stack.enter_context(bench.calcd("tls", "--tls-certificate", str(pem), scheme="tls"))
        contestants = [Contestant("calcd", sums.calcd, f"tls:{calcd.port}"), peer]
        yield from beside(
            bench, contestants, "TLS: round trip, one client", (1, 1), wait, {"haproxy": 1}
        )
        yield from beside(
            bench, contestants, "TLS: connect, ask, close, 16 at once", (16, 0), rate,
            {"haproxy": 0.8},
        )  # fmt: skip


def udp(bench: Bench) -> Iterator[Row]:
    """Round trips and throughput over UDP, a datagram for each request."""
    with ExitStack() as stack:
        calcd = stack.enter_context(bench.calcd("udp", scheme="udp"))
        echo = stack.enter_context(
            programs.echo(bench.build("echo"), bench.log("udp-echo"), "datagrams")
        )
        contestants = [
            Contestant("calcd", sums.calcd, f"udp:{calcd.port}"),
            Contestant("echo", sums.echo, f"udp:{echo}"),
        ]
        peers = {"echo": None}
        yield from beside(bench, contestants, "UDP: round trip, one client", (1, 1), wait, peers)
        what = f"UDP: one client, {_AHEAD} ahead"
        yield from beside(bench, contestants, what, (1, _AHEAD), rate, peers)
        yield from beside(bench, contestants, "UDP: 8 clients, one at a time", (8, 1), rate, peers)
