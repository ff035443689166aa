"""What a training would begin with: what the linter says, the settings it would choose, patches as it varies them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_unet.augmentation import Augmentation
from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.advice import Advice, Computer, advise
from napari_unet.data.augment_picture import augmentation_picture
from napari_unet.data.dataset import Dataset, prepare
from napari_unet.data.labels import ClassMap, Unpainted
from napari_unet.data.lint import LabelCheck
from napari_unet.data.lint_pairs import NotFinite
from napari_unet.data.sights import look
from napari_unet.errors import DataError
from napari_unet.events import Stop, ignore_events, never_stop
from napari_unet.files.image import Image
from napari_unet.label_check import check_opened, check_resampled, settle_target
from napari_unet.pixel_size import at_one_pixel_size
from napari_unet.processor import cores, has_bfloat16, memory

__all__ = ["GPU_UNKNOWN", "Colors", "Preview", "preview"]

Colors = Callable[[NDArray[np.int64]], Any]
"""Gives the colours of painted values: shape (N,) to (N, 3 or 4), 0 to 1."""

GPU_UNKNOWN = "Chosen for the processor: a GPU is looked for when training begins, and may get a larger network or batch."

_LOOKED_AT = 32_000_000  # pixels that are loaded, so that the viewer keeps its memory


@dataclass(frozen=True, eq=False)
class Preview:
    """What a training would begin with.

    Parameters
    ----------
    check : LabelCheck
        What the linter found.
    dataset : Dataset or None
        Painted slices, of many a part; None where training would refuse, or the look was stopped.
    advice : Advice or None
        The settings that training would choose on the processor; None as for `dataset`.
    """

    check: LabelCheck
    dataset: Dataset | None = None
    advice: Advice | None = None

    @property
    def sentences(self) -> tuple[str, ...]:
        """The reasons for what would be chosen, and what they rest on."""
        reasons = self.advice.reasons if self.advice else ()
        return (*reasons, GPU_UNKNOWN) if reasons else ()

    def content(self) -> dict[str, Any]:
        """Return findings and choices in values that JSON can hold."""
        content = asdict(self.check)
        if self.advice is not None:
            network, train = (
                part.model_dump(mode="json") for part in (self.advice.network, self.advice.train)
            )
            content |= {"network": network, "train": train}
            content |= {"reasons": self.sentences, "warnings": self.advice.warnings}
        return content

    def picture(self, augmentation: Augmentation, colors: Colors | None = None) -> NDArray[np.uint8]:
        """Show a patch as it is, and varied; see `napari_unet.data.augment_picture.augmentation_picture`.

        Parameters
        ----------
        augmentation : Augmentation
            How patches are varied.
        colors : callable, optional
            Colours of painted values. Objects have none of their own.

        Raises
        ------
        DataError
            If training would refuse the labels, or the look was stopped before there was a patch.
        """
        if self.dataset is None or self.advice is None or self.advice.train.patch is None:
            settle_target(self.check, ignore_events)
            raise DataError("Stopped before there was a patch to show: start again.")
        classes = self.dataset.class_map if self.dataset.target == "classes" else None
        return augmentation_picture(
            self.dataset.examples,
            augmentation,
            self.advice.train.patch,
            colors=_palette(classes, colors) if classes and colors else None,
        )


def preview(
    images: Sequence[Image],
    labels: Sequence[Image],
    *,
    unpainted: Unpainted = "background",
    background_value: int | None = None,
    target: Literal["auto", "classes", "objects"] = "auto",
    not_finite: NotFinite = "refuse",
    pixel_size: float | None = None,
    network: UNetConfig | None = None,
    train: TrainConfig | None = None,
    stop: Stop = never_stop,
) -> Preview:
    """Look at what a training would begin with, without loading what computes.

    Parameters
    ----------
    images, labels : sequence of Image
        Images and the labels of each.
    unpainted, background_value, target, not_finite, pixel_size
        As in `napari_unet.jobs.TrainJob`.
    network : UNetConfig, optional
        Shape of the network, where it isn't to be chosen.
    train : TrainConfig, optional
        Settings; what they leave open is chosen.
    stop : callable
        Asked now and then; True ends the look with what was found so far.

    Returns
    -------
    Preview
        The linter's findings; where there is no error, the data and the settings too.

    Raises
    ------
    DataError
        If images cannot be brought to one pixel size.
    """
    found = check_opened(
        images,
        labels,
        unpainted=unpainted,
        background_value=background_value,
        target=target,
        not_finite=not_finite,
        resampled=pixel_size is not None,
        stop=stop,
    )
    if found.of("error") or stop():
        return Preview(found)
    if pixel_size is not None:
        painted = labels
        images, labels = at_one_pixel_size(images, labels, pixel_size)
        if found.target == "classes":
            found = found.with_more(check_resampled(painted, labels, pixel_size, stop))
    dataset = prepare(
        [image.stack for image in images],
        [painted.stack for painted in labels],
        unpainted=unpainted,
        background_value=background_value,
        target=found.target,
        not_finite=not_finite,
        most=_LOOKED_AT,
        stop=stop,
    )
    if not dataset.examples:
        return Preview(found)
    sights = look(dataset.examples)
    sights = replace(sights, bytes=round(sights.bytes * (1 + dataset.left_out / len(dataset.examples))))
    computer = Computer(cores(), memory(), None, has_bfloat16())
    return Preview(found, dataset, advise(sights, computer, network, train))


def _palette(classes: ClassMap, colors: Colors) -> dict[int, tuple[int, int, int]]:
    """Colour of each class, 0 to 255, as its values were painted; 0 stands for nothing painted and has none."""
    painted = {index: value for index, value in enumerate(classes.values) if value}
    if classes.background_value is not None:
        painted[0] = classes.background_value
    shown = np.asarray(colors(np.array(list(painted.values()))), float).reshape(len(painted), -1)[:, :3]
    parts = np.rint(255 * np.clip(shown, 0, 1)).astype(int).tolist()
    return {index: (red, green, blue) for index, (red, green, blue) in zip(painted, parts, strict=True)}
