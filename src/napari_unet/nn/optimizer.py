"""How weights are updated: Adam that refuses bad gradients, and its rate over the steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from napari_unet.nn.backend import load_keras

if TYPE_CHECKING:
    import keras
else:
    keras = load_keras()

__all__ = ["GuardedAdam", "average_momentum", "learning_rate"]

_CLIP = 5.0  # norm of all gradients together; `clipnorm` would be for each variable, another thing
_MOMENTUM = 0.99


class GuardedAdam(keras.optimizers.Adam):  # type: ignore[misc,unused-ignore]
    """Adam with averaged weights, in which a non-finite gradient never reaches a weight.

    A step whose gradient holds NaN or infinity, or is too long to be measured in float32 (over 1.8e19), changes no
    weight and is counted in `skipped`.
    Checking the loss would not do: on a CPU the fused convolution and ReLU turn NaN into 0, and the
    loss stays finite.

    Adam is of Kingma and Ba, ICLR 2015; averaging of Polyak and Juditsky, 1992.
    """

    def __init__(self) -> None:
        # The rate is a function, so that each backend asks for it within the step, after the check.
        super().__init__(learning_rate=self._current_rate, use_ema=True, ema_momentum=_MOMENTUM)
        self.rate = self.add_variable((), name="rate")
        self.momentum = self.add_variable((), name="average_momentum")
        self.skipped = self.add_variable((), dtype="int32", name="skipped")
        self.ema_momentum = self.momentum  # of this step, not one for all
        self._usable: Any = 1.0

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Clip the gradients and update the variables, unless the norm of all together is not finite."""
        ops = keras.ops
        grads = list(grads)
        norm = ops.sqrt(ops.sum(ops.stack([ops.sum(ops.square(gradient)) for gradient in grads])))
        # Of the norm, not of the gradients: squares overflow long before these do, and Keras would then scale by NaN.
        finite = ops.isfinite(norm)
        scale = _CLIP * ops.minimum(1.0 / norm, 1.0 / _CLIP)
        grads = [ops.where(finite, gradient * scale, ops.zeros_like(gradient)) for gradient in grads]
        self.skipped.assign_add(1 - ops.cast(finite, "int32"))
        # Zero gradients are not enough: the momentum of earlier steps would still move the weights.
        self._usable = ops.cast(finite, "float32")
        try:
            super().apply(grads, trainable_variables)
        finally:
            self._usable = 1.0

    def _current_rate(self) -> Any:
        return self.rate * self._usable


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Return the learning rate of a step: a linear rise, then half a cosine down to almost 0.

    Parameters
    ----------
    step : int
        Steps done before this one.
    steps : int
        Steps planned; 0 while that isn't known, which is during the rise.
    peak : float
        Highest rate.
    warmup : int
        Steps of the rise; at most a quarter of the steps planned.
    """
    rise = min(warmup, steps // 4) if steps else warmup
    if step < rise or not steps:
        return peak * min(1.0, (step + 1) / (rise + 1))
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / (steps - rise)))


def average_momentum(step: int) -> float:
    """Return the weight of the past in the averaged weights, for a step.

    It grows to 0.99, so that early averages are not held back by the first, random weights.
    """
    return min(_MOMENTUM, (1 + step) / (10 + step))
