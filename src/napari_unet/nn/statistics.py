"""Statistics of batch normalisation while a network is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_unet.nn.backend import load_keras

if TYPE_CHECKING:
    import keras
else:
    keras = load_keras()

__all__ = ["Statistics"]


class Statistics:
    """Means and variances of all batch normalisations of a network, averaged as its weights are.

    A trained network is used with its averaged weights, so its statistics have to be those of averaged weights: they
    are averaged over the same steps, with the same share of the past in each. Keras's own fixed share (0.99) would
    hold back the statistics of the first, random weights for hundreds of steps. Izmailov et al. ("Averaging weights
    leads to wider optima", UAI 2018) measure them anew by a pass over the data instead, which costs a pass.

    Parameters
    ----------
    network : keras.Model
        The network, not compiled yet. Its layers then keep the statistics of the last batch alone, and
        `follow` averages them.
    """

    def __init__(self, network: keras.Model) -> None:
        layers = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
        for layer in layers:
            layer.momentum = 0.0
        self._variables = [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]

    def copy(self) -> list[npt.NDArray[np.float32]]:
        """Copy the statistics, before a step."""
        return [np.array(variable.numpy()) for variable in self._variables]

    def restore(self, before: list[npt.NDArray[np.float32]]) -> None:
        """Take back what a step changed."""
        for variable, value in zip(self._variables, before, strict=True):
            variable.assign(value)

    def follow(self, before: list[npt.NDArray[np.float32]], momentum: float) -> None:
        """Average what the last step left with what was there before it.

        Parameters
        ----------
        before : list of ndarray
            From `copy`.
        momentum : float
            Share of the past, 0 to 1.
        """
        for variable, old in zip(self._variables, before, strict=True):
            variable.assign(momentum * old + (1 - momentum) * variable.numpy())
