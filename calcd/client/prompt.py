"""The prompt on a terminal. With readline it has history and completion."""

import io
import os
import re
import select
import sys
from contextlib import suppress

from calcd.client import transport
from calcd.client.endpoint import Endpoint
from calcd.client.protocol import (
    CHUNK,
    CLOSED,
    STATE_LOST,
    ClientError,
    ReplyCounter,
    ReplySplitter,
    SessionState,
    describe,
)
from calcd.client.streams import STDIN, Output, warn, write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

try:
    import readline

    READLINE = True
except ImportError:
    READLINE = False

HISTORY_FILE, HISTORY_LINES = os.path.expanduser("~/.calcc_history"), 1000
IN_PORTUGUESE = b"LANGUAGE pt\n"
HELP, QUIT = ("HELP", "AJUDA"), ("QUIT", "EXIT", "SAIR")
HELP_TIMEOUT = 1.0  # seconds; the Tab key waits for the server once
MAX_TOPICS = 20  # of HELP that are asked for
MAX_ANSWERS, MAX_ANSWER_SIZE = 10, 2000  # answers that the Tab key offers, characters of each
NUMBER, OPERATION = r"[-+]?[0-9.]+(E[-+]?[0-9]+)?", r"\b[A-Z][A-Z0-9]+\b"  # in replies
# Where a word starts. Not at + and -: -1E+3 is one word.
WORD_DELIMITERS = " \t\n*/%^(),=<>!"


def run_prompt(server: transport.Transport, endpoint: Endpoint) -> int:
    """Send each line that is typed, and write its reply. Return the exit status."""
    counter = ReplyCounter()
    state = SessionState()
    greeting = greeting_of(os.environ, endpoint)
    completer = Completer(endpoint, state, greeting)
    if READLINE:
        completer.install()
        readline.set_history_length(HISTORY_LINES)
        with suppress(OSError):
            readline.read_history_file(HISTORY_FILE)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # the server decides what is text
    try:
        while True:
            try:
                line = input("calcc> ")
            except KeyboardInterrupt:
                write_output(b"\n")
                continue
            except EOFError:
                write_output(b"\n")
                break
            # More than one if newlines were pasted.
            lines = [part for part in line.split("\n") if part.strip(" \t\r")]
            if not lines:
                continue
            requests = line.encode(errors="surrogateescape") + b"\n"
            is_first = counter.requests == 0
            counter.add_requests(requests)
            if is_first:
                replies = first_exchange(server, greeting, requests, len(lines), endpoint)
            else:
                replies = exchange(server, requests, len(lines), endpoint, reused=True)
            if not replies:
                # The server closes idle connections. Sending the request again is harmless.
                server.close()
                server = transport.connect(endpoint)
                if state.affects([line]):
                    warn(STATE_LOST)
                state.reset()
                replies = first_exchange(server, greeting, requests, len(lines), endpoint)
            counter.add_replies(replies)
            with Output() as output:
                output.write(replies)
            reply_lines = replies.decode(errors="replace").split("\n")[:-1]
            for request, reply in zip(lines, reply_lines, strict=False):
                state.record(request, reply)
                completer.add_answer(reply)
            if len(reply_lines) < len(lines) or line.strip(" \t").upper() in QUIT:
                break
    finally:
        server.close()
        if READLINE:
            with suppress(OSError):
                readline.write_history_file(HISTORY_FILE)
    return counter.exit_status(endpoint.name, CLOSED, endpoint.hint())


