"""A trained network together with all that is needed to use it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_unet.errors import ModelError
from napari_unet.nn import backend, computing
from napari_unet.nn.network import build_unet
from napari_unet.nn.rewrite import for_prediction
from napari_unet.spec import ModelSpec, weight_shapes

if TYPE_CHECKING:
    import keras
else:
    keras = backend.load_keras()

__all__ = [
    "Arrays",
    "UNetModel",
    "all_finite",
    "check_arrays",
    "read_weights",
    "with_probabilities",
    "write_weights",
]

Arrays = dict[str, npt.NDArray[np.float32]]
"""Weights by name, such as ``"LAYER/kernel"``, as in `napari_unet.spec.weight_shapes`."""


@dataclass(frozen=True)
class UNetModel:
    """A network and its card.

    Parameters
    ----------
    spec : ModelSpec
        The card: shape, classes, normalisation, threshold, training record.
    network : keras.Model
        Built by `napari_unet.nn.network.build_unet` from ``spec.network``.
    """

    spec: ModelSpec
    network: keras.Model

    @classmethod
    def from_arrays(cls, spec: ModelSpec, arrays: Mapping[str, npt.NDArray[Any]]) -> UNetModel:
        """Build the network of a card and give it weights.

        Parameters
        ----------
        spec : ModelSpec
            The card.
        arrays : mapping of str to ndarray
            Weights, named and shaped as ``weight_shapes(spec.network)`` says.

        Raises
        ------
        ModelError
            If a weight is missing, unknown, of another shape or impossible. Nothing is built then.
        """
        check_arrays(spec, arrays)
        network = build_unet(spec.network)
        write_weights(network, arrays)
        return cls(spec, network)

    def arrays(self) -> Arrays:
        """Copy the weights out, float32, by name."""
        return read_weights(self.network)

    @cached_property
    def prediction_network(self) -> keras.Model:
        """The network rewritten for prediction (`napari_unet.nn.rewrite`), from normalised pixels to probabilities.

        From (B, Y, X, C), with Y and X multiples of the stride, to (B, Y, X, L): of the higher value (L = 1) or of each
        class. It keeps the weights of the moment in which it was made.
        """
        return with_probabilities(for_prediction(self.network))

    @cached_property
    def probabilities(self) -> computing.Forward:
        """`prediction_network` as a fast function, made at the first use."""
        return computing.traced(self.prediction_network)

    @cached_property
    def made(self) -> dict[Hashable, Any]:
        """What was made of this network to predict with, by what it is for: tracing anew would take seconds."""
        return {}

    def in_precision(self, precision: backend.Precision) -> UNetModel:
        """Return this model as one that computes in `precision`; itself if it does already."""
        compute = self.network.get_layer("bottom_conv0").compute_dtype
        if compute == precision:
            return self
        if precision not in self.made:
            with backend.policy(precision):
                self.made[precision] = UNetModel.from_arrays(self.spec, self.arrays())
        model: UNetModel = self.made[precision]
        return model


def with_probabilities(network: keras.Model) -> keras.Model:
    """Return a network from the same inputs to probabilities instead of logits."""
    kind = "sigmoid" if network.output.shape[-1] == 1 else "softmax"
    # Within the compiled function, where it costs least.
    layer = keras.layers.Activation(kind, dtype="float32", name="probability")
    return keras.Model(network.input, layer(network.output), name=f"{network.name}_probability")


def check_arrays(spec: ModelSpec, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raise a ModelError unless `arrays` are weights of the network of `spec` that it can compute with."""
    shapes = weight_shapes(spec.network)
    missing, unknown = sorted(shapes.keys() - arrays.keys()), sorted(arrays.keys() - shapes.keys())
    if missing or unknown:
        found = f"{missing[0]!r} is missing" if missing else f"{unknown[0]!r} is not one of its weights"
        raise ModelError(
            f"The weights do not belong to the network of model {spec.name!r}: {found}. "
            "Use the weights and the card of one model file."
        )
    for name, shape in shapes.items():
        if tuple(arrays[name].shape) != shape:
            raise ModelError(
                f"The weights do not belong to the network of model {spec.name!r}: {name!r} has shape "
                f"{tuple(arrays[name].shape)}, not {shape}. Use the weights and the card of one model file."
            )
    if not all_finite(arrays):
        raise ModelError(
            f"Model {spec.name!r} has weights that are not finite, so it cannot segment anything: train it again."
        )
    for name, array in arrays.items():
        if name.endswith("/moving_variance") and (array < 0).any():
            raise ModelError(
                f"A variance in {name!r} of model {spec.name!r} is negative, which no training gives: train it again."
            )


def read_weights(network: keras.Model) -> Arrays:
    """Copy a network's weights out, float32, by name."""
    # Copied: on a CPU the backend may hand out a view, which the next training step would change.
    return {name: np.array(variable.numpy(), np.float32) for name, variable in _variables(network).items()}


def write_weights(network: keras.Model, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Assign a network's weights by name."""
    for name, variable in _variables(network).items():
        variable.assign(arrays[name])


def all_finite(arrays: Mapping[str, npt.NDArray[Any]]) -> bool:
    """Whether no number in `arrays` is NaN or infinite."""
    return all(bool(np.isfinite(array).all()) for array in arrays.values())


def _variables(network: keras.Model) -> dict[str, Any]:
    # By the layers' names, not the variables' paths: these change for the second network of a process.
    return {
        f"{layer.name}/{variable.name}": variable for layer in network.layers for variable in layer.weights
    }
