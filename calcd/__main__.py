"""``python -m calcd``: the daemon from a bare checkout.

This file and ``calcd/__init__.py`` are kept to what Python 3.6 can parse.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (an older one may run this by mistake)
    sys.stderr.write(
        f"calcd: needs Python 3.11 or later, this is {sys.version_info[0]}.{sys.version_info[1]}\n"
    )
    sys.exit(2)

from calcd.daemon.main import main  # after that check: it does not parse there

sys.exit(main())
