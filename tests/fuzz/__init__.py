"""Fuzzing of the core: bytes that no honest client sends, and checks of the replies."""

import sys
from pathlib import Path

# Where pytest finds what the tests share, the fuzzer finds it too.
sys.path.append(str(Path(__file__).parents[1] / "support"))
