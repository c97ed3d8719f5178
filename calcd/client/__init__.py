"""The client of calcd: `Calculator` for Python programs, and the command calcc.

The package needs nothing but the standard library, and nothing of the rest of calcd.

Its modules set `TYPE_CHECKING` themselves, and do not import `typing`: most of the time that calcc
takes for one request is that of its imports. Type checkers know the name.
"""

__all__ = ["Calculator", "CalculatorError"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from calcd.client.calculator import Calculator, CalculatorError
else:

    def __getattr__(name: str) -> object:
        """Import the Python API when it is used: calcc does not need it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from calcd.client import calculator

        return getattr(calculator, name)
