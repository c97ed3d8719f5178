"""Run calcc: `python3 -m calcd.client`."""

import sys

from calcd.client.cli import main

if __name__ == "__main__":
    sys.exit(main())
