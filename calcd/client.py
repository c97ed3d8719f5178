#!/usr/bin/env python3
"""calcc, the client of calcd: requests in, replies out, and an exit status for scripts.

One file and nothing but the standard library, so that it runs wherever it is copied. Most often
it asks one thing for a script, and most of that is starting: `socket` and `getopt` would each
take half as long again as Python itself, hence `_socket`, the part of `socket` that does the
work, options taken apart by hand, and others imported only where they are used.

A Python program can ask, too: see `Calculator`.
"""

import _socket as socket
import io
import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator
    from decimal import Decimal
    from types import TracebackType
    from typing import Any

    from _typeshed import ReadableBuffer

    Addresses = list[tuple[int, str | tuple[object, ...]]]  # each with its family

HELP = """\
usage: calcc [-46uvzN] [-w SECONDS] [-q SECONDS] [-e REQUEST]... [--ssl...] [-U PATH | HOST [PORT]]

Asks calcd at HOST (127.0.0.1) and PORT (12000). Requests are read from standard input, one a
line, and replies written to standard output. On a terminal there is a prompt, with history and
Tab: it completes operations and names, and brings back the last answers, one Tab after another.

  -4, -6      use IPv4 only, IPv6 only
  -e REQUEST  ask this instead of reading standard input; as often as wanted
  -h, --help  print this
  -N          taken for netcat's sake: the end of input always half-closes
  -q SECONDS  after the end of input, wait no longer than this for more; 0 or less: for ever
  -u          ask over UDP: each request in a datagram of its own, up to three times
  -U PATH     connect to a Unix socket
  -v          say on standard error how connecting went
  -w SECONDS  wait no longer than this to be connected, and then for the next bytes to be sent or
              received, not for all of them; over UDP for each reply, and 5 if not said
  -z          only check that the server can be reached

  --ssl                  talk TLS, 1.2 or later; each of the following means it too
  --ssl-trustfile FILE   trust the certificates in this file (PEM), not those the system trusts
  --ssl-servername NAME  the server's certificate is for NAME, not for HOST; NAME is sent, too
  --ssl-cert FILE        show the server this certificate (PEM), followed by those it depends on
  --ssl-key FILE         its private key (PEM), where that is not in the same file
  --ssl-noverify         accept any certificate; unlike ncat, calcc does so only when told to

Exit status: 0 every reply was a result, 1 at least one was an ERR, 2 wrong usage, 3 the server
could not be reached or went away before every request was answered.

Examples:
  calcc -e 'SOMA 0.1 0.2'                      one request: 0.3
  calcc -e 'DIV 1 3' -e 'MUL 1.20 3'           two
  tax=$(calcc -e 'MUL 19.99 0.23') || exit     in a script
  sed 's/^/MUL 1.23 /' prices.txt | calcc      a column of numbers, each multiplied
  calcc < sums.txt > results.txt               a file of requests; shows progress if it has tqdm
  calcc -U /run/calcd/calcd.sock -e PING       through a Unix socket
  calcc --ssl-trustfile ca.pem calcd.example 12001 < sums.txt     over TLS
"""
# Each option, as the help shows it, and whether it takes a value.
OPTIONS = {
    name: not words[-1].startswith("-")
    for line in HELP.splitlines()
    if line.startswith("  -")
    for words in [line.strip().partition("  ")[0].replace(",", "").split()]
    for name in words
    if name.startswith("-")
}
STDIN, STDOUT, STDERR = 0, 1, 2
CHUNK = 65536  # bytes held at a time, each way
# Bytes that one reply may have: UPPER makes at most 3 of one, and the longest line is 1 MiB.
LONGEST_REPLY = 4 << 20
LONGEST = 1e6  # seconds; poll() takes twice as many
CLOSED = "connection closed by the server"
UNASKED = "the server has sent more than was asked for"
TRIES, UDP_WAIT = 3, 5.0  # datagrams sent for a reply, and seconds in all
# OpenSSL's numbers for what is wrong with a certificate.
UNKNOWN_ISSUER, WRONG_NAME = (2, 18, 19, 20, 21), (62, 64)
HISTORY, HISTORY_LINES = "~/.calcc_history", 1000
PROGRESS_AFTER = 1.0  # seconds; what takes no longer needs none
HELP_WAIT = 1.0  # seconds that the Tab key may wait for the server, once, in all
ANSWERS, ANSWER_SIZE = 10, 2000  # that the Tab key brings back, and characters of each
NUMBER, OPERATION = r"[-+]?[0-9.]+(E[-+]?[0-9]+)?", r"\b[A-Z][A-Z0-9]+\b"  # in replies
# Where a word of a request starts; sums are taken apart later, so that -1E+3 is one word.
WORD_DELIMITERS = " \t\n*/%^(),=<>!"
SETTINGS = ("PRECISION", "ROUNDING", "EXACT", "LANGUAGE")  # with an operand: for a connection
LOST = "a new connection has none of the names, settings and answers of the one before"
# With these bytes deleted, and every other but the newline made an x, a request starts with x.
BLANKS = b" \t\r"
MARKS = bytes(byte if byte == ord("\n") else ord("x") for byte in range(256))


class UsageError(Exception):
    """A command line that cannot be followed: exit status 2."""


class ClientError(Exception):
    """What ends the run before every request has its reply: exit status 3."""


