"""The rule of this directory."""

import os
import subprocess

import pytest


def test_a_unit_test_cannot_start_a_process() -> None:
    with pytest.raises(AssertionError, match="may not start a process"):
        subprocess.run(["true"], check=True)
    with pytest.raises(AssertionError, match="may not start a process"):
        os.posix_spawnp("true", ["true"], os.environ)
    with pytest.raises(AssertionError, match="may not start a process"):
        os.fork()
