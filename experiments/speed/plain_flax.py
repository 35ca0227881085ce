"""The networks in ordinary Flax: `nn.Conv`, `nn.max_pool` and autodiff."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from speed.peer import Job, Peer


def lrn(x: jax.Array) -> jax.Array:
    """Normalises the responses of [batch, height, width, channels] as CifarCNN does."""
    energy = jax.lax.reduce_window(
        x * x, 0.0, jax.lax.add, (1, 1, 1, 9), (1, 1, 1, 1), "SAME"
    )
    return x / (1.0 + 0.001 / 9 * energy) ** 0.75


class CifarCNN(nn.Module):
    """The same network as `models.CifarCNN`, with so many channels and units."""

    channels: int = 64
    units: tuple[int, int] = (384, 192)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [batch, height, width, 3] to logits [batch, 10]."""
        del train
        x = nn.relu(nn.Conv(self.channels, (5, 5), name="conv1")(x))
        x = lrn(nn.max_pool(x, (3, 3), (2, 2), "SAME"))
        x = lrn(nn.relu(nn.Conv(self.channels, (5, 5), name="conv2")(x)))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME").reshape(len(x), -1)
        x = nn.relu(nn.Dense(self.units[0], name="local3")(x))
        x = nn.relu(nn.Dense(self.units[1], name="local4")(x))
        return nn.Dense(10, name="logits")(x)


class SimpleCNN(nn.Module):
    """The same network as `models.SimpleCNN`."""

    keep_prob: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [batch, 28, 28, 1] to logits [batch, 10]."""
        x = nn.relu(nn.Conv(32, (5, 5), name="conv1")(x))
        x = nn.max_pool(x, (2, 2), (2, 2), "SAME")
        x = nn.relu(nn.Conv(64, (5, 5), name="conv2")(x))
        x = nn.max_pool(x, (2, 2), (2, 2), "SAME").reshape(len(x), -1)
        x = nn.relu(nn.Dense(1024, name="fc1")(x))
        x = nn.Dropout(1 - self.keep_prob, deterministic=not train)(x)
        return nn.Dense(10, name="logits")(x)


def make(job: Job) -> list[Peer]:
    """Returns the peer, compiled for the first device; on a CPU it uses all cores."""
    model: Any = SimpleCNN(job.keep_prob)
    if job.network == "CifarCNN":
        names = ("conv1", "local3", "local4")
        channels, *units = (len(job.params[name]["bias"]) for name in names)
        model = CifarCNN(channels, (units[0], units[1]))
    tx = optax.adam(job.learning_rate)
    # Copies, because the step donates its arguments.
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), job.params)
    images, labels = jnp.asarray(job.image), jnp.asarray(job.label)

    def loss(params: Any, key: jax.Array) -> jax.Array:
        logits = model.apply(
            {"params": params}, images, train=True, rngs={"dropout": key}
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        kernels = [params[layer]["kernel"] for layer in job.penalised]
        return losses.mean() + job.l2 / 2 * sum(jnp.sum(w * w) for w in kernels)

    def step(params: Any, opt_state: Any, key: jax.Array) -> Any:
        key, dropout = jax.random.split(key)
        value, grads = jax.value_and_grad(loss)(params, dropout)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, key, value

    compiled = jax.jit(step, donate_argnums=(0, 1))
    apply = jax.jit(lambda params: model.apply({"params": params}, images, train=False))
    now = (params, tx.init(params), jax.random.key(0))

    def train(steps: int) -> None:
        nonlocal now
        for _ in range(steps):
            *kept, value = compiled(*now)
            now = tuple(kept)
        value.block_until_ready()

    return [Peer("plain Flax", lambda: np.asarray(apply(now[0])), train)]