class CalculatorError(Exception):
    """An ERR reply. The code is stable, the words are not; `str` escapes control characters."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(code, words)
        self.code = code
        self.words = words

    def __str__(self) -> str:
        return printable(f"{self.code} {self.words}")


class Options:
    """The command line. Options may share a dash and follow HOST, as netcat's do."""

    def __init__(self, argv: list[str]) -> None:
        self.switches: list[str] = []
        self.requests: list[str] = []
        self.files: dict[str, str] = {}  # by option
        self.path: str | None = None
        self.servername: str | None = None  # whose certificate it is to be
        self.wait: float | None = None  # seconds; None: for ever
        self.linger: float | None = None  # the same, after the end of input
        self.deadline = float("inf")  # for all that the server does, by the monotonic clock
        self.addresses: Addresses = []  # where it was found
        tls = False
        operands: list[str] = []
        words = iter(argv)
        for word in words:
            if word == "--":
                operands += words
            elif word == "-" or not word.startswith("-"):
                operands.append(word)
            elif word.startswith("--"):
                name, equals, value = word.partition("=")
                tls = tls or name.startswith("--ssl")
                self._take(name, value, words)
                if equals and not OPTIONS[name]:
                    raise UsageError(f"{name} takes no value")
            else:
                letters = iter(word[1:])
                for letter in letters:
                    self._take(f"-{letter}", letters, words)
        if len(operands) > (2 if self.path is None else 0):
            raise UsageError(f"one operand too many: {operands[-1]}")
        self.host, self.port = operands + ["127.0.0.1", "12000"][len(operands) :]
        if self.port.isdecimal() and (len(self.port) > 5 or not 0 < int(self.port) < 65536):
            raise UsageError(f"there is no port {self.port}")
        self.server = f"{self.host} port {self.port}" if self.path is None else self.path
        self.udp = "-u" in self.switches
        if self.udp and (tls or self.path is not None):
            raise UsageError(f"-u does not go with {'--ssl' if tls else '-U'}")
        self.guess = "" if tls or self.udp else ": does it speak TLS (--ssl)?"
        self.tls: ssl.SSLContext | None = None
        if self.servername is None and self.path is None:  # fe80::1%eth0 and a.name. have others
            self.servername = self.host.partition("%")[0].removesuffix(".")
        if tls:
            self.tls = secure(self)

    def within(self, seconds: float) -> "Options":
        """Return a copy with a deadline for all that the server does, in so many seconds."""
        import copy
        import time

        options = copy.copy(self)
        options.deadline = min(self.deadline, time.monotonic() + seconds)
        return options

    def timeout(self) -> float | None:
        """Return for how many seconds the server may be silent now, None for ever.

        TimeoutError after the deadline.
        """
        import time

        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        left = min(left, self.wait or left)
        return None if left == float("inf") else left

    def _take(self, name: str, attached: "Iterable[str]", words: "Iterator[str]") -> None:
        """Take an option; a value is what is attached to it, else the next word."""
        if name not in OPTIONS:
            raise UsageError(f"there is no option {name}")
        if not OPTIONS[name]:
            self.switches.append(name)
        elif (value := "".join(attached) or next(words, None)) is None:
            raise UsageError(f"{name} needs a value")
        else:
            self._set(name, value)

    def _set(self, name: str, value: str) -> None:
        if name == "-e":
            self.requests.append(value)
        elif name == "-U":
            self.path = value
        elif name == "--ssl-servername":
            self.servername = value
        elif name.startswith("--ssl"):
            self.files[name] = value
        else:
            try:
                seconds = min(LONGEST, float(value))
            except ValueError:
                raise UsageError(f"{name} takes seconds, not {value}") from None
            if name == "-q":  # with 0, OpenBSD's nc gets every reply, the traditional one none
                self.linger = max(0, seconds) or None
            elif seconds > 0:
                self.wait = seconds
            else:
                raise UsageError(f"-w takes more than 0 seconds, not {value}")


class Tally:
    """What was asked and what was answered, counted chunk by chunk, wherever a chunk may end."""

    def __init__(self) -> None:
        self.asked = self.answered = 0
        self.size = 0  # in bytes, of what was asked
        self.errors = False
        self._marks = self._replies = b"\n"  # the end of what came before

    def send(self, chunk: bytes) -> None:
        """Count the requests that start in what goes to the server."""
        marks = self._marks + chunk.translate(MARKS, BLANKS)
        self.asked += marks.count(b"\nx")
        self.size += len(chunk)
        self._marks = marks[-1:]

    def receive(self, chunk: bytes) -> None:
        """Count the replies that end in what came from the server."""
        replies = self._replies + chunk
        self.answered += chunk.count(b"\n")
        self.errors = self.errors or b"\nERR " in replies
        self._replies = replies[-len("\nERR") :]

    def status(self, server: str, ending: str, guess: str = "") -> int:
        """Return the exit status once `server` says no more, or ClientError if it owes a reply.

        The guess is why there was none at all.
        """
        if self.answered < self.asked:
            missing = f"{self.asked - self.answered} of {self.asked}"
            why = "" if self.answered else guess
            raise ClientError(f"{server}: {ending}; requests without a reply: {missing}{why}")
        return int(self.errors)


