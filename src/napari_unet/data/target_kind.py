"""Whether painted values are classes of pixels, or each is one object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_unet.data.finding import percent
from napari_unet.data.labels import MAX_CLASSES
from napari_unet.data.paint import Look
from napari_unet.spec import TargetKind
from napari_unet.words import count

__all__ = ["judge_target"]

_SEVERAL = 8
"""Values in one slice from which they are taken for objects; fewer may well be one stroke of each class."""

_WHOLE = 0.7
"""Part of the values in one piece: 0.9 to 1 in 2D images of objects, 0.7 and more in slices of branching
3D objects (neurites), 0 in labels of classes."""


def judge_target(looks: Sequence[Look], background_value: int | None = None) -> tuple[TargetKind, str]:
    """Propose whether painted values are classes or objects.

    Objects have many values, nearly all in one piece; a class is painted in several places.

    Parameters
    ----------
    looks : sequence of Look
        From `napari_unet.data.paint.survey_paint`, of all labels.
    background_value : int, optional
        The painted value that means background, where there is one.

    Returns
    -------
    target : {"classes", "objects"}
        The proposal.
    reason : str
        What was chosen and why, for the user.
    """
    most = values = whole = touching = 0
    for look in looks:
        # specks are stray clicks or the frayed edge of a class, not pieces
        kept = (look.values != (background_value or 0)) & (look.pieces > look.specks)
        most = max(most, int(np.count_nonzero(kept)))
        values += int(np.count_nonzero(kept))
        whole += int(np.count_nonzero((look.pieces - look.specks)[kept] == 1))
        touching += int(np.count_nonzero(look.touching[kept]))
    if not values:
        return "classes", "Nothing is painted yet, so each painted value will be taken for a class of pixels."
    several = f"a slice has up to {count(most, 'value')}"
    if most >= _SEVERAL and whole >= _WHOLE * values:
        meet = f" and {percent(touching, values)} touching another" if touching else ""
        because = f"{several}, {percent(whole, values)} of them in one piece{meet}"
        kind: TargetKind = "objects"
    elif most > MAX_CLASSES:
        because = f"{several}, and a network tells at most {MAX_CLASSES} classes apart"
        kind = "objects"
    elif whole < _WHOLE * values and most > 1:
        because = f"{several}, {percent(values - whole, values)} of them in several pieces"
        kind = "classes"
    else:
        because = f"no slice has more than {count(most, 'value')}"
        kind = "classes"
    if kind == "objects":
        taken = "is taken for one object", "If the values are classes, choose classes."
    else:
        taken = "is taken for a class of pixels", "If each value is one object, choose objects."
    return kind, f"Each painted value {taken[0]}, because {because}. {taken[1]}"
