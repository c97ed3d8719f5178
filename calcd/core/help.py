"""What HELP says: the topics, the operations of a topic, how to use an operation."""

from collections.abc import Iterator, Mapping, Sequence

from calcd.core import hints
from calcd.core.errors import RequestError, printable
from calcd.core.messages import LANGUAGES, PORTUGUESE, Language
from calcd.core.operations import Operation, canonical

EXPRESSIONS = "expressions"  # the topic that has examples in place of operations
_EXAMPLES = "2*(3+4), x = 5, x^2, ans*2, 5!, 7 mod 3, sqrt(2), max(1, 2), pi, e"
_AN_OPERATION = "ADD"  # an example of what has help too


class Help:
    """Help on the operations of each topic; the names of topics are English, in lower case."""

    def __init__(self, topics: Mapping[str, Sequence[Operation]]) -> None:
        self._topics = topics
        self._operations = {
            name: operation
            for rows in topics.values()
            for operation in rows
            for name in operation.names
        }
        self._topic_called = {
            canonical(language.translate(topic)): topic
            for language in LANGUAGES.values()
            for topic in topics
        }
        self._names = frozenset((*self._operations, *self._topic_called))

    def line(self, language: Language, name: str = "") -> str:
        """Return one line of help: on a topic, on an operation, or without a name on HELP itself.

        Raise ``RequestError`` UNKNOWN-OPERATION for another name.
        """
        translate = language.translate
        if not name:
            names = "|".join(map(translate, (*self._topics, _AN_OPERATION)))
            return f"{translate('HELP')} {names}|..."
        called = canonical(name)
        if called in self._operations:
            return _usage(self._operations[called], called, language)
        if called not in self._topic_called:
            raise self._unknown(name)
        topic = self._topic_called[called]
        if topic == EXPRESSIONS:
            return f"{translate(topic)}: {translate(_EXAMPLES)}"
        names = " ".join("|".join(_names(each, language)) for each in self._topics[topic])
        return f"{translate(topic)}: {names}"

    def lines(self) -> Iterator[str]:
        """Yield every line of help in every language."""
        for language in LANGUAGES.values():
            for name in ("", *self._names):
                yield self.line(language, name)

    def _unknown(self, name: str) -> RequestError:
        template = "unknown operation or topic {}: HELP lists topics"
        meant = hints.meant(name, self._names) or ""
        if meant:
            template = "unknown operation or topic {}: did you mean {}? HELP lists topics"
        meant = self._topic_called.get(meant, meant)
        return RequestError("UNKNOWN-OPERATION", template, printable(name), (meant,))


def _usage(operation: Operation, name: str, language: Language) -> str:
    """Return how to use an operation under one of its names."""
    translate = language.translate
    usage = " ".join((name, *map(translate, operation.operands)))
    others = [each for each in _names(operation, language) if each != name]
    also = f", {translate('also')} {', '.join(others)}" if others else ""
    _, blank, operands = operation.example.partition(" ")
    reply = translate(operation.example_reply)
    return f"{usage}: {translate(operation.help)}{also}; {name}{blank}{operands} -> {reply}"


def _names(operation: Operation, language: Language) -> tuple[str, ...]:
    """Return the names of an operation, those of the language first."""
    return operation.names if language is PORTUGUESE else operation.names[::-1]
