"""Random streams of bytes and damaged requests, and checks of the replies to them."""

import re
from random import Random

import proxy_headers as headers
from proxied import Proxied
from sessions import answered, new_session

from calcd.core.session import Session

MAX_LINE = 60  # short, so that lines often exceed it

_WORDS = (
    *(b"SOMA 2 2", b"add 1 -.5", b"SUB 5 3", b"MUL 9e6144 9", b"DIV 1 3", b"DIV 1 0", b"DIV 0 0"),
    *(b"UPPER ol\xc3\xa1", b"MAIUSCULA err x", b"UPPER \xed\xa0\x80", b"PING", b"HELP", b"VERSION"),
    *(b"HELP div", b"QUIT", b"quit now", b"SOMA 1,5 2", b"SOMA 1_0 \xd9\xa3", b"SOMA nan inf"),
    *(b"x=5", b"x", b"x*2=", b"ans+1", b"*3", b"mod 7", b"5!", b"10%", b"10 % 3", b"sqrt (2)"),
    *(b"2\xc3\x973", b"6 \xc3\xb7 4", b"m\xc3\xa9dia(1, 2)", b"NOTATION scientific", b"foo"),
    *(b"LANGUAGE pt-BR", b"ROUND 2.5 0", b"4^0.5", b"sin(1)", b"COMB 5 2", b"AJUDA", b"x == 5"),
    *(b"\n", b"\n", b"\n", b"\n", b"\r\n", b"\r\n", b"\r", b"\r\0", b"\n\n", b" ", b"\t", b"\0"),
    *(b"\x04", b"\x1b[2J", b"\xe2\x80\xa8", b"1e999999999", b"0" * 40, b"x" * 70, b"\x0b", b"\x85"),
    # Telnet: a signal, Ctrl-C, options, a subnegotiation whole and begun, an escaped 255.
    *(b"\xff\xf1", b"\xff\xf4\xff\xfd\x06", b"\xff\xfd\x06", b"\xff\xfb"),
    *(b"\xff\xfa\x18\0xterm\xff\xf0", b"\xff\xfa\x18", b"\xff\xff", b"\xff"),
    # Other line ends, NUL, a byte order mark, other protocols.
    *(b"\r\r\n", b"\n\0", b"PING\0", b"\0PING", b"\xef\xbb\xbf", b"\r\n\r\n\0\r\nQUIT\n"),
    *(b"GET / HTTP/1.1", b"PRI * HTTP/2.0", b"PROXY UNKNOWN", b"PROXY TCP4 1.1.1.1 1.1.1.2 1 2"),
)
_HTTP = rb"[!#-'*+.^-z|~0-9A-Z-]+ (?:/[^ ]*|\*|[^ /:]+:[^ ]*) HTTP/[0-9]\.[0-9]"
_WITHOUT_HEADER = ("closed", "no-proxy-header", "bad-proxy-header")
_FOREIGN = re.compile(_HTTP + rb"|PROXY (?:TCP4|TCP6|UNKNOWN)(?: .*)?", re.DOTALL)


def random_stream(random: Random) -> bytes:
    """Return random bytes, random words or damaged requests."""
    kind = random.randrange(4)
    if kind == 0:
        return random.randbytes(random.randrange(200))
    stream = b"".join(random.choices(_WORDS, k=random.randrange(20)))
    if kind == 1:
        return stream
    stream = b"\n".join(random.choices(_WORDS, k=random.randrange(12)))
    for _ in range(random.randrange(6)):
        stream = mutated(random, stream)
    return stream


def random_header(random: Random) -> bytes:
    """Return a valid PROXY header of either version."""
    address = random.choice(("203.0.113.7", "2001:db8::7", "::ffff:203.0.113.7"))
    tlvs = [
        headers.tlv(random.choice((headers.NOOP, 1, 2, 5, 0x20, 0xE0)), random.randbytes(size))
        for size in random.choices(range(40), k=random.randrange(4))
    ]
    return random.choice(
        (
            headers.line(address, random.randrange(1 << 16)),
            headers.addressed(address, random.randrange(1 << 16), *tlvs),
            headers.checked(address, random.randrange(1 << 16), *tlvs),
            headers.block(random.randbytes(random.randrange(20)), headers.LOCAL),
            headers.block(bytes(216), family=headers.UNIX, transport=headers.STREAM),
            b"PROXY UNKNOWN" + random.choice((b"", b" x\ny")) + b"\r\n",
        )
    )


