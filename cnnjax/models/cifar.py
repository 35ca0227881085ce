"""The chapter's CIFAR-10 network: a modified cuda-convnet."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.models.facts import Facts
from cnnjax.models.layers import Conv, drawn_flat
from cnnjax.ops import lrn, pool

truncated_normal = nn.initializers.truncated_normal
ACTIVATIONS = {"relu": nn.relu, "sigmoid": nn.sigmoid, "tanh": nn.tanh}


class CifarCNN(nn.Module):
    """Two convolutions with local response normalisation, then three dense layers.

    conv1 5x5x64 - pool1 3x3/2 - norm1 - conv2 5x5x64 - norm2 - pool2 3x3/2 -
    local3 384 - local4 192 - logits: 1,068,298 parameters for 24x24x3 and ten classes.

    Source: the chapter, section 5.3, after `tensorflow/models`
    `tutorials/image/cifar10/cifar10.py` and cuda-convnet's `layers-conv-local-11pct`.

    Attributes:
        num_classes: number of logits.
        lrn: whether norm1 and norm2 normalise; if not, they return their input.
        lrn_depth_radius: half the window of channels.
        lrn_bias: added to the weighted energy of the window.
        lrn_alpha: weight of the energy. TF does not divide it by the window's size, so
            cuda-convnet's scale 0.001 over nine channels is 0.001 / 9 here.
        lrn_beta: the exponent.
        pool: side of the pooling windows, with stride 2; windows of 3 overlap.
        width: factor on the number of channels and units of every hidden layer.
        activation: "relu", "sigmoid" or "tanh"; increasing, as `Conv.between` requires.
        dtype: of the computation; parameters, norms and logits are float32.

    Example:
        >>> images = jnp.zeros((2, 24, 24, 3))
        >>> network = cj.CifarCNN(num_classes=10, lrn=False)
        >>> variables = network.init(jax.random.key(0), images)
        >>> network.apply(variables, images).shape
        (2, 10)
    """

    num_classes: int = 10
    lrn: bool = True
    lrn_depth_radius: int = 4
    lrn_bias: float = 1.0
    lrn_alpha: float = 0.001 / 9
    lrn_beta: float = 0.75
    pool: int = 3
    width: float = 1.0
    activation: str = "relu"
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @property
    def facts(self) -> Facts:
        """Facts that training and reports need.

        Raises ValueError for an unknown activation.
        """
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"got activation={self.activation!r}, need one of {known}")
        return Facts(
            # The chapter penalises these two (section 5.3; weight 0.004 each).
            penalised=("local3", "local4"),
            activation=ACTIVATIONS[self.activation],
        )

    @nn.compact
    def __call__(
        self, images: jax.Array, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Returns the logits, float32 [batch, num_classes].

        `images` are float32 [batch, height, width, channels], standardised per image.
        `dropout_keys` are not used, as the network has no dropout.
        """
        del dropout_keys
        activation = ACTIVATIONS[self.activation]
        max_pool = partial(pool.max_pool, window=(self.pool, self.pool), strides=(2, 2))
        conv = partial(
            Conv,
            features=self._units(64),
            kernel_size=(5, 5),
            # As in TF, 0.05 is the deviation before truncation at two deviations.
            kernel_init=drawn_flat(truncated_normal(0.05)),
            dtype=self.dtype,
        )
        zeros, tenth = nn.initializers.zeros, nn.initializers.constant(0.1)

        x = conv(bias_init=zeros, between=max_pool, name="conv1")(images)
        x = self._norm("norm1", activation(x))
        x = activation(conv(bias_init=tenth, name="conv2")(x))
        x = self._norm("norm2", x)
        x = max_pool(x)
        x = x.reshape(x.shape[0], -1)
        dense = partial(nn.Dense, dtype=self.dtype)
        weights = drawn_flat(truncated_normal(0.04))
        for name, units in (("local3", 384), ("local4", 192)):
            units = self._units(units)
            layer = dense(units, kernel_init=weights, bias_init=tenth, name=name)
            x = activation(layer(x))
        weights = drawn_flat(truncated_normal(1 / 192))
        logits = partial(dense, kernel_init=weights, bias_init=zeros, name="logits")
        # Not rounded to 16 bits, where many would be equal.
        return logits(self.num_classes, dtype=jnp.float32)(x)

    def _units(self, units: int) -> int:
        return max(1, round(units * self.width))

    def _norm(self, name: str, x: jax.Array) -> jax.Array:
        if not self.lrn:
            return x
        x = lrn.local_response_normalization(
            x, self.lrn_depth_radius, self.lrn_bias, self.lrn_alpha, self.lrn_beta
        )
        # Flax captures only modules' outputs, and this is a plain function.
        self.sow("intermediates", name, x)
        return x
