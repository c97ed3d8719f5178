#!/usr/bin/env python3
"""calcc, the client of calcd: requests in, replies out, and an exit status for scripts.

One file and nothing but the standard library, so that it runs wherever it is copied. Most often
it asks one thing for a script, and most of that is starting: `socket` and `getopt` would each
take half as long again as Python itself, hence `_socket`, the part of `socket` that does the
work, options taken apart by hand, and `ssl` imported only where it is used.
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

    from _typeshed import ReadableBuffer

HELP = """\
usage: calcc [-46uvzN] [-w SECONDS] [-q SECONDS] [-e REQUEST]... [--ssl...] [-U PATH | HOST [PORT]]

Asks calcd at HOST (127.0.0.1) and PORT (12000). Requests are read from standard input, one a
line, and replies written to standard output; on a terminal there is a prompt, with history.

  -4, -6      use IPv4 only, IPv6 only
  -e REQUEST  ask this instead of reading standard input; as often as wanted
  -h, --help  print this
  -N          taken for netcat's sake: the end of input always half-closes
  -q SECONDS  after the end of input, wait no longer than this for more; 0 or less: for ever
  -u          ask over UDP: each request in a datagram of its own, up to three times
  -U PATH     connect to a Unix socket
  -v          say on standard error how connecting went
  -w SECONDS  wait no longer than this to be connected, or for anything to be sent or received;
              over UDP for each reply, and 5 if not said
  -z          only check that the server can be reached

  --ssl                  talk TLS, 1.2 or later; each of the following means it too
  --ssl-trustfile FILE   trust the certificates in this file (PEM), not those the system trusts
  --ssl-servername NAME  the server's certificate is for NAME, not for HOST; NAME is sent, too
  --ssl-cert FILE        show the server this certificate (PEM), followed by those it depends on
  --ssl-key FILE         its private key (PEM), where that is not in the same file
  --ssl-noverify         accept any certificate; unlike ncat, calcc does so only when told to

Exit status: 0 every reply was a result, 1 at least one was an ERR, 2 wrong usage, 3 the server
could not be reached or went away before every request was answered.
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
LONGEST = 1e6  # seconds; poll() takes twice as many
CLOSED = "connection closed by the server"
TRIES, UDP_WAIT = 3, 5.0  # datagrams sent for a reply, and seconds in all
# OpenSSL's numbers for what is wrong with a certificate.
UNKNOWN_ISSUER, WRONG_NAME = (2, 18, 19, 20, 21), (62, 64)
HISTORY, HISTORY_LINES = "~/.calcc_history", 1000
# With these bytes deleted, and every other but the newline made an x, a request starts with x.
BLANKS = b" \t\r"
MARKS = bytes(byte if byte == ord("\n") else ord("x") for byte in range(256))


class UsageError(Exception):
    """A command line that cannot be followed: exit status 2."""


class ClientError(Exception):
    """What ends the run before every request has its reply: exit status 3."""


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
        self.errors = False
        self._marks = self._replies = b"\n"  # the end of what came before

    def send(self, chunk: bytes) -> None:
        """Count the requests that start in what goes to the server."""
        marks = self._marks + chunk.translate(MARKS, BLANKS)
        self.asked += marks.count(b"\nx")
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


def reason(error: Exception) -> str:
    """Return what went wrong, in the system's words."""
    if words := getattr(error, "reason", None):  # as OpenSSL has it
        return str(words).replace("_", " ").lower()
    return (getattr(error, "strerror", None) or str(error)).lower()


def complain(message: str) -> None:
    """Say something on standard error, if anybody listens."""
    try:
        os.write(STDERR, os.fsencode(f"calcc: {message}\n"))
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
    while data:
        try:
            data = data[os.write(STDOUT, data) :]
        except BlockingIOError:  # set so by another program on the same terminal or pipe
            poll = select.poll()
            poll.register(STDOUT, select.POLLOUT)
            poll.poll()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ClientError(f"standard output: {reason(error)}") from None


def resolve(options: Options) -> list[tuple[int, str | tuple[object, ...]]]:
    """Return the server's addresses, each with its family."""
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


