"""The manual pages, for the tests that hold them to the code."""

import re
from dataclasses import dataclass
from pathlib import Path

from helpers import ROOT

PAGES = sorted((ROOT / "man").iterdir())


@dataclass(frozen=True)
class Item:
    """An item of a list: what its line says behind ``.It``, and its text, as mdoc(7) has them."""

    head: str
    text: str


class Page:
    """A manual page, as its source in mdoc(7) has it."""

    def __init__(self, name: str) -> None:
        self.source = (ROOT / "man" / name).read_text()

    def section(self, heading: str) -> str:
        """Return the source of a section or subsection."""
        found = re.findall(rf"^\.S[hs] {heading}\n(.*?)(?=^\.S[hs] |\Z)", self.source, re.M | re.S)
        assert len(found) == 1, heading
        return str(found[0])

    def items(self, macro: str, source: str | None = None) -> list[Item]:
        """Return the items whose head begins with this macro, in ``source``, else in the page.

        The text of an item goes to the next item of that kind: it has the items of lists in it.
        """
        parts = re.split(r"^\.It (?=" + macro + r"\b)", source or self.source, flags=re.M)[1:]
        return [Item(*part.split("\n", 1)) for part in parts]


def install(target: Path) -> None:
    """Install the pages into a directory that man(1) can search."""
    for page in PAGES:
        directory = target / f"man{page.suffix[1:]}"
        directory.mkdir(exist_ok=True)
        (directory / page.name).write_bytes(page.read_bytes())
