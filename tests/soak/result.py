"""What became of the requests, and what the daemon had at a quiet moment."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MOST_GROWTH = 1.10  # of the memory, since the first minute


@dataclass
class SoakResult:
    """What became of the requests that an answer was due to, and of the connections.

    ``reset``: connections that were reset with answers due. ``refused``: those that were not
    made, or were told BUSY, which takes their requests back. ``faults``: what was not as it
    should be and no answer to a request, such as words after the end.
    """

    requests: int = 0
    wrong: int = 0
    lost: int = 0
    reset: int = 0
    refused: int = 0
    faults: int = 0
    connections: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong, and something went at all."""
        return self.requests > 0 and not (self.wrong or self.lost or self.reset or self.faults)


class Sample(NamedTuple):
    """What the daemon had at a moment; memory in KiB, processor time in seconds."""

    memory: int
    threads: int
    descriptors: int
    seconds: float


def sample(pid: int) -> Sample:
    """Look at a process."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    used = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return Sample(
        int(status["VmRSS"].split()[0]),
        int(status["Threads"]),
        len(os.listdir(f"/proc/{pid}/fd")),
        sum(map(int, used)) / os.sysconf("SC_CLK_TCK"),
    )


def grown(first: Sample, last: Sample) -> list[str]:
    """Say what the daemon has kept that it should have given back."""
    complaints = []
    if last.memory > first.memory * MOST_GROWTH:
        complaints.append(f"memory grew from {first.memory} to {last.memory} KiB")
    if last.descriptors > first.descriptors:
        complaints.append(f"descriptors grew from {first.descriptors} to {last.descriptors}")
    return complaints


def table(result: SoakResult, samples: Sequence[Sample], names: Sequence[str]) -> str:
    """Give all of it as a table."""
    counted = ("requests", "wrong", "lost", "reset", "refused", "faults")
    lines = [f"{name:24}{getattr(result, name):>12,}" for name in counted]
    lines += [
        f"  {kind:22}{count:>12,} connections" for kind, count in sorted(result.connections.items())
    ]
    lines += [f"{'':24}" + "".join(f"{name:>14}" for name in names)]
    for title, name in (
        ("memory, KiB", "memory"),
        ("threads", "threads"),
        ("descriptors", "descriptors"),
        ("processor, s", "seconds"),
    ):
        lines.append(f"{title:24}" + "".join(f"{getattr(each, name):>14,}" for each in samples))
    return "\n".join(lines)
