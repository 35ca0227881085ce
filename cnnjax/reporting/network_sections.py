"""The sections of a report about a network: predictions, mistakes, filters, maps."""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from cnnjax.reporting import plots
from cnnjax.reporting.report import Picture, Row, Section, Table


def predictions(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    dataset: str,
) -> Section:
    """Returns the confusion matrix, and precision and recall of each class.

    `probabilities` is float [n, classes], and `labels` int [n].
    """
    predicted, classes = probabilities.argmax(axis=1), np.arange(len(class_names))
    counts = confusion_matrix(labels, predicted, labels=classes)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0
    )
    right = int(np.trace(counts))
    rows: list[Row] = [
        [name, float(p), float(r), float(f), int(n)]
        for name, p, r, f, n in zip(
            class_names, precision, recall, f1, support, strict=True
        )
    ]
    title = f"{dataset}, test set"
    return Section(
        "Predictions",
        [
            f"{right} of {len(labels)} test pictures of {dataset} are predicted right"
            f" ({right / len(labels):.2%}). A class that is never predicted has"
            " precision 0."
        ],
        [
            Picture(
                "confusion",
                plots.confusion(counts, class_names, title=f"confusion, {title}"),
                "confusion matrix; the table below has the figures of each class",
            ),
            Picture(
                "per_class",
                plots.per_class(
                    precision,
                    recall,
                    class_names,
                    title=f"precision and recall, {title}",
                ),
                "precision and recall of each class, as in the table below",
            ),
        ],
        [Table(["class", "precision", "recall", "F1", "pictures"], rows)],
    )


def calibration(
    count: np.ndarray,
    confidence: np.ndarray,
    accuracy: np.ndarray,
    error: float,
    dataset: str,
) -> Section:
    """Returns the reliability diagram of the fields of a `diagnosis.Calibration`."""
    title = f"reliability, {dataset}, test set, ECE {error:.4f}"
    return Section(
        "Calibration",
        [
            f"Expected calibration error {error:.4f}: the mean distance between"
            f" confidence and accuracy over {len(count)} bins of equal width, weighted"
            " by their pictures. Confidence is the largest softmax of the logits (Guo,"
            " Pleiss, Sun, Weinberger, On Calibration of Modern Neural Networks, 2017)."
        ],
        [
            Picture(
                "reliability",
                plots.reliability(count, confidence, accuracy, title=title),
                f"accuracy against confidence; expected calibration error {error:.4f}",
            )
        ],
    )


def mistakes(
    images: np.ndarray,
    true: Sequence[str],
    predicted: Sequence[str],
    confidence: np.ndarray,
    dataset: str,
) -> Section:
    """Returns the wrong predictions with the highest confidence.

    `images` is uint8 [n, height, width, channels]; `true` and `predicted` are the names
    of each picture's classes.
    """
    if not len(images):
        return Section(
            "Mistakes", [f"No test picture of {dataset} is predicted wrong."]
        )
    captions = [
        f"is {plots.text(is_, 14)}\nsaid {plots.text(said, 12)}"
        for is_, said in zip(true, predicted, strict=True)
    ]
    title = f"the {len(images)} most confident mistakes, {dataset}"
    rows: list[Row] = [
        [i, is_, said, float(p)]
        for i, (is_, said, p) in enumerate(
            zip(true, predicted, confidence, strict=True), start=1
        )
    ]
    return Section(
        "Mistakes",
        [f"The test pictures of {dataset} that are predicted wrong most confidently."],
        [
            Picture(
                "mistakes",
                plots.pictures(list(images), captions, columns=5, title=title),
                f"{title}; the table below names their classes",
            )
        ],
        [
            Table(
                ["picture", "true class", "predicted class", "confidence"],
                rows,
                folded_as="Their classes",
            )
        ],
    )


def insides(
    kernel: np.ndarray | None, image: np.ndarray, maps: Mapping[str, np.ndarray]
) -> Section | None:
    """Returns the filters of the first layer and the feature maps of one picture.

    Args:
        kernel: of the first convolution, [height, width, in, out]; None if there is
            none, for which there is no section.
        image: the picture, uint8 [height, width, channels].
        maps: layer -> its maps of the picture, [height', width', channels'].
    """
    if kernel is None:
        return None
    height, width, _, out = kernel.shape
    title = f"{out} filters of the first layer, {height}x{width}"
    pictures = [
        Picture("filters", plots.filters(kernel, title=title), title),
        Picture(
            "picture",
            plots.pictures([image], [""], columns=1, title="the picture, test set"),
            "the picture that the maps below are of",
        ),
    ]
    for name, values in maps.items():
        height, width, channels = values.shape
        title = f"{name}: {channels} maps of {height}x{width}"
        png = plots.maps(values, title=title)
        pictures.append(Picture(f"maps_{name}", png, title))
    return Section(
        "Inside the network",
        [
            "Each filter is scaled by its own extremes, the maps of a layer together"
            " (dark is low). The maps of a convolution are taken after the pooling it"
            " ends with, before its activation."
        ],
        pictures,
    )


def distortions(
    image: np.ndarray, distorted: np.ndarray, names: Sequence[str]
) -> Section:
    """Returns one training picture and several distorted versions of it.

    `image` is uint8 [height, width, channels], and `distorted` is float [n, height',
    width', channels], which is clipped to [0, 1] here.
    """
    shown = [image, *distorted]
    captions = ["original", *("" for _ in distorted)]
    title = f"distortions: {', '.join(names)}"
    return Section(
        "Distortions",
        ["The first training picture, as the first positions of the run distort it."],
        [
            Picture(
                "distortions",
                plots.pictures(shown, captions, columns=4, title=title),
                title,
            )
        ],
    )
