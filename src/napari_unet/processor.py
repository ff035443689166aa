"""The processor and its memory: what is known of a computer before anything that computes is loaded."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

import psutil

__all__ = ["cores", "has_bfloat16", "memory"]

_BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # on others bfloat16 is emulated, and slower than float32


def cores() -> int:
    """Count the processor's cores."""
    return psutil.cpu_count() or 1


def memory() -> int:
    """Return the main memory in all, in bytes."""
    return int(psutil.virtual_memory().total)


def has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16; False where the system doesn't say."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return flags is not None and not _BFLOAT16.isdisjoint(flags.group(1).split())
