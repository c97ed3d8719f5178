"""Expressions, against another calculator."""

import subprocess
from decimal import Decimal
from random import Random
from shutil import which

import pytest
from helpers import TIMEOUT
from sessions import answered, new_session


def exact_expression(dice: Random, deep: int) -> str:
    """Write an expression that has an exact value of not too many digits.

    ``bc`` binds a sign tighter than a power: here no sign stands before one.
    """
    if deep == 0 or dice.random() < 0.2:
        return f"{dice.randrange(1000)}{dice.choice(('', '.5', '.25', '.125', '.0'))}"
    if dice.random() < 0.15:
        return f"({exact_expression(dice, deep - 1)})^{dice.randrange(4)}"
    if dice.random() < 0.1:
        return f"(-{exact_expression(dice, 0)})"
    left, right = (exact_expression(dice, deep - 1) for _ in range(2))
    text = f"{left}{dice.choice('+-*')}{right}"
    return f"({text})" if dice.random() < 0.5 else text


@pytest.mark.skipif(which("bc") is None, reason="needs bc")
def test_bc_says_the_same() -> None:
    dice = Random(1)
    asked = [exact_expression(dice, 5) for _ in range(400)]
    # With more decimals than any of them has, bc keeps all of a product's.
    script = "scale=900\n" + "".join(f"{text}\n" for text in asked)
    done = subprocess.run(
        ["bc"],
        input=script,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={"BC_LINE_LENGTH": "0", "PATH": "/usr/bin:/bin"},
        check=True,
    )
    assert not done.stderr
    theirs = [Decimal(line) for line in done.stdout.split()]
    requests = "EXACT on\n" + "".join(f"= {text}\n" for text in asked)
    ours = answered(new_session(1000), requests.encode()).decode().splitlines()[1:]
    assert len(theirs) == len(ours) == len(asked)
    for text, their, our in zip(asked, theirs, ours, strict=True):
        assert not our.startswith("ERR"), f"{text}: {our}"
        assert Decimal(our) == their, text
    assert sum(not their.is_zero() for their in theirs) > 300
