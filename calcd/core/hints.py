"""What a client may have meant by a name that is unknown."""

from functools import cache

from calcd.core.operations import canonical

# What people call an operation that has another name here.
_SYNONYMS = {
    "ADD": "SUM PLUS ADDITION SOMAR MAIS ADICAO",
    "SUB": "MINUS SUBTRACT DIFF DIFFERENCE MENOS SUBTRAIR",
    "MUL": "TIMES MULT MULTIPLY PRODUCT PROD VEZES MULTIPLICAR",
    "DIV": "DIVIDE OVER DIVIDIR",
    "POW": "POWER EXPONENT POTENCIA",
    "SQRT": "SQR",
    "ROOT": "CBRT",
    "SIN": "SINE SENO",
    "COS": "COSINE COSSENO",
    "TAN": "TG TANGENT TANGENTE",
    "ASIN": "ARCSIN ARCSEN",
    "ACOS": "ARCCOS",
    "ATAN": "ARCTAN ARCTG",
    "CEIL": "CEILING",
    "TRUNC": "INT TRUNCATE TRUNCAR",
    "PERM": "NPR",
    "COMB": "NCR CHOOSE",
    "MEAN": "AVG AVERAGE",
    "LOG": "LG LOGARITHM",
    "FACT": "FACTORIAL FATORIAL",
    "QUIT": "BYE CLOSE LOGOUT",
}
_MEANT = {synonym: name for name, synonyms in _SYNONYMS.items() for synonym in synonyms.split()}
_LENGTHS = range(3, 17)  # of a name that is compared


def meant(name: str, names: frozenset[str]) -> str | None:
    """Return which of ``names``, as the tables have them, a client may have meant.

    It is that of a synonym, or the first that differs in one letter more, less or another, or in
    two that are swapped.
    """
    unknown = canonical(name)
    if _MEANT.get(unknown) in names:
        return _MEANT[unknown]
    if len(unknown) not in _LENGTHS:
        return None
    index = _by_shortened(names)
    similar = (each for key in _shortened(unknown) for each in index.get(key, ()))
    near = [each for each in similar if _is_near(unknown, each)]
    return min(near, key=lambda each: abs(len(each) - len(unknown)), default=None)


def _is_near(one: str, other: str) -> bool:
    if len(one) != len(other):
        return True  # as they share what is left of the longer one without a letter
    different = [at for at, letter in enumerate(one) if letter != other[at]]
    return len(different) == 1 or sorted(one) == sorted(other)


def _shortened(name: str) -> list[str]:
    """Return a name, and what is left of it without one letter: near names share one."""
    return [name, *(name[:end] + name[end + 1 :] for end in range(len(name)))]


@cache
def _by_shortened(names: frozenset[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        for key in _shortened(name):
            found.setdefault(key, []).append(name)
    return found
