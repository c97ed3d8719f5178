"""What calcd is measured against, and how: ``python3 -m tests.bench``."""

import sys
from pathlib import Path

# Where pytest finds what the tests share, the benchmark finds it too.
sys.path.append(str(Path(__file__).parents[1] / "support"))
