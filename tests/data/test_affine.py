import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.data import augment


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


def test_a_quarter_turn_is_numpy_s() -> None:
    image = np.random.default_rng(0).random((9, 9)).astype(np.float32)
    turned = [np.rot90(image), np.rot90(image, -1)]
    found = moved(image, degrees=90.0)
    errors = [np.abs(found - expected).max() for expected in turned]
    assert min(errors) < 1e-4 < max(errors)


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
