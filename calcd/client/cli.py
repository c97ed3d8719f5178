"""The command calcc: its options, and its exit status.

Scripts run calcc for one request, and most of that time is its start. So nothing is imported here
that a single request does not need. The options are parsed without `argparse` and `getopt`: to
import either takes 6 ms, where Python itself needs 10 to start.
"""

import os
import sys

from calcd.client import transport
from calcd.client.counting import ReplyCounter
from calcd.client.endpoint import DEFAULT_HOST, DEFAULT_PORT, Endpoint, is_port
from calcd.client.protocol import IGNORED, MAX_TIMEOUT, ClientError, UnknownHostError, UsageError
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

    from calcd.client.columns import Columns

USAGE = """\
usage: calcc [-46NQuvz] [-w SECONDS] [-q SECONDS] [--retry SECONDS] [--ssl...] [-e REQUEST]...
             [-U PATH | HOST [PORT]] [-]
       calcc [--fold OPERATION] [--each TEMPLATE] [-F SEP] [--skip-bad] [-e REQUEST]...

Sends requests to calcd at HOST (127.0.0.1) and PORT (12000). Requests are read from standard
input, one per line. Replies are written to standard output. On a terminal there is a prompt with
history. There, Tab completes operations and names, and inserts the last answers.

In place of HOST there may be HOST:PORT, [::1]:12000, or a URL: tcp://, tls:// or udp:// and
HOST:PORT, or unix:///PATH. The variable CALCD_SERVER has the same for when there is no HOST. After
-e requests, a last operand - stands for those of standard input.

With --fold or --each, standard input is a column of numbers or a table. Requests of -e are asked
first: calcc -e 'ROUNDING half-up' --each 'round({} * 0.23, 2)'. With both, what each row comes to
is folded.
"""
OPTIONS = (
    # name, long form of a letter, name of its value, meaning
    ("-4", "--ipv4", "", "use IPv4 only"),
    ("-6", "--ipv6", "", "use IPv6 only"),
    (
        "-e",
        "--request",
        "REQUEST",
        "send this instead of standard input; errors go to standard error",
    ),
    ("-h", "--help", "", "print this help"),
    ("-N", "--half-close", "", "no effect: the end of the input always half-closes"),
    ("-Q", "--quiet", "", "do not tell at the end of the input how many replies are errors"),
    ("-q", "--eof-timeout", "SECONDS", "timeout after the end of input; 0 or less: none"),
    ("-u", "--udp", "", "use UDP: one datagram for each request, sent up to three times"),
    ("-U", "--unix-socket", "PATH", "connect to a Unix socket"),
    ("-v", "--verbose", "", "report on standard error when connected"),
    ("-V", "--version", "", "print the version"),
    ("-w", "--timeout", "SECONDS", "timeout to connect, then of each wait for a reply (UDP: 5)"),
    ("-z", "--check", "", "only check that the server can be reached"),
    ("--retry", "", "SECONDS", "wait for a server that is not there yet"),
)
COLUMN_OPTIONS = (
    ("--fold", "", "OPERATION", "read numbers, print one: their SOMA, MIN, MAX, MUL or MEDIA"),
    ("--each", "", "TEMPLATE", "ask this for each row: {} is the row, {2} its second field"),
    ("-F", "--field-separator", "SEP", "what separates the fields of a row; blanks if not given"),
    ("--skip-bad", "", "", "leave out rows that are wrong, and count them"),
)
TLS_OPTIONS = (
    ("--ssl", "", "", "use TLS, 1.2 or later; implied by each of the following"),
    ("--ssl-trustfile", "", "FILE", "trust the certificates in FILE (PEM), not the system's"),
    ("--ssl-servername", "", "NAME", "expect a certificate for NAME, not for HOST; also sent"),
    ("--ssl-cert", "", "FILE", "present this certificate and its chain (PEM)"),
    ("--ssl-key", "", "FILE", "the private key of the certificate, if it is in another file"),
    ("--ssl-noverify", "", "", "accept any certificate"),
)
NOTES = """\
Exit status: 0 if every reply is a result, 1 if at least one is an ERR, 2 for wrong usage, 3 if
the server cannot be reached, or if a part of the input was not asked or has no reply.

Examples:
  calcc -e 'SOMA 0.1 0.2'                      one request: 0.3
  calcc -e 'DIV 1 3' -e 'MUL 1.20 3'           two requests
  tax=$(calcc -e 'MUL 19.99 0.23') || exit     in a script
  calcc --fold SOMA < prices.txt               the sum of a column of numbers
  calcc --each 'round({} * 0.23, 2)' < prices.txt                 the tax of each
  calcc -F, --each '{2} * {3}' --fold SOMA < orders.csv           the sum of price times amount
  calcc < sums.txt > results.txt               a file of requests; with tqdm it shows progress
  calcc -e 'PRECISION 50' - < sums.txt         a request before those of a file
  calcc -U /run/calcd/calcd.sock -e PING       through a Unix socket
  calcc --ssl-trustfile ca.pem calcd.example 12001 < sums.txt     over TLS
"""
PLAIN = ("127.0.0.1", "localhost")  # hosts that are most often asked
# By each name of an option: the first of its row, which stands for it in the code, and the name of
# its value, empty if it takes none.
NAMES = {
    name: (first, value)
    for first, long, value, _ in OPTIONS + COLUMN_OPTIONS + TLS_OPTIONS
    for name in (first, long)
    if name
}


