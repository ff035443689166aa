"""What training minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.data.labels import IGNORE
from napari_unet.nn.backend import load_keras

if TYPE_CHECKING:
    import keras
else:
    keras = load_keras()

__all__ = ["SegmentationLoss"]

_SMALLEST = 1e-6  # keeps an empty sum from dividing by zero; a single pixel weighs a million times as much


class SegmentationLoss(keras.losses.Loss):  # type: ignore[misc,unused-ignore]
    """Cross-entropy plus soft Dice on logits, over the pixels that are painted.

    Cross-entropy is the weighted mean over painted pixels. Dice, without weights, is ``1 - 2 sum(p t) / sum(p + t)`` over all
    painted pixels of the batch, one a class, averaged over the classes that the batch holds;
    background is a class too, because the thin structure that matters may have been painted as
    either (membranes as 0, say). A batch without painted pixels has loss 0. Computed in float32.

    Input shape: truth (B, Y, X, 2) of class index (`napari_unet.data.labels.IGNORE` where nothing
    is painted) and weight; logits (B, Y, X, L), with L = 1 for two classes.

    The soft Dice loss is that of Milletari, Navab and Ahmadi, "V-Net", 3DV 2016, without squares.
    """

    def __init__(self, name: str = "cross_entropy_and_dice") -> None:
        super().__init__(name=name, reduction="sum", dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of this loss."""
        return {"name": self.name}

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of a batch, a scalar."""
        ops = keras.ops
        log_p = _log_probabilities(y_pred)
        target = ops.cast(y_true[..., 0], "int32")
        painted = ops.cast(ops.not_equal(target, IGNORE), "float32")[..., None]
        truth = ops.one_hot(ops.where(ops.equal(target, IGNORE), 0, target), log_p.shape[-1]) * painted
        weight = ops.cast(y_true[..., 1:], "float32") * painted
        entropy = -ops.sum(weight * truth * log_p) / ops.maximum(ops.sum(weight), _SMALLEST)

        pixels = (0, 1, 2)
        p = ops.exp(log_p) * painted
        size = ops.sum(truth, axis=pixels)
        overlap = ops.sum(truth * p, axis=pixels)
        both = size + ops.sum(p, axis=pixels)
        present = ops.cast(size > 0, "float32")
        dice = ops.sum(present * (1.0 - 2.0 * overlap / ops.maximum(both, _SMALLEST)))
        return entropy + dice / ops.maximum(ops.sum(present), 1.0)


def _log_probabilities(logits: Any) -> Any:
    """Log-probability of each class."""
    ops = keras.ops
    if logits.shape[-1] > 1:
        return ops.log_softmax(logits, axis=-1)
    return ops.concatenate([ops.log_sigmoid(-logits), ops.log_sigmoid(logits)], axis=-1)
