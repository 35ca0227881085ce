"""Checks of every network: logits and gradients, in three precisions."""

import dataclasses
import functools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cnnjax import prng
from cnnjax.models import MODELS
from cnnjax.models.facts import facts_of
from cnnjax.models.forward import forward, init_variables
from cnnjax.models.lenet import CONNECTIONS, TARGETS
from cnnjax.ops import winograd
from verification import numpy_data, numpy_ops
from verification.check import (
    BFLOAT16,
    FLOAT32,
    Check,
    Outcome,
    default_rounding,
    network_bounds,
    worst,
)
from verification.numpy_ops import Array

# A rounding may switch a ReLU or a pooling window only where its values are closer than
# this share of their size. Inputs are drawn until none is: else one unit's gradient
# would be wrong as a whole, though nothing is wrong with the program.
CLEAR = 5e-6

BATCH, SEED, KEEP = 4, 3, 0.5
Layer = Callable[[Array, dict[str, Array]], tuple[Array, Any]]
Params = dict[str, Array]


@dataclasses.dataclass(frozen=True, eq=False)  # the key of a cache
class Case:
    """A network with its reference.

    Attributes:
        name: of the row.
        model: the Linen module, float32.
        image_shape: of its input.
        layers: the same network in NumPy.
        rejection: the constant of LeNet-5's loss; None for cross-entropy.
    """

    name: str
    model: Any
    image_shape: tuple[int, int, int]
    layers: list[Layer]
    rejection: float | None = None

    def run(self, params: Params, images: Array) -> tuple[Array, Any]:
        """Returns the logits, float64, and what maps their gradient to all others."""
        pulls, x = [], images.astype(float)
        for layer in self.layers:
            x, pull = layer(x, params)
            pulls.append(pull)

        def back(g: Array) -> Params:
            grads: Params = {}
            for pull in reversed(pulls):
                g, own = pull(g)
                grads |= own
            return grads

        return x, back

    def loss_and_grads(
        self, params: Params, images: Array, labels: Array
    ) -> tuple[float, Params, Array]:
        """Returns the mean loss, its gradients and the logits."""
        logits, back = self.run(params, images)
        losses, pull = numpy_ops.cross_entropy(logits, labels, rejection=self.rejection)
        return losses.mean(), back(*pull(np.full(len(labels), 1 / len(labels)))), logits

    def margin(self, params: Params, images: Array) -> float:
        """Returns how close a ReLU or a pooling window comes to switching.

        That is a distance from zero or from the second largest value, over the root
        mean square of the layer's input; of the first layers if those are not clear.
        """
        closest, x = math.inf, images.astype(float)
        for layer in self.layers:
            if closest < CLEAR:  # the caller draws others
                break
            size = math.sqrt((x**2).mean())
            if layer is relu:
                closest = min(closest, abs(x).min() / size)
            y, _ = layer(x, params)
            if layer in POOLS:
                # Ties of zeros, which a ReLU has made, have no gradient.
                gaps = POOLS[layer](x)
                closest = min(closest, gaps[y > 0].min(initial=math.inf) / size)
            x = y
        return closest


def _layer(op: Callable[..., Any], name: str = "", *own: str, **fixed: Any) -> Layer:
    """Returns an operation of `numpy_ops` as a layer with the weights `own`."""

    def run(x: Array, params: Params) -> tuple[Array, Any]:
        weights = [f"{name}/{part}" for part in own]
        y, pull = op(x, *(params[weight] for weight in weights), **fixed)

        def back(g: Array) -> tuple[Array, Params]:
            dx, *grads = pull(g)
            return dx, dict(zip(weights, grads, strict=True))

        return y, back

    return run


def _gaps(x: Array, window: int, stride: int) -> Array:
    """Returns the largest minus the second largest value of each window."""
    first, pull = numpy_ops.max_pool(x, window, stride)
    (chosen,) = pull(np.ones_like(first))
    second, _ = numpy_ops.max_pool(np.where(chosen > 0, -np.inf, x), window, stride)
    return first - second


def _conv(name: str, padding: str = "SAME") -> Layer:
    return _layer(numpy_ops.conv, name, "kernel", "bias", padding=padding)


def _dense(name: str) -> Layer:
    return _layer(numpy_ops.dense, name, "kernel", "bias")


def _partial_conv(x: Array, weights: Array, bias: Array) -> tuple[Array, Any]:
    """Layer C3 of LeNet-5: each map sees some of the inputs."""
    kernel = np.zeros((5, 5, *CONNECTIONS.shape))
    kernel[:, :, CONNECTIONS] = weights
    y, pull = numpy_ops.conv(x, kernel, bias, "VALID")

    def back(g: Array) -> tuple[Array, ...]:
        dx, dkernel, dbias = pull(g)
        return dx, dkernel[:, :, CONNECTIONS], dbias

    return y, back


def _pad(x: Array) -> tuple[Array, Any]:
    """Pads 28x28 with two white pixels, and scales to about mean 0, variance 1."""
    wide = np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)])
    return 1.275 * wide - 0.1, lambda g: (1.275 * g[:, 2:-2, 2:-2],)


relu, flat = _layer(numpy_ops.relu), _layer(numpy_ops.flatten)
squash, mean_pool = _layer(numpy_ops.squash), _layer(numpy_ops.mean_pool)
pool2 = _layer(numpy_ops.max_pool, window=2, stride=2)
pool3 = _layer(numpy_ops.max_pool, window=3, stride=2)
POOLS = {
    pool2: partial(_gaps, window=2, stride=2),
    pool3: partial(_gaps, window=3, stride=2),
}


def dropout_mask(positions: Array, units: int, keep: float) -> Array:
    """Returns the mask over its probability, float64 [batch, units]."""
    key = numpy_data.keys(SEED, "dropout", positions)
    return (numpy_data.uniform(key, count=units) < keep) / keep


