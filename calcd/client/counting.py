"""Counts requests and replies, and splits replies: bytes in, counts out, without a socket."""

from calcd.client.protocol import (
    ERROR,
    IGNORED,
    MAX_REPLY,
    NO_ANSWER,
    REFUSALS,
    TLS_ALERT,
    TOO_LONG,
    UNEXPECTED,
    ClientError,
    is_tls_alert,
)

MAX_SHOWN = 200  # bytes of a reply that a message shows
MAX_HEAD = 32  # bytes of a reply that tell whether it is one of LAST_REPLIES
# The replies after which a server closes.
LAST_REPLIES = (b"BYE", b"ERR LINE-TOO-LONG", b"ERR TIMEOUT", *REFUSALS)
# With `translate`, which deletes IGNORED, each other byte but the newline becomes an x: a request
# that is not blank starts with x.
MARKS = bytes(byte if byte == ord("\n") else ord("x") for byte in range(256))


def may_be_error(reply: bytes) -> bool:
    """Return whether the start of a reply is that of an error, or can become one."""
    return reply.startswith(ERROR) or ERROR.startswith(reply)


class LineNumbers:
    """Finds the lines of the input in which requests stand, for requests without a reply.

    The memory that it takes is one byte for each of these lines, none if each line is a request.
    """

    def __init__(self) -> None:
        self._line = 1  # in which the next chunk starts
        # The number of a request, its line, and for the lines from there whether they are
        # requests; None if all of them are.
        self._spans: list[tuple[int, int, bytes | None]] = []

    def restart(self) -> None:
        """Count the lines that follow from 1 again."""
        self._line = 1

    def add(self, marks: bytes, number: int) -> int:
        """Add a chunk: `MARKS` after the one before it. Return how many requests start in it.

        `number` is that of the first of them.
        """
        line = self._line + (not marks.startswith(b"\n"))  # the first that starts in the chunk
        self._line = line + marks.count(b"\n") - 1
        requests = marks.count(b"\nx")
        if requests == marks.count(b"\n", 0, -1):
            _, _, all_before = last = self._spans[-1] if self._spans else (0, 0, b"")
            if all_before is None and line - number == last[1] - last[0]:
                return requests
            self._spans.append((number, line, None))
        elif requests:
            self._spans.append((number, line, bytes(map(bool, marks.split(b"\n")[1:]))))
        return requests

    def forget(self, number: int) -> None:
        """Forget the requests before this one, which have their replies."""
        while len(self._spans) > 1 and self._spans[1][0] <= number:
            del self._spans[0]

    def find(self, number: int) -> int:
        """Return the line of a request that was added and not forgotten."""
        first, line, requests = next(span for span in reversed(self._spans) if span[0] <= number)
        if requests is None:
            return line + number - first
        position = -1
        for _ in range(number - first + 1):
            position = requests.index(1, position + 1)
        return line + position