class Replies:
    """Takes replies out of a stream, as many as are expected, wherever a chunk may end."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.rest = bytearray()  # the start of a reply

    def add(self, chunk: bytes) -> list[bytes]:
        """Return the replies that end in a chunk, without their newlines.

        ConnectionAbortedError if one is too long, or if more has come than is expected.
        """
        whole = []
        parts = chunk.split(b"\n")
        for number, part in enumerate(parts, 1):
            self.rest += part
            if len(self.rest) > LONGEST_REPLY:
                raise ConnectionAbortedError(f"a reply has more than {LONGEST_REPLY} bytes")
            if number < len(parts):
                whole.append(bytes(self.rest))
                self.rest.clear()
        self.expected -= len(whole)
        if self.expected < 0 or (self.rest and not self.expected):
            raise ConnectionAbortedError(UNASKED)
        return whole


class Progress(Tally):
    """A tally that shows how far it is, on a terminal that nothing else is written to.

    That takes tqdm. It is not imported before there is something to show, for that takes longer
    than all of a short run.
    """

    def __init__(self, options: Options) -> None:
        import time

        super().__init__()
        self._bar: Any = None
        self._clock = time.time  # as tqdm's
        self._began = self._clock()
        # A pipe's reader may well write to the terminal itself.
        wanted = not options.requests and os.isatty(STDERR) and not os.isatty(STDIN)
        wanted = wanted and not (os.isatty(STDOUT) or is_kind(STDOUT, "S_ISFIFO"))
        self._due = self._began + PROGRESS_AFTER if wanted else float("inf")
        self._total = remaining(STDIN) if wanted else None

    def receive(self, chunk: bytes) -> None:
        """Count, and show what that comes to."""
        super().receive(chunk)
        if self._due < self._clock():
            self._show()
        if self._bar is not None:
            # In bytes of the input, which has a size, but of those that were answered: a slow
            # server takes many before it gets to them.
            answered = self.size * self.answered // max(self.asked, self.answered, 1)
            self._bar.update(answered - self._bar.n)

    def _show(self) -> None:
        """Start to draw, as if it had been from the beginning; without tqdm, nothing."""
        self._due = float("inf")
        try:
            from tqdm import tqdm
        except ImportError:
            return
        tqdm.monitor_interval = 0  # no thread
        self._bar = tqdm(
            total=self._total,
            delay=PROGRESS_AFTER,
            miniters=1,
            dynamic_ncols=True,
            unit="B",
            unit_scale=True,
        )
        self._bar.start_t = self._bar.last_print_t = self._began

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


class Traces:
    """What the requests of a connection leave behind there, for those that come after them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew, as another connection does."""
        self.names: dict[str, None] = {}  # assigned, in that order
        self._settings = False  # not the server's any more
        self._answers = False

    def add(self, request: str, reply: str) -> None:
        """Take down a request with its reply."""
        if reply.startswith("ERR "):
            return
        self._answers = True
        name, _, value = request.partition("=")
        name = name.strip(" \t")
        if name.isidentifier() and value and not value.startswith("="):
            self.names[name] = None
            return
        first, *others = request.upper().split(None, 1) or [""]
        if first == "CLEAR":
            self.names.clear()
        self._settings = self._settings or (first in SETTINGS and others != [])

    def matter_to(self, requests: "Iterable[str]") -> bool:
        """Say whether these may be answered otherwise where nothing was asked before."""
        import re

        answer = re.compile(r"\bans\b", re.IGNORECASE)
        answers = self._answers and any(map(answer.search, requests))
        return answers or self._settings or bool(self.names)


def is_kind(descriptor: int, kind: str) -> bool:
    """Say whether a descriptor is for such a file, by the name of a test in `stat`."""
    import stat

    return bool(getattr(stat, kind)(os.fstat(descriptor).st_mode))


def remaining(descriptor: int) -> int | None:
    """Return how many bytes there are left to read from a file; None where it is no such thing."""
    if not is_kind(descriptor, "S_ISREG"):
        return None
    return os.fstat(descriptor).st_size - os.lseek(descriptor, 0, os.SEEK_CUR)


def reason(error: Exception) -> str:
    """Return what went wrong, in the system's words."""
    if words := getattr(error, "reason", None):  # as OpenSSL has it
        return str(words).replace("_", " ").lower()
    return (getattr(error, "strerror", None) or str(error)).lower()


def printable(text: str) -> str:
    """Return text with control and format characters escaped, except tabs."""
    escapes = {
        ord(char): char.encode("unicode_escape").decode()
        for char in set(text)
        if not char.isprintable() and char != "\t"
    }
    return text.translate(escapes)


def complain(message: str) -> None:
    """Say something on standard error, if anybody listens."""
    try:
        os.write(STDERR, os.fsencode(f"calcc: {printable(message)}\n"))
    except OSError:
        return


def read() -> bytes:
    """Return the next chunk of standard input, empty at its end."""
    try:
        return os.read(STDIN, CHUNK)
    except OSError as error:
        raise ClientError(f"standard input: {reason(error)}") from None


def write(data: bytes) -> None:
    """Write all of `data` to standard output, however long its reader takes."""
    unwritten = memoryview(data)
    while unwritten:
        try:
            unwritten = unwritten[os.write(STDOUT, unwritten) :]
        except BlockingIOError:  # set so by another program on the same terminal or pipe
            poll = select.poll()
            poll.register(STDOUT, select.POLLOUT)
            poll.poll()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ClientError(f"standard output: {reason(error)}") from None


class Output:
    """Standard output, for what the server says.

    A pipe and a file get every byte as it is. On a terminal a server could move the cursor, or
    worse, with escape sequences: there, what is not printable or not UTF-8 is escaped, except
    tabs, newlines, and a carriage return before a newline, which is left out.
    """

    def __init__(self) -> None:
        import codecs

        self._decoder: codecs.IncrementalDecoder | None = None
        self._held = ""  # a last "\r", which a newline may follow
        if os.isatty(STDOUT):
            self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, data: bytes) -> None:
        """Write what came; a character or a line's end may be cut, and go on in the next chunk."""
        if self._decoder is None:
            write(data)
            return
        for start in range(0, len(data), CHUNK):
            text = self._held + self._decoder.decode(data[start : start + CHUNK])
            self._held = "\r" if text.endswith("\r") else ""
            lines = text.removesuffix("\r").replace("\r\n", "\n").split("\n")
            write("\n".join(map(printable, lines)).encode())

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *_: object) -> None:
        if self._decoder is not None:  # what was cut does not go on
            write(printable(self._held + self._decoder.decode(b"", True)).encode())


def resolve(options: Options) -> "Addresses":
    """Return the server's addresses."""
    if options.path is not None:
        return [(socket.AF_UNIX, options.path)]
    families = {"-4": socket.AF_INET, "-6": socket.AF_INET6}
    wanted = [families[switch] for switch in options.switches if switch in families]
    try:
        # As bytes: for a str the idna codec would be loaded, which is slow.
        host = options.host.encode("ascii" if options.host.isascii() else "idna")
        family = wanted[-1] if wanted else socket.AF_UNSPEC
        kind = socket.SOCK_DGRAM if options.udp else socket.SOCK_STREAM
        found = socket.getaddrinfo(host, os.fsencode(options.port), family, kind)
    except (OSError, UnicodeError) as error:
        raise ClientError(f"{options.server}: name does not resolve: {reason(error)}") from None
    return [(family, address) for family, _, _, _, address in found]


