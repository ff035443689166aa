"""What the computer can do, as far as settings depend on it."""

from __future__ import annotations

import re

from napari_unet.data.advice import Computer
from napari_unet.nn import backend
from napari_unet.processor import cores, free_memory, has_bfloat16, memory

__all__ = ["memory_of_tiles", "this_computer"]

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
        cores=cores(),
        memory=memory(),
        accelerator=accelerator,
        bfloat16=has_bfloat16() if accelerator is None else _gpu_has_bfloat16(),
    )


def memory_of_tiles() -> int:
    """Return the memory that is free where tiles are computed, in bytes.

    It is that of the accelerator, where there is one whose backend tells; TensorFlow does not.
    """
    free = None if backend.device_name() == "CPU" else _free_on_gpu()
    return free_memory() if free is None else free


def _free_on_gpu() -> int | None:
    match backend.name():
        case "jax":
            import jax

            found = jax.devices()[0].memory_stats() or {}
            limit = found.get("bytes_limit")
            return None if limit is None else int(limit - found.get("bytes_in_use", 0))
        case "torch":
            import torch

            if not torch.cuda.is_available():
                return None
            # What it keeps for later is free as well.
            kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
            return int(torch.cuda.mem_get_info()[0] + kept)
        case _:
            return None


def _gpu_has_bfloat16() -> bool:
    match backend.name():
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
