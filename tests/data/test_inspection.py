"""Counting, against NumPy on small sets made to have what is looked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

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


def test_repeats_within_and_across():
    dataset = made(
        train=[1, 1, 2, 1, 3],
        train_labels=[0, 1, 0, 0, 0],
        test=[9, 1, 2, 3, 2, 8],
        test_labels=[0, 1, 1, 0, 0, 0],
    )
    found = inspection.repeats(dataset.train, dataset.test)
    assert found == inspection.Repeats(
        within_train=2, within_test=1, across=4, across_mislabelled=1
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.integers(0, 255))
def test_mean_and_deviation_are_numpys(seed, channels, least):
    random = np.random.default_rng(seed)
    images = random.integers(least, 256, (5, 3, 4, channels), np.uint8)
    mean, deviation = inspection.mean_and_deviation(images)
    assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-12)
    assert_allclose(deviation, images.std((0, 1, 2)), rtol=1e-9, atol=1e-9)


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
