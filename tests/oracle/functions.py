"""The functions that are checked: what is called, what is true, and on which operands."""

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from flint import arb

from calcd.core import elementary, trigonometry

from . import operands as given
from . import truth as true
from .operands import Operands, near_boundary
from .rounding import Truth


class Function(NamedTuple):
    """``product`` is called as ``f(context, *numbers)``.

    ``truth`` gives the true result, or None if there is none and a ``RequestError`` is right.
    """

    product: Callable[..., Decimal]
    truth: Callable[..., Truth | None]
    operands: Operands


FUNCTIONS: dict[str, Function] = {
    "exp": Function(elementary.exp, true.exp, near_boundary(arb.log, given.any_number)),
    "ln": Function(elementary.ln, true.ln, near_boundary(arb.exp, given.mostly_positive)),
    "log10": Function(elementary.log10, true.log, near_boundary(given.ten_to_the, given.for_log10)),
    "log": Function(elementary.log, true.log, given.for_log),
    "power": Function(elementary.power, true.power, given.for_power),
    "root": Function(elementary.root, true.root, given.for_root),
    "sqrt": Function(elementary.sqrt, true.sqrt, given.for_sqrt),
    "sin": Function(trigonometry.sin, true.sin, near_boundary(arb.asin, given.angle)),
    "cos": Function(trigonometry.cos, true.cos, near_boundary(arb.acos, given.angle)),
    "tan": Function(trigonometry.tan, true.tan, near_boundary(arb.atan, given.angle)),
    "asin": Function(trigonometry.asin, true.asin, near_boundary(arb.sin, given.up_to_one)),
    "acos": Function(trigonometry.acos, true.acos, near_boundary(arb.cos, given.up_to_one)),
    "atan": Function(trigonometry.atan, true.atan, near_boundary(arb.tan, given.any_number)),
    "pi": Function(trigonometry.pi, lambda: arb.pi, given.none),
    "e": Function(trigonometry.e, lambda: arb.const_e, given.none),
}
