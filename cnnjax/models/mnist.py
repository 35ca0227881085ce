"""The networks for MNIST: the chapter's convolutional one, and the MLP before it."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.models.facts import Facts
from cnnjax.models.layers import Conv, drawn_flat
from cnnjax.ops.dropout import dropout
from cnnjax.ops.pool import max_pool

IMAGE_SHAPE = (28, 28, 1)


digits_facts = partial(Facts, normalise="unit", dataset="mnist", stand_in="digits")
"""The facts that all networks for MNIST share: images are scaled to [0, 1]."""


def check_images(images: jax.Array) -> None:
    """Raises ValueError unless images have the shape [batch, 28, 28, 1]."""
    if images.shape[1:] != IMAGE_SHAPE:
        raise ValueError(
            f"got images of shape {list(images.shape)}, need [batch, 28, 28, 1] "
            "(greyscale, 28x28); convert or resize them, or choose another network"
        )


class SimpleCNN(nn.Module):
    """Two convolutions with max-pooling, a hidden dense layer, dropout (section 5.2).

    conv1 5x5x32, pool 2x2, conv2 5x5x64, pool 2x2, fc1 1024, dropout, logits.
    3,274,634 parameters for ten classes. Pooling comes before bias and ReLU, which
    gives the same result as the chapter's order (see `layers.Conv`).

    Attributes:
        num_classes: number of logits.
        dtype: of the computation; parameters and logits are float32.
        keep_prob: probability that dropout keeps a hidden unit, in (0, 1].
        bias: initial value of every bias.

    Example:
        >>> images = jnp.zeros((2, 28, 28, 1))
        >>> network = cj.SimpleCNN()
        >>> variables = jax.eval_shape(network.init, jax.random.key(0), images)
        >>> sum(leaf.size for leaf in jax.tree.leaves(variables))
        3274634
    """

    num_classes: int = 10
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    keep_prob: float = 0.5
    bias: float = 0.1

    @property
    def facts(self) -> Facts:
        """Facts that training and reports need."""
        return digits_facts(has_dropout=self.keep_prob < 1)

    @nn.compact
    def __call__(
        self, images: jax.Array, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Returns the logits, float32 [batch, num_classes].

        `images` are float32 [batch, 28, 28, 1] in [0, 1], or ValueError is raised;
        `dropout_keys` are typed PRNG keys [batch], and None turns dropout off.
        """
        check_images(images)
        # The chapter's weight_variable and bias_variable (section 5.2).
        kernel_init = drawn_flat(nn.initializers.truncated_normal(0.1))
        bias_init = nn.initializers.constant(self.bias)
        conv = partial(
            Conv,
            kernel_size=(5, 5),
            kernel_init=kernel_init,
            bias_init=bias_init,
            between=partial(max_pool, window=(2, 2), strides=(2, 2)),
            dtype=self.dtype,
        )
        dense = partial(
            nn.Dense, kernel_init=kernel_init, bias_init=bias_init, dtype=self.dtype
        )
        x = nn.relu(conv(32, name="conv1")(images))
        x = nn.relu(conv(64, name="conv2")(x))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(dense(1024, name="fc1")(x))
        if dropout_keys is not None:
            x = dropout(x, self.keep_prob, dropout_keys)
        return dense(self.num_classes, dtype=jnp.float32, name="logits")(x)


class MLP(nn.Module):
    """One hidden layer on the flattened image: the book's network before convolutions.

    hidden (ReLU), dropout, logits; 238,510 parameters with 300 hidden units and ten
    classes.

    Attributes:
        num_classes: number of logits.
        dtype: of the computation; parameters and logits are float32.
        keep_prob: probability that dropout keeps a hidden unit, in (0, 1].
        hidden: number of hidden units.

    Example:
        >>> images = jnp.zeros((2, 28, 28, 1))
        >>> variables = cj.MLP(hidden=100).init(jax.random.key(0), images)
        >>> variables["params"]["hidden"]["kernel"].shape
        (784, 100)
    """

    num_classes: int = 10
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    keep_prob: float = 0.75
    hidden: int = 300

    @property
    def facts(self) -> Facts:
        """Facts that training and reports need."""
        return digits_facts(has_dropout=self.keep_prob < 1)

    @nn.compact
    def __call__(
        self, images: jax.Array, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Returns the logits; arguments and errors as in `SimpleCNN`."""
        check_images(images)
        zeros = nn.initializers.zeros
        dense = partial(nn.Dense, bias_init=zeros, dtype=self.dtype)
        # The book's initial weights: random to break the symmetry of the hidden units,
        # and zero in the output layer, where the labels break it.
        weights = drawn_flat(nn.initializers.truncated_normal(0.1))
        x = images.reshape(images.shape[0], -1)
        x = nn.relu(dense(self.hidden, kernel_init=weights, name="hidden")(x))
        if dropout_keys is not None:
            x = dropout(x, self.keep_prob, dropout_keys)
        logits = partial(dense, kernel_init=zeros, name="logits")
        return logits(self.num_classes, dtype=jnp.float32)(x)
