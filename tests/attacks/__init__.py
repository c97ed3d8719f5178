"""Attacks on a daemon, and what they cost everybody else: ``python3 -m tests.attacks``."""

import sys
from pathlib import Path

# Where pytest finds what the tests share, the bench finds it too.
sys.path.append(str(Path(__file__).parents[1] / "support"))
