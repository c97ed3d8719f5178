"""Whole sessions, as people type them: see transcripts.txt."""

from pathlib import Path

import pytest
from sessions import answered, new_session


def sessions() -> list[list[str]]:
    """Give the lines of each session."""
    text = Path(__file__).with_name("transcripts.txt").read_text("utf-8")
    parts = ([line for line in part.splitlines() if line[:1] != "#"] for part in text.split("\n\n"))
    return [part for part in parts if part]


@pytest.mark.parametrize("lines", sessions(), ids=lambda lines: lines[0])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_a_session_goes_as_it_is_written(lines: list[str], end: str) -> None:
    session = new_session()
    for request, reply in zip(lines[::2], lines[1::2], strict=True):
        assert request[:2] == "> "
        told = answered(session, (request[2:] + end).encode()).decode().removesuffix(end)
        if reply.startswith("<~ "):
            assert told.startswith(reply[3:]), request
        else:
            assert f"< {told}" == reply, request
