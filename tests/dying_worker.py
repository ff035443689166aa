"""A worker that the system ends as if for lack of memory: on a tile of more pixels than it is told, after the first slice.

``python dying_worker.py PIXELS``; else as ``napari_unet.worker``.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from napari_unet import worker
from napari_unet.data.tiling import Tile
from napari_unet.nn.engine import Engine

MOST = int(sys.argv[1])
compute = Engine.begin


def too_large(self: Engine, pixels: Any, n: int, tile: Tile) -> Any:
    if n and pixels.shape[0] * pixels.shape[1] > MOST:  # the first slice still fits
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(self, pixels, n, tile)


Engine.begin = too_large  # type: ignore[method-assign]

if __name__ == "__main__":
    code = worker.main()
    sys.stderr.flush()
    os._exit(code)