class ReplyCounter:
    """Counts requests and replies chunk by chunk. A chunk may end anywhere."""

    def __init__(self) -> None:
        self.requests = self.replies = 0
        self.unasked = 0  # replies that came when each request had one
        self.errors = 0  # replies that are an ERR
        self.bytes_sent = 0
        self.arguments = 0  # requests that are not of the input, but of the command line
        self._argument_errors = 0  # their replies that are an ERR
        self._possible = 0  # replies that the requests may have, by their most generous reading
        self._has_newline = False  # any of the requests
        self._size = 0  # bytes of a reply that has not ended
        self._first_error = b""  # of the input: the start of the reply
        self._first_error_place = ""
        self._before = 0, 0  # replies, and those unasked, of earlier connections
        self._lines = LineNumbers()
        self._marks = self._all_marks = self._tail = b"\n"  # the end of the last chunk
        self._head = b""  # the start of the last reply, and of one that has not ended
        self._next_head = b""

    def add_requests(self, chunk: bytes) -> None:
        """Count the requests that start in a chunk sent to the server."""
        if self._marks == b"x" and self.replies >= self.requests:
            self._marks = b"\n"  # a line without its newline was answered: it has ended
        marks = self._marks + chunk.translate(MARKS, IGNORED)
        self.requests += self._lines.add(marks, self.requests)
        self.bytes_sent += len(chunk)
        self._marks = marks[-1:]
        # What is blank above may be a request all the same, as a second byte order mark is. CR NUL
        # ends a line as well. Until the first newline, a pause does.
        marks = self._all_marks + chunk.translate(MARKS, b" \t")
        self._possible += marks.count(b"\nx") + chunk.count(b"\0")
        self._possible += self._all_marks == b"x" and not self._has_newline
        self._has_newline = self._has_newline or b"\n" in chunk
        self._all_marks = marks[-1:]

    def add_arguments(self, requests: bytes) -> None:
        """Count the requests of the command line, before all others."""
        self.add_requests(requests)
        self.arguments = self.requests
        self._lines.restart()

    def check(self, chunk: bytes) -> tuple[int, str]:
        """Return how much of the chunk that comes next to accept, and why not all of it, or "".

        A reply has at most MAX_REPLY bytes. One reply that was not asked for is accepted if it is
        an error: a server that does not serve this client sends one.
        """
        first = chunk.find(b"\n")
        if self._size + (first if first >= 0 else len(chunk)) > MAX_REPLY:
            return max(0, MAX_REPLY - self._size), TOO_LONG
        possible = self._possible - self.replies - self.unasked
        more = chunk.count(b"\n") - possible
        if more < 0 or (more == 0 and chunk.endswith(b"\n")):
            return len(chunk), ""
        end = 0
        for _ in range(possible):
            end = chunk.index(b"\n", end) + 1
        start = b"" if end else self._next_head
        if possible >= 0 and may_be_error(start + chunk[end:]):
            end = chunk.find(b"\n", end) + 1 or len(chunk)
        return end, UNEXPECTED if end < len(chunk) else ""

    def find_no_answer(self, chunk: bytes) -> int:
        """Return where in the chunk that comes next a reply is NO_ANSWER, -1 if none is."""
        at = (b"\n" + self._next_head + chunk).find(b"\n" + NO_ANSWER)
        return max(0, at - len(self._next_head)) if at >= 0 else -1

    def add_replies(self, chunk: bytes) -> None:
        """Count the replies that end in a chunk received from the server."""
        missing = self.arguments - self.replies
        if 0 < missing <= chunk.count(b"\n"):  # the last reply to the command line ends in it
            *lines, rest = chunk.split(b"\n", missing)
            self._add_replies(b"\n".join([*lines, b""]))
            self._argument_errors = self.errors
            chunk = rest
        self._add_replies(chunk)

    def _add_replies(self, chunk: bytes) -> None:
        replies = self._tail + chunk
        if self._first_error and b"\n" not in self._first_error:
            self._first_error = (self._first_error + chunk[:MAX_SHOWN])[:MAX_SHOWN]
        if errors := replies.count(b"\n" + ERROR):
            self.errors += errors
            if self.replies >= self.arguments and not self._first_error:
                before, _, _ = replies.partition(b"\n" + ERROR)
                number = self.replies + before.count(b"\n") + 1 - self._tail.count(b"\n")
                if number < self.requests:  # a server that is full sends one unasked
                    self._first_error_place = f", the first at {self.place(number)}"
                self._first_error = replies[len(before) + 1 :][:MAX_SHOWN]
        received = self.replies + chunk.count(b"\n")
        self.replies = min(received, self.requests)
        self.unasked += received - self.replies
        self._tail = replies[-len("\nERR") :]
        self._lines.forget(self.replies - 1)  # the last may turn out to be a refusal
        ended, newline, rest = chunk.rpartition(b"\n")
        self._size = len(rest) if newline else self._size + len(rest)
        if newline:
            _, newline, last = ended.rpartition(b"\n")
            self._head = (last if newline else self._next_head + last)[:MAX_HEAD]
            self._next_head = b""
        self._next_head = (self._next_head + rest[:MAX_HEAD])[:MAX_HEAD]

    def begin_connection(self) -> None:
        """Tell that the next reply is the first on its connection."""
        self._before = self.replies, self.unasked

    def end_connection(self) -> None:
        """Tell that no reply follows on this connection.

        If all that came is a refusal, the request that it was counted for has no reply.
        """
        replies, unasked = self._before
        alone = (self.replies, self.unasked, self._size) == (replies + 1, unasked, 0)
        if alone and self.last_reply.encode() in REFUSALS:
            self.replies -= 1
            self.unasked += 1
            if self.errors - self._argument_errors == 1:
                self._first_error_place = ""

    @property
    def last_reply(self) -> str:
        """The last reply, if the server closes after it, without the words of an error.

        Otherwise an empty string.
        """
        code = b" ".join(self._head.split()[: 2 if self._head.startswith(ERROR) else 1])
        return code.decode() if code in LAST_REPLIES else ""

    @property
    def is_answered(self) -> bool:
        """Whether each request has its reply, also one whose line has not ended."""
        return self.replies >= self.requests

    @property
    def is_owed(self) -> bool:
        """Whether the server has whole requests without a reply."""
        return self.replies < self.requests - (self._marks == b"x")

    def place(self, number: int) -> str:
        """Return where a request without a reply stands. Requests are numbered from 0."""
        if number < self.arguments:
            return f"request {number + 1}"
        return f"line {self._lines.find(number)}"

    def failure(self, reason: str, hint: str = "") -> ClientError:
        """Return the error for the end of a run in which a request has no reply.

        The hint is added if there was no reply at all.
        """
        told = f"requests with a reply: {self.replies}"
        if self.replies < self.requests:
            told += f", none from {self.place(self.replies)} on"
        return ClientError(f"{reason}; {told}{'' if self.replies else hint}")

    def error_summary(self) -> str:
        """Return how many replies to the input are errors and which is the first, "" if none is."""
        if not self._first_error:
            return ""
        errors = self.errors - self._argument_errors
        replies = self.replies + self.unasked - self.arguments
        first = self._first_error.partition(b"\n")[0].rstrip(b"\r").decode(errors="replace")
        return f"errors: {errors} of {replies} replies{self._first_error_place}: {first}"

    def exit_status(self, server: str, reason: str, hint: str = "") -> int:
        """Return the exit status at the end of a connection: 1 after an ERR, else 0.

        Raise ClientError with the reason for the end if a request has no reply.
        """
        if not self.is_answered:
            raise self.failure(f"{server}: {reason}", hint)
        return int(self.errors > 0)

    def close(self) -> None:
        """Do nothing. `Progress` finishes its line here."""


class ReplySplitter:
    """Splits a stream into the number of replies that is expected. A chunk may end anywhere."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.rest = bytearray()  # the start of a reply
        self.started = False  # has received anything

    def add(self, chunk: bytes) -> list[bytes]:
        """Return the replies that end in a chunk, without their newlines.

        Raise ConnectionAbortedError if a reply is too long, if there are too many, or if there is a
        TLS alert in place of the first.
        """
        if not self.started and is_tls_alert(chunk):
            raise ConnectionAbortedError(TLS_ALERT)
        self.started = True
        first, *others = chunk.split(b"\n")
        self.rest += first
        if len(self.rest) > MAX_REPLY:  # the others are parts of one chunk
            raise ConnectionAbortedError(TOO_LONG)
        replies = [bytes(self.rest), *others[:-1]] if others else []
        if others:
            self.rest = bytearray(others[-1])
        self.expected -= len(replies)
        if self.expected < 0 or (self.rest and not self.expected):
            raise ConnectionAbortedError(UNEXPECTED)
        return replies
