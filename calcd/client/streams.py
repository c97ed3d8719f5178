"""Standard input, output and error of the client, used as file descriptors."""

import codecs
import os
import select

from calcd.client.protocol import CHUNK, ERROR, ClientError, describe

STDIN, STDOUT, STDERR = 0, 1, 2


def printable(text: str) -> str:
    """Return text with control and format characters escaped, except tabs."""
    escapes = {
        ord(char): char.encode("unicode_escape").decode()
        for char in set(text)
        if not char.isprintable() and char != "\t"
    }
    return text.translate(escapes)


def warn(message: str) -> None:
    """Write a message to standard error. Ignore errors, as there is no other place for them."""
    try:
        os.write(STDERR, os.fsencode(f"calcc: {printable(message)}\n"))
    except OSError:
        return


def read_input() -> bytes:
    """Wait for the next chunk of standard input, and return it; empty at the end."""
    while True:
        try:
            return os.read(STDIN, CHUNK)
        except BlockingIOError:  # another program made this terminal or pipe non-blocking
            select.select([STDIN], [], [])
        except OSError as error:
            raise ClientError(f"standard input: {describe(error)}") from None


def write_output(data: bytes, stream: int = STDOUT) -> None:
    """Write all of `data` to standard output or error. Wait as long as its reader takes.

    Errors of standard error are ignored, as those of `warn` are.
    """
    unwritten = memoryview(data)
    while unwritten:
        try:
            unwritten = unwritten[os.write(stream, unwritten) :]
        except BlockingIOError:  # as above
            select.select([], [stream], [])
        except OSError as error:
            if stream == STDERR:
                return
            if isinstance(error, BrokenPipeError):
                raise
            raise ClientError(f"standard output: {describe(error)}") from None


class Output:
    """Standard output or error for replies, safe on a terminal.

    A pipe and a file get every byte unchanged. On a terminal a server could move the cursor with
    escape sequences. There, everything that is not printable or not UTF-8 is escaped, except tabs
    and newlines. A carriage return before a newline is left out.
    """

    def __init__(self, stream: int = STDOUT) -> None:
        self._stream = stream
        self._decoder: codecs.IncrementalDecoder | None = None
        self._held = ""  # a last "\r": a newline may follow
        if os.isatty(stream):
            self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, data: bytes) -> None:
        """Write a chunk. A character or a line end may be cut, and go on in the next chunk."""
        if self._decoder is None:
            write_output(data, self._stream)
            return
        for start in range(0, len(data), CHUNK):
            text = self._held + self._decoder.decode(data[start : start + CHUNK])
            self._held = "\r" if text.endswith("\r") else ""
            lines = text.removesuffix("\r").replace("\r\n", "\n").split("\n")
            write_output("\n".join(map(printable, lines)).encode(), self._stream)

    def close(self) -> None:
        """Write a character that was cut at the end."""
        if self._decoder is not None:
            rest = self._held + self._decoder.decode(b"", True)
            write_output(printable(rest).encode(), self._stream)

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SplitOutput(Output):
    """Standard output for results, and standard error for errors.

    Only the first `count` replies are split, all if it is negative. Those that follow go to
    standard output.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count
        self._errors = Output(STDERR)
        self._in_error = False  # the last reply that has started is an error
        self._at_start = True  # no reply has started that has not ended
        self._cut = b""  # the start of a reply that may become an error

    def write(self, data: bytes) -> None:
        """Write a chunk, which may end anywhere."""
        data, self._cut = self._cut + data, b""
        written = position = 0
        while self._count and position < len(data):
            if self._at_start:
                start = data[position : position + len(ERROR)]
                if start != ERROR and ERROR.startswith(start):
                    data, self._cut = data[:position], start
                    break
                if self._in_error != (start == ERROR):
                    self._write(data[written:position])
                    written, self._in_error = position, start == ERROR
            position = data.find(b"\n", position) + 1
            self._at_start = position > 0
            self._count -= self._at_start
            position = position or len(data)
        self._write(data[written:position])
        if position < len(data):
            self._in_error = False
            self._write(data[position:])

    def _write(self, data: bytes) -> None:
        if self._in_error:
            self._errors.write(data)
        else:
            super().write(data)

    def close(self) -> None:
        """Write what was cut at the end."""
        super().write(self._cut)
        super().close()
        self._errors.close()
