"""The project's documents: their commands, transcripts and tables, for the tests that run them."""

import re
from pathlib import Path

from helpers import ROOT

OPERATIONS = ROOT / "docs" / "operations.md"
PROTOCOL = ROOT / "docs" / "protocol.md"
PORTUGUESE = ROOT / "docs" / "pt.md"
README = ROOT / "README.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def name_of(document: Path) -> str:
    """Return a document's path from the root, for the name of a test."""
    return str(document.relative_to(ROOT))


def marked(document: Path, mark: str, language: str = "sh") -> str:
    """Return the block that follows the line ``<!-- mark -->`` in a document."""
    pattern = rf"^<!-- {mark} -->\n```{language}\n(.*?)^```$"
    found = re.findall(pattern, document.read_text(), re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"{name_of(document)} marks {len(found)} blocks with {mark!r}"
    return str(found[0])


def blocks(document: Path, language: str) -> list[tuple[str, str]]:
    """Return each block of a language, with its mark before it, ``""`` where it has none."""
    pattern = rf"^(?:<!-- ([\w-]+) -->\n)?```{language}\n(.*?)^```$"
    return re.findall(pattern, document.read_text(), re.DOTALL | re.MULTILINE)


def transcripts(document: Path) -> list[tuple[str, str]]:
    """Return each command of the console blocks of a document, with the output that it shows."""
    return [
        (command, output)
        for _, block in blocks(document, "console")
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]


def first_cells(document: Path, heading: str) -> list[str]:
    """Return the names in the first column of the table that has this heading."""
    text = document.read_text()
    assert text.count(f"| {heading} |") == 1, f"{name_of(document)}: {heading!r}"
    table = text.split(f"| {heading} |", 1)[1].split("\n\n", 1)[0]
    rows = table.strip().split("\n")[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def links(document: Path) -> list[str]:
    """Return the targets of a document's links."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(document: Path) -> set[str]:
    """Return what a link can name in a document: its headings, spelled as GitHub does."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
