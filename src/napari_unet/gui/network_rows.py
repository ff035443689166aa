"""The rows of the options in which a network may differ from its preset."""

from __future__ import annotations

from typing import get_args

from magicgui.widgets import ComboBox

from napari_unet.config import UNetConfig, UNetPreset
from napari_unet.errors import ConfigError
from napari_unet.gui.form import Form

__all__ = ["NetworkRows"]

_NUMBERS = ("depth", "filters", "dropout")
_OPTIONS = ("normalization", "activation", "skips", "upsampling")
_AS_NAMED = "as the network has it"


class NetworkRows:
    """A row for each option; what isn't chosen here stays as the preset has it.

    Parameters
    ----------
    form : Form
        Gets the rows.
    """

    def __init__(self, form: Form) -> None:
        self._form = form
        form.add_fields(UNetConfig, _NUMBERS, unset="Its own", optional=True)
        for name in _OPTIONS:
            field = UNetConfig.model_fields[name]
            row = ComboBox(
                choices=[_AS_NAMED, *get_args(field.annotation)],
                name=name,
                label=field.title,
                tooltip=f"<p>{field.description}</p>",
            )
            form.add_widget(row)

    def read(self, preset: UNetPreset | None) -> UNetConfig | None:
        """Return the network that is asked for.

        Parameters
        ----------
        preset : str, optional
            Name of the preset; None where the network is to be chosen by the program.

        Returns
        -------
        UNetConfig or None
            None where all is to be chosen.

        Raises
        ------
        ConfigError
            If the preset doesn't take what is chosen, or there is none to change and no number of filters.
        """
        shown = self._form.values()
        chosen = {name: shown[name] for name in _NUMBERS if shown[name] is not None}
        chosen |= {name: shown[name] for name in _OPTIONS if shown[name] != _AS_NAMED}
        if preset is not None:
            return UNetConfig.preset(preset, **chosen)
        if "filters" in chosen:
            return UNetConfig(**chosen)
        if chosen:
            titles = " and ".join(str(UNetConfig.model_fields[name].title) for name in chosen)
            raise ConfigError(
                f"{titles} (under Advanced) changes a network that isn't named. Choose quick or article under Network, or set Filters."
            )
        return None
