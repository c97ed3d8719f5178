"""Budgets of calls and lines, and an interpreter that keeps to its own."""

import math

import pytest

from calcd.core.budget import CALL_LIMIT, CHEAP_LINE_LIMIT, Budget, BudgetExceeded
from calcd.core.decimal128 import Arithmetic
from calcd.core.interpreter import Interpreter


def test_a_call_is_exhausted_once_it_has_spent_more_than_its_limit() -> None:
    budget = Budget()
    budget.start_call(10)
    budget.charge(10)
    assert not budget.exhausted
    budget.charge(1)
    assert budget.exhausted
    budget.start_call()
    assert (budget.spent, budget.limit, budget.exhausted) == (0, CALL_LIMIT, False)


def test_a_line_may_not_cost_more_than_a_cheap_one() -> None:
    budget = Budget()
    budget.start_call()
    for _ in range(3):  # each line has its own limit
        budget.start_line(1)
        budget.charge(CHEAP_LINE_LIMIT - 1)
        with pytest.raises(BudgetExceeded):
            budget.charge(1)
    assert budget.spent == 3 * CHEAP_LINE_LIMIT  # what was refused does not count
    with pytest.raises(BudgetExceeded):
        budget.start_line(CHEAP_LINE_LIMIT + 1)


def test_a_budget_without_a_limit_allows_any_line() -> None:
    budget = Budget(math.inf)
    budget.start_call()
    budget.start_line(1e9)
    budget.charge(1e9)
    assert budget.spent == 2e9


def test_one_line_has_one_reply_and_a_blank_one_has_none() -> None:
    interpreter = Interpreter(Arithmetic())
    assert [interpreter.reply(line) for line in ("SOMA 2 2", " \t", "x = 1/4", "= x")] == [
        *("4", None, "0.25", "0.25"),
    ]
    assert (interpreter.reply("FOO") or "").startswith("ERR UNKNOWN-OPERATION ")
    assert interpreter.counters.errors == 1


def test_an_expensive_line_gets_no_reply_and_costs_nothing() -> None:
    interpreter = Interpreter(Arithmetic(1000))
    budget = interpreter.budget
    budget.start_call()
    with pytest.raises(BudgetExceeded):
        interpreter.reply("EXP 1")
    assert (budget.spent, interpreter.counters.errors) == (0, 0)
    assert interpreter.reply("SOMA 1 2") == "3"
