"""The two data sets that need no download: drawn shapes, and scikit-learn's digits.

They let every script run on a machine with no data and no network. They are easy:
accuracy on them says nothing about CIFAR-10 or MNIST.
"""

import dataclasses

import numpy as np

from cnnjax.data import shapes as drawing

SHAPES_TRAIN = 10_000
SHAPES_TEST = 2_000
DIGITS_TEST_EVERY = 6

_SHAPES_SEED = 5


@dataclasses.dataclass(frozen=True)
class EmbeddedData:
    """A data set for classification, in memory.

    Attributes:
        train_images: uint8 [num_train, height, width, channels], in [0, 255].
        train_labels: int32 [num_train], indices into `class_names`.
        test_images: uint8 [num_test, height, width, channels], in [0, 255].
        test_labels: int32 [num_test].
        class_names: one a class.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]


def shapes() -> EmbeddedData:
    """Draws the embedded colour set: ten forms in noisy 32x32 colour pictures.

    Discs, rings, squares, triangles, crosses, stars, stripes, checkerboards, dots and
    targets, of random colour, place, size and angle, on clutter; drawn by `shapes.py`
    from a fixed seed, the same bytes everywhere. Picture i is of class i % 10. Figures
    lie mostly in the middle 24x24, textures are everywhere, and mirroring changes no
    class: they outlive the distortions of the CIFAR-10 recipe. Accuracy on them says
    nothing about CIFAR-10.

    Returns:
        10,000 pictures to train on and 2,000 to test on, uint8 [n, 32, 32, 3].
    """
    bits = np.random.Philox(key=_SHAPES_SEED)
    count = SHAPES_TRAIN + SHAPES_TEST
    forms = tuple(drawing.FORMS)
    shape = (count, drawing.SIZE, drawing.SIZE, drawing.CHANNELS)
    images = np.empty(shape, np.uint8)
    block = drawing.CHUNK * len(forms)
    for start in range(0, count, block):
        for index, form in enumerate(forms):
            places = slice(start + index, start + block, len(forms))
            images[places] = drawing.draw(form, drawing.CHUNK, bits)
    labels = np.arange(count, dtype=np.int32) % np.int32(len(forms))
    return EmbeddedData(
        train_images=images[:SHAPES_TRAIN],
        train_labels=labels[:SHAPES_TRAIN],
        test_images=images[SHAPES_TRAIN:],
        test_labels=labels[SHAPES_TRAIN:],
        class_names=forms,
    )


def digits() -> EmbeddedData:
    """Enlarges scikit-learn's 1,797 handwritten digits of 8x8 pixels to 28x28.

    Each pixel becomes 3x3 of it, in between its neighbours (see `_enlarge`), with two
    black pixels around; [0, 16] becomes [0, 255]: light digits on black, as MNIST has
    them. Of each class, in scikit-learn's order, every sixth picture is for testing.
    They are of 13 writers, whom the split does not keep apart. Accuracy on them says
    nothing about MNIST.

    Returns:
        1,501 pictures to train on and 296 to test on, uint8 [n, 28, 28, 1].

    Source: sklearn.datasets.load_digits, the test part of UCI's "Optical Recognition
    of Handwritten Digits" (Alpaydin and Kaynak, 1998); it comes with the package.
    """
    from sklearn import datasets

    bundled = datasets.load_digits()
    images = _enlarge(bundled.images.astype(np.int32))
    labels = bundled.target.astype(np.int32)
    rank = np.empty_like(labels)
    for label in range(10):
        members = labels == label
        rank[members] = np.arange(members.sum())
    test = rank % DIGITS_TEST_EVERY == DIGITS_TEST_EVERY - 1
    return EmbeddedData(
        train_images=images[~test],
        train_labels=labels[~test],
        test_images=images[test],
        test_labels=labels[test],
        class_names=tuple(str(label) for label in range(10)),
    )


def _enlarge(images: np.ndarray) -> np.ndarray:
    """Enlarges pictures three times between their pixels, and adds a black border.

    Along each axis pixel i becomes (x[i-1] + 2 x[i]) / 3, x[i], (x[i+1] + 2 x[i]) / 3,
    with 0 outside: linear interpolation at thirds of a pixel. The sums, in [0, 9 * 16],
    become [0, 255] rounded down.

    Args:
        images: int32 [n, 8, 8], in [0, 16].

    Returns:
        uint8 [n, 28, 28, 1], in [0, 255].
    """
    for axis in (1, 2):
        padding = [(1, 1) if axis == a else (0, 0) for a in range(3)]
        before, here, after = (
            np.take(np.pad(images, padding), range(i, i + 8), axis) for i in range(3)
        )
        thirds = np.stack([before + 2 * here, 3 * here, after + 2 * here], axis + 1)
        shape = list(images.shape)
        shape[axis] = 24
        images = thirds.reshape(shape)
    framed = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return (255 * framed // 144).astype(np.uint8)[..., None]