def cases() -> list[Case]:
    """Returns every network of the chapter, in the chapter's order of operations."""
    norm = _layer(numpy_ops.lrn, radius=4, bias=1.0, alpha=0.001 / 9, beta=0.75)
    cifar = [_conv("conv1"), relu, pool3, norm, _conv("conv2"), relu, norm, pool3, flat]
    cifar += [_dense("local3"), relu, _dense("local4"), relu, _dense("logits")]

    def drop(units: int) -> Layer:
        mask = dropout_mask(np.arange(BATCH, dtype=np.uint32), units, KEEP)
        return _layer(numpy_ops.scale, factors=mask)

    simple = [_conv("conv1"), relu, pool2, _conv("conv2"), relu, pool2, flat]
    simple += [_dense("fc1"), relu, drop(1024), _dense("logits")]
    mlp = [flat, _dense("hidden"), relu, drop(300), _dense("logits")]

    def subsampling(name: str) -> Layer:
        return _layer(numpy_ops.sub_sampling, name, "coefficient", "bias")

    lenet = [_layer(_pad), _conv("C1", "VALID"), squash, subsampling("S2")]
    lenet += [_layer(_partial_conv, "C3", "kernel", "bias"), squash, subsampling("S4")]
    lenet += [_conv("C5", "VALID"), squash, flat, _dense("F6"), squash]
    lenet += [_layer(numpy_ops.distances, targets=TARGETS.astype(float))]
    modern = [_layer(_pad), _conv("C1", "VALID"), squash, mean_pool]
    modern += [_conv("C3", "VALID"), squash, mean_pool, _conv("C5", "VALID"), squash]
    modern += [flat, _dense("F6"), squash, _dense("logits")]
    grey = (28, 28, 1)
    return [
        Case("CifarCNN", MODELS["CifarCNN"](), (24, 24, 3), cifar),
        Case("SimpleCNN", MODELS["SimpleCNN"](keep_prob=KEEP), grey, simple),
        Case("MLP", MODELS["MLP"](keep_prob=KEEP), grey, mlp),
        Case("LeNet5 1998", MODELS["LeNet5"](), grey, lenet, rejection=1.0),
        Case("LeNet5 modern", MODELS["LeNet5"](variant="modern"), grey, modern),
    ]


@functools.cache
def inputs(case: Case, batch: int = BATCH) -> tuple[Params, Array, Array]:
    """Returns parameters and images in float32, and labels, clear of switches.

    Raises:
        ValueError: 200 draws were not clear.
    """
    shapes = jax.eval_shape(
        lambda: init_variables(case.model, jax.random.key(0), case.image_shape)
    )["params"]
    flat_shapes = traverse_util.flatten_dict(shapes, sep="/")
    for seed in range(200):
        random = np.random.default_rng(seed)
        params = {}
        for name, leaf in flat_shapes.items():
            # He's deviation keeps the size of values from layer to layer.
            fan_in = math.prod(leaf.shape[:-1]) if name.endswith("kernel") else 50
            drawn = random.normal(size=leaf.shape) * math.sqrt(2 / fan_in)
            params[name] = drawn.astype(np.float32)
        images = random.normal(size=(batch, *case.image_shape)).astype(np.float32)
        if case.margin(params, images) > CLEAR:
            return params, images, random.integers(0, 10, batch)
    raise ValueError(f"found no input that is clear of switches for {case.name}")


@functools.cache
def _reference(case: Case) -> tuple[Any, tuple[float, Params, Array]]:
    params, images, labels = inputs(case)
    double = {name: value.astype(float) for name, value in params.items()}
    return (params, images, labels), case.loss_and_grads(double, images, labels)


def _compare(case: Case, dtype: Any, precision: str | None, rounding: float) -> Outcome:
    (params, images, labels), (_, grads, logits) = _reference(case)
    model, loss_fn = case.model.clone(dtype=dtype), facts_of(case.model).loss

    @jax.jit
    def run(params: Any, images: jax.Array, labels: jax.Array) -> Any:
        key = prng.from_seed(SEED, prng.DROPOUT)
        keys = prng.at_positions(key, jnp.arange(BATCH, dtype=jnp.uint32))

        def loss(params: Any) -> Any:
            out, _ = forward(model, {"params": params}, images, keys)
            return jnp.mean(loss_fn(out, labels)), out

        return jax.grad(loss, has_aux=True)(params)

    with jax.default_matmul_precision(precision):
        nested = traverse_util.unflatten_dict(params, sep="/")
        got, out = jax.device_get(run(nested, images, labels))
    found = traverse_util.flatten_dict(got, sep="/")
    assert found.keys() == grads.keys()
    wide = any(
        leaf.ndim == 4 and min(leaf.shape[2:]) >= winograd.MIN_CHANNELS
        for leaf in params.values()
    )
    values, leaves = network_bounds(rounding, wide=wide)
    parts = {name: (found[name], grads[name], leaves) for name in found}
    return worst({"logits": (out, logits, values)} | parts)


def checks() -> list[Check]:
    """Returns the checks of every network in three precisions.

    Where float32 is the default precision of products, `highest` changes nothing, and
    is checked for the first network only.
    """
    default = default_rounding()
    modes = {
        "float32": (jnp.float32, None, default),
        "float32, highest": (jnp.float32, "highest", FLOAT32),
        "bfloat16": (jnp.bfloat16, None, BFLOAT16),
    }
    return [
        Check(f"{case.name}, {mode}", partial(_compare, case, *how))
        for i, case in enumerate(cases())
        for mode, how in modes.items()
        if i == 0 or default > FLOAT32 or how[1] is None
    ]
