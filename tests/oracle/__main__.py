"""Compare the functions with an oracle, in random cases.

Print for each function how many cases there were, how many of them are wrong, and which one took
longest. A wrong case is printed with the seed that gives it as the first.
"""

import argparse
import sys
import time

from .check import run
from .functions import FUNCTIONS


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.oracle", description="Compare calcd's functions with Arb's balls."
    )
    parser.add_argument("--cases", type=int, default=10_000, help="of each function (10000)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--function", action="append", choices=FUNCTIONS, help="instead of all; may be repeated"
    )
    options = parser.parse_args()
    wrong = 0
    print(f"--seed {options.seed}, {options.cases} cases of each function")
    print("function     cases  wrong  slowest, ms")
    for name in options.function or FUNCTIONS:
        tally = run(name, FUNCTIONS[name], options.cases, options.seed)
        wrong += len(tally.wrong)
        line = f"{name:10} {tally.cases:7} {len(tally.wrong):6} {tally.seconds * 1e3:12.1f}"
        print(f"{line}  {tally.slowest}", flush=True)
        for each in tally.wrong[:10]:
            print(f"  wrong: {each}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
