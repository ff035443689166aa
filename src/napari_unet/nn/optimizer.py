"""How weights are updated: Muon that refuses bad gradients, and its rate over the steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from napari_unet.nn.backend import load_keras

if TYPE_CHECKING:
    import keras
else:
    keras = load_keras()

__all__ = ["GuardedMuon", "average_momentum", "learning_rate", "orthogonalized"]

_CLIP = 5.0  # norm of all gradients together; `clipnorm` would be for each variable, another thing
_AVERAGE = 0.99
_MUON_MOMENTUM = 0.95
_RMS = 0.2  # of Muon's update over the rate: about that of Adam's, so that one rate suits both
_ADAM = 0.9, 0.999  # shares of the past in the mean and the mean square of gradients
_SMALLEST = 1e-7
_QUINTIC = 3.4445, -4.7750, 2.0315  # brings singular values from 0.01 to 1 close to 1 in five rounds
_ROUNDS = 5


class GuardedMuon(keras.optimizers.Optimizer):  # type: ignore[misc,unused-ignore]
    """Muon with averaged weights, in which a non-finite gradient never reaches a weight.

    The momentum of a convolution's kernel is taken as a matrix, from all that a filter sees to the filters, and made orthogonal: a step
    then changes what every direction does by as much, not mostly the few that gradients point to. All other variables, and kernels
    of 1 x 1 (the last one), are updated as by Adam.

    A step whose gradient holds NaN or infinity, or is too long to be measured in float32 (over 1.8e19), changes no
    weight and is counted in `skipped`.
    Checking the loss would not do: on a CPU the fused convolution and ReLU turn NaN into 0, and the
    loss stays finite.

    Muon is of Jordan et al. ("Muon: an optimizer for hidden layers in neural networks", 2024), the size of its updates of Liu et al.
    ("Muon is scalable for LLM training", 2025, section 2.2), Adam of Kingma and Ba, ICLR 2015, averaging of Polyak and Juditsky, 1992.
    """

    def __init__(self) -> None:
        # The rate is a function, so that each backend asks for it within the step, after the check.
        super().__init__(learning_rate=self._current_rate, use_ema=True, ema_momentum=_AVERAGE)
        self.rate = self.add_variable((), name="rate")
        self.momentum = self.add_variable((), name="average_momentum")
        self.skipped = self.add_variable((), dtype="int32", name="skipped")
        self.ema_momentum = self.momentum  # of this step, not one for all
        self._usable: Any = 1.0

    def build(self, variables: Any) -> None:
        """Add what is remembered of the gradients of each variable."""
        if self.built:
            return
        super().build(variables)
        self._means = self.add_optimizer_variables(variables, "mean")
        self._squares = {
            self._get_variable_index(variable): self.add_variable_from_reference(variable, "square")
            for variable in variables
            if not _is_kernel(variable)
        }

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

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        index = self._get_variable_index(variable)
        mean, square = self._means[index], self._squares.get(index)
        update = _muon(gradient, mean) if square is None else self._adam(gradient, mean, square)
        self.assign_sub(variable, learning_rate * update)

    def _adam(self, gradient: Any, mean: Any, square: Any) -> Any:
        ops = keras.ops
        first, second = _ADAM
        step = ops.cast(self.iterations + 1, "float32")
        mean.assign(first * mean + (1 - first) * gradient)
        square.assign(second * square + (1 - second) * ops.square(gradient))
        few = ops.sqrt(1 - second**step) / (1 - first**step)  # both began at 0
        return few * mean / (ops.sqrt(square) + _SMALLEST)

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
    return min(_AVERAGE, (1 + step) / (10 + step))


def _is_kernel(variable: Any) -> bool:
    """Whether this is the kernel of a convolution that looks at more than one pixel."""
    shape = variable.shape
    return len(shape) > 2 and math.prod(shape[:-2]) > 1


def _muon(gradient: Any, mean: Any) -> Any:
    """Return the update of a kernel, and note its gradient."""
    past = _MUON_MOMENTUM
    mean.assign(past * mean + (1 - past) * gradient)
    ahead = past * mean + (1 - past) * gradient  # Nesterov's
    matrix = keras.ops.reshape(ahead, (-1, ahead.shape[-1]))
    update = _RMS * math.sqrt(max(matrix.shape)) * orthogonalized(matrix)
    return keras.ops.reshape(update, ahead.shape)


def orthogonalized(matrix: Any) -> Any:
    """Bring the singular values of a matrix close to 1.

    Newton and Schulz's iteration with the quintic polynomial of Muon, all rounds on the small matrix of products between columns (or
    rows): of a kernel, that takes a third of the work.

    Parameters
    ----------
    matrix : tensor of float32, shape (M, N)
        Not too far from singular: directions below a thousandth of the whole stay small.

    Returns
    -------
    tensor of float32, shape (M, N)
        With singular values from 0.7 to 1.2, and the same singular vectors; 0 for a matrix of zeros.
    """
    ops = keras.ops
    if matrix.shape[0] < matrix.shape[1]:
        return ops.transpose(orthogonalized(ops.transpose(matrix)))
    a, b, c = _QUINTIC
    matrix = matrix / (ops.norm(matrix) + _SMALLEST)
    products = ops.transpose(matrix) @ matrix
    one = ops.eye(matrix.shape[1])
    turn = one
    for _ in range(_ROUNDS):
        factor = a * one + b * products + c * (products @ products)
        turn = turn @ factor
        products = products @ factor @ factor  # polynomials of one matrix: the order does not matter
    return matrix @ turn
