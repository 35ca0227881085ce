"""Statistics of a data set's pictures: mean and deviation, and repeated ones."""

import dataclasses
import hashlib

import numpy as np

from cnnjax.data.dataset import Split


@dataclasses.dataclass(frozen=True)
class Repeats:
    """Counts of pictures that equal another one in every pixel.

    Attributes:
        within_train: training pictures that repeat an earlier training picture.
        within_test: test pictures that repeat an earlier test picture.
        across: test pictures that are also training pictures.
        across_mislabelled: those whose label none of these training pictures has.
    """

    within_train: int
    within_test: int
    across: int
    across_mislabelled: int


def mean_and_deviation(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and the standard deviation of each channel's pixels.

    mean = sum_v v n[v] / sum_v n[v]; deviation = sqrt(sum_v (v - mean)^2 n[v] / sum n),
    where n[v] is the number of pixels with value v, so that the sums are exact.

    Args:
        images: uint8 [n, height, width, channels].

    Returns:
        two arrays float64 [channels], in [0, 255].
    """
    channels = np.moveaxis(images, -1, 0)
    counts = np.stack([np.bincount(c.ravel(), minlength=256) for c in channels])
    values, total = np.arange(256.0), counts.sum(axis=1)
    mean = counts @ values / total
    offsets = values - mean[:, None]
    return mean, np.sqrt((counts * offsets**2).sum(axis=1) / total)


def repeats(train: Split, test: Split) -> Repeats:
    """Counts repeated pictures, which it recognises by the SHA-256 of their pixels."""
    train_digests, test_digests = _digests(train), _digests(test)
    labels: dict[bytes, set[int]] = {}
    for digest, label in zip(train_digests, train.labels, strict=True):
        labels.setdefault(digest, set()).add(int(label))
    shared = [
        int(label) in labels[digest]
        for digest, label in zip(test_digests, test.labels, strict=True)
        if digest in labels
    ]
    return Repeats(
        within_train=len(train_digests) - len(labels),
        within_test=len(test_digests) - len(set(test_digests)),
        across=len(shared),
        across_mislabelled=shared.count(False),
    )


def _digests(split: Split) -> list[bytes]:
    return [hashlib.sha256(image.data).digest() for image in split.images]