def reach(options: Options, addresses: "Addresses") -> socket.socket:
    """Connect to the first of these addresses that accepts; ClientError says why none did."""
    reasons = []
    for family, address in addresses:
        server = None
        try:
            server = socket.socket(family, socket.SOCK_STREAM)
            server.settimeout(options.timeout())
            server.connect(address)
            if family != socket.AF_UNIX:
                # What follows something else, such as a handshake, need not wait for its arrival.
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            if server is not None:
                server.close()
            reasons.append(reason(error))
        else:
            options.addresses = [(family, address)]
            return server
    hint = ": is calcd running there?" if "connection refused" in reasons else ""
    raise ClientError(f"{options.server}: {', '.join(dict.fromkeys(reasons))}{hint}")


def secure(options: Options) -> "ssl.SSLContext":
    """Return what TLS is to go by; UsageError where it cannot be as the command line says."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # for which a read would have to wait for a write
    if "--ssl-noverify" in options.switches:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif options.servername is None:
        raise UsageError("TLS over a Unix socket needs --ssl-servername or --ssl-noverify")
    elif "--ssl-trustfile" not in options.files:
        context.load_default_certs()
    try:
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=options.servername)
    except ValueError:
        raise UsageError(f"there is no server's name {options.servername}") from None
    load(context, options.files)
    return context


def load(context: "ssl.SSLContext", files: dict[str, str]) -> None:
    """Let TLS have the files of the command line; UsageError tells which one is of no use."""
    import ssl

    for option, path in files.items():
        try:
            open(path, "rb").close()
        except OSError as error:  # from ssl it would not tell which file
            raise UsageError(f"{option} {path}: {reason(error)}") from None
    trustfile, cert, key = (files.get(f"--ssl-{kind}") for kind in ("trustfile", "cert", "key"))
    if trustfile is not None:
        try:
            context.load_verify_locations(trustfile)
        except ssl.SSLError:
            raise UsageError(f"--ssl-trustfile {trustfile}: no certificate in it") from None
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it may be the server's own
    if cert is not None:
        try:
            context.load_cert_chain(cert, key)
        except ssl.SSLError as error:
            other = error.reason == "KEY_VALUES_MISMATCH"
            wrong = "the key is another certificate's" if other else "no certificate with its key"
            where = f"{cert} and {key}" if key is not None else cert
            raise UsageError(f"--ssl-cert {where}: {wrong}") from None
    elif key is not None:
        raise UsageError("--ssl-key needs --ssl-cert")


def explain(error: OSError) -> str:
    """Return what went wrong with TLS, and what may help."""
    import ssl

    words = reason(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        words = f"the server's certificate: {error.verify_message.rstrip('.')}"
        if error.verify_code in WRONG_NAME:
            return f"{words}: see --ssl-servername"
        return f"{words}: see --ssl-trustfile" if error.verify_code in UNKNOWN_ISSUER else words
    if " alert " not in words:
        return f"{words}: does the server speak TLS, 1.2 or later?"
    words = f"refused by the server: {words.partition(' alert ')[2]}"
    asks = any(word in words for word in ("certificate", "unknown ca", "handshake failure"))
    return f"{words}: does it want a certificate that it trusts (--ssl-cert)?" if asks else words


class TLS(socket.socket):
    """A connection that is encrypted, and a socket like any other to those who use it.

    Nothing is kept back here of which `poll` would not tell. And it can half-close: `SSLSocket`
    cannot, for its `unwrap` reads on after that, and loses the replies that it reads.
    """

    def __init__(self, plain: socket.socket, context: "ssl.SSLContext", options: Options) -> None:
        import ssl

        super().__init__(fileno=plain.detach())
        self.settimeout(options.wait)
        self._options = options
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=options.servername
        )
        self._unsent = b""  # encrypted
        self._taken = 0  # bytes given to `send` that it has not yet said to be sent
        self._heard = False  # anything that is not TLS's own

    def greet(self) -> str:
        """Agree with the server on how to go on, and return it; ClientError says why not."""
        wait = self._options.wait
        options = self._options.within(LONGEST if wait is None else wait)
        try:
            while not self._shake_hands():
                self.settimeout(options.timeout())
                # Only a look: what follows the handshake is to stay where `poll` sees it.
                seen = super().recv(CHUNK, socket.MSG_PEEK)
                if not seen:
                    raise OSError(CLOSED)
                self._incoming.write(seen)
            if "-z" in options.switches:  # a TLS 1.3 server judges our certificate only now
                self.shutdown(socket.SHUT_WR)
                while receive(self, options):
                    pass
            self.settimeout(wait)
        except OSError as error:
            raise ClientError(f"{options.server}: TLS: {explain(error)}") from None
        unchecked = "--ssl-noverify" in self._options.switches
        checked = "not verified" if unchecked else f"verified for {self._options.servername}"
        return f"{self._tls.version()}, certificate {checked}"

    def _shake_hands(self) -> bool:
        """Take the handshake as far as it goes with what has come; say whether it is over."""
        came = self._incoming.pending
        over = self._step(self._tls.do_handshake)
        super().recv(came - self._incoming.pending)
        self._incoming.read()
        return over

    def _step(self, step: "Callable[[], object]") -> bool:
        """Do what TLS can of this without waiting for the server; say whether that is all."""
        import ssl

        try:
            step()
        except ssl.SSLWantReadError:
            return False
        finally:  # an error is something to tell the server as well
            self._flush()
        return True

    def _flush(self) -> None:
        """Send what is encrypted; BlockingIOError if not all of it can be sent now."""
        try:
            while self._unsent or self._outgoing.pending:
                self._unsent = self._unsent or self._outgoing.read()
                self._unsent = self._unsent[super().send(self._unsent) :]
        except ConnectionError:  # `recv` tells of it, and before that why: a server says so
            self._unsent = b""

    def send(self, data: "ReadableBuffer", _flags: int = 0, /) -> int:
        """Send `data`, all of it; after a BlockingIOError call again, with the same."""
        self._taken = self._taken or self._tls.write(data)
        self._flush()
        taken, self._taken = self._taken, 0
        return taken

    def sendall(self, data: "ReadableBuffer", _flags: int = 0, /) -> None:
        """Send `data`, all of it, however long that takes."""
        self.send(data)

    def shutdown(self, _how: int, /) -> None:
        """Half-close: tell the server that this was all, and go on reading.

        Nothing is lost to `unwrap`, for `recv` and the handshake leave it nothing to read.
        """
        self._step(self._tls.unwrap)

    def recv(self, size: int, _flags: int = 0, /) -> bytes:
        """Return what has come, as far as it can be decrypted; empty at the end.

        BlockingIOError if there is more to come before anything can be, also where it may block.
        """
        import ssl

        data = sealed = b""
        while True:
            try:
                while part := self._tls.read(size):
                    data += part
            except ssl.SSLWantReadError:
                if sealed and not data:
                    raise BlockingIOError from None
                if not data and (sealed := super().recv(size)):
                    self._incoming.write(sealed)
                    continue
                self._heard = self._heard or data != b""
                return data
            except ssl.SSLZeroReturnError:
                pass
            except ssl.SSLError as error:
                if not data and not self._heard:  # so ends a handshake that TLS 1.3 calls done
                    raise ClientError(f"{self._options.server}: TLS: {explain(error)}") from None
                if not data:
                    raise
            try:
                if data:  # for `poll` to tell that there is the end to read, too
                    super().shutdown(socket.SHUT_RD)
            except OSError:  # as after a reset, of which it tells anyway
                return data
            return data

    def close(self) -> None:
        """Close, and tell the server so if that needs no waiting."""
        try:
            self.setblocking(False)
            self.shutdown(socket.SHUT_WR)
        except OSError:
            return
        finally:
            super().close()


class UDP:
    """Datagrams, behind what those who use a connection need of it.

    Each request is asked when its reply is read, from a port of its own, so that what comes late
    for one is not taken for the reply to the next. The kernel lets nobody but the server reply.
    """

    def __init__(self, options: Options, addresses: "Addresses") -> None:
        self._options = options
        self._options.addresses = addresses
        self._wait = options.wait
        self._unasked: list[bytes] = []  # the last one is the next
        self._unfinished = b""  # the start of a line

    def sendall(self, data: bytes) -> None:
        """Take requests, to be asked in their turn; ClientError if one is too long to be."""
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        lines = [line + b"\n" for line in lines if line.translate(None, BLANKS)]
        self._unasked[:0] = reversed(lines)
        if len(self._unfinished) > CHUNK:
            raise ClientError(f"{self._options.server}: message too long")

    def settimeout(self, seconds: float | None) -> None:
        """Wait for so many seconds for a reply, at each address."""
        self._wait = seconds

    def recv(self, _size: int) -> bytes:
        """Return the reply to the next request, empty after the last; ClientError if none comes."""
        return self.ask(self._unasked.pop()) if self._unasked else b""

    def ask(self, request: bytes) -> bytes:
        """Return the reply to this request; ClientError says why none came."""
        reasons = []
        for family, address in self._options.addresses:
            server = socket.socket(family, socket.SOCK_DGRAM)
            try:
                server.connect(address)
                reply = self._exchange(server, request)
            except OSError as error:
                reasons.append(reason(error))
            else:
                self._options.addresses = [(family, address)]
                return reply
            finally:
                server.close()
        hint = ": is calcd running there?" if "connection refused" in reasons else ""
        raise ClientError(f"{self._options.server}: {', '.join(dict.fromkeys(reasons))}{hint}")

    def _exchange(self, server: socket.socket, request: bytes) -> bytes:
        wait = self._wait or UDP_WAIT
        server.settimeout(wait / TRIES)
        for _ in range(TRIES):  # any datagram may get lost, and asking again does no harm
            server.send(request)
            try:
                return server.recv(CHUNK)
            except TimeoutError:
                pass
        raise OSError(f"no reply in {wait:g} s")

    def close(self) -> None:
        """Do nothing: there is nothing open between two requests."""


def chunks(options: Options) -> "Iterator[bytes]":
    """Give what is to be asked, as it comes."""
    if options.requests:
        yield b"".join(os.fsencode(request) + b"\n" for request in options.requests)
        return
    while chunk := read():
        yield chunk
    yield b"\n"  # a last line that has none is a request as well


def relay_datagrams(server: UDP, options: Options) -> int:
    """Ask one request after the other, and write the replies; return the exit status."""
    tally = Tally()
    with Output() as output:
        for chunk in chunks(options):
            tally.send(chunk)
            server.sendall(chunk)
            while reply := server.recv(CHUNK):
                tally.receive(reply)
                output.write(reply)
    return tally.status(options.server, "no more datagrams")


def greet(server: UDP, options: Options) -> UDP:
    """Ask the server whether it is there, if the command line wants to know: UDP does not tell."""
    if {"-v", "-z"} & set(options.switches):
        server.ask(b"PING\n")
    if "-v" in options.switches:
        complain(f"{options.server}: replies over UDP")
    return server


def connect(options: Options, addresses: "Addresses | None" = None) -> "socket.socket | UDP":
    """Connect to the server, as the command line says; ClientError says why it was impossible.

    Where its addresses are known, its name is not looked up.
    """
    addresses = addresses or resolve(options)
    if options.udp:
        return greet(UDP(options, addresses), options)
    server = reach(options, addresses)
    how = "connection succeeded"
    if options.tls is not None:
        server = tls = TLS(server, options.tls, options)
        try:
            how += f", {tls.greet()}"
        except ClientError:
            server.close()
            raise
    if "-v" in options.switches:
        complain(f"{options.server}: {how}")
    return server


def relay(server: socket.socket, options: Options, tally: Tally, output: Output) -> int:
    """Send requests and write replies, both at once, to the end; return the exit status.

    A chunk each way is all that is held: who does not read from us keeps us from reading.
    """
    unsent = b"".join(os.fsencode(request) + b"\n" for request in options.requests)
    tally.send(unsent)
    reading = not options.requests  # standard input has not ended
    sending = True  # our half of the connection is open
    wait = options.wait
    server.setblocking(False)
    while True:
        poll = select.poll()
        poll.register(STDOUT, 0)  # asks for nothing: it tells when there is no reader any more
        due = unsent or (sending and not reading)
        poll.register(server, select.POLLIN | select.POLLOUT if due else select.POLLIN)
        if reading and not unsent:
            poll.register(STDIN, select.POLLIN)
        ready = dict(poll.poll(None if wait is None else wait * 1000))
        if not ready:
            return tally.status(options.server, f"silent for {wait:g} s")
        if STDOUT in ready:
            raise BrokenPipeError
        if STDIN in ready:
            unsent = read()
            reading = bool(unsent)
            tally.send(unsent)
        if ready.get(server.fileno(), 0) & select.POLLOUT:
            try:
                if unsent:
                    unsent = unsent[server.send(unsent) :]
                else:
                    server.shutdown(socket.SHUT_WR)
                    sending = False
                    wait = min(filter(None, (options.wait, options.linger)), default=None)
            except BlockingIOError:
                pass
            except OSError:  # it takes no more, but may have answered what it took
                unsent, reading, sending = b"", False, False
        if ready.get(server.fileno(), 0) & ~select.POLLOUT:
            try:
                chunk = server.recv(CHUNK)
            except BlockingIOError:
                continue
            except OSError as error:
                return tally.status(options.server, reason(error), options.guess)
            if not chunk:
                return tally.status(options.server, CLOSED, options.guess)
            tally.receive(chunk)
            output.write(chunk)


def load_history() -> None:
    """Give the prompt line editing and what was typed in earlier runs, as far as there is any."""
    try:
        import readline

        readline.set_history_length(HISTORY_LINES)
        readline.read_history_file(os.path.expanduser(HISTORY))
    except (ImportError, OSError):
        return


def save_history() -> None:
    """Keep what was typed for the next run, if there is a place for it."""
    try:
        import readline

        readline.write_history_file(os.path.expanduser(HISTORY))
    except (ImportError, OSError):
        return


def check_idle(
    server: socket.socket, nothing: "tuple[type[OSError], ...]" = (BlockingIOError,)
) -> None:
    """Raise ConnectionError if a server has closed, or said more since its last reply.

    The socket does not block; `nothing` is what it raises where there is nothing to read.
    """
    try:
        more = server.recv(CHUNK)
    except nothing:
        return
    raise ConnectionAbortedError(UNASKED) if more else ConnectionError(CLOSED)


def receive(server: "socket.socket | UDP", options: Options) -> bytes:
    """Return what comes next, empty at the end; TimeoutError if it takes too long."""
    while True:
        server.settimeout(options.timeout())
        try:
            return server.recv(CHUNK)
        except BlockingIOError:  # no more than a part of what TLS needs
            continue


def ask(
    server: "socket.socket | UDP",
    requests: bytes,
    count: int,
    options: Options,
    *,
    again: bool = False,
) -> bytes:
    """Return the replies to so many requests, fewer if the server has closed the connection.

    `again` says that the server was asked before, so that it may say nothing until it is asked.
    ClientError if it takes too long, or says more than it was asked or than a reply may have.
    """
    replies = Replies(count)
    whole: list[bytes] = []
    try:
        if again and isinstance(server, socket.socket):
            server.setblocking(False)
            check_idle(server)
        server.settimeout(options.timeout())
        server.sendall(requests)
        while replies.expected and (chunk := receive(server, options)):
            whole += replies.add(chunk)
    except (TimeoutError, ConnectionAbortedError) as error:
        raise ClientError(f"{options.server}: {reason(error)}") from None
    except OSError:
        pass  # as good as closed
    return b"\n".join([*whole, bytes(replies.rest)])


class Completer:
    """What the Tab key offers: operations, the names assigned here, and the last answers.

    An answer comes in full, where a number may stand or for `ans`, and the next Tab puts the one
    before in its place.
    """

    def __init__(self, options: Options, traces: Traces) -> None:
        self._options = options
        self._traces = traces
        self._operations: list[str] | None = None  # not asked for yet
        self._answers: list[str] = []  # each once, the last one first
        self._offered = "", "", 0  # the word as Tab left it, what it has before the answer, which
        self._matches: list[str] = []

    def install(self) -> None:
        """Have the Tab key call this, if there is line editing at all."""
        try:
            import readline
        except ImportError:
            return
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        readline.set_completer_delims(WORD_DELIMITERS)
        readline.set_completer(self)

    def learn(self, reply: str) -> None:
        """Remember an answer."""
        import re

        self._offered = "", "", 0
        if len(reply) <= ANSWER_SIZE and re.fullmatch(NUMBER, reply, re.ASCII):
            others = [answer for answer in self._answers if answer != reply]
            self._answers = [reply, *others][:ANSWERS]

    def __call__(self, word: str, state: int) -> str | None:
        """Return a match for the word before the cursor; they are asked for one by one."""
        import readline

        if state == 0 and select.select([STDIN], [], [], 0)[0]:
            self._matches = [f"{word}\t"]  # more came at once: it is pasted, and a blank
        elif state == 0:
            before = readline.get_line_buffer()[: readline.get_begidx()]
            self._matches = self._complete(before, word)
        return self._matches[state] if state < len(self._matches) else None

    def _complete(self, before: str, word: str) -> list[str]:
        """Return all matches."""
        offered, head, number = self._offered
        if word and word == offered:
            return self._offer(head, (number + 1) % len(self._answers))
        start = max(word.rfind("+"), word.rfind("-")) + 1
        head, word = word[:start], word[start:]
        if self._answers and (word.lower() == "ans" or not word):
            command = (before + head).strip(" \t").upper()
            if word or command not in ("", "HELP"):
                return self._offer(head, 0)
        if self._operations is None:
            self._operations = []  # asked once, whatever comes of it
            self._operations = operations(self._options)
        names = [name.lower() if word.islower() else name for name in self._operations]
        names += [*self._traces.names, *(["ans"] if self._answers else [])]
        return [head + name for name in names if name.lower().startswith(word.lower())]

    def _offer(self, head: str, number: int) -> list[str]:
        """Return one of the answers, as what is left to match."""
        word = head + self._answers[number]
        self._offered = word, head, number
        return [word]


def operations(options: Options) -> list[str]:
    """Return the names of the server's operations, as far as it tells them, and soon.

    On a connection of its own: a reply that comes late is then nobody else's.
    """
    import re

    hasty = options.within(HELP_WAIT)
    hasty.switches = [switch for switch in options.switches if switch != "-v"]
    if options.udp:  # each address gets its share
        hasty.wait = min(HELP_WAIT, options.wait or HELP_WAIT) / len(options.addresses)
    try:
        server = connect(hasty, options.addresses)
        try:
            reply = ask(server, b"HELP\n", 1, hasty).decode(errors="replace")
        finally:
            server.close()
    except (ClientError, OSError):
        return []
    if reply.startswith("ERR ") or not reply.endswith("\n") or len(reply) > CHUNK:
        return []
    return list(dict.fromkeys(re.findall(OPERATION, reply)))


def converse(server: "socket.socket | UDP", options: Options) -> int:
    """Ask what is typed at the prompt, one request at a time; return the exit status."""
    tally = Tally()
    traces = Traces()
    completer = Completer(options, traces)
    completer.install()
    load_history()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # the server judges what is text
    try:
        while True:
            try:
                line = input("calcc> ")
            except KeyboardInterrupt:
                write(b"\n")
                continue
            except EOFError:
                write(b"\n")
                break
            requests = line.encode(errors="surrogateescape") + b"\n"
            asked = tally.asked
            tally.send(requests)
            count = tally.asked - asked  # more than one where newlines were pasted
            if not count:
                continue
            replies = ask(server, requests, count, options, again=tally.asked > count)
            if not replies:
                # An idle client is closed without a word, and asking twice does no harm.
                server.close()
                server = connect(options)
                if traces.matter_to([line]):
                    complain(LOST)
                traces.forget()
                replies = ask(server, requests, count, options)
            tally.receive(replies)
            with Output() as output:
                output.write(replies)
            asked_lines = [part for part in line.split("\n") if part.strip(" \t\r")]
            whole = replies.decode(errors="replace").split("\n")[:-1]
            for request, reply in zip(asked_lines, whole, strict=False):
                traces.add(request, reply)
                completer.learn(reply)
            if len(whole) < count or line.strip(" \t").upper() == "QUIT":
                break
    finally:
        server.close()
        save_history()
    return tally.status(options.server, CLOSED, options.guess)


class Calculator:
    """A connection to calcd, for a Python program.

        with Calculator("localhost", 12000) as calculator:
            calculator.ask("SOMA 0.1 0.2")  # Decimal("0.3")

    ``path`` is that of a Unix socket, to be used in place of host and port. ``timeout`` is in
    seconds, for connecting and for every silence after that; None waits for ever. ``tls`` is
    what TLS is to go by, such as ``ssl.create_default_context()``, and ``servername`` whose
    certificate the server must have, where that is not the host.

    An ERR reply is a ``CalculatorError``. What goes wrong with the connection is what the
    standard library makes of it: ``ConnectionError``, ``TimeoutError``, another ``OSError``. A
    request that is blank or more than one line is a ``ValueError``, and so is any after `close`.

    Where the connection was lost, as one is that was idle for too long, it is made anew once and
    what has no reply yet is asked again: a request changes nothing, unless it assigns a name or
    changes a setting. Those, and ``ans``, belong to the connection, so where there have been any
    that matter, ``ConnectionError`` says that they are lost. So does the first request after a
    ``TimeoutError``, which ends the connection, for a late reply would be taken for another's.
    The next request starts with a new connection, and with nothing. A server that sends more than
    it was asked for, or a reply of more than 4 MiB, is left with ``ConnectionAbortedError``.

    To be used by one thread at a time.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 12000,
        *,
        path: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
        tls: "ssl.SSLContext | None" = None,
        servername: str | None = None,
    ) -> None:
        if timeout is not None and not 0 < timeout <= LONGEST:
            raise ValueError(f"a timeout is more than 0 seconds, not {timeout}")
        self._host, self._port = host, port
        self._path = None if path is None else os.fspath(path)
        self._timeout = timeout
        self._tls = tls
        self._servername = host if servername is None and path is None else servername
        self._later: tuple[type[OSError], ...] = (BlockingIOError,)
        self._traces = Traces()  # of the last connection
        self._used = False  # something was asked on it
        self._closed = False
        self._server: socket.socket | None = self._connect()

    def ask(self, request: str) -> "Decimal":
        """Return the number that a request comes to."""
        return number(self.tell(request))

    def tell(self, request: str) -> str:
        """Return the reply to a request as it is written: not all of them are numbers."""
        (reply,) = self.tell_all([request])
        if isinstance(reply, CalculatorError):
            raise reply
        return reply

    def ask_all(self, requests: "Iterable[str]") -> "list[Decimal | CalculatorError]":
        """Return the numbers for many requests, sent without waiting for each reply.

        Where one is an error, that stands in its place, and is not raised.
        """
        replies = self.tell_all(requests)
        return [reply if isinstance(reply, Exception) else number(reply) for reply in replies]

    def tell_all(self, requests: "Iterable[str]") -> list[str | CalculatorError]:
        """Do the same, with replies as they are written."""
        if self._closed:
            raise ValueError("the calculator is closed")
        asked = list(requests)
        lines = [as_line(request) for request in asked]
        replies: list[str] = []
        renewed = False
        while len(replies) < len(lines):
            renewed = renewed or self._server is None
            server = self._server or self._connect_anew(asked[len(replies) :])
            try:
                self._exchange(server, asked, lines, replies)
            except BaseException as error:
                self._drop()  # or a reply to this could be taken for one to the next
                lost = isinstance(error, ConnectionError)
                if renewed or not lost or isinstance(error, ConnectionAbortedError):
                    raise
        return [result(reply) for reply in replies]

    def close(self) -> None:
        """End the connection, for good."""
        self._closed = True
        self._drop()

    def __enter__(self) -> "Calculator":
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: "TracebackType | None",
    ) -> None:
        self.close()

    def _connect(self) -> socket.socket:
        """Return a connection to the server."""
        import socket as sockets

        server: sockets.socket
        if self._path is None:
            server = sockets.create_connection((self._host, self._port), self._timeout)
        else:
            server = sockets.socket(sockets.AF_UNIX)
        try:
            if self._path is None:
                server.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
            else:
                server.settimeout(self._timeout)
                server.connect(self._path)
            if self._tls is not None:
                import ssl

                self._later = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
                server = self._tls.wrap_socket(server, server_hostname=self._servername)
            server.setblocking(False)
        except BaseException:
            server.close()
            raise
        self._used = False
        return server

    def _connect_anew(self, requests: list[str]) -> socket.socket:
        """Connect again, unless these requests may need what is lost with the connection."""
        lost = self._traces.matter_to(requests)
        self._traces.forget()
        if lost:
            raise ConnectionError(f"the connection was lost, and {LOST}")
        self._server = self._connect()
        return self._server

    def _drop(self) -> None:
        """Leave the connection."""
        server, self._server = self._server, None
        if server is None:
            return
        try:
            if self._tls is not None:
                import ssl

                if isinstance(server, ssl.SSLSocket):
                    server.unwrap()  # says farewell, and waits for nothing
        except (OSError, ValueError):
            return
        finally:
            server.close()

    def _exchange(
        self, server: socket.socket, requests: list[str], lines: list[bytes], replies: list[str]
    ) -> None:
        """Ask what has no reply yet, and add the replies, both at once."""
        unsent = memoryview(b"".join(lines[len(replies) :]))
        wait = None if self._timeout is None else self._timeout * 1000
        received = Replies(len(lines) - len(replies))
        if self._used:
            check_idle(server, self._later)
        self._used = True
        poll = select.poll()
        poll.register(server, select.POLLIN | select.POLLOUT)
        while received.expected:
            if not poll.poll(wait):
                raise TimeoutError(f"no reply for {self._timeout:g} s")
            try:
                if unsent:
                    unsent = unsent[server.send(unsent) :]
            except self._later:
                pass
            except ConnectionError:  # it takes no more, but may have answered what it took
                unsent = unsent[:0]
            if not unsent:
                poll.modify(server, select.POLLIN)
            try:
                # With TLS, poll does not know of what was decrypted already.
                while received.expected:
                    chunk = server.recv(CHUNK)
                    if not chunk:
                        raise ConnectionError(CLOSED)
                    for reply in received.add(chunk):
                        text = reply.decode(errors="replace")
                        self._traces.add(requests[len(replies)], text)
                        replies.append(text)
            except self._later:
                pass


