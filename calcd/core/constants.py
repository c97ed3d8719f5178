"""Constants, to as many digits as any precision can ask for."""

from decimal import Decimal
from functools import cache

_DIGITS = 1020  # more than the largest precision, so that no rounding is in doubt


@cache
def pi() -> Decimal:
    """Give pi, cut after ``_DIGITS`` digits: Machin's formula, 16 atan(1/5) - 4 atan(1/239)."""
    guard = 10
    one = 10 ** (_DIGITS + guard)
    scaled = 16 * _arctangent(5, one) - 4 * _arctangent(239, one)
    return Decimal(f"{scaled // 10**guard}E-{_DIGITS}")


def _arctangent(divisor: int, one: int) -> int:
    """Give the arc tangent of 1 over ``divisor``, in units of 1 over ``one``."""
    total, power, number = 0, one // divisor, 1
    while power:
        total += power // number if number % 4 == 1 else -(power // number)
        power //= divisor * divisor
        number += 2
    return total
