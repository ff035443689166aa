"""Starting the torch peers, and taking turns with them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from inference_measure import Precision, Run, Way
from inference_ways import Subject, sampled

from napari_unet.config import UNetConfig
from napari_unet.data.tiling import Tile
from napari_unet.nn import computing

__all__ = ["TorchPeers", "monai_ways", "why_no_torch"]

_TOLERANCE = 1e-5
_CORNER = 128
_OVERLAPS = (0.25, 0.5)


def why_no_torch(config: UNetConfig) -> str:
    """Say why the torch peers are left out; empty if they are not."""
    missing = [name for name in ("torch", "monai") if importlib.util.find_spec(name) is None]
    if missing:
        return f"MONAI on torch is left out: install it with python -m pip install {' '.join(missing)}"
    plain = UNetConfig(
        depth=config.depth, filters=config.filters, channels=config.channels, classes=config.classes
    )
    if config.replace(dropout=plain.dropout) != plain:
        return (
            "MONAI on torch is left out: it is written for the default network, and this model has another."
        )
    return ""


class TorchPeers:
    """A process with torch and MONAI; a context.

    Two libraries of this kind in one process share threads and memory, which would blur both's numbers.

    Parameters
    ----------
    subject : Subject
        Model and image.
    roi, batch : int
        Side of a window in pixels, and windows in a batch.
    device : {"cpu", "cuda"}
        Where torch computes.
    """

    def __init__(self, subject: Subject, roi: int = 512, batch: int = 1, device: str = "cpu") -> None:
        self._subject = subject
        self.roi = roi
        self._settings = {
            "depth": subject.model.spec.network.depth,
            "roi": roi,
            "batch": batch,
            "device": device,
        }

    def __enter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory()
        self._folder = Path(self._temporary.name)
        (self._folder / "settings.json").write_text(json.dumps(self._settings), encoding="utf-8")
        np.savez(self._folder / "weights.npz", **self._subject.model.arrays())
        np.save(self._folder / "pixels.npy", self._subject.normalized)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("inference_torch.py")), str(self._folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, at whose end it stops
        self._temporary.cleanup()

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Ask for one thing and wait for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **what}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("The process with torch ended early; what it said is above.")
        return json.loads(line)

    def last_answer(self) -> np.ndarray:
        """Read what the last "check" or "answer" computed, (Y, X, L)."""
        return np.load(self._folder / "answer.npy")

    def check(self) -> float:
        """Compare the logits of a corner with Keras's; their largest difference, relative to the largest logit."""
        self.ask("check", side=_CORNER)
        corner = self._subject.normalized[:_CORNER, :_CORNER]
        right = computing.traced(self._subject.model.network)(corner[None])[0]
        difference = float(np.abs(self.last_answer() - right).max() / max(np.abs(right).max(), 1))
        if difference > _TOLERANCE:
            raise SystemExit(
                f"The network in torch is another one than in Keras: logits differ by {difference:.1e}."
            )
        return difference


def monai_ways(
    peers: TorchPeers, subject: Subject, precisions: Sequence[Precision], against: str
) -> Iterator[Way]:
    """MONAI's sliding window, each with what our original network alone takes on as many windows."""
    window = Tile((slice(0, peers.roi),) * 2, (slice(0, peers.roi),) * 2, (slice(0, peers.roi),) * 2)
    for precision in precisions:
        network = subject.model.in_precision(precision).network
        forward = computing.traced(network)
        for overlap in _OVERLAPS:
            name = f"MONAI {peers.roi}, overlap {overlap}, {precision}"
            request = {"overlap": overlap, "precision": precision}
            computed = peers.ask("count", overlap=overlap)["computed"]
            bare = sampled(f"{name}, bare", precision, forward, [window] * round(computed / peers.roi**2))

            def answer(request: dict[str, Any] = request) -> np.ndarray:
                peers.ask("answer", **request)
                return peers.last_answer()

            def run(request: dict[str, Any] = request) -> Run:
                return Run(**peers.ask("run", **request))

            yield bare
            yield Way(name, precision, computed, answer, run, over=bare.name, against=against)
