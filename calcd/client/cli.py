"""The command calcc: its options, and its exit status.

Scripts run calcc for one request, and most of that time is its start. So nothing is imported here
that a single request does not need. The options are parsed without `argparse` and `getopt`: to
import either takes 6 to 7 ms, where Python itself needs 10 to start.
"""

import os
import sys

from calcd.client import transport
from calcd.client.endpoint import Endpoint
from calcd.client.protocol import MAX_TIMEOUT, ClientError, ReplyCounter, UsageError
from calcd.client.relay import relay, relay_datagrams
from calcd.client.streams import STDERR, STDIN, STDOUT, Output, warn, write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

USAGE = """\
usage: calcc [-46uvzN] [-w SECONDS] [-q SECONDS] [-e REQUEST]... [--ssl...] [-U PATH | HOST [PORT]]

Sends requests to calcd at HOST (127.0.0.1) and PORT (12000). Requests are read from standard
input, one per line. Replies are written to standard output. On a terminal there is a prompt with
history. There, Tab completes operations and names, and inserts the last answers.
"""
OPTIONS = (
    # short, long, name of the value, meaning
    ("-4", "", "", "use IPv4 only"),
    ("-6", "", "", "use IPv6 only"),
    ("-e", "", "REQUEST", "send this request instead of standard input; may be repeated"),
    ("-h", "--help", "", "print this help"),
    ("-N", "", "", "ignored, for compatibility with netcat: the end of input always half-closes"),
    ("-q", "", "SECONDS", "timeout after the end of input; 0 or less: none"),
    ("-u", "", "", "use UDP: one datagram for each request, sent up to three times"),
    ("-U", "", "PATH", "connect to a Unix socket"),
    ("-v", "", "", "report on standard error when connected"),
    ("-w", "", "SECONDS", "timeout to connect, then of each wait for data; UDP: of each reply (5)"),
    ("-z", "", "", "only check that the server can be reached"),
    ("", "--ssl", "", "use TLS, 1.2 or later; implied by each of the following"),
    ("", "--ssl-trustfile", "FILE", "trust the certificates in FILE (PEM), not the system's"),
    ("", "--ssl-servername", "NAME", "expect a certificate for NAME, not for HOST; also sent"),
    ("", "--ssl-cert", "FILE", "present this certificate and its chain (PEM)"),
    ("", "--ssl-key", "FILE", "the private key of the certificate, if it is in another file"),
    ("", "--ssl-noverify", "", "accept any certificate"),
)
NOTES = """\
Exit status: 0 if every reply is a result, 1 if at least one is an ERR, 2 for wrong usage, 3 if
the server cannot be reached, or closes before every request has its reply.

Examples:
  calcc -e 'SOMA 0.1 0.2'                      one request: 0.3
  calcc -e 'DIV 1 3' -e 'MUL 1.20 3'           two requests
  tax=$(calcc -e 'MUL 19.99 0.23') || exit     in a script
  sed 's/^/MUL 1.23 /' prices.txt | calcc      a column of numbers, each multiplied
  calcc < sums.txt > results.txt               a file of requests; with tqdm it shows progress
  calcc -U /run/calcd/calcd.sock -e PING       through a Unix socket
  calcc --ssl-trustfile ca.pem calcd.example 12001 < sums.txt     over TLS
"""
# The value's name by each name of an option; empty if it takes none.
VALUES = {name: row[2] for row in OPTIONS for name in row[:2] if name}


def help_text() -> str:
    """Return the help, made from the table of options."""
    import textwrap

    lines = []
    for short, long, value, meaning in OPTIONS:
        names = ", ".join(filter(None, (short, long)))
        label = f"  {names} {value}".rstrip()
        width = 14 if short else 26
        indent = " " * width
        text = textwrap.fill(meaning, 99, initial_indent=indent, subsequent_indent=indent)
        if long == "--ssl":
            lines.append("")
        lines.append(label.ljust(width) + text[width:])
    return "\n".join([USAGE, *lines, "", NOTES])


