"""The claims of section 5.2: the two-convolution network on MNIST."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from chapter.checks import Check, contrast
from chapter.lab import Lab
from chapter.look import accuracies, each_seed
from chapter.past import Run
from chapter.row import Also, Outcome, Row
from cnnjax.data import augment
from cnnjax.models.facts import facts_of
from cnnjax.models.forward import Variables
from cnnjax.models.summary import activations

STEPS = 20_000
# Steps that are enough to compare variants of the network; its error is then 2%.
COMPARED = 4000
# Training pictures on which accuracy is compared with that on the test set.
TRAIN_PICTURES = 10_000
SHIFTS = (1, 2, 3, 4, 5, 6)  # pixels, to the right
ROTATIONS = (15, 30, 45)  # degrees
SCALES = (0.7, 0.8, 0.9, 1.1, 1.2, 1.3)


def _cnn(lab: Lab, weights: bool = False) -> Run:
    return lab.train("mnist", steps=lab.budget.mnist, weights=weights)


def _mlp(lab: Lab, weights: bool = False) -> Run:
    return lab.train("mlp", steps=lab.budget.mlp, weights=weights)


def _variant(lab: Lab, field: str, value: float) -> Run:
    """Returns a shorter run with one field changed, whose weights are kept."""
    steps = lab.budget.mnist_short
    return lab.train("mnist", steps=steps, changes={field: value}, weights=True)


def _mnist(lab: Lab) -> Outcome:
    run = _cnn(lab)
    return Outcome([run.values()], run.dataset, lab.budget.mnist)


def _against_mlp(lab: Lab) -> Outcome:
    cnn, mlp = 1 - _cnn(lab).values(), 1 - _mlp(lab).values()
    return Outcome(
        [mlp, 1 - cnn / mlp],
        _cnn(lab).dataset,
        lab.budget.mnist,
        [Also("error of SimpleCNN", cnn)],
    )


def _dropout(lab: Lab) -> Outcome:
    data = lab.data_of("mnist")
    images, labels = (
        part[:TRAIN_PICTURES] for part in (data.train.images, data.train.labels)
    )

    def gap(keep_prob: float) -> tuple[np.ndarray, Run]:
        run = _variant(lab, "model.keep_prob", keep_prob)
        return accuracies(run, images, labels) - run.values(), run

    with_, run = gap(0.5)
    without, other = gap(1.0)
    return Outcome(
        [without - with_],
        run.dataset,
        lab.budget.mnist_short,
        [
            Also("training less test accuracy, with dropout", with_, "points"),
            Also("training less test accuracy, without", without, "points"),
            Also(
                "test accuracy, with dropout - without",
                run.values() - other.values(),
                "points",
            ),
        ],
    )


def _ever_alive(model: nn.Module, variables: Variables, images: jax.Array) -> jax.Array:
    """Tells which hidden units each picture makes positive: bool [batch, units]."""
    alive = []
    for name, layer in activations(model, variables, images).items():
        if name != facts_of(model).output_layer:
            # A convolution's unit is a filter: it is alive if it is so at any pixel.
            alive.append(jnp.any(layer > 0, axis=tuple(range(1, layer.ndim - 1))))
    return jnp.concatenate(alive, axis=1)


def _bias(lab: Lab) -> Outcome:
    images = lab.data_of("mnist").test.images

    def dead(bias: float) -> tuple[np.ndarray, Run]:
        run = _variant(lab, "model.bias", bias)
        alive = each_seed(run, images, _ever_alive).any(axis=1)
        return 1 - alive.mean(axis=1), run

    zero, run = dead(0.0)
    tenth, other = dead(0.1)
    return Outcome(
        [zero - tenth],
        run.dataset,
        lab.budget.mnist_short,
        [
            Also("dead units, biases from 0", zero),
            Also("dead units, biases from 0.1", tenth),
            Also(
                "test accuracy, from 0.1 - from 0",
                other.values() - run.values(),
                "points",
            ),
        ],
        "A unit is dead where it is zero for every test picture.",
    )


def moved(
    images: np.ndarray, *, shift: float = 0.0, degrees: float = 0.0, scale: float = 1.0
) -> np.ndarray:
    """Returns pictures shifted, rotated and scaled, as uint8 of the same shape.

    Args:
        images: uint8 [n, height, width, channels].
        shift: pixels to the right.
        degrees: clockwise, as displayed with the first row at the top.
        scale: factor; more than 1 enlarges.
    """
    one = jnp.ones(len(images))
    moves = augment.matrix(
        0 * one,
        shift * one,
        math.radians(degrees) * one,
        scale * one,
        images.shape[1:3],
    )
    made = augment.resample(jnp.asarray(images, jnp.float32), moves)
    return np.asarray(jnp.round(made).astype(jnp.uint8))


def _invariance(lab: Lab) -> Outcome:
    cnn, mlp = _cnn(lab, weights=True), _mlp(lab, weights=True)
    test = lab.data_of("mnist").test
    also, lost = [], []
    for what, places in (("shift", SHIFTS), ("degrees", ROTATIONS), ("scale", SCALES)):
        losses = []
        for place in places:
            pictures = moved(test.images, **{what: place})
            each = [accuracies(run, pictures, test.labels) for run in (cnn, mlp)]
            also += [
                Also(f"{name}, {what} {place}", values)
                for name, values in zip(("SimpleCNN", "MLP"), each, strict=True)
            ]
            losses.append(
                [run.values() - v for run, v in zip((cnn, mlp), each, strict=True)]
            )
        of_cnn, of_mlp = np.mean(losses, axis=0)
        lost.append(of_mlp - of_cnn)
    return Outcome(lost, cnn.dataset, lab.budget.mnist, also)


_row = partial(Row, data="mnist")
ROWS = (
    _row(
        "mnist",
        "5.2",
        "about 99.2% after 20,000 steps of 50",
        "mnist.py",
        (Check("test accuracy", 0.991, 0.993, "%", STEPS, "mnist"),),
        _mnist,
    ),
    _row(
        "mlp",
        "5.2",
        "the network cuts the perceptron's error of about 2% by about 60%",
        "mnist.py and mlp.py (3,000 steps of 100)",
        (
            Check("error of the MLP", 0.015, 0.025, "%", STEPS, "mnist"),
            Check("cut of the error", 0.55, 0.65, "%", STEPS, "mnist"),
        ),
        _against_mlp,
    ),
    _row(
        "dropout",
        "5.2",
        "dropout reduces overfitting",
        "mnist.py with keep_prob 0.5 and 1: accuracy on 10,000 training pictures less"
        " that on the test set",
        (contrast("gap without - with", steps=COMPARED),),
        _dropout,
    ),
    _row(
        "bias",
        "5.2",
        "biases that start at 0.1 avoid dead ReLU units",
        "mnist.py with biases from 0 and from 0.1",
        (contrast("dead units, from 0 - from 0.1", steps=COMPARED),),
        _bias,
    ),
    _row(
        "invariance",
        "5.1",
        "the convolutional network tolerates shift, scale and rotation better",
        "mnist.py and mlp.py on test pictures shifted by 1 to 6 pixels, turned by 15"
        " to 45 degrees, scaled by 0.7 to 1.3: the mean loss of accuracy",
        (
            contrast("lost by shifts, MLP - CNN", steps=STEPS),
            contrast("lost by turns, MLP - CNN", steps=STEPS),
            contrast("lost by scales, MLP - CNN", steps=STEPS),
        ),
        _invariance,
    ),
)
