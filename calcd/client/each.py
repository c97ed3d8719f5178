"""--each: a request for each row, sent ahead of its reply."""

from calcd.client.counting import ReplyCounter
from calcd.client.pipeline import Pipeline
from calcd.client.protocol import STATE_LOST, ClientError
from calcd.client.rows import BLANKS, BadRows, RowError, numbers_in
from calcd.client.state import SessionState
from calcd.client.template import Template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Each:
    """Asks a template for each row that is not blank."""

    def __init__(
        self, template: Template, pipeline: Pipeline, bad: BadRows, counter: ReplyCounter
    ) -> None:
        self._template = template
        self._pipeline = pipeline
        self._bad = bad
        self._counter = counter
        self._sample = b""  # a request
        self._lines: list[int] = []  # the numbers of the rows that wait for a reply
        self._answered = 0  # rows
        self._error: RowError | None = None  # that ends the rows

    def replies(self, texts: "Iterator[bytes]") -> "Iterator[tuple[list[int], list[bytes]]]":
        """Yield the numbers of rows and the replies to their requests, as they come.

        `texts` are as `read_rows` yields them. Raise RowError for a row that ends
        the run, once those before it have their replies. Raise ClientError if one gets no reply.
        """
        self._pipeline.restore = self._restore
        try:
            for replies in self._pipeline.replies(self._requests(texts)):
                count = len(replies)
                self._answered += count
                lines, self._lines[:count] = self._lines[:count], []
                yield lines, replies
        except ClientError as error:
            count = self._answered
            told = f"{count} {'row has' if count == 1 else 'rows have'} a reply"
            if self._lines:
                told += f", and none from line {self._lines[0]} on"
            raise ClientError(f"{error}; {told}") from error.__cause__
        if self._error:
            raise self._error

    def _requests(self, texts: "Iterator[bytes]") -> "Iterator[bytes]":
        line = 1
        try:
            for text in texts:
                requests = self._fill(text, line)
                line += text.count(b"\n")
                if requests or not text:
                    self._sample = self._sample or requests.partition(b"\n")[0]
                    self._counter.add_requests(text)
                    yield requests
                if self._error:
                    return
        except RowError as error:
            self._error = error

    def _fill(self, text: bytes, line: int) -> bytes:
        """Return the requests for rows, the first of which has this number."""
        rows = text.split(b"\n")[:-1]
        numbers = numbers_in(text)
        are_numbers = numbers and all(map(bytes.strip, rows))
        if are_numbers and (lines := self._template.fill_numbers(rows, len(numbers or ()))):
            self._lines.extend(range(line, line + len(rows)))
            return lines
        requests = []
        for number, row in enumerate(rows, line):
            if not row.strip(BLANKS):
                continue
            try:
                requests.append(self._template.fill(row))
            except ValueError as reason:
                try:
                    self._bad.add(number, str(reason))
                except RowError as error:
                    self._error = error
                    break
            else:
                self._lines.append(number)
        return b"\n".join([*requests, b""]) if requests else b""

    def _restore(self) -> None:
        """Set on a new connection what was set on the one before."""
        if self._answered:
            sample = self._sample.decode(errors="replace")
            state = SessionState()
            state.record(sample, "0")
            if state.affects([sample]):
                raise ClientError(f"the connection was lost, and {STATE_LOST}")
        self._pipeline.set_up_again()
