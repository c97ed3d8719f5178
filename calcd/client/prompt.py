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

try:
    import readline

    READLINE = True
except ImportError:
    READLINE = False

HISTORY_FILE, HISTORY_LINES = os.path.expanduser("~/.calcc_history"), 1000
HELP_TIMEOUT = 1.0  # seconds; the Tab key waits for the server once
MAX_ANSWERS, MAX_ANSWER_SIZE = 10, 2000  # answers that the Tab key offers, characters of each
NUMBER, OPERATION = r"[-+]?[0-9.]+(E[-+]?[0-9]+)?", r"\b[A-Z][A-Z0-9]+\b"  # in replies
# Where a word starts. Not at + and -: -1E+3 is one word.
WORD_DELIMITERS = " \t\n*/%^(),=<>!"


def run_prompt(server: transport.Transport, endpoint: Endpoint) -> int:
    """Send each line that is typed, and write its reply. Return the exit status."""
    counter = ReplyCounter()
    state = SessionState()
    completer = Completer(endpoint, state)
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
            reused = counter.requests > 0
            counter.add_requests(requests)
            replies = exchange(server, requests, len(lines), endpoint, reused=reused)
            if not replies:
                # The server closes idle connections. Sending the request again is harmless.
                server.close()
                server = transport.connect(endpoint)
                if state.affects([line]):
                    warn(STATE_LOST)
                state.reset()
                replies = exchange(server, requests, len(lines), endpoint)
            counter.add_replies(replies)
            with Output() as output:
                output.write(replies)
            reply_lines = replies.decode(errors="replace").split("\n")[:-1]
            for request, reply in zip(lines, reply_lines, strict=False):
                state.record(request, reply)
                completer.add_answer(reply)
            if len(reply_lines) < len(lines) or line.strip(" \t").upper() == "QUIT":
                break
    finally:
        server.close()
        if READLINE:
            with suppress(OSError):
                readline.write_history_file(HISTORY_FILE)
    return counter.exit_status(endpoint.name, CLOSED, endpoint.hint())


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


def fetch_operations(endpoint: Endpoint) -> list[str]:
    """Return the operations that the server's HELP lists, empty if it does not reply in time.

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
            reply = exchange(server, b"HELP\n", 1, limited).decode(errors="replace")
        finally:
            server.close()
    except (ClientError, OSError):
        return []
    if reply.startswith("ERR ") or not reply.endswith("\n") or len(reply) > CHUNK:
        return []
    return list(dict.fromkeys(re.findall(OPERATION, reply)))


class Completer:
    """Completion for the Tab key: operations, assigned names and the last answers.

    Where a number may stand, and in place of `ans`, Tab inserts the last answer. The next Tab
    replaces it by the one before.
    """

    def __init__(self, endpoint: Endpoint, state: SessionState) -> None:
        self._endpoint = endpoint
        self._state = state
        self._operations: list[str] | None = None  # not fetched yet
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
        if self._answers and (word.lower() == "ans" or not word):
            command = (before + head).strip(" \t").upper()
            if word or command not in ("", "HELP"):
                return self._insert_answer(head, 0)
        if self._operations is None:
            self._operations = []  # fetched once, even if that is interrupted
            self._operations = fetch_operations(self._endpoint)
        names = [name.lower() if word.islower() else name for name in self._operations]
        names += [*self._state.names, *(["ans"] if self._answers else [])]
        return [head + name for name in names if name.lower().startswith(word.lower())]

    def _insert_answer(self, head: str, number: int) -> list[str]:
        """Return one of the answers as the only match."""
        word = head + self._answers[number]
        self._inserted = word, head, number
        return [word]
