"""``python -m calcd``: the daemon from a bare checkout."""

import sys

from calcd.main import main

sys.exit(main())