def mutated(random: Random, stream: bytes) -> bytes:
    """Insert, remove, replace or repeat a few bytes."""
    begin = random.randint(0, len(stream))
    end = min(len(stream), begin + random.randrange(6))
    what = random.choice((b"", random.choice(_WORDS), random.randbytes(1), 2 * stream[begin:end]))
    return stream[:begin] + what + stream[end:]


def replies_due(stream: bytes, max_line: int = MAX_LINE) -> int | None:
    """Return how many replies a stream must get; None if telnet or Ctrl-D changes that."""
    if b"\xff" in stream or b"\x04" in stream:
        return None
    if stream.startswith(b"\r\n\r\n\0\r\nQUIT\n"):
        return 1
    text = re.sub(rb"\r\r?\0|\r\r\n", b"\r\n", stream.removeprefix(b"\xef\xbb\xbf"))
    *lines, last = re.sub(rb"(?m)^\0+", b"", text).split(b"\n")
    if len(last.removesuffix(b"\r")) <= max_line:
        last = last.rstrip(b"\0")
    count = 0
    for line in (*lines, last):
        request = line.removesuffix(b"\r")
        too_long = len(request) > max_line
        is_last = not count and _FOREIGN.fullmatch(request) is not None
        count += too_long or request.strip(b" \t") != b""
        if too_long or is_last or request.strip(b" \t").upper() == b"QUIT":
            break
    return count


def check(stream: bytes) -> None:
    """Raise AssertionError if a session breaks a rule of the protocol with these bytes."""
    whole = _answered([stream] if stream else [])
    size = 1 + (stream[0] % 23 if stream else 0)
    pieces = [stream[begin : begin + size] for begin in range(0, len(stream), size)]
    assert _answered(pieces) == whole, (stream, size)


def check_proxied(start: bytes, stream: bytes) -> None:
    """Raise AssertionError if a connection from a proxy breaks a rule with these bytes.

    ``start`` may be a header or anything else.
    """
    whole, cut = Proxied(_new_session), Proxied(_new_session)
    data = start + stream
    size = 1 + (data[-1] % 23 if data else 0)
    replies = whole.take(*filter(None, [data]), b"")
    pieces = [data[begin : begin + size] for begin in range(0, len(data), size)]
    assert cut.take(*pieces, b"") == replies, (data, size)
    assert (cut.headers, cut.errors == []) == (whole.headers, whole.errors == []), (data, size)
    assert cut.current.close_word == whole.current.close_word, (data, size)
    if whole.headers:
        (header,) = whole.headers
        assert replies == _answered([data[header.size :]] if data[header.size :] else []), data
    else:
        assert replies.count(b"\n") == whole.first.counters.errors == len(whole.errors), data
        assert whole.first.close_word in _WITHOUT_HEADER, data
        assert replies or not data, data


def _new_session() -> Session:
    return new_session(max_line=MAX_LINE)


def _answered(reads: list[bytes]) -> bytes:
    """Return the replies of a new session to these reads and the end of input."""
    stream, bugs = b"".join(reads), list[str]()
    session = new_session(max_line=MAX_LINE, on_bug=bugs.append)
    replies = answered(session, *reads, b"")
    assert not bugs, stream
    assert session.close_reason, stream
    assert session.receive(b"PING\n") == b"", stream
    lines = replies.split(b"\n")
    assert lines.pop() == b"", (stream, replies)
    assert all(lines), (stream, replies)
    assert session.counters.requests == len(lines), (stream, replies)
    errors = sum(line.startswith(b"ERR ") for line in lines)
    assert session.counters.errors == errors, (stream, replies)
    assert replies_due(stream) in (None, len(lines)), (stream, replies)
    return replies
