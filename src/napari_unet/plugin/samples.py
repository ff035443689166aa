"""Sample data: made-up cells and membranes with known truth, and the stack of ISBI 2012."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

import napari_unet.data.synthetic as synthetic
from napari_unet.errors import FileError
from napari_unet.files.image import open_image

if TYPE_CHECKING:
    from pooch import Pooch

__all__ = ["cells", "isbi2012", "membranes"]

_ISBI_2012 = "https://raw.githubusercontent.com/zhixuhao/unet/b45af4d458437d8281cc218a07fd4380818ece4a/data/membrane/train/"
_ISBI_2012_SLICES = 30


def cells() -> list[tuple[Any, ...]]:
    """Make an image of touching cells, and its truth.

    Returns
    -------
    list of (data, meta, type)
        An image layer (Y, X), and a labels layer with 1 inside cells.
    """
    image, labels, _ = synthetic.cells()
    return [(image, {"name": "cells"}, "image"), (labels, {"name": "cells truth"}, "labels")]


def membranes() -> list[tuple[Any, ...]]:
    """Make a stack like an electron micrograph of tissue, and its truth.

    Returns
    -------
    list of (data, meta, type)
        An image layer (Z, Y, X), and a labels layer with 1 on membranes and 2 inside cells.
    """
    image, labels = synthetic.membranes()
    axes = ("z", "y", "x")
    return [
        (image, {"name": "membranes", "axis_labels": axes}, "image"),
        (labels, {"name": "membranes truth", "axis_labels": axes}, "labels"),
    ]


def isbi2012() -> list[tuple[Any, ...]]:
    """Open the training stack of the ISBI 2012 challenge, downloaded once (3 MB in 60 files).

    30 slices of a fly's nerve cord (Cardona et al. 2010, doi:10.1371/journal.pbio.1000502). The
    files are kept in the user's cache, or in the folder that ``NAPARI_UNET_CACHE`` names.

    Returns
    -------
    list of (data, meta, type)
        An image layer (Z, Y, X), and a labels layer with 255 inside cells and 0 on membranes.

    Raises
    ------
    FileError
        If a file is neither in the cache nor can be downloaded.
    """
    image, truth = (_stack(kind, range(_ISBI_2012_SLICES)) for kind in ("image", "label"))
    known = {"scale": (50.0, 4.0, 4.0), "units": ("nm",) * 3, "axis_labels": ("z", "y", "x")}
    return [
        (image, {"name": "ISBI 2012", **known}, "image"),
        (truth, {"name": "ISBI 2012 truth", **known}, "labels"),
    ]


def _stack(kind: str, slices: Sequence[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Fetch the slices of ``image`` or ``label`` as an array of shape (Z, Y, X)."""
    from napari.utils import progress

    source = _isbi_2012_files()
    names = [f"{kind}/{n}.png" for n in slices]
    try:
        # pooch makes it too, but fails where another of its threads was faster.
        (source.abspath / kind).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_keep(source, error) from None
    # Many small files: the wait is for answers, not for bytes.
    with ThreadPoolExecutor(8) as threads:
        fetched = threads.map(lambda name: _fetch(source, name), names)
        paths = list(progress(fetched, total=len(names), desc=f"ISBI 2012, {kind}s"))
    return np.stack([np.asarray(open_image(path).array) for path in paths])


def _isbi_2012_files() -> Pooch:
    import pooch

    source = pooch.create(pooch.os_cache("napari-unet") / "isbi2012", _ISBI_2012, env="NAPARI_UNET_CACHE")
    with files(__package__).joinpath("isbi2012.txt").open("rb") as registry:
        source.load_registry(registry)
    return source


def _fetch(source: Pooch, name: str) -> str:
    from requests.exceptions import RequestException

    try:
        return str(source.fetch(name))
    except RequestException:
        raise FileError(
            source.get_url(name),
            "cannot be downloaded: is this computer online? The synthetic EM membranes need no download.",
        ) from None
    except ValueError:
        raise FileError(
            source.get_url(name), "is not the file it was (its checksum differs), so it is not used."
        ) from None
    except OSError as error:
        raise _cannot_keep(source, error) from None


def _cannot_keep(source: Pooch, error: OSError) -> FileError:
    return FileError(source.abspath, f"cannot keep the downloaded slices ({error.strerror}).")
