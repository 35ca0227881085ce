"""LeNet-5: the network of 1998 and the same network built from today's parts."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from cnnjax.models.facts import Facts
from cnnjax.models.layers import Conv
from cnnjax.models.mnist import check_images, digits_facts
from cnnjax.ops.conv import conv

# Table 1 of the paper: a row for each map of S2, a column for each map of C3.
_TABLE_1 = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""
CONNECTIONS = np.array([[mark == "X" for mark in row] for row in _TABLE_1.split()])
"""bool [6, 16]: which maps of S2 (rows) each map of C3 (columns) sees; 60 in all."""


def squash(x: jax.Array) -> jax.Array:
    """Returns 1.7159 * tanh(2/3 x): f(1) = 1 and f(-1) = -1, where it bends most.

    Args:
        x: float [...].

    Returns:
        same shape and dtype as `x`, in (-1.7159, 1.7159).

    Source: LeCun et al. 1998, equation 6 and appendix A.
    """
    return 1.7159 * jnp.tanh(2 / 3 * x)


def fan_in_uniform(fan_in: int | np.ndarray) -> Callable[..., jax.Array]:
    """Returns the paper's initialiser, for weights and biases: +-2.4 / fan_in, uniform.

    Args:
        fan_in: number of inputs of a unit, the bias not counted; an array has one
            number for each entry of the parameter's last axis.

    Source: LeCun et al. 1998, appendix A.
    """

    def init(
        key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
    ) -> jax.Array:
        bound = jnp.asarray(np.broadcast_to(2.4 / fan_in, shape), dtype)
        return jax.random.uniform(key, shape, dtype, -1, 1) * bound

    return init


class SubSampling(nn.Module):
    """The paper's sub-sampling layer: squash(coefficient * sum over 2x2 + bias)."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, maps] to [batch, height/2, width/2, maps]."""
        # A unit has four inputs, which share their coefficient.
        init = fan_in_uniform(4)
        batch, height, width, maps = x.shape
        coefficient = self.param("coefficient", init, (maps,)).astype(self.dtype)
        bias = self.param("bias", init, (maps,)).astype(self.dtype)
        sums = x.reshape(batch, height // 2, 2, width // 2, 2, maps).sum((2, 4))
        return squash(
            sums * coefficient.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)
        )

    def multiply_adds(self, image_shape: tuple[int, ...]) -> int:
        """Returns one a unit: its coefficient's; `image_shape` as in `Conv`."""
        height, width, maps = image_shape
        return height // 2 * (width // 2) * maps


class PartialConv(nn.Module):
    """5x5 "VALID" convolution whose maps see only some of the inputs (layer C3).

    Only the connections that exist have weights: `kernel` is float32
    [5, 5, connections], in the order of `np.nonzero(CONNECTIONS)`.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [batch, height, width, 6] to [batch, height - 4, width - 4, 16]."""
        inputs, maps = np.nonzero(CONNECTIONS)
        fan_in = 25 * CONNECTIONS.sum(axis=0)
        weights = self.param("kernel", fan_in_uniform(fan_in[maps]), (5, 5, len(maps)))
        bias = self.param("bias", fan_in_uniform(fan_in), (CONNECTIONS.shape[1],))
        kernel = jnp.zeros((5, 5, *CONNECTIONS.shape), self.dtype)
        kernel = kernel.at[:, :, inputs, maps].set(
            weights.astype(self.dtype), unique_indices=True
        )
        y = conv(x.astype(self.dtype), kernel, "VALID")
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)

    def multiply_adds(self, image_shape: tuple[int, ...]) -> int:
        """Returns height' * width' * 25 * connections, as `Conv` has it."""
        height, width, _ = image_shape
        return (height - 4) * (width - 4) * 25 * int(CONNECTIONS.sum())


