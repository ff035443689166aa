"""The data that recipes are compared on: which images train, which test, what their labels mean.

Splits are fixed, by image. No recipe sees a test image before its score is taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from skimage.io import imread

__all__ = ["CLASSES", "FOLDS", "KINDS", "DataSet", "Kind", "Picture", "data_folder", "load"]

Kind = Literal["membranes", "classes", "objects"]

FOLDS = 5
_FOLD = 4  # neighbouring slices of ISBI 2012 that are tested together

KINDS: dict[str, Kind] = {
    "isbi2012_em": "membranes",
    "dsb2018_fluo": "objects",
    "vnc_em_multiclass": "classes",
    "dsb2018_color_rgba": "objects",
    "axon_sem_3class": "classes",
    "sandstone_ct_4class": "classes",
}
"""What each set is scored as."""

CLASSES: dict[str, tuple[str, ...]] = {
    "isbi2012_em": ("membrane", "cell"),
    "vnc_em_multiclass": ("membrane", "glia", "mitochondria", "synapse", "intracellular"),
    "axon_sem_3class": ("background", "myelin", "axon"),
    "sandstone_ct_4class": ("pores and outside", "red", "green", "yellow"),
}
"""Names of the classes 0, 1, … of each set; sets of objects have 0 for background and an id each."""

_TESTED = {
    # The last sections; 9 lies beside 8, which trains: sections are 50 nm apart.
    "vnc_em_multiclass": ("09", "10", "11"),
    # Animals of which no image trains.
    "axon_sem_3class": ("sub-rat5_sample-data14", "sub-rat7_sample-Maxo03img60"),
    "sandstone_ct_4class": ("Sandstone_Versa0300", "Sandstone_Versa0400"),
}


@dataclass(frozen=True, eq=False)
class Picture:
    """An image and the truth about it.

    Parameters
    ----------
    name : str
        Its file's name without ending.
    image : ndarray of uint8, shape (Y, X) or (Y, X, 3)
        Pixels.
    truth : ndarray of int32, shape (Y, X)
        Class of each pixel, or the id of its object; 0 is background.
    """

    name: str
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class DataSet:
    """Images to train on and to test on.

    Parameters
    ----------
    name : str
        Name of its folder.
    kind : {"membranes", "classes", "objects"}
        What it is scored as.
    train, test : tuple of Picture
        In the order of their names.
    """

    name: str
    kind: Kind
    train: tuple[Picture, ...]
    test: tuple[Picture, ...]

    @property
    def axes(self) -> str:
        """Letters of the images' axes."""
        return "YXS" if self.train[0].image.ndim == 3 else "YX"


def data_folder() -> Path:
    """Return where the data lies: ``NAPARI_UNET_DATA``, or ``../shared/data`` beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("NAPARI_UNET_DATA", default))


def load(name: str, fold: int | None = None) -> DataSet:
    """Load a set.

    Parameters
    ----------
    name : str
        One of `KINDS`.
    fold : int, optional
        For isbi2012_em: slices ``4 * fold`` to ``4 * fold + 3`` test.

    Returns
    -------
    DataSet
        Its images, split.
    """
    folder = data_folder() / name
    if not folder.is_dir():
        raise SystemExit(f"{folder} is missing: set NAPARI_UNET_DATA to the folder that holds {name}.")
    if name == "dsb2018_fluo":
        train = _pictures(folder / "train" / "images", folder / "train" / "masks")
        return DataSet(name, "objects", train, _pictures(folder / "val" / "images", folder / "val" / "masks"))
    if name == "isbi2012_em":
        pictures = _pictures(folder / "image", folder / "label", lambda labels: labels > 127)
        first = _FOLD * (FOLDS - 1 if fold is None else fold)
        return _split(name, pictures, [picture.name for picture in pictures[first : first + _FOLD]])
    if name == "dsb2018_color_rgba":
        pictures = _pictures(folder / "images", folder / "masks")
        return _split(name, pictures, _every_fourth(pictures))
    images = folder / ("raw" if name == "vnc_em_multiclass" else "images")
    # Values 1 to 4, of which 4 (pores and outside) takes the place of background.
    change = (lambda labels: labels % 4) if name == "sandstone_ct_4class" else None
    return _split(name, _pictures(images, folder / "labels_idx", change), _TESTED[name])


def _pictures(
    images: Path, labels: Path, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None
) -> tuple[Picture, ...]:
    truths = {path.stem: path for path in labels.iterdir()}
    found = []
    for path in sorted(images.iterdir()):
        image, truth = imread(path), imread(truths[path.stem])
        truth = change(truth) if change else truth
        found.append(
            Picture(path.stem, image[..., :3], truth.astype(np.int32))
            if image.ndim == 3
            else Picture(path.stem, image, truth.astype(np.int32))
        )
    return tuple(found)


def _every_fourth(pictures: Iterable[Picture]) -> list[str]:
    """Choose every fourth image of each size, so that both kinds of microscopy are tested."""
    sizes: dict[tuple[int, ...], list[str]] = {}
    for picture in pictures:
        sizes.setdefault(picture.truth.shape, []).append(picture.name)
    return [name for names in sizes.values() for name in names[3::4]]


def _split(name: str, pictures: tuple[Picture, ...], tested: Iterable[str]) -> DataSet:
    tested = set(tested)
    train = tuple(picture for picture in pictures if picture.name not in tested)
    test = tuple(picture for picture in pictures if picture.name in tested)
    return DataSet(name, KINDS[name], train, test)
