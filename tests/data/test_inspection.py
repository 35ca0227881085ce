"""Every picture is in its place."""

import numpy as np
from numpy.testing import assert_array_equal

from cnnjax.data.inspection import grid


def test_a_grid_has_every_picture_in_its_place():
    images = np.arange(1, 3 * 2 * 4 + 1, dtype=np.uint8).reshape(3, 2, 4, 1)
    whole = grid(images, 2)
    assert whole.shape == (5, 9, 1)
    assert_array_equal(whole[:2, :4], images[0])
    assert_array_equal(whole[:2, 5:], images[1])
    assert_array_equal(whole[3:, :4], images[2])
    assert whole.sum(dtype=int) == images.sum(dtype=int)
