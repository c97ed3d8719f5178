"""A session that is asked to the end: what a connection does with what is pending."""

from calcd.core.session import Session


def answered(session: Session, *reads: bytes) -> bytes:
    """Give a session these reads, with time for all of each; return its replies."""
    replies = b""
    for read in reads:
        replies += session.receive(read)
        while session.pending:
            replies += session.go_on()
    return replies