def help_text() -> str:
    """Return the help, made from the tables of options."""
    lines = []
    for table in OPTIONS, COLUMN_OPTIONS, TLS_OPTIONS:
        for first, long, value, meaning in table:
            names = f"{first}, {long}" if long else first
            lines.append(f"  {f'{names} {value}':<29} {meaning}")
        lines.append("")
    return "\n".join([USAGE, *lines, NOTES])


class Options:
    """The parsed command line. Options may share a dash and follow HOST, as netcat's do."""

    columns: "Columns | None" = None

    def __init__(self, argv: list[str]) -> None:
        operands: list[str] = []
        requests: list[bytes] = []
        values: dict[str, str] = {}  # the last of each option
        timeout = None
        retry = 0.0
        family = ""
        self.linger: float | None = None  # timeout in seconds after the end of input
        for option, name, value in parse(argv):
            values[option] = value
            if option == "":
                operands.append(value)
            elif option == "-e":
                requests.append(os.fsencode(value) + b"\n")
                if not requests[-1].translate(None, IGNORED + b"\n"):
                    raise UsageError(f"{name} {value!r} asks nothing")
            elif option == "-q":  # with 0, OpenBSD's nc gets every reply, the traditional one none
                self.linger = max(0, seconds(name, value)) or None
            elif option == "-w":
                timeout = seconds(name, value)
                if timeout <= 0:
                    raise UsageError(f"{name} takes more than 0 seconds, not {value}")
            elif option == "--retry":
                retry = seconds(name, value)
                if retry < 0:
                    raise UsageError(f"{name} takes 0 seconds or more, not {value}")
            elif option == "-U" and not value:
                raise UsageError(f"{name} needs a path, not ''")
            elif option in transport.FAMILIES:
                family = option
        self.quiet = "-Q" in values
        self.help, self.version = "-h" in values, "-V" in values
        if self.help or self.version:
            return
        self.requests = b"".join(requests)
        self.reads_input = not requests or operands[-1:] == ["-"]
        if operands[-1:] == ["-"]:
            del operands[-1]
        self.operands = operands
        scheme, host, port, path = self._find_server(values, udp="-u" in values)
        tls = scheme == "tls" or any(name.startswith("--ssl") for name in values)
        udp = scheme == "udp" or "-u" in values
        if udp and (tls or path is not None or scheme == "tcp"):
            first = "-u" if "-u" in values else "udp://"
            second = f"{scheme}://" if scheme not in ("", "udp") else "--ssl" if tls else "-U"
            raise UsageError(f"{first} cannot be used with {second}")
        if any(name in values for name, *_ in COLUMN_OPTIONS):
            from calcd.client.columns import Columns

            self.columns = Columns(values, self.requests, self.linger, udp)
            self.reads_input = True
        self.endpoint = endpoint = Endpoint(host, port, path)
        endpoint.family, endpoint.timeout, endpoint.retry = family, timeout, retry
        endpoint.udp, endpoint.verbose, endpoint.check_only = udp, "-v" in values, "-z" in values
        if tls:
            from calcd.client.tls import tls_context

            endpoint.servername = values.get("--ssl-servername", endpoint.servername)
            endpoint.tls = tls_context(values, endpoint.servername)

    def _find_server(
        self, values: dict[str, str], *, udp: bool
    ) -> tuple[str, str, str, str | None]:
        """Return the scheme, the host, the port and the path of the server."""
        path = values.get("-U")
        operands, environment = self.operands, os.environ.get("CALCD_SERVER", "")
        if not operands and (path is not None or not environment):
            return "", DEFAULT_HOST, DEFAULT_PORT, path
        if path is None and len(operands) == 2 and operands[0] in PLAIN and is_port(operands[1]):
            return "", operands[0], operands[1], None
        from calcd.client.operands import find_server

        column_options = {name: values[name] for name, *_ in COLUMN_OPTIONS if name in values}
        return find_server(operands, path, environment, column_options, udp=udp)


