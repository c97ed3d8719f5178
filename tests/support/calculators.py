"""Both calculators, used in the same way."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from decimal import Decimal
from typing import Any, Protocol, TypeVar

from calcd.client import AsyncCalculator, Calculator, CalculatorError

T = TypeVar("T")


class AnyCalculator(Protocol):
    """What `Calculator` can do."""

    def evaluate(self, line: str) -> Decimal: ...
    def request(self, line: str) -> str: ...
    def evaluate_many(self, lines: Iterable[str]) -> list[Decimal | CalculatorError]: ...
    def request_many(self, lines: Iterable[str]) -> list[str | CalculatorError]: ...
    def close(self) -> None: ...
    def __enter__(self) -> "AnyCalculator": ...
    def __exit__(self, *_: object) -> None: ...


class BlockingCalculator:
    """An AsyncCalculator that is used as a Calculator is. Its loop runs only during a call."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._calculator = AsyncCalculator(*arguments, **options)
        self._runner = asyncio.Runner()
        self._ended = False
        try:
            self._run(self._calculator.__aenter__())
        except BaseException:
            self._runner.close()
            raise

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(call) if self._ended else self._runner.run(call)

    def evaluate(self, line: str) -> Decimal:
        return self._run(self._calculator.evaluate(line))

    def request(self, line: str) -> str:
        return self._run(self._calculator.request(line))

    def evaluate_many(self, lines: Iterable[str]) -> list[Decimal | CalculatorError]:
        return self._run(self._calculator.evaluate_many(lines))

    def request_many(self, lines: Iterable[str]) -> list[str | CalculatorError]:
        return self._run(self._calculator.request_many(lines))

    def close(self) -> None:
        self._run(self._calculator.close())

    def __enter__(self) -> "BlockingCalculator":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        finally:
            self._ended = True
            self._runner.close()

    def __repr__(self) -> str:
        return repr(self._calculator).replace("AsyncCalculator", "Calculator")


CALCULATORS: list[type[AnyCalculator]] = [Calculator, BlockingCalculator]
Connect = Callable[..., AnyCalculator]
