"""What is computed with Keras and the library behind it: fast functions of a network, single operations, lack of memory.

Where these libraries have a faster way than Keras, or another one, it is chosen here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_unet.nn import backend

__all__ = [
    "Computation",
    "Forward",
    "as_array",
    "batch_normalized",
    "compile_ahead",
    "compiled",
    "memory_errors",
    "total",
    "traced",
]

Forward = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""(B, Y, X, C) pixels, normalised, to (B, Y, X, L) outputs."""

Computation = Callable[..., list[Any]]
"""Arrays or tensors, one for each input of a network, to tensors, one for each output."""

_OUT_OF_MEMORY = (
    "resourceexhausted",
    "resource_exhausted",
    "outofmemory",
    "out_of_memory",
    "out of memory",
    "alloc_failed",
    "failed to allocate",
    "can't allocate memory",
    "not enough memory",
)
"""Phrases of which an error that means lack of memory has one, in its class or its message."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise a MemoryError within this context where the backend says in its own way that memory ran out.

    On a GPU it can say so. On a CPU the system ends the process instead, in most cases.
    """
    try:
        yield
    except _own_errors() as error:
        told = f"{type(error).__name__} {error}".lower()
        if any(phrase in told for phrase in _OUT_OF_MEMORY):
            raise MemoryError("The device's memory ran out.") from error
        raise


def compile_ahead() -> bool:
    """Whether Keras should hand training steps to a compiler.

    JAX traces only when it compiles. For TensorFlow it would be XLA, which is slower on a CPU.
    """
    return backend.name() == "jax"


def compiled(network: Any, *, final: bool = False) -> Computation:
    """Make a fast function of a network in inference mode.

    With TensorFlow it is traced once, for all sizes; JAX compiles it for each size. `model.predict` costs more: a
    fixed time for each call, and eager bookkeeping.

    Parameters
    ----------
    network : keras.Model
        With one input or several, one output or several.
    final : bool
        Whether to take its weights for final, and time to prepare them: TensorFlow then arranges kernels once, as the processor
        reads them fastest. Otherwise the function follows the weights when they change.

    Returns
    -------
    callable
        From an array, or a tensor of the backend, for each input, to a list of tensors.
    """
    match backend.name():
        case "tensorflow":
            return _compiled_tensorflow(network, final)
        case "jax":
            return _compiled_jax(network)
        case _:
            return _compiled_torch(network)


def as_array(tensor: Any) -> npt.NDArray[Any]:
    """Bring a tensor of the backend to numpy; it waits until it is computed."""
    return np.asarray(backend.loaded().ops.convert_to_numpy(tensor))


def traced(network: Any) -> Forward:
    """Make a fast function, from array to array, of a network with one input and one output.

    Parameters
    ----------
    network : keras.Model
        From (B, Y, X, C) to (B, Y, X, L).

    Returns
    -------
    callable
        From a float32 array (B, Y, X, C) to a float32 array (B, Y, X, L). Y and X are multiples
        of the network's stride.
    """
    compute = compiled(network)
    return lambda pixels: np.asarray(as_array(compute(pixels)[0]), np.float32)


def total(parts: Sequence[Any]) -> Any:
    """Add tensors of one shape; TensorFlow then adds them within the convolution that made the first."""
    if backend.name() == "tensorflow":
        import tensorflow as tf

        return tf.add_n(parts)
    return sum(parts[1:], start=parts[0])


def batch_normalized(features: Any, scale: Any, offset: Any, epsilon: float) -> tuple[Any, Any, Any] | None:
    """Normalise features by the statistics of the batch in one operation, where the backend has one.

    Keras does it in many, which takes TensorFlow six times as long on a processor (features of 2 x 256 x 256 x 16).

    Parameters
    ----------
    features : tensor, shape (B, Y, X, F)
        To normalise.
    scale, offset : tensor, shape (F,)
        Applied afterwards.
    epsilon : float
        Added to the variance.

    Returns
    -------
    tuple of tensor or None
        Normalised features, means and variances; None where Keras has to do it.
    """
    if backend.name() != "tensorflow":
        return None
    import tensorflow as tf

    normalised, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        features, scale, offset, epsilon=epsilon, is_training=True
    )
    pixels = tf.cast(tf.size(features) // tf.shape(features)[-1], tf.float32)
    return (
        normalised,
        mean,
        variance * (pixels - 1) / pixels,
    )  # it gives that of a sample, n - 1 in the divisor


def _own_errors() -> type[Exception]:
    """Return the class of errors that the backend raises while it computes."""
    match backend.name():
        case "tensorflow":
            import tensorflow as tf

            return tf.errors.OpError  # type: ignore[no-any-return,unused-ignore]
        case "jax":
            import jax

            return jax.errors.JaxRuntimeError  # type: ignore[no-any-return,unused-ignore]
        case _:
            return RuntimeError


def _compiled_tensorflow(network: Any, final: bool) -> Computation:
    import tensorflow as tf

    def constant(variable: Any) -> Any:
        # Kernels only: a bias that is a constant is no longer added within its convolution.
        if len(variable.shape) == 1:
            return variable.value
        with tf.init_scope():
            array = variable.numpy()
        return tf.constant(array)

    def answer(*inputs: Any) -> Any:
        if not final:
            return network(_one_or_all(inputs), training=False)
        trainable = [constant(variable) for variable in network.trainable_variables]
        other = [variable.value for variable in network.non_trainable_variables]
        return network.stateless_call(trainable, other, _one_or_all(inputs), training=False)[0]

    signature = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in network.inputs]
    function = tf.function(answer, input_signature=signature, autograph=False)
    return lambda *inputs: _listed(function(*inputs))


def _compiled_jax(network: Any) -> Computation:
    import jax

    @jax.jit
    def function(trainable: Any, other: Any, inputs: Any) -> Any:
        return network.stateless_call(trainable, other, _one_or_all(inputs), training=False)[0]

    def compute(*inputs: Any) -> list[Any]:
        trainable = [variable.value for variable in network.trainable_variables]
        other = [variable.value for variable in network.non_trainable_variables]
        return _listed(function(trainable, other, inputs))

    return compute


def _compiled_torch(network: Any) -> Computation:
    import keras
    import torch

    def compute(*inputs: Any) -> list[Any]:
        with torch.inference_mode():
            # Keras takes arrays, and tensors, but no mixture of both.
            tensors = [keras.ops.convert_to_tensor(each) for each in inputs]
            return _listed(network(_one_or_all(tensors), training=False))

    return compute


def _one_or_all(inputs: Sequence[Any]) -> Any:
    """Return inputs as Keras takes them: one by itself, several as a list."""
    return inputs[0] if len(inputs) == 1 else list(inputs)


def _listed(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]
