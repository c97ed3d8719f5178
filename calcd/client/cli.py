"""The command calcc: its options, and its exit status.

Scripts run calcc for one request, and most of that time is its start. So nothing is imported here
that a single request does not need. The options are parsed without `argparse` and `getopt`: to
import either takes 6 to 7 ms, where Python itself needs 10 to start.
"""

import os
import sys

from calcd.client import transport
from calcd.client.endpoint import Endpoint
from calcd.client.protocol import BLANKS, MAX_TIMEOUT, ClientError, ReplyCounter, UsageError
from calcd.client.relay import Relay, relay_datagrams
from calcd.client.streams import (
    STDERR,
    STDIN,
    STDOUT,
    Output,
    SplitOutput,
    warn,
    write_output,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

USAGE = """\
usage: calcc [-46NQuvz] [-w SECONDS] [-q SECONDS] [-e REQUEST]... [--ssl...]
             [-U PATH | HOST [PORT]]

Sends requests to calcd at HOST (127.0.0.1) and PORT (12000). Requests are read from standard
input, one per line. Replies are written to standard output. On a terminal there is a prompt with
history. There, Tab completes operations and names, and inserts the last answers.
"""
OPTIONS = (
    # name, name of its value, meaning
    ("-4", "", "use IPv4 only"),
    ("-6", "", "use IPv6 only"),
    (
        "-e",
        "REQUEST",
        "send this instead of standard input; errors go to standard error; repeatable",
    ),
    ("-h, --help", "", "print this help"),
    ("-N", "", "ignored, for compatibility with netcat: the end of input always half-closes"),
    ("-Q", "", "do not tell at the end of the input how many replies are errors"),
    ("-q", "SECONDS", "timeout after the end of input; 0 or less: none"),
    ("-u", "", "use UDP: one datagram for each request, sent up to three times"),
    ("-U", "PATH", "connect to a Unix socket"),
    ("-v", "", "report on standard error when connected"),
    ("-w", "SECONDS", "timeout to connect, then of each wait for a reply (UDP: 5)"),
    ("-z", "", "only check that the server can be reached"),
)
TLS_OPTIONS = (
    ("--ssl", "", "use TLS, 1.2 or later; implied by each of the following"),
    ("--ssl-trustfile", "FILE", "trust the certificates in FILE (PEM), not the system's"),
    ("--ssl-servername", "NAME", "expect a certificate for NAME, not for HOST; also sent"),
    ("--ssl-cert", "FILE", "present this certificate and its chain (PEM)"),
    ("--ssl-key", "FILE", "the private key of the certificate, if it is in another file"),
    ("--ssl-noverify", "", "accept any certificate"),
)
NOTES = """\
Exit status: 0 if every reply is a result, 1 if at least one is an ERR, 2 for wrong usage, 3 if
the server cannot be reached, or if a part of the input was not asked or has no reply.

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
VALUES = {name: row[1] for row in OPTIONS + TLS_OPTIONS for name in row[0].split(", ")}


def help_text() -> str:
    """Return the help, made from the tables of options."""
    lines = [f"  {f'{names} {value}':<12}{meaning}" for names, value, meaning in OPTIONS]
    tls_lines = [f"  {f'{name} {value}':<24}{meaning}" for name, value, meaning in TLS_OPTIONS]
    return "\n".join([USAGE, *lines, "", *tls_lines, "", NOTES])


class Options:
    """The parsed command line. Options may share a dash and follow HOST, as netcat's do."""

    def __init__(self, argv: list[str]) -> None:
        operands: list[str] = []
        requests: list[bytes] = []
        values: dict[str, str] = {}  # the last of each option
        timeout = None
        family = ""
        self.linger: float | None = None  # timeout in seconds after the end of input
        for name, value in parse(argv):
            values[name] = value
            if name == "":
                operands.append(value)
            elif name == "-e":
                requests.append(os.fsencode(value) + b"\n")
                if not requests[-1].translate(None, BLANKS + b"\n"):
                    raise UsageError(f"-e {value!r} asks nothing")
            elif name == "-q":  # with 0, OpenBSD's nc gets every reply, the traditional one none
                self.linger = max(0, seconds(name, value)) or None
            elif name == "-w":
                timeout = seconds(name, value)
                if timeout <= 0:
                    raise UsageError(f"-w takes more than 0 seconds, not {value}")
            elif name in transport.FAMILIES:
                family = name
        self.quiet = "-Q" in values
        self.help = "-h" in values or "--help" in values
        self.requests = b"".join(requests)
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
            from calcd.client.tls import tls_context

            endpoint.servername = values.get("--ssl-servername", endpoint.servername)
            endpoint.tls = tls_context(values, endpoint.servername)


def parse(argv: list[str]) -> "Iterator[tuple[str, str]]":
    """Yield each option with its value, and each operand with an empty name."""
    words = iter(argv)
    for word in words:
        if word == "--":
            for operand in words:
                yield "", operand
        elif word == "-" or not word.startswith("-"):
            yield "", word
        elif word.startswith("--"):
            name, equals, attached = word.partition("=")
            yield name, option_value(name, attached, words)
            if equals and not VALUES[name]:
                raise UsageError(f"{name} takes no value")
        else:
            letters = iter(word[1:])
            for letter in letters:
                yield f"-{letter}", option_value(f"-{letter}", letters, words)


def option_value(name: str, attached: "Iterable[str]", words: "Iterator[str]") -> str:
    """Return the value of an option: the attached text, else the next word."""
    if name not in VALUES:
        raise UsageError(f"unknown option {name}")
    value = ("".join(attached) or next(words, None)) if VALUES[name] else ""
    if value is None:
        raise UsageError(f"{name} needs a value")
    return value


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
        return relay(server, options)
    finally:
        server.close()


def relay(server: transport.Transport, options: Options) -> int:
    """Ask the requests of the command line, or standard input. Return the exit status."""
    endpoint, requests = options.endpoint, options.requests
    counter = ReplyCounter()
    if not requests and os.isatty(STDERR):
        from calcd.client.progress import Progress

        counter = Progress()
    counter.add_arguments(requests)
    failure = None
    try:
        with SplitOutput(counter.arguments) if requests else Output() as output:
            if isinstance(server, transport.UDP):
                status = relay_datagrams(server, endpoint, requests, counter, output)
            else:
                status = Relay(server, endpoint, requests, options.linger, counter, output).run()
    except ClientError as error:
        failure = error
    finally:
        counter.close()
    if not options.quiet and (summary := counter.error_summary()):
        warn(summary)
    if failure is not None:
        raise failure
    return status


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
