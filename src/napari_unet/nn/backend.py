"""The library that computes: loading it once, seeds, precision, devices, traced functions.

TensorFlow is the default and the tested backend; ``KERAS_BACKEND`` set to ``jax`` or ``torch``
chooses another. This module imports no Keras by itself, so it can say clearly why Keras or
TensorFlow cannot be loaded.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_unet.errors import BackendError

__all__ = [
    "Computation",
    "Forward",
    "Precision",
    "as_array",
    "batch_normalized",
    "compile_ahead",
    "compiled",
    "device_name",
    "limit_threads",
    "load_keras",
    "memory_errors",
    "name",
    "policy",
    "prepare",
    "total",
    "traced",
    "versions",
]

Precision = Literal["float32", "bfloat16"]

Forward = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""(B, Y, X, C) pixels, normalised, to (B, Y, X, L) outputs."""

Computation = Callable[..., list[Any]]
"""Arrays or tensors, one for each input of a network, to tensors, one for each output."""

# Drivers of Mesa, which carry LLVM as TensorFlow does; both in one process end in a crash.
_MESA = re.compile(r"/(libgallium[^/]*\.so|[^/]+_dri\.so)")

_OUT_OF_MEMORY = ("ResourceExhaustedError", "OutOfMemoryError")

_LIBRARIES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def load_keras() -> Any:
    """Import Keras with its backend, where that is possible and safe.

    Returns
    -------
    module
        ``keras``.

    Raises
    ------
    BackendError
        If a viewer with OpenGL lives in this process on Linux, or if Keras or its backend
        is missing or cannot run on this processor.
    """
    _refuse_beside_viewer()
    library = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if library == "tensorflow" and "tensorflow" not in sys.modules:
        _check_processor()
        # Its start-up notes go to the log of whoever asked for them, not to everyone's terminal.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        importlib.import_module(library)
        return importlib.import_module("keras")
    except ImportError as error:
        # Several lines of advice about other platforms follow the first one.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackendError(
            f"{_LIBRARIES.get(library, library)} cannot be loaded ({reason}): "
            f'install it with "{sys.executable} -m pip install --upgrade keras {library}".'
        ) from error


def name() -> str:
    """Return the name of the backend: ``"tensorflow"``, ``"jax"`` or ``"torch"``."""
    return str(_loaded().backend.backend())


def _loaded() -> Any:
    """Keras, loaded if need be. Whether it may be loaded isn't asked anew: that takes 5 ms, too much for each tile."""
    return sys.modules.get("keras") or load_keras()


def prepare(precision: Precision = "float32", seed: int = 0) -> None:
    """Set up the backend for one job: precision, seeds, memory.

    Parameters
    ----------
    precision : {"float32", "bfloat16"}
        Of the computation; weights are float32 in both.
    seed : int
        Of everything random in Keras: first weights and dropout.

    Raises
    ------
    BackendError
        As `load_keras`.
    """
    keras = load_keras()
    keras.config.set_dtype_policy(_policy_name(precision))
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        _prepare_tensorflow()


def limit_threads(count: int) -> None:
    """Compute with so many threads in this process, which shares its processor with others.

    It has no effect once TensorFlow has computed something, nor on JAX, which takes what the system lets it take.

    Parameters
    ----------
    count : int
        Of one operation of the network; operations run one after the other.

    Raises
    ------
    BackendError
        As `load_keras`.
    """
    match name():
        case "tensorflow":
            import tensorflow as tf

            with suppress(RuntimeError):  # its threads have started
                tf.config.threading.set_intra_op_parallelism_threads(count)
                tf.config.threading.set_inter_op_parallelism_threads(1)
        case "torch":
            import torch

            torch.set_num_threads(count)


