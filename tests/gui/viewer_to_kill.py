"""A user at work, for a test that kills the viewer: opens it, paints, trains, and says how far it is.

``python viewer_to_kill.py FILE``. FILE gets what was painted, as ``.npy``. Prints
``worker PID`` and ``step N`` lines.
"""

from __future__ import annotations

import sys
from pathlib import Path

import napari
import numpy as np

from napari_unet.data.synthetic import cells
from napari_unet.events import StepDone
from napari_unet.gui.train_dock import TrainDock


def main() -> None:
    viewer = napari.Viewer()
    image, truth, _ = cells((64, 96), seed=1)
    viewer.add_image(image, name="cells")
    layer = viewer.add_labels(np.zeros(truth.shape, np.int32), name="painted")
    layer.data_setitem(np.nonzero(truth), 3)
    layer.paint((2, 2), 5)
    np.save(Path(sys.argv[1]), layer.data)
    dock = TrainDock(viewer)
    viewer.window.add_dock_widget(dock, name="Train")
    dock.unit.value, dock.steps.value = "steps", 100_000
    dock.more.write({"patch": 32, "batch": 1})

    def tell(event: object) -> None:
        if isinstance(event, StepDone):
            print(f"worker {dock.panel._client.pid}\nstep {event.step}", flush=True)

    dock.panel.happened.connect(tell)
    dock.panel.start_button.click()
    napari.run()


if __name__ == "__main__":
    main()
