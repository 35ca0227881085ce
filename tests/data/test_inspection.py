"""Every picture is in its place."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cnnjax.data import inspection
from cnnjax.data.dataset import Split, make_dataset
from cnnjax.data.inspection import grid
from cnnjax.errors import InputError


def made(train, test, train_labels=None, test_labels=None, channels=3):
    """Returns a set of 2x2 pictures, each of one value."""
    splits = [
        Split(
            np.repeat(np.uint8(values), 4 * channels).reshape(-1, 2, 2, channels),
            np.array(labels or [0] * len(values)),
        )
        for values, labels in ((train, train_labels), (test, test_labels))
    ]
    return make_dataset("made", "", *splits, ("a", "b"))


def test_a_grid_has_every_picture_in_its_place():
    images = np.arange(1, 3 * 2 * 4 + 1, dtype=np.uint8).reshape(3, 2, 4, 1)
    whole = grid(images, 2)
    assert whole.shape == (5, 9, 1)
    assert_array_equal(whole[:2, :4], images[0])
    assert_array_equal(whole[:2, 5:], images[1])
    assert_array_equal(whole[3:, :4], images[2])
    assert whole.sum(dtype=int) == images.sum(dtype=int)


def test_each_class_has_a_row():
    dataset = made([5, 6, 7], [1], train_labels=[1, 0, 1])
    shown = inspection.class_grid(dataset)
    assert shown.shape == (5, 29, 3)
    assert [shown[0, 3 * i, 0] for i in range(3)] == [6, 0, 0]
    assert [shown[3, 3 * i, 0] for i in range(3)] == [5, 7, 0]
    with pytest.raises(InputError, match="2 channels; a PNG has 1, 3 or 4"):
        inspection.class_grid(made([1], [1], channels=2))
