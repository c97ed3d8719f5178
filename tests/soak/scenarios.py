"""The kinds of clients: what each does from its first word to its last."""

import asyncio
import string
from collections.abc import Awaitable, Callable

from . import settings
from .connection import Connection

Kind = Callable[[Connection], Awaitable[None]]

_END = b"QUIT\n", b"BYE\n"
_TELNET = b"\xff\xfd\x03", b"\xff\xfb\x18", b"\xff\xf1", b"\xff\xfa\x18\x00vt100\xff\xf0"
# No carriage returns, NULs, telnet commands, ends of input: then each line that is not blank is one
# request, whatever stands in it. No digits, and neither e nor pi: then it is an error. No l: the
# operation LN would lack its operand.
_GARBAGE = bytes(set(range(256)) - set(b"\r\0\xff\x040123456789eEpPlL"))
_MAY_BEGIN_A_NAME = bytes(range(128, 256)) + b"_=" + string.ascii_letters.encode()


# Clients as they should be


async def one_at_a_time(client: Connection) -> None:
    for _ in range(client.chance.randrange(1, 100)):
        await client.ask_sums(1)


async def pipelined(client: Connection) -> None:
    await client.ask_sums(client.chance.randrange(100, 2000))
    await client.ask(*_END)
    await client.expect_end()


async def ask_and_close(client: Connection) -> None:
    await client.ask_sums(1)


async def remembers(client: Connection) -> None:
    await client.ask(b"x = 2.50\n", b"2.50\n")
    await client.ask_sums(20)
    await client.ask(b"y = max(x, 1) * (3 + 1)\n", b"10.00\n")
    await client.ask(b"SOMA x ans\nans\n*2\n", b"12.50\n12.50\n25.00\n")
    await client.ask(b"PRECISION 3\ny/3\n", b"3\n3.33\n")


async def half_close(client: Connection) -> None:
    requests, replies = client.questions.some(20)
    client.send(requests.removesuffix(b"\n"))
    client.owe(20)
    client.writer.write_eof()
    await client.expect(replies)
    await client.expect_end()


async def no_newline(client: Connection) -> None:
    for _ in range(2):
        request, reply = client.questions.some(1)
        await client.ask(request.removesuffix(b"\n"), reply)


async def telnet(client: Connection) -> None:
    for _ in range(5):
        request, reply = client.questions.some(1)
        cut = client.chance.randrange(len(request))
        command = client.chance.choice(_TELNET)
        typed = request[:cut] + command + request[cut:].replace(b"\n", b"\r\0")
        await client.ask(typed, reply.replace(b"\n", b"\r\n"))
    client.send(b"\xff\xf4\xff\xfd\x06")  # Ctrl-C
    await client.expect_end()


async def slow_sender(client: Connection) -> None:
    await client.ask(b"PING\n", b"PONG\n")  # from the first newline on, a part is no request
    request, reply = client.questions.some(1)
    client.owe(1)
    for begin in range(0, len(request), 20):
        client.send(request[begin : begin + 20])
        await asyncio.sleep(0.2)
    await client.expect(reply)


async def slow_reader(client: Connection) -> None:
    # More than the kernel's buffers hold, both ends together.
    requests, replies = client.questions.some(12_000)
    client.owe(12_000)
    client.send(requests)
    await client.read_slowly(replies, pause=0.2, piece=len(replies) // 10)


# Clients as they should not be


async def never_finishes_a_line(client: Connection) -> None:
    client.owe(1)
    client.send(b"SUB 2")
    await client.expect_error("TIMEOUT")
    await client.expect_end()


async def idle(client: Connection) -> None:
    await client.ask_sums(1)
    await client.expect_end()


async def never_reads(client: Connection) -> None:
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    client.send((b"UPPER " + b"a" * 1000 + b"\n") * 8000)
    await asyncio.sleep(settings.SEND_TIMEOUT + 1)
    client.vanish()


async def vanishes(client: Connection) -> None:
    requests, _ = client.questions.some(client.chance.randrange(1, 3000))
    client.send(requests)
    await asyncio.sleep(client.chance.choice((0, 0.001, 0.05)))
    client.vanish()


async def garbage(client: Connection) -> None:
    bytes_ = bytes(client.chance.choices(_GARBAGE, k=3000)).replace(b" ", b"\n")
    lines = [line for line in bytes_.split(b"\n") if len(line) < 1000 and line.strip(b" \t")]
    client.owe(len(lines))
    client.send(b"".join(line + b"\n \n" for line in lines))
    for line in lines:
        is_named = line.strip(b" \t")[0] in _MAY_BEGIN_A_NAME
        await client.expect_error(
            "SYNTAX", "UNKNOWN-NAME", *(["UNKNOWN-OPERATION"] if is_named else [])
        )
    await client.ask_sums(1)


async def noise(client: Connection) -> None:
    client.send(client.chance.randbytes(client.chance.randrange(1, 5000)))
    await asyncio.sleep(0.02)


async def long_line(client: Connection) -> None:
    request, reply = client.questions.some(1)
    await client.ask(request, reply)
    client.owe(1)
    client.send(b"1" * client.chance.randrange(16_500, 300_000))
    await client.expect_error("LINE-TOO-LONG")
    await client.expect_end()


async def broken_handshake(client: Connection) -> None:
    """Speak to a TLS endpoint as if it were none, or begin a handshake and leave."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    client.send(client.chance.choice((b"SOMA 2 2\n", hello, client.chance.randbytes(2000))))
    if client.chance.random() < 0.5:
        client.vanish()
    else:
        await asyncio.sleep(0.02)


# How often each comes, and whether it can be over TLS.
KINDS: dict[Kind, tuple[float, bool]] = {
    one_at_a_time: (20, True),
    pipelined: (10, True),
    ask_and_close: (20, True),
    remembers: (8, True),
    half_close: (10, False),
    no_newline: (4, True),
    telnet: (6, True),
    slow_sender: (2, True),
    slow_reader: (0.5, True),
    never_finishes_a_line: (1, True),
    idle: (1, True),
    never_reads: (0.2, False),
    vanishes: (8, True),
    garbage: (5, True),
    noise: (5, True),
    long_line: (4, True),
}