class Options:
    """The parsed command line. Options may share a dash and follow HOST, as netcat's do."""

    def __init__(self, argv: list[str]) -> None:
        self._given: list[tuple[str, str]] = []  # options with their values, in order
        operands = self._parse(argv)
        values = dict(self._given)  # the last of each
        self.help = "-h" in values or "--help" in values
        requests = [os.fsencode(value) + b"\n" for name, value in self._given if name == "-e"]
        self.requests = b"".join(requests)
        self.linger: float | None = None  # timeout in seconds after the end of input
        timeout = None
        family = ""
        for name, value in self._given:
            if name == "-q":  # with 0, OpenBSD's nc gets every reply, the traditional one none
                self.linger = max(0, seconds(name, value)) or None
            elif name == "-w":
                timeout = seconds(name, value)
                if timeout <= 0:
                    raise UsageError(f"-w takes more than 0 seconds, not {value}")
            elif name in transport.FAMILIES:
                family = name
        path = values.get("-U")
        if len(operands) > (2 if path is None else 0):
            raise UsageError(f"one operand too many: {operands[-1]}")
        host, port = operands + ["127.0.0.1", "12000"][len(operands) :]
        if port.isdecimal() and (len(port) > 5 or not 0 < int(port) < 65536):
            raise UsageError(f"invalid port {port}")
        tls = any(name.startswith("--ssl") for name in values)
        if "-u" in values and (tls or path is not None):
            raise UsageError(f"-u cannot be used with {'--ssl' if tls else '-U'}")
        self.endpoint = endpoint = Endpoint(host, port, path)
        endpoint.family, endpoint.timeout = family, timeout
        endpoint.udp, endpoint.verbose, endpoint.check_only = (
            name in values for name in ("-u", "-v", "-z")
        )
        if tls:
            endpoint.servername = values.get("--ssl-servername", endpoint.servername)
            files = {name: value for name, value in values.items() if VALUES[name] == "FILE"}
            verify = "--ssl-noverify" not in values
            from calcd.client.tls import tls_context

            endpoint.tls = tls_context(files, endpoint.servername, verify=verify)

    def _parse(self, argv: list[str]) -> list[str]:
        """Split the command line into options with their values, and operands."""
        operands: list[str] = []
        words = iter(argv)
        for word in words:
            if word == "--":
                operands += words
            elif word == "-" or not word.startswith("-"):
                operands.append(word)
            elif word.startswith("--"):
                name, equals, value = word.partition("=")
                self._add(name, value, words)
                if equals and not VALUES[name]:
                    raise UsageError(f"{name} takes no value")
            else:
                letters = iter(word[1:])
                for letter in letters:
                    self._add(f"-{letter}", letters, words)
        return operands

    def _add(self, name: str, attached: "Iterable[str]", words: "Iterator[str]") -> None:
        """Add an option. Its value is the attached text, else the next word."""
        if name not in VALUES:
            raise UsageError(f"unknown option {name}")
        value = ("".join(attached) or next(words, None)) if VALUES[name] else ""
        if value is None:
            raise UsageError(f"{name} needs a value")
        self._given.append((name, value))


def seconds(name: str, value: str) -> float:
    """Return the value of an option in seconds."""
    try:
        return min(MAX_TIMEOUT, float(value))
    except ValueError:
        raise UsageError(f"{name} takes seconds, not {value}") from None


def run(options: Options) -> int:
    """Do what the command line asks for. Return the exit status."""
    endpoint = options.endpoint
    if options.help:
        write_output(help_text().encode())
        return 0
    try:
        server = transport.connect(endpoint)
    except ClientError:
        if endpoint.check_only and not endpoint.verbose:
            return 3
        raise
    try:
        if endpoint.check_only:
            return 0
        if not options.requests and os.isatty(STDIN) and os.isatty(STDOUT):
            from calcd.client.prompt import run_prompt

            return run_prompt(server, endpoint)
        counter = ReplyCounter()
        if not options.requests and os.isatty(STDERR):
            from calcd.client.progress import Progress

            counter = Progress()
        try:
            with Output() as output:
                if isinstance(server, transport.UDP):
                    return relay_datagrams(server, endpoint, options.requests, counter, output)
                return relay(server, endpoint, options.requests, options.linger, counter, output)
        finally:
            counter.close()
    finally:
        server.close()


def exit_by_signal(name: str) -> int:
    """End the process by a signal, as other tools do, so that the shell sees why."""
    import signal

    number = signal.Signals[name]
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    return 128 + number  # the signal is blocked


def main(argv: list[str] | None = None) -> int:
    """Run calcc with these arguments, by default those of the process. Return its exit status."""
    try:
        for number in (STDIN, STDOUT, STDERR):
            try:
                os.fstat(number)
            except OSError:  # closed: a socket would get its number
                os.open(os.devnull, os.O_RDONLY)
        return run(Options(sys.argv[1:] if argv is None else argv))
    except UsageError as error:
        warn(f"{error}; see calcc -h")
        return 2
    except ClientError as error:
        warn(str(error))
        return 3
    except BrokenPipeError:
        return exit_by_signal("SIGPIPE")
    except KeyboardInterrupt:
        return exit_by_signal("SIGINT")
