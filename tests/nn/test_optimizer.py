"""The optimizer: kernels by Muon, the rest by Adam, and no bad gradient in a weight."""

from __future__ import annotations

import keras
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet.nn.optimizer import GuardedMuon, average_momentum, learning_rate, orthogonalized


def steps(start: npt.NDArray[np.float32], *gradients: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a variable after steps with these gradients, at a rate of 0.1."""
    optimizer, variable = GuardedMuon(), keras.Variable(start)
    optimizer.build([variable])
    optimizer.rate.assign(0.1)
    for gradient in gradients:
        optimizer.apply([gradient], [variable])
    return np.array(variable.numpy())


def draw(seed: int, *shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_bad_gradient_moves_no_weight() -> None:
    optimizer = GuardedMuon()
    kernel, bias = (keras.Variable(np.ones(shape, np.float32)) for shape in [(3, 3, 2, 4), (4,)])
    optimizer.build([kernel, bias])
    optimizer.rate.assign(0.1)
    good = [draw(0, 3, 3, 2, 4), np.ones(4, np.float32)]
    optimizer.apply(good, [kernel, bias])
    moved = [np.array(variable.numpy()) for variable in (kernel, bias)]
    assert (moved[0] != 1).any() and (moved[1] < 1).all()
    for bad in (np.nan, np.inf, 1e25):
        for which in (0, 1):
            gradients = [gradient.copy() for gradient in good]
            gradients[which].flat[1] = bad
            optimizer.apply(gradients, [kernel, bias])
            for variable, value in zip((kernel, bias), moved, strict=True):
                np.testing.assert_array_equal(variable.numpy(), value)
    assert int(optimizer.skipped.numpy()) == 6
    optimizer.apply(good, [kernel, bias])
    assert (kernel.numpy() != moved[0]).any() and (bias.numpy() < moved[1]).all()
    assert all(np.isfinite(variable.numpy()).all() for variable in optimizer.variables)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_orthogonalized_keeps_directions_and_evens_out_their_sizes(
    seed: int, rows: int, columns: int
) -> None:
    count = min(rows, columns)
    left, right = (np.linalg.qr(draw(seed, side, count))[0] for side in (rows, columns))
    sizes = 100 * np.geomspace(1, 0.02, count)
    found = keras.ops.convert_to_numpy(orthogonalized(((left * sizes) @ right.T).astype(np.float32)))
    inner = left.T @ found @ right
    np.testing.assert_allclose(left @ inner @ right.T, found, atol=1e-4)
    np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-3)
    assert (np.diag(inner) > 0.6).all() and (np.diag(inner) < 1.3).all()


def test_orthogonalized_of_nothing_is_nothing() -> None:
    zeros = np.zeros((9, 4), np.float32)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(orthogonalized(zeros)), zeros)


@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (2, 2, 16, 8), (3, 3, 1, 16)])
def test_a_kernel_moves_by_as_much_as_by_adam_whatever_the_size_of_its_gradient(
    shape: tuple[int, ...],
) -> None:
    start, gradient = draw(1, *shape), draw(2, *shape)
    gradient /= np.linalg.norm(gradient)
    moved = start - steps(start, gradient)
    weak = start - steps(start, 1e-3 * gradient)
    np.testing.assert_allclose(weak, moved, atol=1e-3)
    # Liu et al. 2025, 2.2: 0.2 times the rate in the mean square, where a matrix has its full rank.
    rows, columns = shape[0] * shape[1] * shape[2], shape[3]
    assert np.linalg.matrix_rank(gradient.reshape(rows, columns)) == min(rows, columns)
    assert 0.6 < np.sqrt(np.mean(moved**2)) / (0.1 * 0.2) < 1.3


@pytest.mark.parametrize("shape", [(7,), (1, 1, 16, 3)])
def test_all_else_moves_as_by_adam(shape: tuple[int, ...]) -> None:
    start, gradients = draw(3, *shape), [draw(seed, *shape) for seed in range(4, 9)]
    adam, variable = keras.optimizers.Adam(0.1), keras.Variable(start)
    for gradient in gradients:
        adam.apply([gradient / max(1, np.linalg.norm(gradient) / 5)], [variable])
    np.testing.assert_allclose(steps(start, *gradients), variable.numpy(), atol=1e-5)


def test_learning_rate_rises_and_falls_to_almost_nothing() -> None:
    rates = [learning_rate(step, 1000, 1e-3, 50) for step in range(1000)]
    top = int(np.argmax(rates))
    assert top == 50
    assert rates[top] == 1e-3
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    assert 0 < rates[-1] < 1e-8
    # while the number of steps isn't known, the rise is the same
    assert [learning_rate(step, 0, 1e-3, 50) for step in range(10)] == rates[:10]


def test_averages_forget_the_first_weights_soon() -> None:
    kept = np.prod([average_momentum(step) for step in range(1, 30)])
    assert kept < 1e-5
    assert average_momentum(100_000) == 0.99
