"""What the page gives to a network, and shows of its answer."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.data.augment import Preprocessing
from cnnjax.network import Network
from demonstration.pictures import like_mnist, looker


def drawn(top, left, height, width, side=280):
    drawing = np.zeros((side, side, 4), np.uint8)  # black ink
    drawing[top : top + height, left : left + width, 3] = 255
    return drawing


@pytest.mark.parametrize("place", [(0, 0), (200, 30), (90, 220)])
def test_a_digit_is_scaled_and_centred_as_mnist_s_are(place):
    """A bar of 60x20 becomes one of 20x7 pixels about the middle, wherever it was."""
    found = like_mnist(drawn(*place, 60, 20), 28)
    assert (found.shape, found.dtype) == ((28, 28, 1), np.uint8)
    rows, columns = (np.flatnonzero(found[..., 0].any(axis)) for axis in (1, 0))
    assert (rows.min(), rows.max()) == (4, 23)
    assert (columns.min(), columns.max()) in {(10, 16), (11, 17)}
    assert found.max() == 255


def test_the_centre_is_that_of_the_ink():
    """A blot with a thin line to the right stands left of what its box would give."""
    drawing = drawn(100, 100, 40, 40)
    drawing[118:122, 140:200, 3] = 255
    ink = like_mnist(drawing, 28)[..., 0].astype(float)
    places = np.arange(28) + 0.5
    for axis in (0, 1):
        centre = places @ ink.sum(axis) / ink.sum()
        assert centre == pytest.approx(14, abs=0.6)


def test_white_and_nothing_are_no_ink():
    black = drawn(100, 100, 50, 50)
    full = like_mnist(black, 28)
    on_white = black.copy()
    on_white[black[..., 3] == 0] = 255
    np.testing.assert_array_equal(like_mnist(on_white, 28), full)
    black[..., 3] //= 3
    np.testing.assert_allclose(like_mnist(black, 28), full / 3, atol=1)
    assert like_mnist(drawn(0, 0, 0, 0), 28) is None
    faint = np.zeros((280, 280, 4), np.uint8)
    faint[0, 0], faint[-1, -1] = (0, 0, 0, 60), (0, 0, 0, 60)  # as an eraser leaves
    assert like_mnist(faint, 28) is None
    assert like_mnist(np.full((280, 280, 4), 255, np.uint8), 28) is None


class Corner(nn.Module):
    """Its first logit is the mean of the red of the crop's first pixels."""

    @nn.compact
    def __call__(self, x):
        self.param("unused", nn.initializers.zeros, ())
        return jnp.stack([x[:, :2, :2, 0].mean((1, 2)), 0 * x[:, 0, 0, 0]], -1)


def test_it_shows_the_crop_and_where_the_saliency_is():
    network = Network(
        model=Corner(),
        variables={"params": {"unused": jnp.zeros(())}},
        num_seeds=1,
        seed_index=-1,
        weights="params",
        step=0,
        preprocessing=Preprocessing(4, (), "unit"),
        image_shape=(8, 8, 3),
        class_names=("red", "other"),
        dataset="noise",
    )
    image = np.random.default_rng(0).integers(1, 256, (8, 8, 3), np.uint8)
    shares, seen, mattered = looker(network)(image)
    red = image[2:4, 2:4, 0].mean() / 255
    assert shares == pytest.approx(
        {"red": 1 / (1 + np.exp(-red)), "other": 1 / (1 + np.exp(red))}
    )
    factor = 280 // 4
    np.testing.assert_array_equal(seen[::factor, ::factor], image[2:6, 2:6])
    assert seen.shape == mattered.shape == (280, 280, 3)
    # Where nothing matters, what is laid over is black.
    grey = image[2:6, 2:6].mean(-1)
    dark = mattered[::factor, ::factor].max(-1) <= 0.4 * grey + 4
    expected = np.ones((4, 4), bool)
    expected[:2, :2] = False
    np.testing.assert_array_equal(dark, expected)
