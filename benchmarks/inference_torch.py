"""MONAI's sliding window on torch, in a process of its own.

    python benchmarks/inference_torch.py FOLDER

`inference_peers.TorchPeers` starts it, puts settings.json, weights.npz and pixels.npy into the folder, and asks for one thing
a line, as JSON on its input; it answers each with a line of JSON on its output. Answers of the network go
through answer.npy. Blended are logits, and what is timed goes from normalised pixels to probabilities, both numpy arrays.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference_measure import measured
from monai.inferers import SlidingWindowInferer
from torch import nn
from torch.nn import functional as F

_REPEATS = 10


class UNet(nn.Module):
    """The default network of napari-unet, (B, C, Y, X) to logits (B, L, Y, X).

    Parameters
    ----------
    weights : mapping of str to ndarray
        By the names of the Keras layers.
    depth : int
        Modules on the way down.
    """

    def __init__(self, weights: dict[str, np.ndarray], depth: int) -> None:
        super().__init__()
        names = sorted({name.split("/")[0] for name in weights})
        self.layers = nn.ModuleDict(
            {name: _convolution(weights[f"{name}/kernel"], weights[f"{name}/bias"]) for name in names}
        )
        self.depth = depth

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        skips = []
        for level in range(self.depth):
            features = self._module(f"down{level}", features)
            skips.append(features)
            features = F.max_pool2d(features, 2)
        features = self._module("bottom", features)
        for level in reversed(range(self.depth)):
            features = F.interpolate(features, scale_factor=2, mode="nearest")
            # Keras pads an even kernel after the image.
            features = F.relu(self.layers[f"up{level}_upconv"](F.pad(features, (0, 1, 0, 1))))
            features = self._module(f"up{level}", torch.cat([skips.pop(), features], 1))
        with torch.autocast(features.device.type, enabled=False):  # logits are float32, as in Keras
            return self.layers["logits"](features.float())

    def _module(self, name: str, features: torch.Tensor) -> torch.Tensor:
        features = F.relu(self.layers[f"{name}_conv0"](features))
        return F.relu(self.layers[f"{name}_conv1"](features))


class Peers:
    """Answers requests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self._device = torch.device(self._settings["device"])
        self._pixels = np.load(folder / "pixels.npy")
        self._network = self._fresh().to(self._device, memory_format=torch.channels_last)

    def check(self, side: int) -> dict[str, Any]:
        """Compute the logits of a corner, on the processor: a GPU rounds more."""
        with torch.inference_mode():
            logits = self._fresh()(_tensor(self._pixels[:side, :side]))
        np.save(self._folder / "answer.npy", logits[0].permute(1, 2, 0).numpy())
        return {}

    def count(self, overlap: float) -> dict[str, Any]:
        """Say how many pixels the windows of the image have, without the network."""
        counts = []

        def counted(windows: torch.Tensor) -> torch.Tensor:
            counts.append(windows.shape[0] * windows.shape[2] * windows.shape[3])
            return windows

        self._inferer(overlap)(_tensor(self._pixels), counted)
        return {"computed": sum(counts)}

    def answer(self, overlap: float, precision: str) -> dict[str, Any]:
        """Segment the image and keep the answer."""
        np.save(self._folder / "answer.npy", self._segment(overlap, precision))
        return {}

    def run(self, overlap: float, precision: str) -> dict[str, Any]:
        """Segment the image, measured."""
        return asdict(measured(lambda: self._segment(overlap, precision)))

    def bare(self, precision: str) -> dict[str, Any]:
        """Time the network alone on one batch of windows that lies on the device; seconds a batch."""
        roi, batch = self._settings["roi"], self._settings["batch"]
        windows = torch.rand((batch, 1, roi, roi), device=self._device)

        def work() -> None:
            for _ in range(_REPEATS):
                self._network(windows)
            self._wait()

        with torch.inference_mode(), self._autocast(precision):
            work()
            start = time.perf_counter()
            work()
        return {"seconds": (time.perf_counter() - start) / _REPEATS, "pixels": batch * roi * roi}

    def _segment(self, overlap: float, precision: str) -> np.ndarray:
        pixels = _tensor(self._pixels).to(self._device)
        with torch.inference_mode(), self._autocast(precision):
            logits = self._inferer(overlap)(pixels, self._forward)[0].float()
            maps = torch.sigmoid(logits) if len(logits) == 1 else torch.softmax(logits, 0)
        return maps.permute(1, 2, 0).cpu().numpy()

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self._network(windows.contiguous(memory_format=torch.channels_last))

    def _fresh(self) -> UNet:
        return UNet(dict(np.load(self._folder / "weights.npz")), self._settings["depth"]).eval()

    def _inferer(self, overlap: float) -> SlidingWindowInferer:
        roi, batch = self._settings["roi"], self._settings["batch"]
        return SlidingWindowInferer(roi, sw_batch_size=batch, overlap=overlap, mode="gaussian")

    def _autocast(self, precision: str) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=precision == "bfloat16")

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    """(Y, X, C) to (1, C, Y, X)."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None]


def _convolution(kernel: np.ndarray, bias: np.ndarray) -> nn.Conv2d:
    """Make a convolution of Keras's weights (y, x, in, out); 2x2 kernels are padded by whoever calls it."""
    y, x, before, after = kernel.shape
    layer = nn.Conv2d(before, after, (y, x), padding=(y - 1) // 2)
    layer.weight.data.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()))
    layer.bias.data.copy_(torch.from_numpy(bias))
    return layer


def main() -> None:
    """Answer until the input ends."""
    replies, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no reply
    peers = Peers(Path(sys.argv[1]))
    what: dict[str, Callable[..., dict[str, Any]]] = {
        "check": peers.check,
        "count": peers.count,
        "answer": peers.answer,
        "run": peers.run,
        "bare": peers.bare,
    }
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(what[request.pop("do")](**request)), file=replies, flush=True)


if __name__ == "__main__":
    main()
