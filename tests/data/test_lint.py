"""The label linter: what it says of bad labels, and that it leaves good ones alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_unet.data import lint_pairs
from napari_unet.data import paint as paint_module
from napari_unet.data.axes import Stack
from napari_unet.data.dataset import prepare
from napari_unet.data.finding import Finding, limited, percent
from napari_unet.data.lint import LabelCheck, lint
from napari_unet.data.synthetic import cells
from napari_unet.errors import DataError

AXES = {2: "YX", 3: "ZYX", 4: "ZYXS"}


def check(
    images: np.ndarray | Sequence[np.ndarray], labels: np.ndarray | Sequence[np.ndarray], **options: Any
) -> LabelCheck:
    """Lint images called raw, raw1 ... and labels called cells, cells1 ..."""
    images = [images] if isinstance(images, np.ndarray) else images
    labels = [labels] if isinstance(labels, np.ndarray) else labels
    options.setdefault("unpainted", "background")
    return lint(
        [Stack(a, AXES[a.ndim], f"raw{i or ''}") for i, a in enumerate(images)],
        [Stack(a, AXES[a.ndim], f"cells{i or ''}") for i, a in enumerate(labels)],
        **options,
    )


def told(result: LabelCheck, severity: str) -> list[str]:
    return [str(finding) for finding in result.findings if finding.severity == severity]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return cells((160, 200), seed=3)[0]


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    return cells((160, 200), seed=3)[1]


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    return cells((160, 200), seed=3)[2]


def stroke(
    labels: np.ndarray, value: int, start: tuple[int, int], length: int, rng: np.random.Generator
) -> None:
    """Paint a wandering stroke, 5 pixels wide."""
    (y, x), heading = start, rng.uniform(0, 2 * np.pi)
    rows, columns = np.ogrid[: labels.shape[0], : labels.shape[1]]
    for _ in range(length):
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= 6.25] = value
        heading += rng.normal(0, 0.2)
        y, x = y + np.sin(heading), x + np.cos(heading)


def scribbles(shape: tuple[int, int], values: Sequence[int]) -> np.ndarray:
    rng = np.random.default_rng(1)
    labels = np.zeros(shape, np.uint8)
    for value in values:
        for _ in range(3):
            stroke(labels, value, tuple(rng.integers(30, min(shape) - 30, 2)), 35, rng)
    return labels


def test_good_labels_get_no_error_and_no_warning(
    picture: np.ndarray, mask: np.ndarray, ids: np.ndarray
) -> None:
    for labels, target in (
        (mask, "classes"),
        (ids, "objects"),
        (mask > 0, "classes"),
        (mask * 1.0, "classes"),
    ):
        result = check(picture, labels)
        assert told(result, "error") == told(result, "warning") == []
        assert result.target == target
    assert told(check(picture, ids), "hint") == [
        (
            f"{percent(np.count_nonzero(ids), ids.size)} of the pixels are painted, with {ids.max()} objects; half of them have more than "
            f"{int(np.median(np.bincount(ids.ravel())[1:])):,} pixels in a slice."
        )
    ]


def test_an_empty_layer_is_an_error_with_a_way_out(picture: np.ndarray) -> None:
    for unpainted in ("background", "ignore"):
        (finding,) = check(picture, np.zeros((160, 200), np.uint8), unpainted=unpainted).findings
        assert finding == Finding(
            "error",
            "labels 'cells'",
            "Labels 'cells' have no painted pixels.",
            "Paint some pixels of each class, then start again.",
        )


def some(value: float, rest: float = 0) -> Callable[[np.ndarray], np.ndarray]:
    return lambda mask: np.where(mask > 0, value, rest)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: np.ones_like(m), "Labels 'cells' hold a single value, 1, on every pixel. A network needs two classes"),
        (some(0.25), "Labels 'cells' hold decimals, from 0 to 0.25, on 38 % of the pixels. Labels are whole numbers, so this looks like a probability map."),
        (some(0.75, 0.5), "hold decimals, from 0.5 to 0.75, on 100 % of the pixels."),
        (some(17.5), "from 0 to 17.5, on 38 % of the pixels. Labels are whole numbers, so this looks like an image or a measurement."),
        (some(1, np.nan), "Labels 'cells' hold no number at all (NaN or infinite) on 19,764 pixels. Set these pixels to 0."),
        (lambda m: m.astype(int) - 1, "Labels 'cells' hold negative values, down to -1, on 19,764 pixels (62 %). Labels are 0 or above. If -1 marks what nobody annotated, set it to 0 and choose 'Unpainted is: ignore'"),
        (lambda m: np.where(m > 0, -7, 0), "down to -7, on 12,236 pixels (38 %). Labels are 0 or above. Repaint these pixels"),
        (lambda m: np.where(m > 0, np.uint64(2**63), np.uint64(1)), "above the largest that can be stored (9223372036854775807), on 12,236 pixels."),
        (lambda m: np.repeat(m[np.newaxis, ..., np.newaxis], 3, -1), "a colour picture: each pixel holds 3 numbers, where labels have one. All 3 are the same, so nothing is lost by keeping one."),
        (lambda m: np.stack([m, m * 2, m * 0], -1)[np.newaxis], "It has 2 different colours, probably one for each class. Give each colour a number of its own"),
        (lambda m: m[:, :-1], "Labels 'cells' have shape (160, 199) (YX) but image 'raw' has (160, 200) (YX). They must match"),
        (lambda m: m.T, "Rows and columns are exchanged: transpose the labels"),
        (lambda m: m[::2, ::2], "They are 1/2 of the image in each direction, as if drawn on a smaller copy"),
        (lambda m: np.stack([m] * 4), "The image has 1 slice, the labels 4: choose the slices that were painted"),
        (lambda m: np.random.default_rng(0).normal(100, 20, m.shape).clip(0, 250).astype("u1"), "different values in patches of 1.1 pixels on average. That is what an image looks like, not labels."),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_learned_are_errors(
    picture: np.ndarray, mask: np.ndarray, change: Callable[[np.ndarray], np.ndarray], sentence: str
) -> None:
    errors = told(check(picture, change(mask)), "error")
    assert len(errors) == 1
    assert sentence in errors[0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "Only one value, 1, is painted, on 38 % of the pixels, and what is unpainted is to be ignored: then there is nothing to tell it apart from. If all that is unpainted is background, choose 'Unpainted is: background'."),
        ({"background_value": 1}, "Labels 'cells' are painted with a single value, 1, and that is background."),
        ({"background_value": 2}, "Labels 'cells' are painted with 1, and 2 is named as background."),
    ],
)  # fmt: skip
def test_a_mask_whose_rest_is_ignored_needs_background(
    picture: np.ndarray, mask: np.ndarray, options: dict[str, int], sentence: str
) -> None:
    (error,) = told(check(picture, mask, unpainted="ignore", **options), "error")
    assert error.startswith(sentence)


def test_more_classes_than_a_network_learns() -> None:
    many = np.repeat(np.arange(300), 10)[np.newaxis].repeat(9, 0)
    image = np.random.default_rng(0).integers(0, 99, many.shape)
    (error,) = told(check(image, many, target="classes"), "error")
    assert error.startswith(
        "Labels 'cells' hold 299 different values, but a network learns at most 254 classes"
    )
    assert told(check(image, many), "error") == []  # as objects they are fine


@pytest.mark.parametrize("values", [(1, 2), (1,), (3, 9, 200)])
def test_strokes_are_noticed_where_the_rest_would_be_background(values: tuple[int, ...]) -> None:
    image = cells((200, 260), seed=5)[0]
    labels = scribbles((200, 260), values)
    share = percent(np.count_nonzero(labels), labels.size)
    (warning,) = told(check(image, labels), "warning")
    assert warning.startswith(f"Only {share} of the pixels are painted, in ")
    assert "pieces on a usual slice that look like strokes of a brush." in warning
    if len(values) > 1:
        assert f"the value that you painted background with ({' or '.join(map(str, values))})." in warning
        ignoring = check(image, labels, unpainted="ignore", background_value=values[0])
        assert told(ignoring, "warning") == told(ignoring, "error") == []
    else:
        assert "paint some background too, with another value" in warning


def test_slices_without_paint_are_counted_and_their_fate_is_told(
    picture: np.ndarray, mask: np.ndarray
) -> None:
    stack, painted = np.stack([picture] * 5), np.stack([mask * (n in (0, 3)) for n in range(5)])
    assert told(check(stack, painted), "hint")[0] == (
        "3 of the 5 slices of labels 'cells' have no paint. They are left out, and do not count as background, though unpainted means "
        "background on the others. Training uses the other 2."
    )
    full = np.stack([mask * 0 + (n in (0, 3)) for n in range(5)])
    assert told(check(stack, full), "error")[0].startswith(
        "Labels 'cells' hold a single value, 1, on every pixel of the slices with paint. A network needs two classes"
    )
    painted[0, :9] = 1
    hints = told(
        check(stack, painted + (painted > 0) * (stack > 0), unpainted="ignore", background_value=1), "hint"
    )
    assert any("have no paint. Nothing is learned from them." in hint for hint in hints)


def test_images_without_paint_are_told_apart_from_unpainted_slices(
    picture: np.ndarray, mask: np.ndarray
) -> None:
    images, labels = [picture] * 3, [mask, mask * 0, mask]
    assert told(check(images, labels), "warning") == [
        (
            "1 of the 3 labels has no paint at all: 'cells1'. As unpainted means background, every pixel of this image will be learned as "
            "background. That is right if there is nothing to find there. What is not painted yet should be left out."
        )
    ]
    ignoring = check(images, [mask + 1, mask * 0, mask + 1], unpainted="ignore", background_value=1)
    assert told(ignoring, "warning") == []
    assert any("Nothing is learned from this image" in hint for hint in told(ignoring, "hint"))


def test_numbers_that_mean_something_else(picture: np.ndarray, mask: np.ndarray) -> None:
    assert told(check(picture, mask * 255), "hint")[0].startswith(
        "The labels hold 0 and 255, as many programs save masks. That is fine"
    )
    void = np.where(mask > 0, np.uint16(65535), np.uint16(0))
    void[:40] = 3
    assert "The value 65535 is painted on" in told(check(picture, void), "warning")[0]
    void = mask.copy()
    void[:40] = 255
    assert any(
        "many data sets use 255 for what nobody annotated" in hint
        for hint in told(check(picture, void), "hint")
    )
    huge = mask.astype(np.int64) * 10**12
    assert any("The largest painted value is 1,000,000,000,000. That works, but results then need 8 bytes" in hint for hint in told(check(picture, huge), "hint"))  # fmt: skip
    full = mask + 1
    assert (
        "Every pixel is painted, with the values 1, 2, so nothing is learned as background."
        in told(check(picture, full), "hint")[0]
    )


def test_the_same_mask_saved_in_two_ways(picture: np.ndarray, mask: np.ndarray) -> None:
    assert told(check([picture] * 3, [mask, mask * 255, mask * 255]), "warning") == [
        (
            "The paint has the value 1 in 1 of the labels (cells) and 255 in 2 (cells1, cells2), hardly ever both in one. "
            "They would be learned as two classes. If 1 and 255 mean the same, save all labels with one of them."
        )
    ]


def test_a_mask_with_smoothed_edges(picture: np.ndarray, mask: np.ndarray) -> None:
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(mask * 255.0, 0.7).round().astype(np.uint8)
    (warning,) = told(check(picture, smooth), "warning")
    assert warning.startswith("Labels 'cells' hold 0, 255 and ")
    assert warning.endswith("Make two values of them again: 128 and above becomes 255, the rest 0.")


def test_too_little_of_a_class(picture: np.ndarray, mask: np.ndarray) -> None:
    clicked = mask.copy()
    clicked[4:7, 4:7] = 7
    clicked[90, 4:6] = 9
    result = check(picture, clicked)
    assert told(result, "warning") == [
        (
            "Too little is painted of 2 values: 7 (9 pixels), 9 (2 pixels). Paint more. A class needs 50 pixels before part of it can be held "
            "out to measure quality. Set stray clicks to 0."
        )
    ]
    assert any(
        "1 speck of at most 4 pixels: of value 9. If they are stray clicks" in hint
        for hint in told(result, "hint")
    )
    little = np.zeros_like(mask)
    little[10:20, 10:22], little[40:50, 10:22] = 1, 2
    assert (
        "Only 240 pixels count for training, so none can be held out to measure quality."
        in told(check(picture, little, unpainted="ignore", background_value=1), "hint")[0]
    )


def test_objects_where_classes_were_asked_for_and_the_reverse(
    picture: np.ndarray, mask: np.ndarray, ids: np.ndarray
) -> None:
    warnings = told(check(picture, ids, target="classes"), "warning")
    assert any(
        w.startswith(f"Each value is to be learned as a class, but looks like one object: a slice has up to {ids.max()} values, 100 % of them in one piece")
        for w in warnings
    )  # fmt: skip
    one_value = check(picture, mask, target="objects")
    (warning,) = told(one_value, "warning")
    pieces = warning.removeprefix("All objects are painted with one value, 1, in up to ").split()[0]
    assert told(one_value, "hint")[-1].endswith(
        f"are painted, with one value in up to {pieces} pieces a slice, each of which is taken for one object."
    )
    classes = np.where(mask > 0, 1 + (np.arange(200) // 8 % 2), 0)
    (warning,) = told(check(picture, classes, target="objects"), "warning")
    assert warning.startswith(
        "Each value is to be learned as one object, but looks like a class: a slice has up to 2 values, 100 % of them in several pieces."
    )


def test_objects_in_pieces(picture: np.ndarray, ids: np.ndarray) -> None:
    split = ids.copy()
    corner = ids[ids > 0]
    split[ids == corner[-1]] = corner[0]
    (warning,) = told(check(picture, split, target="objects"), "warning")
    assert warning == (
        f"1 of {ids.max() - 1} objects (12 %) is in more than one piece; value {corner[0]} of 'cells' is in 2. "
        "If two things have one value by mistake, give one of them another."
    )
    stack = check(np.stack([picture] * 2), np.stack([split] * 2), target="objects")
    assert told(stack, "warning") == []
    assert any("In slices of a stack that is usual" in hint for hint in told(stack, "hint"))


def test_labels_of_another_image_do_not_follow_this_one() -> None:
    image, labels, _ = cells((512, 512), seed=8)
    (warning,) = told(check(image, labels[::-1]), "warning")
    assert warning.startswith("The outlines of labels 'cells' do not follow the image")
    rng = np.random.default_rng(0)
    for noise in (1, 3):  # however faint, outlines that follow the image are recognised
        assert told(check(image + rng.normal(0, noise * image.std(), image.shape), labels), "warning") == []


def test_a_long_constant_start_is_not_taken_for_all(
    mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lint_pairs, "_IMAGE_VALUES", 100)
    padded = np.zeros((3, *mask.shape), np.float32)
    padded[2] = np.random.default_rng(0).random(mask.shape)
    assert not [text for text in told(check(padded, np.stack([mask] * 3)), "warning") if "brightness" in text]


def test_images_in_which_there_is_nothing_to_learn(picture: np.ndarray, mask: np.ndarray) -> None:
    broken = picture.astype(np.float32)
    broken[3, 5], broken[4] = np.nan, np.inf
    assert told(check(broken, mask), "error") == [
        (
            "Image 'raw' has 201 values that are no number (NaN or infinite), the first at slice 0, y 3, x 5. One such pixel silently ruins a "
            "training: repair the image, or choose 'NaN pixels: ignore' (they become 0 and are not trained on)."
        )
    ]
    ignoring = check(broken, mask, not_finite="ignore")
    assert told(ignoring, "error") == told(ignoring, "warning") == []
    assert (
        "the first at slice 0, y 3, x 5. They are set to 0 and not trained on." in told(ignoring, "hint")[0]
    )
    assert told(check(np.full_like(picture, 7), mask), "warning") == [
        (
            "Every pixel of image 'raw' has the same brightness, so there is nothing to see in it. Choose the image that the labels were drawn "
            "on; this one may be empty or damaged."
        )
    ]
    colour = np.stack([picture, picture * 0, picture], -1)[np.newaxis]
    assert (
        "is the same everywhere in channel 1 (counted from 0)"
        in told(check(colour, mask[np.newaxis]), "warning")[0]
    )
    assert told(check([picture[np.newaxis], colour], [mask[np.newaxis]] * 2), "error") == [
        "Image 'raw1' has 3 channels, but 'raw' has 1. All images of a training need as many: convert them, or train on those that agree."
    ]


def test_pairs_that_do_not_fit(picture: np.ndarray, mask: np.ndarray) -> None:
    assert told(check([picture] * 2, mask), "error") == [
        (
            "Training needs labels for each image, but there are 2 images and 1 labels. "
            "Choose them in pairs: one labels layer or file for each image."
        )
    ]
    images, labels = [picture, picture[:80], picture[:, :80]], [mask, mask[:, :80], mask[:80]]
    errors = told(check(images, labels), "error")
    assert [error.partition("). ")[2] for error in errors] == [
        "That is the shape of raw2: check which labels belong to which image.",
        "That is the shape of raw1: check which labels belong to which image.",
    ]


def test_pixel_sizes(picture: np.ndarray, mask: np.ndarray) -> None:
    def warnings(*sizes: tuple[dict[str, float], dict[str, float]]) -> list[str]:
        pairs = [picture] * len(sizes), [mask] * len(sizes)
        return told(check(*pairs, pixel_sizes=sizes, unit="micrometer"), "warning")

    assert warnings(({"X": 0.5, "Y": 0.5}, {"X": 0.5, "Y": 0.50001}), ({}, {"X": 3.0})) == []
    assert warnings(({"X": 0.5}, {"X": 1.0}))[0].startswith(
        "A pixel of image 'raw' measures 0.5 micrometer along X, but a pixel of its labels 'cells' 1 micrometer, though"
    )
    assert warnings(({"X": 0.5}, {}), ({"X": 1.0}, {}))[0].startswith(
        "The images differ in magnification: a pixel of 'raw' is 0.5 micrometer wide, one of 'raw1' 1 micrometer, so the same thing looks 2.0 times as large in 'raw'."
    )


def test_what_many_labels_share_is_told_three_times_and_summed_up(
    picture: np.ndarray, mask: np.ndarray
) -> None:
    errors = told(check([picture] * 6, [mask / 2] * 6), "error")
    assert len(errors) == 4
    assert errors[-1].startswith(
        "The same was found 3 more times: labels 'cells3', labels 'cells4', labels 'cells5'."
    )
    assert [str(f) for f in limited([Finding("hint", f"{n}", "x") for n in range(4)])][
        -1
    ] == "The same was found once more: 3."


def test_labels_that_are_no_labels_leave_the_others_to_be_checked(
    picture: np.ndarray, mask: np.ndarray
) -> None:
    result = check([picture] * 2, [mask * 0.5, mask * 255])
    assert len(told(result, "error")) == 1
    assert any("0 and 255" in hint for hint in told(result, "hint"))


class Counted:
    """An array that counts how often each slice is read."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype, self.reads = (
            array,
            array.shape,
            array.dtype,
            np.zeros(len(array), int),
        )

    def __getitem__(self, key: Any) -> np.ndarray:
        self.reads[key[0]] += 1
        return self.array[key]


