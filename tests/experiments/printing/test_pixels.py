"""Counting, against NumPy on small sets made to have what is looked for."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from cnnjax.data.dataset import Split
from printing import pixels


def made(values, labels):
    """Returns a split of 2x2 pictures, each of one value."""
    images = np.repeat(np.uint8(values), 12).reshape(-1, 2, 2, 3)
    return Split(images, np.array(labels))


def test_repeats_within_and_across():
    train = made([1, 1, 2, 1, 3], [0, 1, 0, 0, 0])
    test = made([9, 1, 2, 3, 2, 8], [0, 1, 1, 0, 0, 0])
    assert pixels.repeats(train, test) == pixels.Repeats(
        within_train=2, within_test=1, across=4, across_mislabelled=1
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.integers(0, 255))
def test_mean_and_deviation_are_numpys(seed, channels, least):
    random = np.random.default_rng(seed)
    images = random.integers(least, 256, (5, 3, 4, channels), np.uint8)
    mean, deviation = pixels.mean_and_deviation(images)
    assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-12)
    assert_allclose(deviation, images.std((0, 1, 2)), rtol=1e-9, atol=1e-9)
