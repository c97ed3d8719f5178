"""The steps of a fold: whether one of them may round, and whether one has.

Counts digits and looks at last digits, and works out no result.
"""


class Steps:
    """The steps of an operation of two numbers, in a precision, from left to right.

    Notes what matters in plain notation: a result has no zeros at its end once a step has rounded.
    """

    def __init__(self, operation: str, precision: int) -> None:
        self._operation = operation
        self._precision = precision
        self._count = 0  # of numbers
        self._whole = self._places = 0  # most digits before the point and behind it
        self._digits: float = 0  # that suffice for the result of any step so far
        self.rounded = False  # a step is known to have rounded

    def may_round(self, numbers: list[bytes], longest: int) -> bool:
        """Return whether a step with one of these numbers may be the first that rounds.

        `longest` is how many bytes the longest number has.
        """
        if self.rounded:
            return False
        self._count += len(numbers)
        text = b" ".join(numbers)
        has_exponents = b"e" in text or b"E" in text
        if self._operation == "SOMA":
            count = len(str(self._count))
            whole = places = longest
            if has_exponents or 2 * longest + count > self._precision:
                extents = [extent(number) for number in numbers]
                whole, places = (max(extent[side] for extent in extents) for side in (0, 1))
            self._whole, self._places = max(self._whole, whole), max(self._places, places)
            self._digits = self._whole + count + self._places
        elif has_exponents:  # the result may be too small for all its digits
            self._digits = float("inf")
        elif self._operation == "MUL":
            self._digits += len(text)
        else:
            self._digits = max(self._digits, longest)
        return self._digits > self._precision

    def check(self, left: bytes, right: bytes, reply: bytes) -> None:
        """Note whether a step has rounded, given its numbers and its reply in scientific notation.

        A result has its ideal exponent, as the General Decimal Arithmetic specification calls it,
        or a smaller one, unless it was rounded.
        """
        if self.rounded:
            return
        from decimal import Decimal

        first, second, result = (Decimal(each.decode()) for each in (left, right, reply))
        exponents = [int(each.as_tuple().exponent) for each in (first, second)]
        if self._operation == "SOMA":
            ideal, is_zero = min(exponents), first == second.copy_negate()
        elif self._operation == "MUL":
            ideal, is_zero = sum(exponents), not (first and second)
        else:
            is_first = (first.compare_total(second) < 0) == (self._operation == "MIN")
            ideal, is_zero = exponents[not is_first], not (first if is_first else second)
        self.rounded = int(result.as_tuple().exponent) > ideal if result else not is_zero


def extent(number: bytes) -> tuple[int, int]:
    """Return how many digits a number has before its point and behind it, or a few more."""
    mantissa, _, exponent = number.lower().partition(b"e")
    whole, _, places = mantissa.partition(b".")
    shift = int(exponent or 0)
    return len(whole) + shift, len(places) - shift
