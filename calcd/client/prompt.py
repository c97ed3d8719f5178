"""The prompt on a terminal. With readline it has history and completion."""

import io
import os
import re
import select
import signal
import sys
from contextlib import contextmanager, suppress

from calcd.client import transport
from calcd.client.completion import HELP, Completer
from calcd.client.endpoint import Endpoint
from calcd.client.promptsession import NoReplyError, PromptSession
from calcd.client.protocol import CHUNK, ClientError, describe, is_error
from calcd.client.streams import STDIN, STDOUT, Output, printable, warn, write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

try:
    import readline

    READLINE = True
except ImportError:
    READLINE = False

HISTORY_FILE, HISTORY_LINES = os.path.expanduser("~/.calcc_history"), 1000
IN_PORTUGUESE = b"LANGUAGE pt\n"
INDENT = "  "  # of the lines of help, but the first
ENDINGS = (signal.SIGHUP, signal.SIGTERM)


class Terminated(BaseException):
    """A signal has come that ends the program."""


def run_prompt(server: transport.Transport, endpoint: Endpoint) -> int:
    """Send each line that is typed, and write its reply. Return the exit status."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # the server decides what is text
    session = PromptSession(server, endpoint, setup_of(os.environ, endpoint))
    try:
        with saved_history():
            return Prompt(session).run()
    except ConnectionAbortedError as error:
        raise ClientError(f"{endpoint.name}: {describe(error)}") from None
    except Terminated as ending:
        (number,) = ending.args
        signal.raise_signal(number)  # so that the shell sees why
        return 128 + int(number)  # the signal is blocked
    finally:
        session.close()


class Prompt:
    """Reads lines from the terminal, and shows the replies there."""

    def __init__(self, session: PromptSession) -> None:
        self._session = session
        self._completer = Completer(session)
        self._colour = colour_of_errors(os.environ)
        self._has_errors = False  # at least one reply was an ERR

    def run(self) -> int:
        """Greet, and ask what is typed, until `QUIT` or the end. Return the exit status."""
        session = self._session
        if READLINE:
            self._completer.install()
        name = printable(session.endpoint.name)
        version = session.greet() or "server"
        write_output(f"{version} at {name}: HELP lists its topics, Ctrl-D ends\n".encode())
        offered: list[str] = []
        while not session.ended:
            try:
                line = read_line("\n".join(offered))
            except KeyboardInterrupt:
                write_output(b"\n")
                offered = []
                continue
            except EOFError:
                write_output(b"\n")
                break
            # More than one if newlines were pasted.
            lines = [part for part in line.split("\n") if part.strip(" \t\r\0")]
            if lines:
                self._ask(lines)
            offered = session.unanswered if lines else []
        if session.ended and session.unanswered:
            warn(f"{name}: lines behind QUIT, which were not asked: {len(session.unanswered)}")
        return 3 if session.unanswered else int(self._has_errors)

    def _ask(self, lines: list[str]) -> None:
        """Ask lines, and show the replies."""
        try:
            for request, reply in self._session.ask(lines):
                self._has_errors = self._has_errors or is_error(reply)
                self._completer.add_answer(reply.decode(errors="replace"))
                self._show(request, reply)
        except NoReplyError as error:
            warn(str(error))
        except KeyboardInterrupt:
            self._session.close()  # a late reply would be taken for that to the next line
            write_output(b"\n")

    def _show(self, request: str, reply: bytes) -> None:
        """Write a reply: an error in its colour, help in lines that fit."""
        reply = reply.removesuffix(b"\r")
        start, end = self._colour if is_error(reply) else (b"", b"")
        if request.strip(" \t").upper().startswith(HELP) and len(reply) <= CHUNK:
            width = os.get_terminal_size(STDOUT).columns or len(reply)
            reply = wrap(reply.decode(errors="backslashreplace"), width).encode()
        try:
            write_output(start)
            with Output() as output:
                output.write(reply)
        finally:
            write_output(end + b"\n")


def read_line(offered: str) -> str:
    """Return what is typed, given a text that is there to begin with."""

    def insert() -> None:
        if not select.select([STDIN], [], [], 0)[0]:  # what was typed ahead would go on from it
            readline.insert_text(offered)

    if READLINE:
        readline.set_startup_hook(insert if offered else None)
    return input("calcc> ")


@contextmanager
def saved_history() -> "Iterator[None]":
    """Read the history, and save it at the end, which may be SIGHUP or SIGTERM."""

    def end(number: int, _frame: object) -> None:
        for each in ENDINGS:  # one that comes again must not keep the history from being saved
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    caught = [each for each in ENDINGS if signal.getsignal(each) == signal.SIG_DFL]
    for each in caught:
        signal.signal(each, end)
    if READLINE:
        readline.set_history_length(HISTORY_LINES)
        with suppress(OSError):
            readline.read_history_file(HISTORY_FILE)
    try:
        yield
    finally:
        if READLINE:
            with suppress(OSError):
                readline.write_history_file(HISTORY_FILE)
        for each in caught:
            signal.signal(each, signal.SIG_DFL)


def setup_of(environment: "Mapping[str, str]", endpoint: Endpoint) -> bytes:
    """Return what a connection begins with: a request for the language of the locale, if any.

    Over UDP each request has a session of its own, which it would not reach.
    """
    chosen = [environment.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG")]
    locale = next(filter(None, chosen), "")  # as gettext looks it up
    is_portuguese = re.match(r"pt(?![A-Za-z])", locale) is not None
    return IN_PORTUGUESE if is_portuguese and not endpoint.udp else b""


def colour_of_errors(environment: "Mapping[str, str]") -> tuple[bytes, bytes]:
    """Return what begins and ends red text on this terminal.

    Both are empty if the terminal has no colours, or if NO_COLOR is set: https://no-color.org.
    """
    if environment.get("NO_COLOR"):
        return b"", b""
    try:
        import curses
    except ImportError:  # a part of Python that may be missing
        return b"", b""
    try:
        curses.setupterm(fd=STDOUT)
    except curses.error:  # an unknown terminal
        return b"", b""
    start, end = curses.tigetstr("setaf"), curses.tigetstr("op")
    return (curses.tparm(start, curses.COLOR_RED), end) if start and end else (b"", b"")


def wrap(text: str, width: int) -> str:
    """Return a text in lines of at most this width, where its words allow.

    It is broken at blanks, and a word that is longer than a line behind a vertical bar.
    """
    lines = [""]
    for word in re.findall(r"[^ ]+ *", text):
        is_long = len(word) > width - len(INDENT)
        for part in re.split(r"(?<=\|)", word) if is_long else [word]:
            if lines[-1].strip() and len(lines[-1]) + len(part.rstrip(" ")) > width:
                lines.append(INDENT)
            lines[-1] += part
    return "\n".join(line.rstrip(" ") for line in lines)