_DIGITS = """
..###..  ...#...  .#####.  .#####.  .....#.  #######  ..####.  #######  .#####.  .#####.
.#...#.  ..##...  ##...##  ##...##  ....##.  ##.....  .##....  #.....#  ##...##  ##...##
##...##  .###...  #.....#  .....##  ...###.  ##.....  ##.....  .....##  #.....#  #.....#
##...##  ...#...  .....##  .....##  ..##.#.  ##.....  #......  .....#.  ##...##  #.....#
#.....#  ...#...  .....##  ....##.  .##..#.  #####..  #......  ....##.  .##.##.  ##...##
#.....#  ...#...  ....##.  ..###..  ##...#.  ....##.  #.###..  ....#..  ..###..  .######
#.....#  ...#...  ...##..  ....##.  #....#.  .....##  ##..##.  ...##..  .##.##.  .....##
#.....#  ...#...  ..##...  .....##  #######  .....##  ##...##  ...#...  ##...##  .....##
##...##  ...#...  .##....  .....##  .....#.  .....##  #.....#  ..##...  #.....#  .....#.
##...##  ...#...  ##.....  #....##  .....#.  #....##  ##...##  ..##...  #.....#  ....##.
.#...#.  ..###..  ##.....  ##..##.  .....#.  ##..##.  .##.##.  .##....  ##...##  ...##..
..###..  .#####.  #######  .####..  .....#.  .####..  ..###..  .##....  .#####.  .###...
"""


def _parse(art: str) -> np.ndarray:
    rows = [line.split() for line in art.split("\n") if line]
    digits = ["".join(digit) for digit in zip(*rows, strict=True)]
    ink = np.array([[pixel == "#" for pixel in digit] for digit in digits])
    return np.where(ink, 1.0, -1.0).astype(np.float32)


TARGETS = _parse(_DIGITS)
"""float32 [10, 84]: for each digit its rows one after another, ink +1, paper -1."""


VARIANTS = ("1998", "modern")

REJECTION_J = 1.0
"""The constant j of equation 9, whose value the paper does not print.

Small against the distance of two bitmaps (64 at least), so that a right answer is
pulled all the way. On 5,000 training pictures held out, after four epochs of Adam 3e-3
with a cosine, one seed: 98.78% with j = 0.1, 98.80% with 1, 98.76% with 10.
"""


def rejection_cross_entropy(
    logits: jax.Array, labels: jax.Array, j: float
) -> jax.Array:
    """Returns the paper's loss: cross-entropy with one more class, "rejected".

    loss = -logits[label] + log(exp(-j) + sum_i exp(logits[i])),  logits = -distances

    The rejected class has the fixed logit -j. Without it the distances could all grow
    or all shrink at no cost; with it a wrong class farther than `j` is pushed no
    further, and the right one is pulled on until it is much nearer than `j`.

    Args:
        logits: float32 [batch, classes], minus squared distances.
        labels: int32 [batch].
        j: squared distance beyond which everything is rejected, positive
            (`REJECTION_J`).

    Returns:
        float32 [batch], positive, in nats.

    Source: LeCun et al. 1998, equation 9.
    """
    rejected = jnp.full_like(logits[:, :1], -j)
    log_sum = jax.nn.logsumexp(jnp.concatenate([logits, rejected], axis=1), axis=1)
    return log_sum - jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]


