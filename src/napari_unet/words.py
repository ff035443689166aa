"""Numbers in the words of a person who waits."""

from __future__ import annotations

import math

__all__ = ["count", "time_left"]


def time_left(seconds: float) -> str:
    """Say how long something still takes.

    Parameters
    ----------
    seconds : float
        Estimate; negative or NaN where nothing is known yet.
    """
    if not math.isfinite(seconds) or seconds < 0:
        return "time left not known yet"
    if seconds < 10:
        return "a few seconds left"
    if seconds < 55:
        return f"about {10 * round(seconds / 10)} seconds left"
    if seconds < 90:
        return "about a minute left"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} minutes left"
    hours = round(seconds / 3600)
    if hours < 48:
        return "about an hour left" if hours == 1 else f"about {hours} hours left"
    return f"about {round(seconds / 86400)} days left"


def count(number: int, noun: str) -> str:
    """Write a number with its noun, e.g. ``"1 slice"``, ``"3 slices"``."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "ch")) else "s"
    return f"{number:,} {noun}{ending}"
