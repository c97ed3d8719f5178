"""The functions against the oracle, in a sample; and that the oracle finds what is wrong."""

import re
import sys
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal

import pytest

from calcd.core import elementary
from tests.oracle.__main__ import main
from tests.oracle.check import run
from tests.oracle.functions import FUNCTIONS

CASES, SEED = 300, 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_result_is_the_true_one_rounded_once(name: str) -> None:
    tally = run(name, FUNCTIONS[name], CASES, SEED)
    assert tally.cases == CASES
    assert not tally.wrong, "\n".join(tally.wrong)


def in_half_even(context: Context, *numbers: Decimal) -> Decimal:
    nearest = context.copy()
    nearest.rounding = ROUND_HALF_EVEN
    result = elementary.exp(nearest, *numbers)
    return context.plus(result)


def without_conditions(context: Context, *numbers: Decimal) -> Decimal:
    result = elementary.exp(context, *numbers)
    context.clear_flags()
    return result


def off_by_one(context: Context, *numbers: Decimal) -> Decimal:
    return context.next_plus(elementary.exp(context, *numbers))


@pytest.mark.parametrize("wrong", [in_half_even, without_conditions, off_by_one])
def test_the_oracle_finds_a_function_that_is_wrong(wrong: Callable[..., Decimal]) -> None:
    assert run("exp", FUNCTIONS["exp"]._replace(product=wrong), CASES, SEED).wrong


def test_the_command_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["oracle", "--cases=20", "--seed=5", "--function=pi"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert re.search(r"^pi +20 +0 +[0-9.]+  pi ", capsys.readouterr().out, re.MULTILINE)


def test_the_command_fails_if_a_result_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(FUNCTIONS, "exp", FUNCTIONS["exp"]._replace(product=off_by_one))
    monkeypatch.setattr(sys, "argv", ["oracle", "--cases=20", "--seed=5", "--function=exp"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "  wrong: --seed 5: exp " in capsys.readouterr().out