def test_each_slice_is_read_once_and_a_sample_is_said_to_be_one(
    picture: np.ndarray, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paint_module, "_LOOK_PIXELS", 6 * mask.size)
    lazy = Counted(np.stack([mask] * 40))
    result = lint(
        [Stack(np.stack([picture] * 40), "ZYX", "raw")], [Stack(lazy, "ZYX", "cells")], unpainted="background"
    )
    assert (lazy.reads == 1).all()
    assert (
        "Pixels were counted on all slices. Shapes were looked at on 5 of 40 painted slices, spread evenly."
        in told(result, "hint")
    )


def test_slices_all_over_a_stack_say_what_is_meant(picture: np.ndarray, ids: np.ndarray) -> None:
    stack = np.stack([ids == ids.max()] * 40).astype(int)
    stack[33:] = ids  # later than where a look at the first slices would end
    images = [Stack(np.stack([picture] * 40), "ZYX", "raw")]
    labels = [Stack(stack, "ZYX", "cells")]
    found = lint(images, labels, unpainted="background")
    assert found.target == "objects"


def test_a_stop_ends_the_check(picture: np.ndarray, mask: np.ndarray) -> None:
    assert check(picture, mask, stop=lambda: True).findings == ()


@settings(max_examples=100, deadline=None)
@given(
    labels=hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=6),
        elements=st.sampled_from([0, 0, 1, 1, 2]),
    ),
    dtype=st.sampled_from(["?", "u1", "i2", "u8", "f4", ">u2"]),
    strange=st.sampled_from([None, -1, 0.5, np.nan, np.inf, 2**40, 2.0**63, 1e20]),
    decimals=st.sampled_from(["f4", "f8"]),
    unpainted=st.sampled_from(["background", "ignore"]),
    background=st.sampled_from([None, 1, 5]),
    target=st.sampled_from(["classes", "objects"]),
)
def test_what_training_refuses_is_an_error_and_nothing_is_raised(
    labels: np.ndarray,
    dtype: str,
    strange: float | None,
    decimals: str,
    unpainted: Any,
    background: int | None,
    target: Any,
) -> None:
    labels = labels.astype(dtype)
    if strange is not None:
        labels = labels.astype(decimals)
        labels.flat[0] = strange
    image = np.random.default_rng(0).integers(0, 99, labels.shape)
    options = {"unpainted": unpainted, "background_value": background, "target": target}
    result = check(image, labels, **options)
    stacks = Stack(image, AXES[image.ndim], "raw"), Stack(labels, AXES[labels.ndim], "cells")
    try:
        prepare([stacks[0]], [stacks[1]], **options)
        refused = False
    except DataError:
        refused = True
    assert bool(result.of("error")) == refused
    assert all(f.sentence.endswith(".") and not f.sentence[0].islower() for f in result.findings)
