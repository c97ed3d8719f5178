"""Worst case: how long one client can make the others wait.

``python3 -m tests.performance.worst_case`` measures what the daemon itself does for valid and
invalid lines, whole reads, TLS records and datagrams, and prints the slowest. Then it has the
expensive lines done by a worker, and prints which took it the longest.
"""

import random
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

# Where pytest finds what the tests share, the command finds it too.
sys.path.append(str(Path(__file__).parents[1] / "support"))

from certificates import Authority
from helpers import clean_environment
from sessions import answered, new_session
from tls_client import Client

from calcd.core.datagram import MAX_SIZE, DatagramSession
from calcd.core.decimal128 import Arithmetic
from calcd.core.job import Job, State
from calcd.core.session import Session
from calcd.core.tls import TlsSession
from calcd.net import certificates as tls

PRECISION = 1000
MAX_LINE = 16384
MAX_MAX_LINE = 1 << 20
READ = 1 << 16  # bytes
_CALLS = 20  # measured of what one read leaves pending


class Case(NamedTuple):
    """A line, and the lines before it in its session.

    If it ``fills`` the read, it is repeated as often as the read has room for it.
    """

    line: str | bytes
    before: tuple[str, ...] = ()
    precision: int = PRECISION
    max_line: int = MAX_LINE
    fills: bool = False
    transport: str = "TCP"  # or TLS, a record for each line; or UDP

    @property
    def data(self) -> bytes:
        line = self.line.encode() if isinstance(self.line, str) else self.line
        size = MAX_SIZE if self.transport == "UDP" else READ
        return (line + b"\n") * (max(1, size // (len(line) + 1)) if self.fills else 1)

    def __str__(self) -> str:
        size = "a full read of " if self.fills else ""
        shown = repr(self.line if len(self.line) < 60 else self.line[:60])
        before = "; ".join(self.before)[:40]
        return (
            f"{self.transport} {size}{shown} ({len(self.line)} bytes, {self.precision} digits)"
            f"{' after ' if before else ''}{before}"
        )


class Times(NamedTuple):
    """CPU seconds of the longest call of a session, which is made while others wait."""

    seconds: float
    case: Case


def measured(case: Case) -> Times:
    """Measure twice and return the smaller times, as the machine may be busy with other work."""
    return min(_measured_once(case), _measured_once(case), key=lambda each: each.seconds)


def _measured_once(case: Case) -> Times:
    if case.transport == "UDP":
        return _measured_datagram(case)
    if case.transport == "TLS":
        return _measured_records(case)
    session = new_session(case.precision, max_line=case.max_line)
    for line in case.before:
        answered(session, line.encode() + b"\n")
    return _measured(session, case, case.data)


def _measured(session: Session | TlsSession, case: Case, data: bytes) -> Times:
    longest = 0.0
    for begin in range(0, len(data), READ):
        longest = max(longest, _seconds(lambda: session.receive(data[begin : begin + READ])))  # noqa: B023
        for _ in range(_CALLS):
            if not session.pending or session.close_reason:
                break
            longest = max(longest, _seconds(lambda: _go_on(session)))
    return Times(longest, case)


def _go_on(session: Session | TlsSession) -> None:
    """Do what the daemon does for what is pending."""
    if session.job:
        session.job.to_json()
        session.complete(None)
    else:
        session.resume()


def _measured_datagram(case: Case) -> Times:
    data = case.data[:MAX_SIZE]
    datagram = DatagramSession(data, Arithmetic(case.precision), case.max_line)
    return Times(_seconds(datagram.resume), case)


def _measured_records(case: Case) -> Times:
    with tempfile.TemporaryDirectory() as name:
        pair = Authority(Path(name)).issue("server", "DNS:localhost")
        served = tls.load_context(str(pair.cert), str(pair.key), "")
        trusted = ssl.create_default_context(cafile=Path(name) / "authority.pem")
    session = new_session(case.precision, max_line=case.max_line)
    client = Client(TlsSession(served, session), trusted)
    client.shake_hands()
    records, size = [], 0
    while size < READ:
        records.append(client.sealed(case.data))
        size += len(records[-1])
    return _measured(client.session, case, b"".join(records)[:READ])


def _seconds(call: Callable[[], object]) -> float:
    begun = time.thread_time()
    call()
    return time.thread_time() - begun


def wrong_lines(most: int) -> Iterator[bytes]:
    """Yield invalid or useless lines of at most ``most`` bytes."""
    for word in (b"SOMA 1 ", b"", b"= ", b"x = ", b"HELP ", b"PRECISION ", b"UPPER ", b"ROUNDING "):
        for filler in (
            *(b"1", b"0", b".", b"1.", b",", b"1,", b"1_", b"-", b"+-", b"e", b"1e", b"1e9"),
            *(b"a", b"_", b"x ", b"(", b")", b"((1)", b"1+", b"2^", b"*", b"**", b"=", b"x=", b"%"),
            *(b" ", b"\t", b" \t", b"\r", b"\r ", b"\0", b"\x04", b"\x1b", b"a\x04", b"'", b"\\"),
            *(
                b"\xff",
                b"\xff\xf1",
                b"\xff\xff",
                b"\xff\xfa",
                b"\xff\xfa\x18\xff\xf0",
                b"\xff\xfd\xff",
            ),
            *("é".encode(), "ŉ".encode(), "ß".encode(), b"\xc3", b"\xed\xa0\x80", b"max(1,"),
        ):
            for end in (b"", b"x", b" 1", b"\r"):
                count = (most - len(word) - len(end)) // len(filler)
                yield word + filler * count + end


def expensive_lines() -> Iterator[Case]:
    """Yield lines that cost much or look like it."""
    near = ("x = 1+1e-999",)
    third = ("x = 1/3",)
    for before in (near, third):
        for name in (
            "EXP",
            "LN",
            "LOG",
            "RAIZ",
            "NEG",
            "SEN",
            "COS",
            "TAN",
            "ASEN",
            "ACOS",
            "ATAN",
        ):
            yield Case(f"{name} x", before)
        for name in ("ln", "log", "exp", "sqrt", "sin", "tan", "asin"):
            for many in (2, 16):
                yield Case(f"= {'+'.join(many * [f'{name}(x)'])}", before)
        for exponent in ("0.5", "x", "-1/7", *(f"1e{n}" for n in (3, 20, 300, 600, 999, 1003))):
            yield Case(f"= x^({exponent})", before)
        yield Case("POT x " + "7" * 1000, before)
        yield Case("POT x 0." + "7" * 1000, before)
        for mark in "+-*/%":
            yield Case(f"= {mark.join(510 * ['x'])}", before)
        for name in ("SOMA", "MUL", "MIN", "MAX", "MEDIA", "MDC", "MMC"):
            yield Case(f"{name}{' x' * 500}", before)
    # Results that are nearly half-way between two numbers of 34 digits, or of 300.
    for digits in (34, 300, 900):
        half = f"2.{(digits - 1) * '3'}5"
        for making, name in (("exp", "ln"), ("ln", "exp"), ("10^", "log")):
            made = (f"x = {making}({half})", f"PRECISION {digits}")
            for many in (1, 16):
                yield Case(f"= {'+'.join(many * [f'{name}(x)'])}", made)
    yield Case("POT x 0.5", ("x = 1+1000000000000000000000001e-999",))
    yield Case("POT x 0.5", ("x = 1+1000000000000000000000001e-90",))
    for distance in (1, 2, 50, 90, 100, 102):
        for name in ("LN x", "LOG x", "POT x 0.3", "POT x 1e100"):
            yield Case(name, (f"x = 1+6e-{distance}",))
            yield Case(name, (f"x = 1-1e-{distance}+7e-1000",))
    for distance in (998, 999):
        yield Case("LN x", (f"x = 1-1e-{distance}",))
        yield Case("LN x", ("PRECISION 900", f"x = 1-1e-{distance - 100}"))
    for distance in (100, 300, 500, 600, 700):
        power = (f"x = 1+1e-{distance}+1e-999", f"y = 1e{distance}", f"z = 9e{distance}+7")
        for name in "yz":
            yield Case(f"POT x {name}", power)
            yield Case(f"= x^{name}+x^-{name}", power)
    for angle in ("1e22", "1e6144", "1e6145", "1e999999999999999999", "9" * 1000):
        for name in ("SIN", "COS", "TAN", "ATAN"):
            yield Case(f"{name} {angle}")
    yield Case("= " + "+".join(80 * ["sin(1e6144)"]))
    for degree in ("3", "-7", "1000", "9" * 30, "1e300"):
        for name in ("ROOT", "LOG"):
            yield Case(f"{name} x {degree}", ("x = 1+1e-999",))
            yield Case(f"{name} x {degree}", ("x = 1/3",))
    for line in (
        "COMB 28000 14000",
        "COMB 1e3000 2",
        "PERM 3000 1500",
        "PERM 1e6 1000",
        "FAT 2123",
    ):
        yield Case(line)
    for dividend in ("1e999999999999999999", "9e6144", "1e-999999999999999999"):
        for length in (1, 150, 400, 990):
            yield Case(f"RESTO {dividend} {'7' * length}")
            yield Case(f"MDC {dividend} {'7' * length}")
    yield Case("MMC " + " ".join(str(number) for number in range(2, 250)))
    yield Case("MEDIA " + " ".join(f"1e{9 * number}" for number in range(120)))
    yield Case("FAT 1000")
    yield Case("FAT 480")
    yield Case("= " + "+".join(110 * ["fact(480)"])[: MAX_LINE - 2])
    yield Case("= " + "+".join(110 * ["e"]))
    yield Case("= " + "*".join(330 * ["pi"]))
    yield Case("= " + "^".join(50 * ["1.000001"]))
    yield Case("= " + "(" * 50 + "1" + ")" * 50)
    yield Case("= " + "-" * 1000 + "1")
    yield Case("= " + "sqrt(" * 49 + "ln(2)" + ")" * 49)
    yield Case("= " + "+".join(80 * ["round(x,999)"])[:1000] + "x", third)
    yield Case("VARS", tuple(f"x{number} = 1/{number + 3}" for number in range(100)))
    for name in ("DIV", "MUL", "RESTO", "QUOC", "POT", "SUB"):
        yield Case(f"{name} {'7' * 500} {'3' * 500}")
        yield Case(f"{name} 1e999 7")
        yield Case(f"{name} 1e6000 {'3' * 500}")


def random_lines(seed: int) -> Iterator[Case]:
    """Yield random expressions on numbers of all sizes, without end."""
    dice = random.Random(seed)

    def number() -> str:
        digits = "".join(dice.choices("0123456789", k=dice.choice((1, 3, 30, 300))))
        near = f"{dice.choice('+-')}1e-{dice.choice((1, 30, 300, 600, 900, 999))}"
        return dice.choice(
            (digits, f"1.{digits}", f"(1{near})", f"{digits}e{dice.choice((-999, 99))}")
        )

    def term(deep: int) -> str:
        if not deep or dice.random() < 0.3:
            return dice.choice((number, lambda: "x", lambda: "pi", lambda: "e"))()
        if dice.random() < 0.5:
            function = dice.choice(
                ("exp", "ln", "log", "sqrt", "fact", "abs", "sin", "cos", "tan", "atan", "floor")
            )
            return f"{function}({term(deep - 1)})"
        return f"({term(deep - 1)}{dice.choice('+-*/%^^')}{term(deep - 1)})"

    while True:
        line = f"= {term(4)}"
        if len(line) <= MAX_LINE:
            yield Case(line, (f"x = {number()}/7",))


def reads() -> Iterator[Case]:
    """Yield reads, records and datagrams full of lines."""
    few = ("", " ", "\r", "x", "5", "1+", "1+1", "SOMA 1 2", "SOMA 1 x", "PING", "HELP", "VARS")
    costly = ("EXP 0.12", "LN 2", "SQRT 2", "DIV 1 3", "POT 2 0.5", "PRECISION 700", "FAT 400")
    more = ("LOG 2", "= e", "= pi*pi", "MAX 1 2", "x = 1", "EXACT off", "UPPER a", "CLEAR")
    long = ("DIV 1 0", "ARRED 1 2000", f"={'(' * 50}1{')' * 50}", f"SOMA{' 1' * 500}")
    for line in (*few, *more, *long):
        yield Case(line, fills=True, precision=34)
    for transport in ("TCP", "TLS", "UDP"):
        for line in (*few, *more, *costly, *long):
            yield Case(line, fills=transport != "TLS", transport=transport)
    for wrong in wrong_lines(900):
        yield Case(wrong, fills=True)
    for telnet in (b"\xff", b"\xff\xf1", b"\xff\xfd\x01", b"\xff\xfa", b"\r\0", b"\xff\xff"):
        yield Case(telnet * (READ // len(telnet)))
    for filler in (b" ", b"1", b"4\n", b"\n", b" \n", b"ERR", b"e", b"1 "):
        yield Case(filler * (MAX_SIZE // len(filler) - 1) + b"x", transport="UDP")


def candidates() -> Iterator[Case]:
    """Yield all cases but the random ones."""
    yield from expensive_lines()
    for wrong in wrong_lines(MAX_LINE):
        yield Case(wrong)
    yield from reads()


def search(seconds: float, seed: int = 0) -> list[Times]:
    """Measure the candidates, then random lines for ``seconds``; the slowest comes first."""
    found = [measured(case) for case in candidates()]
    until = time.monotonic() + seconds
    for case in random_lines(seed):
        if time.monotonic() > until:
            break
        found.append(measured(case))
    return sorted(found, key=lambda each: each.seconds, reverse=True)


def giant_lines() -> Iterator[Case]:
    """Yield expensive lines of up to 1 MiB."""
    for size in (100_000, MAX_MAX_LINE - 100):
        for line in (
            *("LN 1." + size * "7", "EXP 0." + size * "7", "POT 1." + size * "3" + " 0.5"),
            *("MEDIA" + size // 2 * " 7", "MDC" + size // 2 * " 7", f"SIN {size * '7'}"),
            *("ROOT 1." + size * "3" + " 3", "RESTO 1e99999999999 " + size * "7"),
            *("MUL" + size // 2 * " 7", "= " + "+".join(size // 2 * ["2"])),
            *("= " + "-" * size + "1", "UPPER " + size * "x", "FOO " + size * " ", size * "9"),
            *(
                "SOMA " + size // 2 * "9" + " " + size // 2 * "7",
                "= " + size // 8 * "sqrt(2)+" + "1",
            ),
        ):
            yield Case(line, max_line=MAX_MAX_LINE)


def seconds_in_worker(case: Case, cpu_limit: float) -> float:
    """Have a line done by a worker; return the seconds from its start to its outcome or end."""
    session = new_session(case.precision, max_line=case.max_line)
    for line in case.before:
        answered(session, line.encode() + b"\n")
    session.receive(case.data)
    if session.job is None:
        return 0.0
    job = session.job.to_json() + b"\n"
    command = [sys.executable, "-m", "calcd.net.worker", str(cpu_limit)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=clean_environment()
    ) as worker:
        assert worker.stdin
        assert worker.stdout
        worker.stdin.write(Job("SOMA 1 1", State()).to_json() + b"\n")
        worker.stdin.flush()
        assert worker.stdout.readline()  # it has started
        began = time.monotonic()
        worker.stdin.write(job)
        worker.stdin.close()
        worker.stdout.readline()
        return time.monotonic() - began


def main() -> None:
    """Print the slowest cases."""
    seconds = float(sys.argv[1]) if sys.argv[1:] else 10.0
    found = search(seconds)
    print(f"{len(found)} cases; milliseconds of one call:")
    for each in found[:20]:
        print(f"{each.seconds * 1e3:8.2f}  {each.case}")
    cases = (*expensive_lines(), *giant_lines())
    jobs = [Times(seconds_in_worker(case, 0.25), case) for case in cases]
    print("milliseconds of a job in a worker with a limit of 250:")
    for each in sorted(jobs, key=lambda each: each.seconds, reverse=True)[:20]:
        print(f"{each.seconds * 1e3:8.2f}  {each.case}")


if __name__ == "__main__":
    main()
