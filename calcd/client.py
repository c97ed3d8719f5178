#!/usr/bin/env python3
"""calcc, the client of calcd: requests in, replies out, and an exit status for scripts.

One file and nothing but the standard library, so that it runs wherever it is copied. Most often
it asks one thing for a script, and most of that is starting: `socket` and `getopt` would each
take half as long again as Python itself, hence `_socket`, the part of `socket` that does the
work, and options taken apart by hand.
"""

import _socket as socket
import io
import os
import select
import sys

HELP = b"""\
usage: calcc [-46vzN] [-w SECONDS] [-q SECONDS] [-e REQUEST]... [-U PATH | HOST [PORT]]

Asks calcd at HOST (127.0.0.1) and PORT (12000). Requests are read from standard input, one a
line, and replies written to standard output; on a terminal there is a prompt, with history.

  -4, -6      use IPv4 only, IPv6 only
  -e REQUEST  ask this instead of reading standard input; as often as wanted
  -N          taken for netcat's sake: the end of input always half-closes
  -q SECONDS  after the end of input, wait no longer than this for more; 0 or less: for ever
  -U PATH     connect to a Unix socket
  -v          say on standard error how connecting went
  -w SECONDS  wait no longer than this to be connected, or for anything to be sent or received
  -z          only check that the server can be reached

Exit status: 0 every reply was a result, 1 at least one was an ERR, 2 wrong usage, 3 the server
could not be reached or went away before every request was answered.
"""
STDIN, STDOUT, STDERR = 0, 1, 2
CHUNK = 65536  # bytes held at a time, each way
LONGEST = 1e6  # seconds; poll() takes twice as many
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
        self.switches = ""
        self.requests: list[str] = []
        self.path: str | None = None
        self.wait: float | None = None  # seconds; None: for ever
        self.linger: float | None = None  # the same, after the end of input
        operands: list[str] = []
        words = iter(argv)
        for word in words:
            if word == "--":
                operands += words
            elif word == "-" or not word.startswith("-"):
                operands.append(word)
            else:
                letters = iter(word[1:])
                for letter in letters:
                    if letter in "46Nhvz":
                        self.switches += letter
                    elif letter not in "eqUw":
                        raise UsageError(f"there is no option -{letter}")
                    elif (value := "".join(letters) or next(words, None)) is None:
                        raise UsageError(f"-{letter} needs a value")
                    else:
                        self._set(letter, value)
        if len(operands) > (2 if self.path is None else 0):
            raise UsageError(f"one operand too many: {operands[-1]}")
        self.host, self.port = operands + ["127.0.0.1", "12000"][len(operands) :]
        if self.port.isdecimal() and (len(self.port) > 5 or not 0 < int(self.port) < 65536):
            raise UsageError(f"there is no port {self.port}")
        self.server = f"{self.host} port {self.port}" if self.path is None else self.path

    def _set(self, letter: str, value: str) -> None:
        if letter == "e":
            self.requests.append(value)
        elif letter == "U":
            self.path = value
        else:
            try:
                seconds = min(LONGEST, float(value))
            except ValueError:
                raise UsageError(f"-{letter} takes seconds, not {value}") from None
            if letter == "q":  # with 0, OpenBSD's nc gets every reply, the traditional one none
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

    def status(self, server: str, ending: str) -> int:
        """Return the exit status once `server` says no more, or ClientError if it owes a reply."""
        if self.answered < self.asked:
            missing = f"{self.asked - self.answered} of {self.asked}"
            raise ClientError(f"{server}: {ending}; requests without a reply: {missing}")
        return int(self.errors)


def reason(error: Exception) -> str:
    """Return what went wrong, in the system's words."""
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
    families = {"4": socket.AF_INET, "6": socket.AF_INET6}
    wanted = [families[switch] for switch in options.switches if switch in families]
    try:
        # As bytes: for a str the idna codec would be loaded, which is slow.
        host = options.host.encode("ascii" if options.host.isascii() else "idna")
        family = wanted[-1] if wanted else socket.AF_UNSPEC
        found = socket.getaddrinfo(host, os.fsencode(options.port), family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ClientError(f"{options.server}: name does not resolve: {reason(error)}") from None
    return [(family, address) for family, _, _, _, address in found]


def connect(options: Options) -> socket.socket:
    """Connect to the first address of the server that accepts; ClientError says why none did."""
    reasons = []
    for family, address in resolve(options):
        server = None
        try:
            server = socket.socket(family, socket.SOCK_STREAM)
            server.settimeout(options.wait)
            server.connect(address)
        except OSError as error:
            if server is not None:
                server.close()
            reasons.append(reason(error))
        else:
            if "v" in options.switches:
                complain(f"{options.server}: connection succeeded")
            return server
    hint = ": is calcd running there?" if "connection refused" in reasons else ""
    raise ClientError(f"{options.server}: {', '.join(dict.fromkeys(reasons))}{hint}")


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
                return tally.status(options.server, reason(error))
            if not chunk:
                return tally.status(options.server, "connection closed by the server")
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


def ask(server: socket.socket, requests: bytes, count: int, options: Options) -> bytes:
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


def converse(server: socket.socket, options: Options) -> int:
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
    return tally.status(options.server, "connection closed by the server")


def run(options: Options) -> int:
    """Do what the command line says; return the exit status."""
    if "h" in options.switches:
        write(HELP)
        return 0
    try:
        server = connect(options)
    except ClientError:
        if "z" in options.switches and "v" not in options.switches:
            return 3
        raise
    try:
        if "z" in options.switches:
            return 0
        if not options.requests and os.isatty(STDIN) and os.isatty(STDOUT):
            return converse(server, options)
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