def greeting_of(environment: "Mapping[str, str]", endpoint: Endpoint) -> bytes:
    """Return what a connection begins with: a request for the language of the locale, if any.

    Over UDP each request has a session of its own, which it would not reach.
    """
    chosen = [environment.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG")]
    locale = next(filter(None, chosen), "")  # as gettext looks it up
    is_portuguese = re.match(r"pt(?![A-Za-z])", locale) is not None
    return IN_PORTUGUESE if is_portuguese and not endpoint.udp else b""


def first_exchange(
    server: transport.Transport, greeting: bytes, requests: bytes, count: int, endpoint: Endpoint
) -> bytes:
    """Do the first `exchange` of a connection, after its greeting, whose reply is left out.

    An error in place of all replies is that of a server that does not serve this client.
    """
    if not greeting:
        return exchange(server, requests, count, endpoint)
    replies = exchange(server, greeting + requests, count + 1, endpoint)
    _, _, others = replies.partition(b"\n")
    return replies if replies.startswith(b"ERR ") and not others else others


def exchange(
    server: transport.Transport,
    requests: bytes,
    count: int,
    endpoint: Endpoint,
    *,
    reused: bool = False,
) -> bytes:
    """Return the replies to `count` requests, fewer if the server has closed the connection.

    `reused` tells that this is not the first exchange: the server may not have sent anything since.
    Raise ClientError on a timeout, and for a reply that is too long or was not asked for.
    """
    splitter = ReplySplitter(count)
    replies: list[bytes] = []
    try:
        for reply in transport.exchange(server, requests, splitter, endpoint, reused=reused):
            replies.append(reply)
    except (TimeoutError, ConnectionAbortedError) as error:
        raise ClientError(f"{endpoint.name}: {describe(error)}") from None
    except OSError:
        pass  # the same as closed
    return b"\n".join([*replies, bytes(splitter.rest)])


def fetch_names(endpoint: Endpoint, greeting: bytes = b"") -> tuple[list[str], list[str]]:
    """Return the operations and topics that HELP names; none if the server does not reply in time.

    They are fetched on a connection of their own: a late reply then disturbs no other request.
    """
    limited = endpoint.within(HELP_TIMEOUT)
    limited.verbose = False
    if endpoint.udp:  # each address gets its share
        share = min(HELP_TIMEOUT, endpoint.timeout or HELP_TIMEOUT) / len(endpoint.addresses)
        limited.timeout = share
    try:
        server = transport.connect(limited, endpoint.addresses)
        try:
            reply = first_exchange(server, greeting, b"HELP\n", 1, limited)
            text = reply.decode(errors="replace")
            if text.startswith("ERR ") or not text.endswith("\n") or len(text) > CHUNK:
                return [], []
            topics = list(filter(str.islower, re.findall(r"[^\W\d_]+", text)))[:MAX_TOPICS]
            requests = "".join(f"HELP {topic}\n" for topic in topics).encode()
            replies = exchange(server, requests, len(topics), limited, reused=True)
        finally:
            server.close()
    except (ClientError, OSError):
        return [], []
    lines = [text, *replies[:CHUNK].decode(errors="replace").split("\n")]
    names = [re.findall(OPERATION, line) for line in lines if not line.startswith("ERR ")]
    return list(dict.fromkeys(name for each in names for name in each)), topics


class Completer:
    """Completion for the Tab key: operations, topics of HELP, assigned names, the last answers.

    Where a number may stand, and in place of `ans`, Tab inserts the last answer. The next Tab
    replaces it by the one before.
    """

    def __init__(self, endpoint: Endpoint, state: SessionState, greeting: bytes = b"") -> None:
        self._endpoint = endpoint
        self._state = state
        self._greeting = greeting
        self._names: tuple[list[str], list[str]] | None = None  # not fetched yet
        self._answers: list[str] = []  # without duplicates, the last one first
        self._inserted = "", "", 0  # the word with an answer, its start before that, which answer
        self._matches: list[str] = []

    def install(self) -> None:
        """Bind the Tab key to this completer."""
        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        readline.set_completer_delims(WORD_DELIMITERS)
        readline.set_completer(self)

    def add_answer(self, reply: str) -> None:
        """Remember a reply that is a number."""
        self._inserted = "", "", 0
        if len(reply) <= MAX_ANSWER_SIZE and re.fullmatch(NUMBER, reply, re.ASCII):
            others = [answer for answer in self._answers if answer != reply]
            self._answers = [reply, *others][:MAX_ANSWERS]

    def __call__(self, word: str, state: int) -> str | None:
        """Return match number `state` for the word before the cursor, as readline calls it."""
        if state == 0 and select.select([STDIN], [], [], 0)[0]:
            self._matches = [f"{word}\t"]  # more input is waiting: a pasted tab is a blank
        elif state == 0:
            before = readline.get_line_buffer()[: readline.get_begidx()]
            self._matches = self._complete(before, word)
        return self._matches[state] if state < len(self._matches) else None

    def _complete(self, before: str, word: str) -> list[str]:
        """Return all matches for a word and the text before it."""
        inserted, head, number = self._inserted
        if word and word == inserted:
            return self._insert_answer(head, (number + 1) % len(self._answers))
        start = max(word.rfind("+"), word.rfind("-")) + 1
        head, word = word[:start], word[start:]
        command = (before + head).strip(" \t").upper()
        takes_number = word.lower() == "ans" or (not word and command not in ("", *HELP))
        if self._answers and takes_number:
            return self._insert_answer(head, 0)
        if self._names is None:
            self._names = [], []  # fetched once, even if that is interrupted
            self._names = fetch_names(self._endpoint, self._greeting)
        operations, topics = self._names
        names = [name.lower() if word.islower() else name for name in operations]
        if command in HELP:
            names += [topic.upper() if word.isupper() else topic for topic in topics]
        names += [*self._state.names, *(["ans"] if self._answers else [])]
        return [head + name for name in names if name.lower().startswith(word.lower())]

    def _insert_answer(self, head: str, number: int) -> list[str]:
        """Return one of the answers as the only match."""
        word = head + self._answers[number]
        self._inserted = word, head, number
        return [word]
