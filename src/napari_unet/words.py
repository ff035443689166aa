"""Numbers and lists in the words of a person who waits."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["count", "duration", "listed", "some", "time_left"]


def time_left(seconds: float) -> str:
    """Say how long something still takes.

    Parameters
    ----------
    seconds : float
        Estimate; negative or NaN where nothing is known yet.
    """
    if not math.isfinite(seconds) or seconds < 0:
        return "time left not known yet"
    about = "" if seconds < 10 else "about "
    return f"{about}{duration(seconds)} left"


def duration(seconds: float) -> str:
    """Say how long something takes, roughly."""
    if seconds < 10:
        return "a few seconds"
    if seconds < 55:
        return f"{10 * round(seconds / 10)} seconds"
    if seconds < 90:
        return "a minute"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} minutes"
    hours = round(seconds / 3600)
    if hours < 48:
        return "an hour" if hours == 1 else f"{hours} hours"
    return f"{round(seconds / 86400)} days"


def count(number: int, noun: str) -> str:
    """Write a number with its noun, e.g. ``"1 slice"``, ``"3 slices"``."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "ch")) else "s"
    return f"{number:,} {noun}{ending}"


def listed(words: Sequence[str]) -> str:
    """Write words one after another, e.g. ``"labels"``, ``"labels, probabilities and regions"``."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def some(items: Sequence[object], most: int = 3) -> str:
    """Write the first few items one after another, e.g. ``"1, 2, 3 and 4 more"``."""
    shown = ", ".join(str(item) for item in items[:most])
    return f"{shown} and {len(items) - most:,} more" if len(items) > most else shown
