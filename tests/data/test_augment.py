"""Distortions against TF's operations, given the same drawn parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import prng
from cnnjax.data import augment
from cnnjax.data.augment import Preprocessing

CHAPTER = Preprocessing(24, ("crop", "flip", "brightness", "contrast"), "per_image")


def pictures(n: int, size: int = 32) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def draw(n: int, preprocessing: Preprocessing = CHAPTER, seed: int = 0):
    key = prng.from_seed(seed, prng.DATA)
    positions = jnp.arange(n, dtype=jnp.uint32)
    return augment.draw(key, positions, preprocessing, (32, 32, 3))


def test_the_whole_chain_is_what_tensorflow_does() -> None:
    import tensorflow as tf

    images, params = pictures(16), draw(16)
    ours = augment.apply(images, params, CHAPTER)
    for i in range(16):
        x = tf.image.crop_to_bounding_box(
            tf.cast(images[i], tf.float32),
            int(params.top[i]),
            int(params.left[i]),
            24,
            24,
        )
        x = tf.image.flip_left_right(x) if params.flip[i] else x
        x = tf.image.adjust_brightness(x, float(params.brightness[i]))
        x = tf.image.adjust_contrast(x, float(params.contrast[i]))
        x = tf.image.per_image_standardization(x)
        np.testing.assert_allclose(ours[i], x, atol=1e-4)


@pytest.mark.parametrize("size", [32, 33])
def test_evaluation_takes_the_central_crop(size: int) -> None:
    import tensorflow as tf

    images = pictures(4, size)
    ours = augment.standard_view(images, CHAPTER)
    x = tf.image.resize_with_crop_or_pad(tf.cast(images, tf.float32), 24, 24)
    np.testing.assert_allclose(ours, tf.image.per_image_standardization(x), atol=1e-4)


def test_a_flat_picture_is_standardised_to_zeros() -> None:
    flat = np.full((1, 32, 32, 3), 200, np.uint8)
    np.testing.assert_allclose(augment.standard_view(flat, CHAPTER), 0.0, atol=1e-3)


def test_unit_without_distortions_only_scales() -> None:
    images = pictures(3)
    whole = Preprocessing(0, (), "unit")
    params = draw(3, whole)
    assert params.brightness is None and params.contrast is None
    scaled = augment.apply(images, params, whole)
    np.testing.assert_allclose(scaled, images / 255, rtol=2e-7)


def test_the_draws_have_the_chapter_s_distributions() -> None:
    n = 20_000
    params = jax.tree.map(np.asarray, draw(n))
    for offset in (params.top, params.left):
        counts = np.bincount(offset, minlength=9)
        # Each of 9 offsets has n/9 expected; five standard deviations around it.
        assert len(counts) == 9
        assert np.all(np.abs(counts - n / 9) < 5 * np.sqrt(n * 8 / 81))
    assert abs(params.flip.mean() - 0.5) < 5 * 0.5 / np.sqrt(n)
    for values, low, high in (
        (params.brightness, -63.0, 63.0),
        (params.contrast, 0.2, 1.8),
    ):
        assert low <= values.min() and values.max() < high
        deciles = np.histogram(values, bins=10, range=(low, high))[0]
        assert np.all(np.abs(deciles - n / 10) < 5 * np.sqrt(n * 0.09))
    drawn = np.stack(
        [params.top, params.left, params.flip, params.brightness, params.contrast]
    )
    correlations = np.corrcoef(drawn) - np.eye(5)
    assert np.all(np.abs(correlations) < 5 / np.sqrt(n))


def test_an_example_is_distorted_alike_in_any_batch() -> None:
    everything = Preprocessing(24, augment.DISTORTIONS, "per_image")
    key = prng.from_seed(7, prng.DATA)
    positions = jnp.arange(32, dtype=jnp.uint32)
    whole = augment.draw(key, positions, everything, (32, 32, 3))
    part = augment.draw(key, positions[8:16], everything, (32, 32, 3))
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_array_equal(a[8:16], b)


def test_one_distortion_s_draw_does_not_depend_on_the_others() -> None:
    alone = draw(64, Preprocessing(24, ("flip",), "per_image"))
    np.testing.assert_array_equal(alone.flip, draw(64).flip)
    np.testing.assert_array_equal(alone.top, np.full(64, 4))


def test_affine_draws_stay_within_their_ranges() -> None:
    preprocessing = Preprocessing(0, ("shift", "rotate", "scale"), "unit")
    affine = np.asarray(draw(5000, preprocessing).affine, np.float64)
    zoom = 1 / np.hypot(affine[:, 0, 0], affine[:, 1, 0])
    degrees = np.rad2deg(np.arctan2(affine[:, 1, 0], affine[:, 0, 0]))
    centre = np.array([15.5, 15.5])
    turn = affine[:, :, :2]
    # translation = centre - turn @ (centre + shift)
    shift = (
        np.linalg.solve(turn, (centre - affine[:, :, 2])[..., None])[..., 0] - centre
    )
    for values, low, high in (
        (zoom, 0.9, 1.1),
        (degrees, -10, 10),
        (shift[:, 0], -2, 2),
        (shift[:, 1], -2, 2),
    ):
        slack = 1e-3 * (high - low)
        assert low - slack <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high + slack
