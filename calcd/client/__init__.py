"""The client of calcd: `Calculator` and `AsyncCalculator` for programs, and the command calcc.

The package needs nothing but the standard library, and nothing of the rest of calcd.

Its modules set `TYPE_CHECKING` themselves, and do not import `typing`: most of the time that calcc
takes for one request is that of its imports. Type checkers know the name.
"""

__all__ = ["AsyncCalculator", "Calculator", "CalculatorError"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from calcd.client.asynccalculator import AsyncCalculator
    from calcd.client.calculator import Calculator
    from calcd.client.replies import CalculatorError
else:

    def __getattr__(name: str) -> object:
        """Import the Python API when it is used: calcc does not need it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "AsyncCalculator":  # asyncio takes long to import
            from calcd.client import asynccalculator as module
        elif name == "Calculator":
            from calcd.client import calculator as module
        else:
            from calcd.client import replies as module
        return getattr(module, name)