def reach(options: Options) -> socket.socket:
    """Connect to the first address of the server that accepts; ClientError says why none did."""
    reasons = []
    for family, address in resolve(options):
        server = None
        try:
            server = socket.socket(family, socket.SOCK_STREAM)
            server.settimeout(options.wait)
            server.connect(address)
            if family != socket.AF_UNIX:
                # What follows something else, such as a handshake, need not wait for its arrival.
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            if server is not None:
                server.close()
            reasons.append(reason(error))
        else:
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
        import time

        wait = self._options.wait
        deadline = time.monotonic() + (LONGEST if wait is None else wait)
        try:
            while not self._shake_hands():
                self.settimeout(max(deadline - time.monotonic(), 0.001))
                # Only a look: what follows the handshake is to stay where `poll` sees it.
                seen = super().recv(CHUNK, socket.MSG_PEEK)
                if not seen:
                    raise OSError(CLOSED)
                self._incoming.write(seen)
            self.settimeout(wait)
            if "-z" in self._options.switches:  # a TLS 1.3 server judges our certificate only now
                self.shutdown(socket.SHUT_WR)
                while self.recv(CHUNK):
                    pass
        except OSError as error:
            raise ClientError(f"{self._options.server}: TLS: {explain(error)}") from None
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
        """Return what has come, as far as it can be decrypted; empty at the end."""
        import ssl

        data = b""
        while True:
            try:
                while part := self._tls.read(size):
                    data += part
            except ssl.SSLWantReadError:
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

    def __init__(self, options: Options) -> None:
        self._options = options
        self._addresses = resolve(options)
        self._unasked: list[bytes] = []
        self._unfinished = b""  # the start of a line

    def sendall(self, data: bytes) -> None:
        """Take requests, to be asked in their turn; ClientError if one is too long to be."""
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        self._unasked += [line + b"\n" for line in lines if line.translate(None, BLANKS)]
        if len(self._unfinished) > CHUNK:
            raise ClientError(f"{self._options.server}: message too long")

    def recv(self, _size: int) -> bytes:
        """Return the reply to the next request, empty after the last; ClientError if none comes."""
        return self.ask(self._unasked.pop(0)) if self._unasked else b""

    def ask(self, request: bytes) -> bytes:
        """Return the reply to this request; ClientError says why none came."""
        reasons = []
        for family, address in self._addresses:
            server = socket.socket(family, socket.SOCK_DGRAM)
            try:
                server.connect(address)
                reply = self._exchange(server, request)
            except OSError as error:
                reasons.append(reason(error))
            else:
                self._addresses = [(family, address)]
                return reply
            finally:
                server.close()
        hint = ": is calcd running there?" if "connection refused" in reasons else ""
        raise ClientError(f"{self._options.server}: {', '.join(dict.fromkeys(reasons))}{hint}")

    def _exchange(self, server: socket.socket, request: bytes) -> bytes:
        wait = self._options.wait or UDP_WAIT
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
    for chunk in chunks(options):
        tally.send(chunk)
        server.sendall(chunk)
        while reply := server.recv(CHUNK):
            tally.receive(reply)
            write(reply)
    return tally.status(options.server, "no more datagrams")


def greet(server: UDP, options: Options) -> UDP:
    """Ask the server whether it is there, if the command line wants to know: UDP does not tell."""
    if {"-v", "-z"} & set(options.switches):
        server.ask(b"PING\n")
    if "-v" in options.switches:
        complain(f"{options.server}: replies over UDP")
    return server


def connect(options: Options) -> "socket.socket | UDP":
    """Connect to the server, as the command line says; ClientError says why it was impossible."""
    if options.udp:
        return greet(UDP(options), options)
    server = reach(options)
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


def relay(server: socket.socket, options: Options) -> int:
    """Send requests and write replies, both at once, to the end; return the exit status.

    A chunk each way is all that is held: who does not read from us keeps us from reading.
    """
    unsent = b"".join(os.fsencode(request) + b"\n" for request in options.requests)
    tally = Tally()
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
            write(chunk)


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


def ask(server: "socket.socket | UDP", requests: bytes, count: int, options: Options) -> bytes:
    """Return the replies to so many requests, fewer if the server has closed the connection."""
    replies = b""
    try:
        server.sendall(requests)
        while replies.count(b"\n") < count and (chunk := server.recv(CHUNK)):
            replies += chunk
    except TimeoutError as error:
        raise ClientError(f"{options.server}: {reason(error)}") from None
    except OSError:
        pass  # as good as closed
    return replies


def converse(server: "socket.socket | UDP", options: Options) -> int:
    """Ask what is typed at the prompt, one request at a time; return the exit status."""
    tally = Tally()
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
            replies = ask(server, requests, count, options)
            if not replies:
                # An idle client is closed without a word, and asking twice does no harm.
                server.close()
                server = connect(options)
                replies = ask(server, requests, count, options)
            tally.receive(replies)
            write(replies)
            if replies.count(b"\n") < count or line.strip(" \t").upper() == "QUIT":
                break
    finally:
        server.close()
        save_history()
    return tally.status(options.server, CLOSED, options.guess)


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
        return relay(server, options)
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