def parse(argv: list[str]) -> "Iterator[tuple[str, str, str]]":
    """Yield each option, the name that stands for it on the command line, and its value.

    The option is the first name of its row, and for an operand both are empty.
    """
    words = iter(argv)
    for word in words:
        if word == "--":
            for operand in words:
                yield "", "", operand
        elif word == "-" or not word.startswith("-"):
            yield "", "", word
        elif word.startswith("--"):
            name, equals, attached = word.partition("=")
            yield option_value(name, attached, iter([attached]) if equals else words)
            if equals and not NAMES[name][1]:
                raise UsageError(f"{name} takes no value")
        else:
            letters = iter(word[1:])
            for letter in letters:
                if f"-{letter}" not in NAMES and word[1] in "0123456789.(":
                    from shlex import quote

                    raise UsageError(f"{word} is no option: calcc -e {quote(word)} asks it")
                yield option_value(f"-{letter}", letters, words)


def option_value(
    name: str, attached: "Iterable[str]", words: "Iterator[str]"
) -> tuple[str, str, str]:
    """Return the option, its name and its value: the attached text, else the next word."""
    if name not in NAMES:
        raise UsageError(f"unknown option {name}")
    option, takes = NAMES[name]
    value = ("".join(attached) or next(words, None)) if takes else ""
    if value is None:
        raise UsageError(f"{name} needs a value")
    return option, name, value


def seconds(name: str, value: str) -> float:
    """Return the value of an option in seconds."""
    try:
        number = float(value)
        if number != number:
            raise ValueError("nan")
    except ValueError:
        raise UsageError(f"{name} takes seconds, not {value}") from None
    return min(MAX_TIMEOUT, number)


def run(options: Options) -> int:
    """Do what the command line asks for. Return the exit status."""
    if options.help:
        write_output(help_text().encode())
        return 0
    if options.version:
        from calcd import __version__

        write_output(f"calcc {__version__}\n".encode())
        return 0
    endpoint = options.endpoint
    try:
        server = transport.connect(endpoint)
    except ClientError as error:
        if endpoint.check_only and not endpoint.verbose:
            return 3
        if isinstance(error, UnknownHostError):
            from calcd.client.operands import hint

            raise ClientError(f"{error}{hint(options.operands)}") from error
        raise
    try:
        if endpoint.check_only:
            return 0
        if options.columns:
            return ask_rows(server, endpoint, options.columns)
        if not options.requests and os.isatty(STDIN) and os.isatty(STDOUT):
            from calcd.client.prompt import run_prompt

            return run_prompt(server, endpoint)
        return ask(server, options)
    finally:
        server.close()


def ask(server: transport.Transport, options: Options) -> int:
    """Ask the requests of the command line, or standard input. Return the exit status."""
    endpoint, requests, reads_input = options.endpoint, options.requests, options.reads_input
    counter = counter_of(reads_input)
    counter.add_arguments(requests)
    failure = None
    try:
        split = counter.arguments if reads_input else -1
        with SplitOutput(split) if requests else Output() as output:
            if isinstance(server, transport.UDP):
                status = relay_datagrams(
                    server, endpoint, requests, counter, output, reads_input=reads_input
                )
            else:
                linger = options.linger
                relay = Relay(
                    server, endpoint, requests, linger, counter, output, reads_input=reads_input
                )
                status = relay.run()
    except ClientError as error:
        failure = error
    finally:
        counter.close()
    if not options.quiet and (summary := counter.error_summary()):
        warn(summary)
    if endpoint.verbose and not reads_input and pipe_has_input():
        warn("standard input was not read: a last operand - lets it follow the requests of -e")
    if failure is not None:
        raise failure
    return status


def ask_rows(server: transport.Transport, endpoint: Endpoint, columns: "Columns") -> int:
    """Ask what the columns of standard input ask for. Return the exit status."""
    counter = counter_of(reads_input=True)
    try:
        with Output() as output:
            return columns.run(server, endpoint, counter, output)
    finally:
        counter.close()


def counter_of(reads_input: bool) -> ReplyCounter:
    """Return what counts requests and replies, and shows progress on a terminal."""
    if reads_input and os.isatty(STDERR):
        from calcd.client.progress import Progress

        return Progress()
    return ReplyCounter()


def pipe_has_input() -> bool:
    """Return whether standard input is a pipe with something to read."""
    import select
    import stat

    poll = select.poll()
    poll.register(STDIN, select.POLLIN)
    ready = dict(poll.poll(0)).get(STDIN, 0) & select.POLLIN
    return bool(ready) and stat.S_ISFIFO(os.fstat(STDIN).st_mode)


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
