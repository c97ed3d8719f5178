"""``python -m calcd``: the daemon from a bare checkout."""

import sys

from calcd.daemon.main import main

sys.exit(main())
