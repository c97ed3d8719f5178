"""The soak: clients of all kinds, and faults of all kinds, for as long as one likes."""

import sys
from pathlib import Path

# Where pytest finds what the tests share, the soak finds it too.
sys.path.append(str(Path(__file__).parents[1] / "support"))
