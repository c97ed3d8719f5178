"""Standard input, output and error of the client, used as file descriptors."""

import codecs
import os
import select

from calcd.client.protocol import CHUNK, ClientError, describe

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
    """Return the next chunk of standard input, empty at its end."""
    try:
        return os.read(STDIN, CHUNK)
    except OSError as error:
        raise ClientError(f"standard input: {describe(error)}") from None


def write_output(data: bytes) -> None:
    """Write all of `data` to standard output. Wait as long as its reader takes."""
    unwritten = memoryview(data)
    while unwritten:
        try:
            unwritten = unwritten[os.write(STDOUT, unwritten) :]
        except BlockingIOError:  # another program made this terminal or pipe non-blocking
            select.select([], [STDOUT], [])
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ClientError(f"standard output: {describe(error)}") from None


class Output:
    """Standard output for replies, safe on a terminal.

    A pipe and a file get every byte unchanged. On a terminal a server could move the cursor with
    escape sequences. There, everything that is not printable or not UTF-8 is escaped, except tabs
    and newlines. A carriage return before a newline is left out.
    """

    def __init__(self) -> None:
        self._decoder: codecs.IncrementalDecoder | None = None
        self._held = ""  # a last "\r": a newline may follow
        if os.isatty(STDOUT):
            self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, data: bytes) -> None:
        """Write a chunk. A character or a line end may be cut, and go on in the next chunk."""
        if self._decoder is None:
            write_output(data)
            return
        for start in range(0, len(data), CHUNK):
            text = self._held + self._decoder.decode(data[start : start + CHUNK])
            self._held = "\r" if text.endswith("\r") else ""
            lines = text.removesuffix("\r").replace("\r\n", "\n").split("\n")
            write_output("\n".join(map(printable, lines)).encode())

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *_: object) -> None:
        if self._decoder is not None:  # write a character that was cut at the end
            write_output(printable(self._held + self._decoder.decode(b"", True)).encode())
