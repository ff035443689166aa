"""Settings that are chosen: what they follow from, and the reasons that are given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet.config import TrainConfig, UNetConfig
from napari_unet.data.advice import (
    Computer,
    advise,
    receptive_field,
    smaller,
    training_memory,
)
from napari_unet.data.dataset import Example
from napari_unet.data.labels import IGNORE
from napari_unet.data.sights import Sights, look
from napari_unet.data.synthetic import cells, membranes

LAPTOP = Computer(cores=2, memory=16_000_000_000)
STATION = Computer(cores=16, memory=64_000_000_000, accelerator="NVIDIA T4", bfloat16=True)


def example(target: np.ndarray, ids: np.ndarray | None = None) -> Example:
    image = np.zeros((*target.shape, 1), np.float32)
    return Example(image, target.astype(np.uint8), 0, 0, ids=ids)


def disks(width: int, size: int = 256, gap: int = 8) -> np.ndarray:
    """Disks of one width in rows and columns, none of them cut off."""
    y, x = np.mgrid[:size, :size] % (width + gap) - (width + gap) // 2
    inside = y**2 + x**2 <= (width / 2) ** 2
    whole = size // (width + gap) * (width + gap)
    inside[whole:], inside[:, whole:] = False, False
    return inside.astype(np.uint8)


@given(width=st.integers(6, 80))
def test_the_width_of_objects_is_found(width: int) -> None:
    assert look([example(disks(width))]).object_size == pytest.approx(width, abs=2)


def test_specks_and_objects_that_are_cut_off_hardly_count() -> None:
    target = disks(40)
    target[::9, 250] = 1  # specks
    target[:, :3] = 1  # cut off by the border
    assert look([example(target)]).object_size == pytest.approx(40, abs=2)


def test_cells_between_membranes_are_objects() -> None:
    _, labels = membranes((2, 256, 256), seed=3)
    size = look([example(slice_ == 1) for slice_ in labels]).object_size
    assert size is not None
    assert 30 < size < 60


def test_touching_objects_are_told_apart_by_their_numbers() -> None:
    _, labels, ids = cells((256, 256), seed=2)
    merged, apart = look([example(labels)]), look([example(labels, ids.astype(np.int32))])
    assert merged.object_size is not None and apart.object_size is not None
    assert 30 < apart.object_size < 60 < merged.object_size


def test_strokes_measure_nothing() -> None:
    target = np.full((512, 512), IGNORE, np.uint8)
    target[20:24, 10:90], target[60:64, 10:90] = 0, 1
    sights = look([example(target)])
    assert sights.object_size is None
    assert sights.painted == pytest.approx(640 / 512**2)
    assert (
        "Patches of 256 pixels: strokes do not tell how wide an object is, and the network sees 220 pixels at once."
        in advise(sights, LAPTOP).reasons
    )


def test_patches_are_no_larger_than_the_images() -> None:
    reasons = advise(Sights(((90, 300), (96, 96)), 1.0, 20.0), LAPTOP).reasons
    assert "Patches of 96 pixels: the shorter side of the images is about 93 pixels." in reasons
    narrow = advise(Sights(((20, 1000),), 1.0, 20.0), LAPTOP).reasons
    assert "Patches of 32 pixels: the shorter side of the images is about 20 pixels." in narrow


@pytest.mark.parametrize(
    ("width", "reason"),
    [
        (140, "a patch should show several."),
        (300, "but a step of larger patches would take too long."),
    ],
)
def test_several_objects_are_spoken_of_only_where_they_fit(width: int, reason: str) -> None:
    [patch] = [r for r in advise(Sights(((2048, 2048),), 1.0, width), LAPTOP).reasons if "Patches" in r]
    assert patch.startswith(f"Patches of 512 pixels: an object is about {width} pixels wide, ")
    assert patch.endswith(reason)


def test_a_computer_without_a_gpu() -> None:
    advice = advise(Sights(((512, 512),) * 20, 1.0, 40.2), LAPTOP)
    assert advice.network == UNetConfig.preset("quick")
    assert (advice.train.patch, advice.train.batch, advice.train.precision) == (256, 2, "float32")
    assert advice.reasons == (
        "A network of 16 filters: without a GPU, 2 cores would take about 16 times as long for a step of the article's 64.",
        "Patches of 256 pixels: an object is about 40 pixels wide, so that several fit, and the network sees 220 pixels at once.",
        "2 patches in a step: with more, fewer steps would fit in the time without a GPU.",
        "Learning rate 0.002: a network without batch normalisation learns no better with a higher one.",
        "Computed in float32: this computer has no bfloat16.",
    )
    assert advice.warnings == ()


def test_a_computer_with_a_gpu_and_wide_objects() -> None:
    advice = advise(Sights(((2048, 2048),), 1.0, 90.0), STATION)
    assert advice.network == UNetConfig()
    assert (advice.train.patch, advice.train.batch) == (384, 3)
    assert advice.reasons[:2] == (
        "A network of 64 filters, the article's: NVIDIA T4 trains it in minutes.",
        "Patches of 384 pixels: an object is about 90 pixels wide, and a patch should show several.",
    )
    assert advice.train.learning_rate == 2e-3
    assert advice.reasons[4] == (
        "Computed in bfloat16, which this computer has: more steps a minute, and as many of them end almost as well."
    )


def test_what_was_given_is_kept_and_needs_no_reason() -> None:
    train = TrainConfig(patch=64, batch=5, learning_rate=0.01, precision="bfloat16")
    advice = advise(Sights(((512, 512),)), LAPTOP, UNetConfig(depth=3), train)
    assert (advice.network, advice.train) == (UNetConfig(depth=3), train)
    assert advice.reasons == () == advice.warnings


def test_objects_wider_than_the_network_sees_are_said() -> None:
    advice = advise(Sights(((2048, 2048),), 1.0, 300.0), LAPTOP)
    [warning] = advice.warnings
    assert warning == (
        "An object is about 300 pixels wide, but the network sees 220 pixels at once, so it may not know what it looks at: "
        "make the images smaller, or choose a network of greater depth."
    )
    assert advise(Sights(((2048, 2048),), 1.0, 300.0), LAPTOP, UNetConfig(depth=5)).warnings == ()


def test_little_memory_means_smaller_steps_and_too_little_is_said() -> None:
    small = Computer(cores=4, memory=5_000_000_000)
    advice = advise(Sights(((512, 512),)), small, UNetConfig())
    assert (advice.train.patch, advice.train.batch) == (128, 2)
    assert advice.reasons[:2] == (
        "Patches of 128 pixels: larger ones need over half of 5.0 GB of memory.",
        "2 patches in a step: more need over half of 5.0 GB of memory.",
    )
    given = advise(Sights(((512, 512),)), small, UNetConfig(), TrainConfig(patch=1024, batch=2))
    [warning] = given.warnings
    assert warning.startswith(
        "2 patches of 1024 pixels in a step of 64 filters need about 17 GB of memory, but this "
    )


def test_the_memory_of_the_images_is_counted() -> None:
    one = example(disks(40), np.ones((256, 256), np.int32))
    assert look([one, one]).bytes == 2 * 256**2 * (
        4 + 4 + 1 + 1 + 2
    )  # image, objects, targets, their copy, weights
    images = ((512, 512),)
    laptop = Computer(cores=4, memory=9_000_000_000)
    alone, beside = (advise(Sights(images, bytes=held), laptop, UNetConfig()) for held in (0, 4_000_000_000))
    assert (alone.train.patch, beside.train.patch) == (256, 128)
    assert (
        "Patches of 128 pixels: larger ones need over half of the 5.0 GB of memory that the images leave."
        in beside.reasons
    )
    train = TrainConfig(patch=256, batch=4)
    assert advise(Sights(images), laptop, UNetConfig(), train).warnings == ()
    [warning] = advise(Sights(images, bytes=7_000_000_000), laptop, UNetConfig(), train).warnings
    assert warning == (
        "4 patches of 256 pixels in a step of 64 filters need about 3.9 GB of memory beside 7.0 GB of images, "
        "but this computer has 9.0 GB: choose a smaller patch or batch, or fewer filters."
    )


@pytest.mark.parametrize("computer", [LAPTOP, STATION])
def test_images_that_memory_cannot_hold_are_said(computer: Computer) -> None:
    [warning] = advise(Sights(((512, 512),), bytes=computer.memory), computer).warnings
    assert warning == (
        f"The images take about {computer.memory // 10**9} GB of memory while a network trains on them, but this computer has "
        f"{computer.memory // 10**9} GB: train on fewer slices, or on parts cut out of them."
    )


_sights = st.builds(
    Sights,
    st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), max_size=5).map(tuple),
    st.floats(0, 1),
    st.none() | st.floats(0.5, 4000),
    st.integers(0, 10**12),
)
_computers = st.builds(
    Computer, st.integers(1, 256), st.integers(10**9, 10**12), st.none() | st.just("GPU"), st.booleans()
)
_networks = st.none() | st.builds(UNetConfig, depth=st.integers(1, 6), filters=st.integers(1, 256))


@given(_sights, _computers, _networks)
def test_whatever_is_seen_the_settings_fit_together(
    sights: Sights, computer: Computer, network: UNetConfig | None
) -> None:
    advice = advise(sights, computer, network)
    train = advice.train
    assert train.patch is not None and train.batch is not None
    assert train.patch % advice.network.stride == 0
    assert 16 <= train.patch <= 512
    assert all(reason.endswith(".") and "\n" not in reason for reason in advice.reasons)
    assert advise(sights, computer, advice.network, train).train == train
    least = train.batch == 1 and smaller(train.patch, 1, advice.network.stride) is None
    if computer.accelerator is None and not least:
        fits = (
            training_memory(advice.network, train.patch, train.batch) <= (computer.memory - sights.bytes) / 2
        )
        assert fits or train.patch <= min(min(size) for size in sights.sizes) + advice.network.stride


@given(st.integers(1, 6), st.integers(1, 64), st.integers(1, 256))
def test_steps_become_smaller_until_they_cannot(depth: int, units: int, batch: int) -> None:
    stride = 2**depth
    patch = units * max(16, stride)
    sizes = [(patch, batch)]
    while (less := smaller(*sizes[-1], stride)) is not None:
        sizes.append(less)
        assert less[0] * less[1] < sizes[-2][0] * sizes[-2][1]
    assert sizes[-1][1] == 1
    for side, _ in sizes[1:]:
        assert side % stride == 0
        assert side == patch or side >= 2 * stride


def test_deeper_networks_see_further() -> None:
    seen = [receptive_field(UNetConfig(depth=depth)) for depth in range(1, 7)]
    assert seen == [20, 48, 108, 220, 444, 892]
