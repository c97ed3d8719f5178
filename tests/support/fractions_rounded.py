"""An oracle for rounding: of a fraction, by the definitions of the eight modes."""

import math
from fractions import Fraction

from calcd.core.decimal128 import EMAX, EMIN


def _away_from_zero(rounding: str, quotient: int, rest: Fraction, negative: bool) -> bool:
    """Say whether ``quotient + rest``, where ``0 < rest < 1``, goes to the next integer."""
    half = Fraction(1, 2)
    return {
        "ROUND_UP": True,
        "ROUND_DOWN": False,
        "ROUND_CEILING": not negative,
        "ROUND_FLOOR": negative,
        "ROUND_HALF_UP": rest >= half,
        "ROUND_HALF_DOWN": rest > half,
        "ROUND_HALF_EVEN": rest > half or (rest == half and quotient % 2 == 1),
        "ROUND_05UP": quotient % 10 in (0, 5),
    }[rounding]


def rounded_at(number: Fraction, exponent: int, rounding: str) -> Fraction:
    """Round to a multiple of a power of ten."""
    unit = Fraction(10) ** exponent
    quotient, rest = divmod(abs(number) / unit, 1)
    if rest and _away_from_zero(rounding, quotient, rest, number < 0):
        quotient += 1
    return (-quotient if number < 0 else quotient) * unit


def adjusted(number: Fraction) -> int:
    """Give the exponent of the first digit of a number that is not 0."""
    number = abs(number)
    exponent = round(math.log10(number.numerator) - math.log10(number.denominator))
    return exponent if number >= Fraction(10) ** exponent else exponent - 1


def rounded(number: Fraction, precision: int, rounding: str) -> Fraction | None:
    """Round to a precision, with the limits of decimal128; None if it overflows."""
    if number == 0:
        return number
    smallest = EMIN - precision + 1
    result = rounded_at(number, max(adjusted(number) - precision + 1, smallest), rounding)
    return None if abs(result) >= Fraction(10) ** (EMAX + 1) else result
