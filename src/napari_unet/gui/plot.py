"""The curves of a training: loss and held-out score over steps."""

from __future__ import annotations

import math

import numpy as np
import pyqtgraph as pg
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_unet.gui.progress import REDRAW_MS

__all__ = ["TrainingPlot"]

LOSS_COLOR = "#4c9be8"
SCORE_COLOR = "#e8923c"
"""Both readable on napari's dark and on its light background, and by colour-blind people."""

_DICE = "score (mean Dice)"
_PRECISION = "AP at IoU 0.5"

_MOST_POINTS = 8000
_SMOOTHING = 0.9


class TrainingPlot(QWidget):
    """Loss of each step (thin), its running mean (bold) and the score on held-out paint.

    Parameters
    ----------
    parent : QWidget, optional
        Qt parent.
    """

    def __init__(self) -> None:
        super().__init__()
        self._plot = pg.PlotWidget()
        self._plot.setMenuEnabled(False)
        self._plot.hideButtons()
        self._plot.setMouseEnabled(x=False, y=False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._plot)
        self.setFixedHeight(190)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(REDRAW_MS)
        self._timer.timeout.connect(self.redraw)
        self._add_curves()
        self.clear()
        self.set_colors("#f0f1f2", "#262930")

    def _add_curves(self) -> None:
        item = self._plot.getPlotItem()
        self._raw = item.plot(pen=pg.mkPen(LOSS_COLOR + "60", width=1))
        self._smooth = item.plot(pen=pg.mkPen(LOSS_COLOR, width=2))
        item.setLabel("bottom", "step")
        item.layout.setContentsMargins(1, 1, 1, 5)  # pyqtgraph lets that label hang out by so much
        item.setLabel("left", "loss")
        # The score has its own scale, 0 to 1, on the right.
        self._right = pg.ViewBox(enableMouse=False, enableMenu=False)
        item.showAxis("right")
        item.scene().addItem(self._right)
        item.getAxis("right").linkToView(self._right)
        item.setLabel("right", _DICE)
        self._right.setXLink(item)
        self._right.setYRange(0, 1, padding=0.03)
        self._score = pg.PlotDataItem(
            pen=pg.mkPen(SCORE_COLOR, width=2),
            symbol="o",
            symbolSize=5,
            symbolBrush=SCORE_COLOR,
            symbolPen=None,
        )
        self._right.addItem(self._score)
        # The legend is a line above the curves, where it can hide none of them.
        item.setTitle(
            f'<span style="color:{LOSS_COLOR}">━ loss</span> &nbsp; '
            f'<span style="color:{SCORE_COLOR}">━●━ score on held-out paint</span>',
            size="8pt",
        )
        item.vb.sigResized.connect(self._align)

    def _align(self) -> None:
        view = self._plot.getPlotItem().vb
        self._right.setGeometry(view.sceneBoundingRect())
        self._right.linkedViewChanged(view, self._right.XAxis)

    def set_colors(self, text: str, background: str) -> None:
        """Follow the viewer's theme.

        Parameters
        ----------
        text, background : str
            As ``#RRGGBB``.
        """
        item = self._plot.getPlotItem()
        self._plot.setBackground(background)
        for side in ("left", "bottom", "right"):
            axis = item.getAxis(side)
            axis.setPen(pg.mkPen(text + "80"))
            axis.setTextPen(pg.mkPen(text))
            axis.setStyle(tickLength=-4, tickTextOffset=3)
            axis.setStyle(tickFont=self._small_font())
        item.showGrid(y=True, alpha=0.15)

    def _small_font(self) -> object:
        font = self.font()
        font.setPointSizeF(8)
        return font

    def clear(self) -> None:
        """Forget all points."""
        self._steps: list[int] = []
        self._losses: list[float] = []
        self._means: list[float] = []
        self._scores: list[tuple[int, float]] = []
        self._plot.getPlotItem().setLabel("right", _DICE)
        self._every = 1
        self._mean = math.nan
        self._weight = 0.0
        self.redraw()

    def add_loss(self, step: int, loss: float) -> None:
        """Add the loss of a step; NaN leaves a gap.

        Parameters
        ----------
        step : int
            Steps done.
        loss : float
            Of this step's batch.
        """
        if math.isfinite(loss):
            self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)
            share = (1 - _SMOOTHING) / self._weight
            self._mean = loss if share > 0.999 else self._mean + share * (loss - self._mean)
        if step % self._every == 0:
            self._steps.append(step)
            self._losses.append(loss)
            self._means.append(self._mean)
        if len(self._steps) > _MOST_POINTS:
            # Ten million steps must not fill the memory; the eye needs no more points than pixels.
            self._every *= 2
            self._steps, self._losses, self._means = self._steps[::2], self._losses[::2], self._means[::2]
        self._redraw_soon()

    def add_score(self, step: int, score: float, ap50: float | None = None) -> None:
        """Add what was measured on the region held out; NaN is left out.

        Parameters
        ----------
        step : int
            Steps done.
        score : float
            Mean Dice, 0 to 1.
        ap50 : float, optional
            Where objects are learned: their average precision at IoU 0.5, which is drawn instead.
        """
        if ap50 is not None:
            self._plot.getPlotItem().setLabel("right", _PRECISION)
        drawn = score if ap50 is None else ap50
        if math.isfinite(drawn):
            self._scores.append((step, drawn))
        self._redraw_soon()

    @property
    def losses(self) -> tuple[list[int], list[float]]:
        """Steps and smoothed losses as drawn."""
        x, y = self._smooth.getData()
        return ([], []) if x is None else (list(x), list(y))

    @property
    def scores(self) -> tuple[list[int], list[float]]:
        """Steps and scores as drawn."""
        x, y = self._score.getData()
        return ([], []) if x is None else (list(x), list(y))

    def redraw(self) -> None:
        """Draw all points now."""
        steps = np.array(self._steps, float)
        self._raw.setData(steps, np.array(self._losses, float), connect="finite")
        self._smooth.setData(steps, np.array(self._means, float), connect="finite")
        scores = np.array(self._scores, float).reshape(-1, 2)
        self._score.setData(scores[:, 0], scores[:, 1])

    def _redraw_soon(self) -> None:
        if not self._timer.isActive():
            self._timer.start()
