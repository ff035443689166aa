"""What the computer can do, as far as settings depend on it."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

import psutil

from napari_unet.data.advice import Computer
from napari_unet.nn import backend

__all__ = ["this_computer"]

_BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # on others bfloat16 is emulated, and slower than float32
_AMPERE = (8, 0)  # the first compute capability with bfloat16


def this_computer() -> Computer:
    """Describe this computer, the same each time.

    Raises
    ------
    BackendError
        If the library that computes cannot be loaded.
    """
    name = backend.device_name()
    accelerator = None if name == "CPU" else name.removeprefix("GPU: ")
    return Computer(
        cores=psutil.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        accelerator=accelerator,
        bfloat16=_processor_has_bfloat16() if accelerator is None else _gpu_has_bfloat16(),
    )


def _processor_has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16; False where the system doesn't say."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return flags is not None and not _BFLOAT16.isdisjoint(flags.group(1).split())


def _gpu_has_bfloat16() -> bool:
    match backend.load_keras().backend.backend():
        case "tensorflow":
            import tensorflow as tf

            gpu = tf.config.list_physical_devices("GPU")[0]
            found = tf.config.experimental.get_device_details(gpu).get("compute_capability")
            return found is not None and tuple(found) >= _AMPERE
        case "jax":
            import jax

            found = getattr(jax.devices()[0], "compute_capability", "")
            return bool(re.fullmatch(r"\d+\.\d+", found)) and float(found) >= _AMPERE[0]
        case _:
            import torch

            return bool(torch.cuda.is_bf16_supported())
