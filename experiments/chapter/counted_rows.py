"""Claims about parameters and operations, counted from the shapes of real modules."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from chapter.checks import Check
from chapter.lab import Lab
from chapter.row import Also, Outcome, Row
from cnnjax.models import summary
from cnnjax.models.cifar import CifarCNN
from cnnjax.models.lenet import LeNet5

# Section 5.1: a grey picture of 1000x1000 pixels, a million hidden units, receptive
# fields and kernels of 10x10, a hundred kernels.
SIDE, HIDDEN, FIELD, KERNELS, STRIDE = 1000, 10**6, (10, 10), 100, 5


def num_weights(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Counts a module's parameters for an input of `shape`, without allocating them."""
    _, variables = _shapes(module, shape)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))


def num_outputs(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Counts the values that a module outputs for one input of `shape`."""
    output, _ = _shapes(module, shape)
    return math.prod(output.shape)


def _shapes(module: nn.Module, shape: tuple[int, ...]) -> Any:
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(module.init_with_output, jax.random.key(0), images)


def _arithmetic(lab: Lab) -> Outcome:
    del lab  # nothing is trained
    picture = (SIDE, SIDE, 1)
    local = nn.ConvLocal(1, FIELD, use_bias=False)
    strided = nn.Conv(1, FIELD, strides=STRIDE, use_bias=False)
    counts = [
        num_weights(nn.Dense(HIDDEN, use_bias=False), (SIDE * SIDE,)),
        num_weights(local, picture),
        num_weights(nn.Conv(1, FIELD, use_bias=False), picture),
        num_weights(nn.Conv(KERNELS, FIELD, use_bias=False), picture),
        num_outputs(strided, picture) / HIDDEN,
        _layer(LeNet5(variant="modern"), (28, 28, 1), "C1").num_params,
    ]
    return Outcome([[count] for count in counts])


def _layer(model: nn.Module, shape: tuple[int, int, int], name: str) -> summary.Layer:
    return next(
        layer for layer in summary.layers(model, shape) if layer.name.upper() == name
    )


def _size(lab: Lab) -> Outcome:
    del lab
    found = summary.layers(CifarCNN(), (24, 24, 3))
    multiply_adds = sum(layer.multiply_adds for layer in found)
    return Outcome(
        [[sum(layer.num_params for layer in found)], [multiply_adds]],
        also=[Also("arithmetic operations, two each", [2 * multiply_adds], "")],
    )


def _exactly(what: str, value: float) -> Check:
    return Check(what, value, value, exact=True)


_COUNTS: Sequence[Check] = (
    _exactly("weights, fully connected", 10**12),
    _exactly("weights, locally connected", 10**8),
    _exactly("weights, one shared kernel", 100),
    _exactly("weights, a hundred kernels", 10**4),
    _exactly("hidden units left by a stride of 5", 1 / 25),
    _exactly("parameters of LeNet-5's C1", 156),
)

ROWS = (
    Row(
        "size",
        "5.3",
        "about 1 million parameters, about 20 million arithmetic operations",
        "CifarCNN on 24x24x3, forward, by formula from its shapes",
        (
            Check("parameters", 0.9e6, 1.1e6, exact=True),
            Check("multiply-adds an image", 18e6, 22e6, exact=True),
        ),
        _size,
    ),
    Row(
        "arithmetic",
        "5.1",
        "10^12, 10^8, 100 and 10^4 weights; stride 5 leaves 1/25 of the hidden units;"
        " LeNet-5's C1 has 156 parameters",
        "Flax's own layers on 1000x1000 pixels, by `jax.eval_shape`",
        _COUNTS,
        _arithmetic,
    ),
)
