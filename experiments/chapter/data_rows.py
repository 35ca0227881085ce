"""Claims about the benefit of more training data."""

from functools import partial
from typing import Any

import numpy as np

from chapter.checks import contrast
from chapter.cifar_rows import SHORT, short
from chapter.lab import Lab
from chapter.row import Also, Outcome, Row
from cnnjax.data.dataset import Dataset
from cnnjax.errors import MissingPackageError

WIDTHS = (0.25, 0.5, 1.0, 2.0)
SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
TRAINED = 1000  # steps that are needed to tell the widths apart


def _count(data: Dataset, share: float) -> int:
    return max(1, round(share * len(data.train.labels)))


def _first(data: Dataset, count: int) -> dict[str, int]:
    """Returns the change that limits training to `count` pictures; 0 stands for all."""
    return {"data.train_examples": 0 if count == len(data.train.labels) else count}


def _data_size(lab: Lab) -> Outcome:
    data = lab.data_of("cifar")
    accuracy: dict[tuple[float, float], np.ndarray] = {}
    gap: dict[tuple[float, float], np.ndarray] = {}
    for width in WIDTHS:
        for share in SHARES:
            # Every share of the data is trained for the same number of steps.
            run = lab.train(
                "base",
                steps=lab.budget.cifar_small,
                changes={"model.width": width} | _first(data, _count(data, share)),
            )
            accuracy[width, share] = run.values()
            gap[width, share] = run.values("train/accuracy/last") - run.values()

    def gain(width: float) -> np.ndarray:
        return accuracy[width, 1.0] - accuracy[width, 0.1]

    narrow, wide = WIDTHS[0], WIDTHS[-1]
    least = SHARES[0]
    also = [
        Also(f"width {width:g}, {share:.0%} of the pictures", accuracy[width, share])
        for width in WIDTHS
        for share in SHARES
    ]
    return Outcome(
        [gain(wide) - gain(narrow), gap[wide, least] - gap[narrow, least]],
        lab.data_of("cifar").name,
        lab.budget.cifar_small,
        also,
    )


def hog_accuracies(data: Dataset, counts: list[int], seed: int) -> list[float]:
    """Returns the test accuracy of a linear SVM on HoG features for each of `counts`.

    The SVM is trained on the first `count` training pictures.

    Raises:
        MissingPackageError: scikit-image is not installed.
    """
    try:
        from skimage.feature import hog
    except ImportError as error:
        raise MissingPackageError(
            "got no scikit-image, which the row 'classical' needs;"
            " pip install -e '.[claims]'"
        ) from error
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    def features(images: np.ndarray) -> Any:
        # Dalal and Triggs 2005, with cells of 8x8 pixels in blocks of 2x2 cells.
        return np.stack(
            [
                hog(
                    image,
                    orientations=9,
                    pixels_per_cell=(8, 8),
                    cells_per_block=(2, 2),
                    channel_axis=-1,
                )
                for image in images
            ]
        ).astype(np.float32)

    train, test = features(data.train.images[: max(counts)]), features(data.test.images)
    found = []
    for count in counts:
        # With more examples than features, the primal problem is the smaller one.
        machine = LinearSVC(C=0.01, dual=False, random_state=seed)
        fitted = make_pipeline(StandardScaler(), machine)
        fitted.fit(train[:count], data.train.labels[:count])
        found.append(float(fitted.score(test, data.test.labels)))
    return found


def _classical(lab: Lab) -> Outcome:
    data = lab.data_of("cifar")
    most = lab.budget.pictures or len(data.train.labels)
    counts = [max(1, round(share * most)) for share in SHARES]
    # The SVM is not random, so every seed's network is compared with the same one.
    svm = lab.once("HoG", partial(hog_accuracies, data, counts, seed=0))
    by_hand = np.array(svm)
    network = np.stack([short(lab, _first(data, n)).values() for n in counts])
    quarter, last = SHARES.index(0.25), len(SHARES) - 1
    gains = (network[last] - network[quarter]) - (by_hand[last] - by_hand[quarter])
    also = []
    for i, share in enumerate(SHARES):
        also += [
            Also(f"HoG and SVM, {share:.0%} of the pictures", [by_hand[i]]),
            Also(f"CifarCNN, {share:.0%} of the pictures", network[i]),
        ]
    return Outcome([gains], data.name, lab.budget.cifar, also)


_row = partial(Row, data="cifar")
ROWS = (
    _row(
        "data-size",
        "5.3",
        "larger networks gain more from more data, and overfit on little",
        "base.py with widths 1/4 to 2 on 5 to 100% of the training pictures",
        (
            contrast("gain from 10% to all, width 2 - 1/4", steps=TRAINED),
            contrast("training less test accuracy on 5%, width 2 - 1/4", steps=TRAINED),
        ),
        _data_size,
    ),
    _row(
        "classical",
        "5.1",
        "hand-made features saturate with more data, the network does not",
        "HoG with a linear SVM against base.py on 5 to 100% of the training pictures",
        (contrast("gain from 25% to all, network - HoG", steps=SHORT),),
        _classical,
    ),
)
