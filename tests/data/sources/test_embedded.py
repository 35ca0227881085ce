import hashlib
import math
import time

import numpy as np
import pytest
from sklearn import datasets, linear_model

from cnnjax.data.dataset import Split
from cnnjax.data.sources import embedded

Made = tuple[Split, Split, tuple[str, ...]]  # to train on, to test, and the classes
SHAPES_DIGEST = "55d08bd0663c3ae27840775bc546c4abe1cab8567037702282be25aeece91ae5"
FIGURES = ("disc", "ring", "square", "triangle", "cross", "star")


@pytest.fixture(scope="module")
def drawn() -> Made:
    return embedded.shapes()


@pytest.fixture(scope="module")
def handwritten() -> Made:
    return embedded.digits()


def digest(data: Made) -> str:
    arrays = (
        data[0].images,
        data[0].labels.astype("<i4"),
        data[1].images,
        data[1].labels.astype("<i4"),
    )
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def grid(extent: int, pixel: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the pixels' middles: int32 [1, extent, extent]."""
    at = pixel * np.arange(extent, dtype=np.int32) - pixel * (extent - 1) // 2
    return np.broadcast_arrays(at[None, None, :], at[None, :, None])


def test_shapes_are_the_same_bytes_everywhere(drawn: Made):
    assert digest(drawn) == SHAPES_DIGEST


def test_shapes_are_drawn_in_seconds():
    start = time.perf_counter()
    embedded.shapes()
    # 0.5 s on two idle cores; 3 s is the promise, the rest is for a busy machine.
    assert time.perf_counter() - start < 10


def test_shapes_counts_and_types(drawn: Made):
    assert drawn[0].images.shape == (10_000, 32, 32, 3)
    assert drawn[1].images.shape == (2_000, 32, 32, 3)
    assert drawn[2] == tuple(embedded.FORMS)
    np.testing.assert_array_equal(np.bincount(drawn[0].labels), [1_000] * 10)
    np.testing.assert_array_equal(np.bincount(drawn[1].labels), [200] * 10)


@pytest.mark.parametrize("name", ["drawn", "handwritten"])
def test_types_are_the_contract(name: str, request: pytest.FixtureRequest):
    data = request.getfixturevalue(name)
    for images, labels in (
        (data[0].images, data[0].labels),
        (data[1].images, data[1].labels),
    ):
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        assert len(images) == len(labels)
        assert (images.min(), images.max()) == (0, 255)


@pytest.mark.parametrize("name", ["drawn", "handwritten"])
def test_no_picture_is_there_twice(name: str, request: pytest.FixtureRequest):
    data = request.getfixturevalue(name)
    images = [*data[0].images, *data[1].images]
    assert len({image.tobytes() for image in images}) == len(images)


def test_a_linear_model_cannot_tell_the_shapes_apart(drawn: Made):
    # Measured with all 10,000 to train on: 0.20 (ridge, logistic); chance is 0.10.
    train, test = (
        images.reshape(len(images), -1).astype(np.float32) / 255 - 0.5
        for images in (drawn[0].images[:2_000], drawn[1].images)
    )
    model = linear_model.RidgeClassifier(alpha=1_000)
    model.fit(train, drawn[0].labels[:2_000])
    assert model.score(test, drawn[1].labels) < 0.3


def test_colour_tells_nothing(drawn: Made):
    """The mean colour of each class is grey, within four standard errors of 1000."""
    mean_colour = drawn[0].images.mean(axis=(1, 2))
    standard_error = mean_colour.std(axis=0) / math.sqrt(1_000)
    for label in range(10):
        of_class = mean_colour[drawn[0].labels == label].mean(axis=0)
        assert np.all(np.abs(of_class - mean_colour.mean(axis=0)) < 4 * standard_error)


@pytest.mark.parametrize(
    ("form", "area"),
    [
        ("disc", math.pi),
        ("ring", math.pi / 2),
        ("square", (2 * 7 / 8) ** 2),
        ("triangle", 3 * math.sqrt(3) * (5 / 8) ** 2),
        ("cross", 2 * 2 * (2 / 4) - (2 / 4) ** 2),
        ("star", 4 / 3 * 3 * math.sqrt(3) * (1 / 2) ** 2),
    ],
)
def test_figures_have_the_area_geometry_gives(form: str, area: float):
    r = np.full((1, 1, 1), 400, np.int32)
    inside = embedded.FORMS[form](*grid(256, pixel=4), r)
    assert inside.sum() * 4**2 / 400**2 == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize(
    ("form", "share"),
    [("stripes", 1 / 2), ("checkerboard", 1 / 2), ("dots", math.pi / 12)],
)
def test_textures_cover_the_share_geometry_gives(form: str, share: float):
    r = np.full((1, 1, 1), 128, np.int32)
    # 768 sixteenths are eight whole periods of 2 * (3 * 128 / 8).
    inside = embedded.FORMS[form](*grid(768, pixel=1), r)
    assert inside.mean() == pytest.approx(share, rel=0.05)


@pytest.mark.parametrize("form", [*FIGURES, "target"])
def test_a_mirrored_form_is_the_same_form(form: str):
    u, v = grid(32)
    r = np.full((1, 1, 1), 130, np.int32)
    inside = embedded.FORMS[form](u, v, r)
    np.testing.assert_array_equal(inside, embedded.FORMS[form](-u, v, r))
    np.testing.assert_array_equal(inside, inside[:, :, ::-1])


@pytest.mark.parametrize("form", FIGURES)
def test_the_largest_figure_in_a_corner_is_mostly_in_the_crop(form: str):
    u, v = grid(32)
    r = np.full((1, 1, 1), 160, np.int32)
    inside = embedded.FORMS[form](u - 3 * 16, v - 3 * 16, r)[0]
    assert inside[4:28, 4:28].sum() > 0.9 * inside.sum()


def test_digits_are_a_stratified_split_of_the_bundled_ones(
    handwritten: Made,
):
    bundled = datasets.load_digits()
    assert len(handwritten[0].labels) == 1_501
    assert len(handwritten[1].labels) == 296
    for label in range(10):
        members = bundled.images[bundled.target == label].astype(int)
        in_test = np.arange(len(members)) % 6 == 5
        for images, labels, chosen in (
            (handwritten[0].images, handwritten[0].labels, ~in_test),
            (handwritten[1].images, handwritten[1].labels, in_test),
        ):
            # The middle of each 3x3 is the pixel itself.
            middles = images[labels == label][:, 3:27:3, 3:27:3, 0]
            np.testing.assert_array_equal(middles, 255 * members[chosen] // 16)


def test_digits_are_interpolated_and_framed(handwritten: Made):
    """Against NumPy's interpolation in floating point, along one axis and the other."""
    original = np.zeros((10, 10))
    original[1:9, 1:9] = datasets.load_digits().images[0]
    places = np.arange(-1, 23) / 3
    rows = np.stack([np.interp(places, range(-1, 9), row) for row in original])
    both = np.stack([np.interp(places, range(-1, 9), row) for row in rows.T], axis=1)
    expected = np.zeros((28, 28))
    expected[2:26, 2:26] = both * 255 / 16
    actual = handwritten[0].images[0, :, :, 0].astype(float)
    difference = expected - actual
    assert difference.min() > -1e-9
    assert difference.max() < 1
