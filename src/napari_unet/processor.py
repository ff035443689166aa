"""The processor and its memory: what is known of a computer before anything that computes is loaded."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

import psutil

__all__ = ["cores", "free_memory", "has_bfloat16", "memory"]

_BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # on others bfloat16 is emulated, and slower than float32

_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Where Linux says what a container, or a job of a cluster, may use: control groups version 2 and 1."""


def cores() -> int:
    """Count the processor's cores."""
    return psutil.cpu_count() or 1


def memory() -> int:
    """Return the main memory in all, in bytes."""
    return int(psutil.virtual_memory().total)


def free_memory() -> int:
    """Return the memory that a program can still take, in bytes: the system's, or what its control group leaves it."""
    free = int(psutil.virtual_memory().available)
    for folder, limit, used in _GROUPS:
        try:
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
        free = min(free, max(left, 0))
    return free


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
