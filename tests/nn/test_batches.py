"""Batches drawn ahead: the same ones, in order, and nothing left running."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_unet.errors import DataError
from napari_unet.nn.batches import Batch, Prefetcher


class Numbers:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def batch(self, n: int) -> Batch:
        self.asked.append(n)
        if n == 9:
            raise DataError("Batch 9 is broken.")
        return np.full((1, 2, 2, 1), n, np.float32), np.full((1, 2, 2), n, np.uint8)


def test_batches_come_in_order_from_the_first_asked_for() -> None:
    with Prefetcher(Numbers(), first=3) as batches:
        assert [int(batches.take()[1][0, 0, 0]) for _ in range(5)] == [3, 4, 5, 6, 7]


def test_only_a_few_are_drawn_ahead() -> None:
    source = Numbers()
    with Prefetcher(source, ahead=2) as batches:
        batches.take()
    assert max(source.asked) <= 2


def test_an_error_reaches_whoever_takes_the_batch() -> None:
    with Prefetcher(Numbers(), first=8) as batches:
        batches.take()
        with pytest.raises(DataError, match="Batch 9 is broken"):
            batches.take()


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    batches = Prefetcher(Numbers())
    batches.take()
    batches.close()
    batches.close()
    assert threading.active_count() == before
