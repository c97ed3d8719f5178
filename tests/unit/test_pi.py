"""pi, against another formula than the one that the core uses."""

import pytest
from sessions import answered, new_session


def pi_by_gauss(digits: int) -> str:
    """Return pi, cut after so many digits: 48 atan(1/18) + 32 atan(1/57) - 20 atan(1/239)."""
    one = 10 ** (digits + 20)

    def arctangent(divisor: int) -> int:
        total, power, number = 0, one // divisor, 1
        while power:
            total += power // number
            power, number = -power // divisor**2, number + 2
        return total

    scaled = 48 * arctangent(18) + 32 * arctangent(57) - 20 * arctangent(239)
    text = str(scaled)
    return f"{text[0]}.{text[1:digits]}"


@pytest.mark.parametrize("digits", [1, 2, 34, 999, 1000])
def test_pi_is_right_to_the_last_digit(digits: int) -> None:
    pi = new_session(digits, "down")
    assert answered(pi, b"= pi\n").decode().rstrip("\n") == pi_by_gauss(digits).rstrip(".")
