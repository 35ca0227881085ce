"""Each class has its row of pictures."""

import numpy as np
import pytest

from cnnjax.data.dataset import Split, make_dataset
from cnnjax.errors import InputError
from printing import classes


def made(train, labels, channels):
    """Returns a set of 2x2 pictures, each of one value."""
    splits = [
        Split(
            np.repeat(np.uint8(values), 4 * channels).reshape(-1, 2, 2, channels),
            np.array(of),
        )
        for values, of in ((train, labels), ([1], [0]))
    ]
    return make_dataset("made", "", *splits, ("a", "b"))


def test_each_class_has_a_row():
    shown = classes.rows_of_classes(made([5, 6, 7], [1, 0, 1], channels=3))
    assert shown.shape == (5, 29, 3)
    assert [shown[0, 3 * i, 0] for i in range(3)] == [6, 0, 0]
    assert [shown[3, 3 * i, 0] for i in range(3)] == [5, 7, 0]
    with pytest.raises(InputError, match="2 channels; a PNG has 1, 3 or 4"):
        classes.rows_of_classes(made([1], [0], channels=2))
