"""The sections of a report about a network: predictions, mistakes, filters, maps."""

from collections.abc import Mapping, Sequence

import numpy as np

from cnnjax.models.summary import Layer
from cnnjax.reporting import drawings, plots
from cnnjax.reporting.report import Picture, Row, Section, Table

# Maps of at most so many layers are drawn.
MOST_MAPS = 12

# At most so many pairs of classes are listed that are taken for each other.
NUM_CONFUSED = 12
CONFUSED = ("most often confused: true", "predicted", "pictures", "of the class")


def layers(
    found: Sequence[Layer],
    kernels: Mapping[str, tuple[int, ...]],
    input_shape: tuple[int, int, int],
    model: str,
) -> Section:
    """Returns the drawing of a network and the table of its layers.

    `kernels` are the shapes of the layers' kernels, by the name of the layer.
    """
    total = sum(layer.num_params for layer in found)
    cost = sum(layer.multiply_adds for layer in found)
    rows: list[Row] = [
        [
            layer.name or model,
            _times(kernels.get(layer.name, ())),
            _times(layer.output_shape),
            layer.num_params,
            layer.multiply_adds,
        ]
        for layer in found
    ]
    # Normalisations and the like are left out of the drawing, which has little room.
    some = [one for one in found if one.multiply_adds and one.output_shape]
    drawn = [(one.name or model, one.output_shape) for one in some]
    title = f"layers of {model}"
    svg = drawings.network([("input", input_shape), *drawn], title=title)
    return Section(
        "Layers",
        [
            f"{total:,} parameters; {2 * cost:,} arithmetic operations a picture. The"
            " output of a convolution is that of the pooling it ends with, if any. In"
            " the drawing, faces are in proportion to height and width, and depths to"
            " the logarithm of the channels."
        ],
        [Picture("layers", svg, f"{title}, as in the table below")],
        [
            Table(
                ["layer", "kernel", "output", "parameters", "multiply-adds"],
                [*rows, ["all", "", "", total, cost]],
                folded_as="" if len(rows) <= plots.MOST_NAMED else "All layers",
            )
        ],
    )


def _times(shape: Sequence[int]) -> str:
    return "\N{MULTIPLICATION SIGN}".join(str(size) for size in shape)


def predictions(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    dataset: str,
) -> Section:
    """Returns the confusion matrix, and precision and recall of each class.

    `probabilities` is float [n, classes], and `labels` int [n].
    """
    classes = len(class_names)
    pairs = labels.astype(np.int64) * classes + probabilities.argmax(axis=1)
    counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    right, support, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    precision, recall = (right / np.maximum(n, 1) for n in (predicted, support))
    f1 = 2 * right / np.maximum(support + predicted, 1)
    rows: list[Row] = [
        [name, float(p), float(r), float(f), int(n)]
        for name, p, r, f, n in zip(
            class_names, precision, recall, f1, support, strict=True
        )
    ]
    wrong = counts - np.diag(right)
    order = np.argsort(-wrong, axis=None, kind="stable")[:NUM_CONFUSED]
    confused: list[Row] = [
        [class_names[i], class_names[j], int(wrong[i, j]), wrong[i, j] / support[i]]
        for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True)
        if wrong[i, j]
    ]
    title = f"{dataset}, test set"
    correct = int(right.sum())
    many = classes > plots.MOST_NAMED
    # Of many classes, those that are recognised worst.
    shown = np.sort(np.argsort(f1, kind="stable")[: plots.MOST_NAMED])
    which = f"the {len(shown)} classes of lowest F1, " if many else ""
    figures = {
        "precision": (right[shown], predicted[shown]),
        "recall": (right[shown], support[shown]),
    }
    return Section(
        "Predictions",
        [
            f"{correct:,} of {len(labels):,} test pictures of {dataset} are predicted"
            f" right ({correct / len(labels):.2%}). A class that is never predicted has"
            " precision 0. The stronger the blue, the larger the share of the true"
            " class; bars are 95% intervals."
            + (" The matrix numbers the classes as the table has them." if many else "")
        ],
        [
            Picture(
                "confusion",
                plots.confusion(counts, class_names, title=f"confusion, {title}"),
                "confusion matrix; the tables below have the figures of each class",
            ),
            Picture(
                "per_class",
                plots.per_class(
                    figures,
                    [class_names[i] for i in shown],
                    title=f"{which}{title}" if many else f"by class, {title}",
                ),
                "precision and recall of each class, as in the table below",
            ),
        ],
        [
            Table(
                ["class", "precision", "recall", "F1", "pictures"],
                rows,
                folded_as="All classes" if many else "",
            ),
            *([Table(CONFUSED, confused)] if confused else []),
        ],
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
        f"{plots.text(is_, 12)}\n\N{RIGHTWARDS ARROW} {plots.text(said, 11)}"
        for is_, said in zip(true, predicted, strict=True)
    ]
    title = f"the {len(images)} most confident mistakes, {dataset}: true, predicted"
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
                drawings.pictures(list(images), captions, columns=5, title=title),
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
        Picture("filters", drawings.filters(kernel, title=title), title),
        Picture(
            "picture",
            drawings.pictures([image], [""], columns=1, title="the picture, test set"),
            "the picture that the maps below are of",
        ),
    ]
    for name, values in list(maps.items())[:MOST_MAPS]:
        height, width, channels = values.shape
        title = f"{name}: {channels} maps of {height}x{width}"
        svg = drawings.maps(values, title=title)
        pictures.append(Picture(f"maps_{name.replace('/', '_')}", svg, title))
    return Section(
        "Inside the network",
        [
            "Each filter is scaled by its own extremes, the maps of a layer together"
            " (dark is low). The maps of a convolution are taken after the pooling it"
            " ends with, before its activation."
            + (f" These are the first {MOST_MAPS}." if len(maps) > MOST_MAPS else "")
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
                drawings.pictures(shown, captions, columns=4, title=title),
                title,
            )
        ],
    )
