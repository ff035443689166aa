"""The rows that say how training patches are varied."""

from __future__ import annotations

from typing import Final, Literal, get_args

from magicgui.widgets import ComboBox

from napari_unet.augmentation import Augmentation, AugmentationPreset
from napari_unet.gui.form import Form

__all__ = ["VariationRows"]

_OWN: Final = "own"
_CHOICES = {
    "none": "none: patches as they are",
    "light": "light: bent a little, varied light",
    "full": "full: any angle, blur, stronger",
    _OWN: "own: as set under Advanced",
}


class VariationRows:
    """A list of presets, and a row for each strength, which the chosen preset fills.

    Parameters
    ----------
    form : Form
        Gets the row of the preset.
    """

    def __init__(self, form: Form) -> None:
        self._strengths: Form | None = None
        self.preset = ComboBox(
            choices=[(text, name) for name, text in _CHOICES.items()],
            value="light",
            name="augmentation",
            label="Variation",
            tooltip="<p>How training patches are turned, bent and lit anew, labels with them, so that few of them teach more. "
            "The strengths are under Advanced.</p>",
        )
        form.add_widget(self.preset)
        self.preset.changed.connect(self._fill)

    def add_strengths(self, form: Form) -> None:
        """Add a row for each strength.

        Parameters
        ----------
        form : Form
            Gets the rows.
        """
        form.add_fields(Augmentation, Augmentation.model_fields)
        self._strengths = form
        for name in Augmentation.model_fields:
            form[name].changed.connect(self._recognise)

    def read(self) -> Augmentation:
        """Return the strengths that the rows show."""
        return Augmentation() if self._strengths is None else self._strengths.read(Augmentation)

    def _fill(self, name: AugmentationPreset | Literal["own"]) -> None:
        """Show the strengths of a preset."""
        if self._strengths is not None and name != _OWN:
            self._strengths.write(dict(Augmentation.preset(name)))

    def _recognise(self) -> None:
        """Name the preset whose strengths are shown."""
        shown = self.read()
        presets: tuple[AugmentationPreset, ...] = get_args(AugmentationPreset)
        names = (name for name in presets if Augmentation.preset(name) == shown)
        with self.preset.changed.blocked():
            self.preset.value = next(names, _OWN)
