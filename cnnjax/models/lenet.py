"""LeNet-5: the network of 1998 and the same network built from today's parts."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.models import layers
from cnnjax.models.lenet_layers import (
    PartialConv,
    SubSampling,
    fan_in_uniform,
    squash,
)
from cnnjax.models.lenet_targets import TARGETS
from cnnjax.models.mnist import check_images

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
        f6 = layers.dense(
            84, kernel_init=init, bias_init=init, dtype=self.dtype, name="F6"
        )
        features = squash(f6(x.reshape(x.shape[0], -1))).astype(jnp.float32)
        return -rbf(features, jnp.asarray(TARGETS[: self.num_classes]))

    def _conv(self, features: int, fan_in: int, name: str) -> layers.Conv:
        init = fan_in_uniform(fan_in)
        return layers.Conv(
            features, (5, 5), init, init, "VALID", dtype=self.dtype, name=name
        )

    def _modern(self, x: jax.Array) -> jax.Array:
        weights = nn.initializers.glorot_uniform()
        zeros = nn.initializers.zeros
        conv = partial(
            layers.Conv,
            kernel_size=(5, 5),
            kernel_init=weights,
            bias_init=zeros,
            padding="VALID",
            dtype=self.dtype,
        )
        dense = partial(
            layers.dense, kernel_init=weights, bias_init=zeros, dtype=self.dtype
        )
        pool = partial(nn.avg_pool, window_shape=(2, 2), strides=(2, 2))
        x = pool(squash(conv(6, name="C1")(x)))
        x = pool(squash(conv(16, name="C3")(x)))
        x = squash(conv(120, name="C5")(x))
        x = squash(dense(84, name="F6")(x.reshape(x.shape[0], -1)))
        return dense(self.num_classes, name="logits")(x).astype(jnp.float32)
