"""What the label linter says: a sentence with numbers, and a way out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from napari_unet.errors import DataError
from napari_unet.words import some

__all__ = ["Finding", "Severity", "from_refusal", "limited", "percent"]

Severity = Literal["error", "warning", "hint"]

_TOLD = 3


@dataclass(frozen=True)
class Finding:
    """One thing to know about labels before training.

    Parameters
    ----------
    severity : {"error", "warning", "hint"}
        error: training would refuse, or could learn nothing of use. warning: training would run, but
        probably learn something else than was meant. hint: good to know.
    about : str
        Which images or labels, by the names the user knows.
    sentence : str
        What was found, in one or two sentences with numbers.
    fix : str
        What to do; empty where there is nothing to do.
    """

    severity: Severity
    about: str
    sentence: str
    fix: str = ""

    def __str__(self) -> str:
        """Write the sentence and the way out in a row."""
        return f"{self.sentence} {self.fix}".strip()


def from_refusal(error: DataError, about: str) -> Finding:
    """Turn what training would refuse with into a finding: its first sentence, then the way out."""
    sentence, _, fix = str(error).partition(". ")
    return Finding("error", about, sentence if sentence.endswith(".") else f"{sentence}.", fix)


def limited(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Pass on the first three findings of a kind, and sum up the rest in one."""
    remaining = iter(findings)
    yield from islice(remaining, _TOLD)
    rest = list(remaining)
    if rest:
        names = some([finding.about for finding in rest])
        more = "once more" if len(rest) == 1 else f"{len(rest):,} more times"
        yield Finding(rest[0].severity, names, f"The same was found {more}: {names}.", rest[0].fix)


def percent(part: float, whole: float) -> str:
    """Write a share, with as many digits as a reader needs."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "less than 0.1 %"
    if 99.9 < share < 100:
        return "more than 99.9 %"
    return f"{share:.0f} %" if share in (0, 100) or 10 <= share < 90 else f"{share:.1f} %"