@contextmanager
def policy(precision: Precision) -> Iterator[None]:
    """Build layers in `precision` within this context."""
    keras = load_keras()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_policy_name(precision))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def device_name() -> str:
    """Say in words what computes: ``"CPU"``, or ``"GPU: "`` and its name."""
    match name():
        case "tensorflow":
            import tensorflow as tf

            gpus = tf.config.list_physical_devices("GPU")
            found = (
                tf.config.experimental.get_device_details(gpus[0]).get("device_name", "") if gpus else None
            )
        case "jax":
            import jax

            device = jax.devices()[0]
            found = None if device.platform == "cpu" else device.device_kind
        case _:
            import torch

            found = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return "CPU" if found is None else f"GPU: {found}".removesuffix(": ")


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise a MemoryError within this context where the backend says in its own way that memory ran out.

    On a GPU it can say so. On a CPU the system ends the process instead, in most cases.
    """
    try:
        yield
    except _own_errors() as error:
        if "RESOURCE_EXHAUSTED" in str(error) or type(error).__name__ in _OUT_OF_MEMORY:
            raise MemoryError("The device's memory ran out.") from error
        raise


def compile_ahead() -> bool:
    """Whether Keras should hand training steps to a compiler.

    JAX traces only when it compiles. For TensorFlow it would be XLA, which is slower on a CPU.
    """
    return name() == "jax"


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
    match name():
        case "tensorflow":
            return _compiled_tensorflow(network, final)
        case "jax":
            return _compiled_jax(network)
        case _:
            return _compiled_torch(network)


def as_array(tensor: Any) -> npt.NDArray[Any]:
    """Bring a tensor of the backend to numpy; it waits until it is computed."""
    return np.asarray(_loaded().ops.convert_to_numpy(tensor))


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
    if name() == "tensorflow":
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
    if name() != "tensorflow":
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


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a model depends on."""
    found = {"python": platform.python_version()}
    for package in ("napari-unet", "keras", name(), "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            module = sys.modules.get(package)
            if module is not None:  # tensorflow-cpu and its like install the same module
                found[package] = str(module.__version__)
    return found


def _own_errors() -> type[Exception]:
    """Return the class of errors that the backend raises while it computes."""
    match name():
        case "tensorflow":
            import tensorflow as tf

            return tf.errors.OpError  # type: ignore[no-any-return,unused-ignore]
        case "jax":
            import jax

            return jax.errors.JaxRuntimeError  # type: ignore[no-any-return,unused-ignore]
        case _:
            return RuntimeError


def _policy_name(precision: Precision) -> str:
    return "float32" if precision == "float32" else "mixed_bfloat16"


def _refuse_beside_viewer() -> None:
    """Refuse to load TensorFlow where it would crash the viewer."""
    if not sys.platform.startswith("linux"):
        return
    if _viewer_lives() or _mesa_is_loaded():
        raise BackendError(
            "Keras cannot be loaded in a process that shows a napari viewer: on Linux its libraries and the viewer's "
            "OpenGL driver crash each other. Run the job beside it with napari_unet.run_in_worker(job), or in a script "
            "without a viewer."
        )


def _viewer_lives() -> bool:
    """Whether a viewer is open, asked without importing napari."""
    viewer = sys.modules.get("napari.viewer")
    return viewer is not None and viewer.current_viewer() is not None


def _mesa_is_loaded() -> bool:
    try:
        return _MESA.search(Path("/proc/self/maps").read_text(errors="replace")) is not None
    except OSError:
        return False


def _check_processor() -> None:
    """Refuse a processor that TensorFlow would crash on."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    if flags is not None and "avx" not in flags.group(1).split():
        raise BackendError(
            "TensorFlow needs a processor with AVX instructions, which this one lacks: use another computer, "
            "or install PyTorch and set the environment variable KERAS_BACKEND to torch."
        )


def _prepare_tensorflow() -> None:
    import tensorflow as tf

    # Its advice on tracing is for programmers: each run traces once, on purpose.
    tf.get_logger().setLevel("ERROR")
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        # Costs nothing on a CPU; on a GPU it would cost much of the speed.
        tf.config.experimental.enable_op_determinism()
    for gpu in gpus:
        # Refused once the device is in use; it was set up before that, then.
        with suppress(RuntimeError, ValueError):
            tf.config.experimental.set_memory_growth(gpu, True)


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
