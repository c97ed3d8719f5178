"""Feed streams of bytes to the core until one shows a fault, or all are done.

The streams are random, and the same for the same seed; or atheris finds them, guided by the code
that each of them reaches. The properties that the unit tests check with fifty examples each
can be checked with thousands.
"""

import argparse
import sys
import time
from pathlib import Path
from random import Random


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.fuzz", description="Give streams of bytes to calcd's core."
    )
    parser.add_argument("streams", nargs="?", type=int, default=200_000, help="how many (200000)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--guided",
        nargs=argparse.REMAINDER,
        metavar="OPTION",
        help="let atheris find the streams; it takes all options that follow, such as -runs=N",
    )
    parser.add_argument(
        "--properties",
        action="store_true",
        help="check the unit tests' properties instead, with 2000 examples each",
    )
    options = parser.parse_args()
    if options.properties:
        sys.exit(_check_properties())
    if options.guided is None:
        _run_random(options.streams, options.seed)
    else:
        _run_guided([f"-runs={options.streams}", *options.guided])


def _check_properties() -> int:
    import pytest

    unit = Path(__file__).parents[1] / "unit"
    options = ["-q", "-n", "auto", "--timeout=600", "-m", "hypothesis", "--hypothesis-profile=long"]
    return pytest.main([*options, str(unit)])


def _run_random(streams: int, seed: int) -> None:
    from .streams import check, check_proxied, mutated, random_header, random_stream

    began = time.monotonic()
    for number in range(streams):
        random = Random(seed + number)
        stream, header = random_stream(random), random_header(random)
        for _ in range(random.randrange(3)):
            header = mutated(random, header)
        try:
            check(stream)
            check_proxied(header, stream)
        except Exception:
            print(f"found with --seed {seed + number}, its first stream: {stream!r} or {header!r}")
            raise
    print(f"{streams} streams from --seed {seed}: no fault, {time.monotonic() - began:.1f} s")


def _run_guided(options: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["calcd"]):
        from .streams import check, check_proxied, mutated

    def mutate(stream: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        blind = random.randrange(2) == 0
        return bytes(atheris.Mutate(stream, most)) if blind else mutated(random, stream)[:most]

    def check_both(stream: bytes) -> None:
        check(stream)
        check_proxied(stream, b"")

    atheris.Setup([sys.argv[0], "-max_len=400", *options], check_both, custom_mutator=mutate)
    atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main()
