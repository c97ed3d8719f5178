"""Columns of numbers: --fold makes one number of all rows, --each asks a request for each row.

The rows come from standard input. The server works out all results.
"""

from calcd.client.counting import ReplyCounter
from calcd.client.endpoint import Endpoint
from calcd.client.fold import Fold, FoldError, operation_called
from calcd.client.pipeline import Pipeline, RefusedError, lines_of
from calcd.client.protocol import ClientError, UsageError, is_error
from calcd.client.rows import (
    NOT_OF_THE_ROW,
    SKIP_HINT,
    BadRows,
    NoReaderError,
    RowError,
    numbers_in_replies,
    numbers_in_rows,
    read_rows,
    separator_of,
    text_of,
)
from calcd.client.state import SessionState
from calcd.client.streams import Output, warn
from calcd.client.transport import Transport, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from calcd.client.template import Template


class Columns:
    """What the options ask for. `values` are those of all options, by name.

    `setup` are requests that are asked first; what they set holds for the rows. `linger` is the
    timeout in seconds after the end of the input. Raise UsageError if the options do not go
    together.
    """

    _template: "Template | None" = None

    def __init__(
        self, values: "Mapping[str, str]", setup: bytes, linger: float | None, udp: bool
    ) -> None:
        fold, each = values.get("--fold"), values.get("--each")
        self._operation = "" if fold is None else operation_called(fold)
        if fold is None and each is None:
            name = "-F" if "-F" in values else "--skip-bad"
            raise UsageError(f"{name} goes with --fold or --each")
        if udp and (self._operation or setup):
            what = "--fold" if self._operation else "-e and --each"
            name = "-u" if "-u" in values else "udp://"
            raise UsageError(
                f"{name} cannot be used with {what}: each datagram has its own session"
            )
        self._separator = separator_of(values.get("-F", " "))
        if each is not None:
            from calcd.client.template import Template

            self._template = Template(each, self._separator)
        self._setup = setup
        self._linger = linger
        self._skips = "--skip-bad" in values
        self._bad = BadRows(fatal=bool(self._operation) and not self._skips)
        self._quiet = "-Q" in values

    def run(
        self, server: Transport, endpoint: Endpoint, counter: ReplyCounter, output: Output
    ) -> int:
        """Read the rows, and write what they come to. Return the exit status."""
        pipelines = [Pipeline(server, endpoint, self._setup)]
        endpoint.verbose = False  # the first connection was reported
        try:
            if self._template and self._operation:
                second = connect(endpoint, endpoint.addresses)
                pipelines.append(Pipeline(second, endpoint, self._setup))
            errors = self._run(pipelines, endpoint, counter, output)
        except (RowError, FoldError) as error:
            warn(f"{error}{self._no_total}")
            return 1
        except NoReaderError:
            raise BrokenPipeError from None
        except ClientError as error:
            hint = ""
            if len(pipelines) > 1 and isinstance(error, RefusedError):
                hint = "; --fold with --each has two connections"
            raise ClientError(f"{error}{hint}{self._no_total}") from error.__cause__
        finally:
            for pipeline in pipelines:
                pipeline.close()
        if self._bad.count:
            what, hint = ("left out", "") if self._skips else ("not asked", SKIP_HINT)
            warn(f"{what}: {self._bad.summary}, the first at {self._bad.first}{hint}")
        if errors.count and not self._quiet:
            warn(f"errors: {errors.summary}, the first at {errors.first}")
        return 1 if errors.count or (self._bad.count and not self._skips) else 0

    @property
    def _no_total(self) -> str:
        """What an error means for a fold."""
        return "; there is no total" if self._operation else ""

    def _run(
        self,
        pipelines: list[Pipeline],
        endpoint: Endpoint,
        counter: ReplyCounter,
        output: Output,
    ) -> BadRows:
        """Do the work of `run`. Return the rows whose replies were written and are errors."""
        errors = BadRows()
        names, *_ = [self._set_up(pipeline) for pipeline in pipelines]

        def at_end() -> None:
            endpoint.timeout = min(filter(None, (endpoint.timeout, self._linger)), default=None)

        fold = Fold(self._operation, pipelines[-1])
        if self._template is None:
            rows = read_rows(lambda: False, at_end)
            numbers = numbers_in_rows(rows, self._separator, self._bad)
            output.write(fold.result(numbers) + b"\n")
            return errors
        from calcd.client.each import Each

        self._template.names = names
        each = Each(self._template, pipelines[0], self._bad, counter)
        replies = each.replies(read_rows(lambda: pipelines[0].owed > 0, at_end))
        if self._operation:
            output.write(fold.result(numbers_in_replies(replies, self._bad)) + b"\n")
        else:
            for text in self._written(replies, errors):
                counter.add_replies(text)
                output.write(text)
        return errors

    def _set_up(self, pipeline: Pipeline) -> set[bytes]:
        """Ask what is asked first. Return the names that have values then, in lower case.

        Raise RowError for an error: no row is asked.
        """
        state = SessionState()
        for request, reply in zip(lines_of(self._setup), pipeline.set_up(), strict=True):
            if is_error(reply):
                raise RowError(f"-e {text_of(request)}: {text_of(reply)}")
            state.record(text_of(request), text_of(reply))
        return {name.lower().encode() for name in state.names}

    def _written(
        self, replies: "Iterable[tuple[list[int], list[bytes]]]", errors: BadRows
    ) -> "Iterator[bytes]":
        """Yield replies as they are written. Note errors, or leave them out as bad rows."""
        for lines, each in replies:
            if any(map(is_error, each)):
                written = []
                for line, reply in zip(lines, each, strict=True):
                    skipped = self._skips and not reply.startswith(NOT_OF_THE_ROW)
                    if is_error(reply):
                        (self._bad if skipped else errors).add(line, text_of(reply))
                        if skipped:
                            continue
                    written.append(reply)
                each = written
            if each:
                yield b"\n".join([*each, b""])