def rbf(features: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the output of Euclidean radial basis function units.

    y[n, i] = sum_j (features[n, j] - targets[i, j])^2

    Args:
        features: float32 [batch, units].
        targets: float32 [classes, units].

    Returns:
        float32 [batch, classes], squared distances.

    Source: LeCun et al. 1998, equation 7.
    """
    return jnp.sum(jnp.square(features[:, None, :] - targets[None]), axis=-1)


class LeNet5(nn.Module):
    """LeNet-5, as published ("1998") or with today's parts ("modern").

    C1 6 maps, S2, C3 16 maps, S4, C5 120, F6 84, ten outputs. In "1998" (60,000
    parameters) C3 has the partial connections of Table 1, the sub-sampling layers have
    a coefficient and a bias for each map, all are drawn uniformly in +-2.4 / fan-in,
    and the outputs are minus the squared distances to ten fixed bitmaps
    (`lenet_targets`), so that the largest logit is the nearest bitmap; train it with
    `rejection_cross_entropy`. "modern" (61,706 parameters) has all connections in C3,
    average pooling without parameters or squashing, a dense layer of logits for the
    softmax, Glorot-uniform weights and zero biases. Both squash alike, so that a
    comparison measures those parts and not the activation.

    Attributes:
        num_classes: number of logits; at most ten in "1998", which has ten bitmaps.
        dtype: of the computation; parameters, distances and logits are float32.
        variant: "1998" or "modern".

    Source: LeCun, Bottou, Bengio, Haffner 1998, sec. II.B.
    """

    num_classes: int = 10
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    variant: str = "1998"

    @property
    def facts(self) -> Facts:
        """What training needs to know."""
        if self.variant != "1998":
            return digits_facts(activation=squash)
        loss = partial(rejection_cross_entropy, j=REJECTION_J)
        return digits_facts(activation=squash, loss=loss)

    @nn.compact
    def __call__(
        self, images: jax.Array, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Returns the logits.

        Args:
            images: float32 [batch, 28, 28, 1], in [0, 1], ink 1.
            dropout_keys: taken as by every network, and not used: it has no dropout.

        Returns:
            float32 [batch, num_classes].

        Raises:
            ValueError: images of another shape, an unknown variant, more than ten
                classes in "1998".
        """
        check_images(images)
        if self.variant not in VARIANTS:
            raise ValueError(
                f"got variant={self.variant!r}, need one of {', '.join(VARIANTS)}"
            )
        # Mean 0 and variance 1, roughly: background -0.1, ink 1.175 (sec. II.B).
        x = jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))) * 1.275 - 0.1
        x = x.astype(self.dtype)
        return self._of_1998(x) if self.variant == "1998" else self._modern(x)

    def _of_1998(self, x: jax.Array) -> jax.Array:
        if self.num_classes > len(TARGETS):
            raise ValueError(
                f"got num_classes={self.num_classes}, need at most {len(TARGETS)} for "
                "variant='1998', which has ten bitmaps; use variant='modern'"
            )
        x = squash(self._conv(6, 25, "C1")(x))
        x = SubSampling(self.dtype, name="S2")(x)
        x = squash(PartialConv(self.dtype, name="C3")(x))
        x = SubSampling(self.dtype, name="S4")(x)
        x = squash(self._conv(120, 400, "C5")(x))
        init = fan_in_uniform(120)
        f6 = nn.Dense(84, kernel_init=init, bias_init=init, dtype=self.dtype, name="F6")
        features = squash(f6(x.reshape(x.shape[0], -1))).astype(jnp.float32)
        return -rbf(features, jnp.asarray(TARGETS[: self.num_classes]))

    def _conv(self, features: int, fan_in: int, name: str) -> Conv:
        init = fan_in_uniform(fan_in)
        return Conv(features, (5, 5), init, init, "VALID", dtype=self.dtype, name=name)

    def _modern(self, x: jax.Array) -> jax.Array:
        weights = nn.initializers.glorot_uniform()
        zeros = nn.initializers.zeros
        conv = partial(
            Conv,
            kernel_size=(5, 5),
            kernel_init=weights,
            bias_init=zeros,
            padding="VALID",
            dtype=self.dtype,
        )
        dense = partial(
            nn.Dense, kernel_init=weights, bias_init=zeros, dtype=self.dtype
        )
        pool = partial(nn.avg_pool, window_shape=(2, 2), strides=(2, 2))
        x = pool(squash(conv(6, name="C1")(x)))
        x = pool(squash(conv(16, name="C3")(x)))
        x = squash(conv(120, name="C5")(x))
        x = squash(dense(84, name="F6")(x.reshape(x.shape[0], -1)))
        return dense(self.num_classes, name="logits")(x).astype(jnp.float32)