def as_line(request: str) -> bytes:
    """Return a request as it is sent; ValueError where it would not get exactly one reply."""
    if "\n" in request or "\r" in request:
        raise ValueError(f"a request is one line: {request!r}")
    if not request.strip(" \t"):
        raise ValueError("a blank request gets no reply")
    return request.encode() + b"\n"


def result(reply: str) -> str | CalculatorError:
    """Return a reply, or the error that it is."""
    if not reply.startswith("ERR "):
        return reply
    code, _, words = reply.removeprefix("ERR ").partition(" ")
    return CalculatorError(code, words)


def number(reply: str) -> "Decimal":
    """Return a reply as a number, exactly as it is written; ValueError where it is none."""
    from decimal import Decimal, InvalidOperation

    try:
        value = Decimal(reply)
    except InvalidOperation:
        value = Decimal("NaN")
    if value.is_finite():
        return value
    raise ValueError(f"not a number, but {reply!r}: tell() is for such replies")


def run(options: Options) -> int:
    """Do what the command line says; return the exit status."""
    if {"-h", "--help"} & set(options.switches):
        write(HELP.encode())
        return 0
    try:
        server = connect(options)
    except ClientError:
        if "-z" in options.switches and "-v" not in options.switches:
            return 3
        raise
    try:
        if "-z" in options.switches:
            return 0
        if not options.requests and os.isatty(STDIN) and os.isatty(STDOUT):
            return converse(server, options)
        if isinstance(server, UDP):
            return relay_datagrams(server, options)
        with Progress(options) as tally, Output() as output:
            return relay(server, options, tally, output)
    finally:
        server.close()


def die_of(name: str) -> int:
    """End by a signal, as other tools do, so that the shell sees why; return only if it cannot."""
    import signal

    number = signal.Signals[name]
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    return 128 + number


def main(argv: list[str] | None = None) -> int:
    """Run `calcc` with these arguments, else those of the process; return its exit status."""
    try:
        for number in (STDIN, STDOUT, STDERR):
            try:
                os.fstat(number)
            except OSError:  # closed: a socket would get its number, and be taken for it
                os.open(os.devnull, os.O_RDONLY)
        return run(Options(sys.argv[1:] if argv is None else argv))
    except UsageError as error:
        complain(f"{error}; see calcc -h")
        return 2
    except ClientError as error:
        complain(str(error))
        return 3
    except BrokenPipeError:
        return die_of("SIGPIPE")
    except KeyboardInterrupt:
        return die_of("SIGINT")


if __name__ == "__main__":
    sys.exit(main())
