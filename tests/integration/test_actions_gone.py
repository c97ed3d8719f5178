"""calcd -s, where the daemon ends at that very moment."""

import pytest
from background_daemon import Background

# The process has ended between the look at the pidfile and the signal.
GONE = """
import signal
def gone(*_):
    raise ProcessLookupError(3, "No such process")
signal.pidfd_send_signal = gone
"""


@pytest.mark.parametrize("action", ["reload", "stop"])
def test_an_action_for_a_process_that_has_just_gone_fails(
    action: str, background: Background
) -> None:
    background.serve()
    with background.command("-s", action, code=GONE) as acting:
        output, errors = acting.communicate(timeout=20)
    assert (acting.returncode, output) == (1, "")
    assert errors == f"calcd: pid {background.pid} has just ended\n"
    assert background.act("stop") == (0, "", "")
