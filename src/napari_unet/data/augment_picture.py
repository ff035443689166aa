"""A picture of what augmentation does to a user's own patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet.augmentation import Augmentation
from napari_unet.data.augment import draw_variation
from napari_unet.data.dataset import Example
from napari_unet.data.labels import IGNORE
from napari_unet.data.outlines import edges
from napari_unet.data.sampling import Sampler, cut_patch

__all__ = ["augmentation_picture"]

_Color = tuple[int, int, int]

_COLORS: tuple[_Color, ...] = (
    (0, 114, 178),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
)
"""Told apart by the colour-blind too (Okabe and Ito); the first is that of painted background."""

_TINT = 0.25
_DIM = 0.45  # of the brightness, where nothing is learned
_GAP = 6  # pixels between patches
_LARGEST = 256  # pixels: larger patches are shown at every second, third … pixel
_LOOKS = 16  # patches among which the one with the most classes is shown


def augmentation_picture(
    examples: Sequence[Example],
    augmentation: Augmentation,
    patch: int,
    *,
    seed: int = 0,
    copies: int = 8,
    columns: int = 3,
    colors: Mapping[int, _Color] | None = None,
) -> NDArray[np.uint8]:
    """Show a patch as it is, and varied several times as it is trained on.

    Parameters
    ----------
    examples : sequence of Example
        Slices with paint, as in `napari_unet.data.dataset.Dataset`.
    augmentation : Augmentation
        How patches are varied.
    patch : int
        Side of a patch, in pixels.
    seed : int
        Chooses the patch and its variations.
    copies : int
        How many variations are shown.
    columns : int
        Patches side by side.
    colors : mapping of int to (red, green, blue), optional
        Colours of the classes, by index, 0 to 255; where there is none, one is chosen.

    Returns
    -------
    ndarray of uint8, shape (Y, X, 3)
        The patch as it is, framed in white, then its variations, in rows. Black is 0 and white 1 of the
        normalised image; three channels are red, green and blue, of any other number the first is shown in
        grey. Painted classes are tinted and outlined; background only where other pixels are not painted.
        Where all pixels are painted, those that carry no loss (beyond the image) are dimmed.

    Raises
    ------
    DataError
        If no pixel is painted.
    """
    sampler = Sampler(examples, IGNORE, patch, 1, seed, augmentation)
    rng = np.random.default_rng(seed)
    plain = draw_variation(Augmentation.preset("none"), patch, rng)
    places = [sampler.place(rng, even=True) for _ in range(_LOOKS)]
    cuts = [cut_patch(example, at, start, patch, plain, rng) for example, at, start in places]
    chosen = int(np.argmax([len(np.unique(target)) for _, target, _ in cuts]))
    example, at, start = places[chosen]
    cells = [cuts[chosen]]
    for n in range(copies):
        draws = np.random.default_rng([seed, n])
        variation = draw_variation(augmentation, patch, draws)
        cells.append(cut_patch(example, at, start, patch, variation, draws))
    palette = {c: _COLORS[c % len(_COLORS)] for c in range(IGNORE)} | dict(colors or {})
    sparse = bool((example.target == IGNORE).any())
    shown = [_shown(image, target, palette, sparse) for image, target, _ in cells]
    return _in_rows(shown, columns)


def _shown(
    image: NDArray[np.float32], target: NDArray[np.uint8], palette: Mapping[int, _Color], sparse: bool
) -> NDArray[np.uint8]:
    """Colour one patch."""
    step = -(-len(image) // _LARGEST)
    image, target = image[::step, ::step], target[::step, ::step]
    color = image if image.shape[2] == 3 else np.repeat(image[..., :1], 3, axis=2)
    color = 255 * np.clip(color, 0, 1)
    if not sparse:
        color[target == IGNORE] *= _DIM
    edge = edges(target)
    for c in np.unique(target).tolist():
        if c != IGNORE and (c or sparse):
            here = target == c
            color[here] += _TINT * (np.array(palette[c], np.float32) - color[here])
            color[here & edge] = palette[c]
    return color.astype(np.uint8)


def _in_rows(cells: Sequence[NDArray[Any]], columns: int) -> NDArray[np.uint8]:
    """Lay patches out in rows, the first framed."""
    side = len(cells[0])
    pitch = side + _GAP
    rows = -(-len(cells) // columns)
    canvas = np.full((rows * pitch + _GAP, columns * pitch + _GAP, 3), 40, np.uint8)
    canvas[: pitch + _GAP, : pitch + _GAP] = 255
    for n, cell in enumerate(cells):
        top, left = (_GAP + pitch * i for i in divmod(n, columns))
        canvas[top : top + side, left : left + side] = cell
    return canvas
