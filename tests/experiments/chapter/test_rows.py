"""What the rows compute themselves, against hand-made values."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from chapter import cifar_rows, measure
from chapter.checks import HOLDS, TOO_SHORT, UNLEARNED
from chapter.cifar_rows import SIGMOID_RECIPE, sparsity
from chapter.counted_rows import num_outputs, num_weights
from chapter.data_rows import hog_accuracies
from chapter.measure import ROWS
from chapter.mnist_rows import moved
from chapter.row import looks
from cnnjax.data.dataset import Dataset, Split, make_dataset
from cnnjax.errors import MissingPackageError

NAMES = {
    *("mnist", "mlp", "dropout", "bias", "invariance"),
    *("cifar-short", "cifar-long", "sgd-decay", "l2", "lrn", "lrn-sigmoid"),
    *(
        "distortions-error",
        "augmentation",
        "overlap",
        "l1-l2",
        "data-size",
        "classical",
    ),
    *("size", "arithmetic", "conv-share", "threads", "speed"),
}


def test_every_row_is_there() -> None:
    assert ROWS.keys() == NAMES


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_row_says_before_what_it_takes(row) -> None:
    assert row.claim and row.what and row.section in ("5.1", "5.2", "5.3")
    for check in row.checks:
        assert check.low <= check.high
    assert len({check.what for check in row.checks}) == len(row.checks) > 0


class NoTraining:
    """A lab for rows that are counted."""

    from chapter.budgets import BUDGETS

    budget = BUDGETS["standard"]

    def __init__(self) -> None:
        self.used: list[str] = []
        self.seeds = self.budget.seeds[0]

    def about(self) -> dict:
        return {}


@pytest.mark.parametrize("name", ["arithmetic", "size"])
def test_what_is_counted_holds(name: str) -> None:
    [row] = looks(ROWS[name], NoTraining())
    assert (row["looks"], row["confidence"]) == ([1], 0.95)
    # It is finished, and so is it as version 0.1.0 stored it.
    for new in ("looks", "confidence"):
        assert list(looks(ROWS[name], NoTraining(), row)) == []
        del row[new]
    assert [check["verdict"] for check in row["checks"]] == [HOLDS] * len(row["checks"])
    values = [check["values"] for check in row["checks"]]
    if name == "size":
        assert values == [[1_068_298], [18_470_784]]
        assert row["also"][0]["values"] == [36_941_568]


@pytest.mark.parametrize(
    ("sigmoid", "verdict"),
    [
        ([0.6199, 0.62, 0.62, 0.62], HOLDS),
        ([0.25, 0.62, 0.62, 0.62], UNLEARNED),  # one seed at chance, of four classes
    ],
)
def test_sigmoids_at_chance_say_nothing_of_lrn(monkeypatch, sigmoid, verdict) -> None:
    accuracies = {  # (activation, lrn) -> of four seeds
        ("relu", True): [0.71] * 4,
        ("relu", False): [0.70] * 4,
        ("sigmoid", True): sigmoid,
        ("sigmoid", False): [0.62] * 4,
    }
    recipes = {"relu": set(), "sigmoid": set()}

    def short(lab, changes=None):
        own = {"model.activation": "relu", "model.lrn": True} | dict(changes or {})
        activation, lrn = own.pop("model.activation"), own.pop("model.lrn")
        recipes[activation].add(tuple(own.items()))
        values = np.array(accuracies[activation, lrn])
        return SimpleNamespace(values=lambda: values, dataset="cifar10")

    lab = NoTraining()
    lab.data_of = lambda kind: SimpleNamespace(class_names=("a", "b", "c", "d"))
    monkeypatch.setattr(cifar_rows, "short", short)
    row = next(looks(ROWS["lrn-sigmoid"], lab))
    # The two networks with the sigmoid differ in nothing but LRN.
    assert recipes == {"relu": {()}, "sigmoid": {(*SIGMOID_RECIPE.items(),)}}
    by_hand = [0.01 - (value - 0.62) for value in sigmoid]
    assert row["checks"][0]["values"] == pytest.approx(by_hand)
    assert row["also"][2]["values"] == sigmoid
    assert ("at chance" in row["note"]) == (verdict == UNLEARNED)
    assert row["verdict"] == verdict


def test_counts_are_of_modules() -> None:
    import flax.linen as nn

    # 3x3 over two channels to four filters and their biases; 8x8 by strides of 2.
    module = nn.Conv(4, (3, 3), strides=2)
    assert num_weights(module, (8, 8, 2)) == 3 * 3 * 2 * 4 + 4
    assert num_outputs(module, (8, 8, 2)) == 4 * 4 * 4


def test_sparsity_by_hand() -> None:
    assert sparsity(np.full((3, 4), -0.2)) == pytest.approx(0, abs=1e-12)
    assert sparsity(np.array([0, 0, 7.0, 0])) == pytest.approx(1)
    # n = 4: (2 - 7 / 5) / (2 - 1)
    assert sparsity(np.array([3.0, 4.0, 0, 0])) == pytest.approx(0.6)


def test_pictures_are_moved() -> None:
    pictures = np.zeros((1, 9, 9, 1), np.uint8)
    pictures[0, 4, 2] = 200
    right = moved(pictures, shift=3)
    assert right[0, 4, 5] == 200 and right.sum() == 200
    turned = moved(pictures, degrees=90)
    assert turned.sum() == pytest.approx(200, abs=2)
    row, column = np.argwhere(turned[0, :, :, 0] > 150)[0]
    assert (row, column) == (2, 4)  # from the left to the top
    np.testing.assert_array_equal(moved(pictures), pictures)
    wide = np.zeros((1, 9, 9, 1), np.uint8)
    wide[0, 3:6, 3:6] = 255
    assert moved(wide, scale=1.5).sum() > 1.8 * wide.sum()


def stripes() -> Dataset:
    """Pictures that only the direction of their stripes tells apart."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    wave = (128 + 100 * np.sin(np.arange(32) + random.uniform(0, 6, (60, 1)))).astype(
        int
    )
    across, down = wave[:, None, :], wave[:, :, None]
    grey = np.where(labels[:, None, None] == 0, across, down) + np.zeros(
        (60, 32, 32), int
    )
    images = np.repeat(grey[..., None], 3, axis=-1).astype(np.uint8)
    split = Split(images, labels)
    return make_dataset("stripes", "", split, split, ("across", "down"))


def test_hand_made_features_see_directions() -> None:
    pytest.importorskip("skimage")
    assert hog_accuracies(stripes(), [10, 60], seed=0) == [1.0, 1.0]


def test_without_scikit_image_the_row_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(MissingPackageError, match=r"pip install -e '\.\[claims\]'"):
        hog_accuracies(stripes(), [10], seed=0)


def test_the_table_shows_the_truest_pictures_and_then_the_largest_budget() -> None:
    def row(dataset: str, budget: str, verdict: str = HOLDS) -> dict:
        return {"row": "l2", "dataset": dataset, "budget": budget, "verdict": verdict}

    shapes, other = row("shapes", "full"), row("cifar100", "standard")
    quick, cifar = row("cifar100", "quick"), row("cifar10", "standard")
    best = measure.best_rows
    assert best([other, shapes, quick]) == best([quick, shapes, other]) == [other]
    assert best([other, cifar, shapes]) == [cifar]
    # A glance at the true pictures does not take the place of a measurement.
    glance = row("cifar10", "quick", TOO_SHORT)
    assert best([glance, other]) == [other]
    assert best([glance, row("shapes", "full", TOO_SHORT)]) == [glance]
