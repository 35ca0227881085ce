"""Distortions against TF's operations, given the same drawn parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import prng
from cnnjax.data import augment, tf_pipeline
from cnnjax.data.augment import Preprocessing
from cnnjax.errors import InputError

CHAPTER = Preprocessing(24, ("crop", "flip", "brightness", "contrast"), "per_image")
EVERYTHING = Preprocessing(24, augment.DISTORTIONS, "per_image")


def pictures(n: int, size: int = 32) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def draw(n: int, preprocessing: Preprocessing = CHAPTER, seed: int = 0):
    key = prng.from_seed(seed, prng.DATA)
    positions = jnp.arange(n, dtype=jnp.uint32)
    return augment.draw(key, positions, preprocessing, (32, 32, 3))


@pytest.mark.parametrize("how", augment.NORMALISATIONS)
def test_the_whole_chain_is_what_tensorflow_does(how: str) -> None:
    """With "unit" too, where the mean, and so the brightness, is not taken away."""
    import tensorflow as tf

    images, params = pictures(16), draw(16)
    ours = augment.apply(images, params, dataclasses.replace(CHAPTER, normalise=how))
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
        x = tf.image.per_image_standardization(x) if how == "per_image" else x / 255
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


def test_a_nearly_flat_picture_is_not_blown_up() -> None:
    """One value of 1 among n zeros deviates by less than the floor, 1 / sqrt(n)."""
    one = np.zeros((1, 32, 32, 3), np.uint8)
    one[0, 16, 16, 0] = 1
    n = 24 * 24 * 3
    expected = np.full(n, -1 / n) * np.sqrt(n)
    expected[-1] = (1 - 1 / n) * np.sqrt(n)
    found = np.sort(augment.standard_view(one, CHAPTER), axis=None)
    np.testing.assert_allclose(found, expected, rtol=5e-5)


def test_a_crop_larger_than_the_pictures_is_refused() -> None:
    too_large = augment.Preprocessing(40, ("crop",), "unit")
    need = "got a crop of 40 from pictures of 32x48, need at most 32; crop less"
    with pytest.raises(InputError, match=need):
        too_large.output_shape((32, 48, 3))
    images = jnp.zeros((2, 32, 48, 3), jnp.uint8)
    with pytest.raises(InputError, match=need):
        augment.standard_view(images, too_large)


def test_unit_without_distortions_only_scales() -> None:
    images = pictures(3)
    whole = Preprocessing(0, (), "unit")
    params = draw(3, whole)
    assert params.brightness is None and params.contrast is None
    scaled = augment.apply(images, params, whole)
    np.testing.assert_allclose(scaled, images / 255, rtol=2e-7)


def test_the_draws_have_the_chapter_s_distributions() -> None:
    n = 20_000
    params = jax.tree.map(np.asarray, draw(n, EVERYTHING))
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
    one = [params.top, params.left, params.flip, params.brightness, params.contrast]
    drawn = np.stack([*one, *params.cutout.T])
    correlations = np.corrcoef(drawn) - np.eye(7)
    assert np.all(np.abs(correlations) < 5 / np.sqrt(n))


def test_an_example_is_distorted_alike_in_any_batch() -> None:
    key = prng.from_seed(7, prng.DATA)
    positions = jnp.arange(32, dtype=jnp.uint32)
    whole = augment.draw(key, positions, EVERYTHING, (32, 32, 3))
    part = augment.draw(key, positions[8:16], EVERYTHING, (32, 32, 3))
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_array_equal(a[8:16], b)


def test_one_distortion_s_draw_does_not_depend_on_the_others() -> None:
    alone = draw(64, Preprocessing(24, ("flip",), "per_image"))
    np.testing.assert_array_equal(alone.flip, draw(64).flip)
    np.testing.assert_array_equal(alone.top, np.full(64, 4))


@pytest.mark.parametrize("chosen", augment.DISTORTIONS)
def test_cutout_changes_no_other_draw(chosen: str) -> None:
    alone = draw(64, Preprocessing(24, (chosen,), "per_image"))
    both = draw(64, Preprocessing(24, (chosen, "cutout"), "per_image"))
    assert (alone.cutout is None) == (chosen != "cutout")
    assert both.cutout.dtype == jnp.int32
    for ours, theirs in zip(alone[:-1], both[:-1], strict=True):
        assert (ours is None) == (theirs is None)
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(both.cutout, draw(64, EVERYTHING).cutout)


@pytest.mark.parametrize("crop", [0, 6])
def test_the_centre_of_cutout_is_uniform_over_the_pixels(crop: int) -> None:
    n, how = 20_000, Preprocessing(crop, ("cutout",), "unit")
    key, positions = prng.from_seed(0, prng.DATA), jnp.arange(n, dtype=jnp.uint32)
    centres = np.asarray(augment.draw(key, positions, how, (7, 10, 3)).cutout)
    height, width = (crop, crop) if crop else (7, 10)
    assert centres.shape == (n, 2) and centres.min() >= 0
    pixels = np.ravel_multi_index(tuple(centres.T), (height, width))
    counts = np.bincount(pixels, minlength=height * width)
    expected = n / (height * width)
    chi_squared = np.sum((counts - expected) ** 2 / expected)
    freedom = height * width - 1
    # Its mean is the degrees of freedom and its variance twice as much.
    assert abs(chi_squared - freedom) < 4 * np.sqrt(2 * freedom)


def cut_out_by_loop(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    out = x.copy()
    batch, height, width, _ = x.shape
    side = height // 2
    for n, i, j in np.ndindex(batch, height, width):
        below, right = i - centres[n, 0] + side // 2, j - centres[n, 1] + side // 2
        if 0 <= below < side and 0 <= right < side:
            out[n, i, j] = 0
    return out


@pytest.mark.parametrize("cut_out", [augment.cut_out, tf_pipeline.cut_out])
@pytest.mark.parametrize(
    "shape", [(24, 24, 3), (28, 28, 1), (9, 9, 3), (6, 11, 1), (11, 6, 2), (1, 1, 1)]
)
def test_cutout_equals_a_loop(cut_out, shape: tuple[int, ...]) -> None:
    height, width, _ = shape
    rows = np.unique([0, 1, height // 2, height - 2, height - 1]).clip(0)
    columns = np.unique([0, 1, width // 2, width - 2, width - 1]).clip(0)
    centres = np.stack(np.meshgrid(rows, columns), axis=-1).reshape(-1, 2)
    centres = np.minimum(centres, [height - 1, width - 1]).astype(np.int32)
    x = np.random.default_rng(0).random((len(centres), *shape), np.float32) + 1
    expected = cut_out_by_loop(x, centres)
    np.testing.assert_array_equal(cut_out(x, centres), expected)
    if height > 1:
        covered = (expected == 0).all(axis=-1).sum(axis=(1, 2))
        assert 0 < covered.min() < covered.max() <= (height // 2) ** 2


@pytest.mark.parametrize("how", ["per_image", "unit"])
def test_cutout_comes_after_everything_else(how: str) -> None:
    """And so covers with the grey of the mean where pictures are standardised."""
    preprocessing = Preprocessing(24, augment.DISTORTIONS, how)
    images, params = pictures(16), draw(16, preprocessing)
    whole = augment.apply(images, params._replace(cutout=None), preprocessing)
    expected = cut_out_by_loop(np.asarray(whole), np.asarray(params.cutout))
    found = augment.apply(images, params, preprocessing)
    np.testing.assert_array_equal(found, expected)


def motions(affine: jax.Array) -> np.ndarray:
    """Returns zoom, angle in degrees, shift of rows and of columns, [4, batch]."""
    affine = np.asarray(affine, np.float64)
    zoom = 1 / np.hypot(affine[:, 0, 0], affine[:, 1, 0])
    degrees = np.rad2deg(np.arctan2(affine[:, 1, 0], affine[:, 0, 0]))
    centre = np.array([15.5, 15.5])
    turn = affine[:, :, :2]
    # translation = centre - turn @ (centre + shift)
    shift = (
        np.linalg.solve(turn, (centre - affine[:, :, 2])[..., None])[..., 0] - centre
    )
    return np.stack([zoom, degrees, *shift.T])


def test_affine_draws_stay_within_their_ranges() -> None:
    preprocessing = Preprocessing(0, ("shift", "rotate", "scale"), "unit")
    drawn = motions(draw(5000, preprocessing).affine)
    assert np.all(np.abs(np.corrcoef(drawn) - np.eye(4)) < 5 / np.sqrt(5000))
    ranges = ((0.9, 1.1), (-10, 10), (-2, 2), (-2, 2))
    for values, (low, high) in zip(drawn, ranges, strict=True):
        slack = 1e-3 * (high - low)
        assert low - slack <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high + slack


@pytest.mark.parametrize(
    ("chosen", "its"), [("scale", [0]), ("rotate", [1]), ("shift", [2, 3])]
)
def test_one_motion_brings_no_other(chosen: str, its: list[int]) -> None:
    alone = draw(64, Preprocessing(24, (chosen,), "per_image")).affine
    expected = np.tile([[1.0], [0.0], [0.0], [0.0]], 64)
    expected[its] = motions(draw(64, EVERYTHING).affine)[its]
    np.testing.assert_allclose(motions(alone), expected, atol=1e-4)


def matrix(rows=0.0, columns=0.0, degrees=0.0, zoom=1.0, size=(28, 28)) -> jax.Array:
    rows, columns, angle, zoom = (
        jnp.array([value]) for value in (rows, columns, np.deg2rad(degrees), zoom)
    )
    return augment.matrix(rows, columns, angle, zoom, size)


def moved(image: np.ndarray, **how) -> np.ndarray:
    images = jnp.asarray(image[None, :, :, None], jnp.float32)
    return np.asarray(augment.resample(images, matrix(size=image.shape, **how)))[
        0, ..., 0
    ]


def test_whole_shifts_move_pixels_and_bring_in_zeros() -> None:
    image = np.arange(1.0, 13.0).reshape(3, 4)
    down = np.vstack([np.zeros(4), image[:2]])
    left = np.hstack([image[:, 1:], np.zeros((3, 1))])
    np.testing.assert_array_equal(moved(image, rows=1.0), down)
    np.testing.assert_array_equal(moved(image, columns=-1.0), left)
    half = (image + np.hstack([np.zeros((3, 1)), image[:, :-1]])) / 2
    np.testing.assert_allclose(moved(image, columns=0.5), half, rtol=1e-6)


def test_turns_are_numpy_s() -> None:
    for size, degrees, turns in (((9, 9), 90, -1), ((9, 9), -90, 1), ((5, 8), 180, 2)):
        image = np.random.default_rng(0).random(size).astype(np.float32)
        found = moved(image, degrees=float(degrees))
        np.testing.assert_allclose(found, np.rot90(image, turns), atol=1e-4)


def test_resampling_is_scipy_s() -> None:
    from scipy import ndimage

    image = np.random.default_rng(1).random((28, 28)).astype(np.float32)
    moves = matrix(rows=1.3, columns=-0.7, degrees=8.0, zoom=1.08)
    expected = ndimage.affine_transform(
        image, np.asarray(moves[0, :, :2]), np.asarray(moves[0, :, 2]), order=1
    )
    images = jnp.asarray(image[None, :, :, None])
    found = np.asarray(augment.resample(images, moves))[0, ..., 0]
    # SciPy cuts to zero at the border, where this fades out over one pixel.
    np.testing.assert_allclose(found[4:-4, 4:-4], expected[4:-4, 4:-4], atol=1e-4)


def test_zooming_in_enlarges() -> None:
    dot = np.zeros((28, 28))
    dot[13:15, 13:15] = 1.0
    assert moved(dot, zoom=1.5).sum() > 1.5 * dot.sum() > moved(dot, zoom=0.7).sum()
