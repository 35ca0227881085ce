"""Cases: this project's own training steps, forward passes and input pipelines."""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax import parallel
from cnnjax.data import batches
from cnnjax.data.augment import Preprocessing
from cnnjax.data.dataset import Split
from cnnjax.models import summary
from cnnjax.state import TrainState
from cnnjax.step import make_eval_step
from cnnjax.updates import Recipe, Update, train_step_of
from speed.timing import Case

TFDATA_BATCHES = 100


def training_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the arithmetic operations of one image, forward and backward.

    A layer costs two operations per multiply-add, three times: forward, gradient of
    its weights, and gradient of its input, which the first layer does not need.
    Convolutions count as direct ones, even where Winograd's algorithm takes fewer.
    """
    costs = [layer.multiply_adds for layer in summary.layers(model, image_shape)]
    return 2 * (3 * sum(costs) - costs[0])


def forward_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the arithmetic operations of one image in the forward pass."""
    return 2 * sum(layer.multiply_adds for layer in summary.layers(model, image_shape))


def random_batch(
    image_shape: tuple[int, int, int], batch_size: int, num_classes: int = 10
) -> dict[str, np.ndarray]:
    """Returns a batch as a pipeline makes it, of standard normal noise."""
    random = np.random.default_rng(0)
    return {
        "image": random.normal(size=(batch_size, *image_shape)).astype(np.float32),
        "label": random.integers(0, num_classes, batch_size).astype(np.int32),
        "mask": np.ones(batch_size, np.float32),
        "position": np.arange(batch_size, dtype=np.uint32),
    }


def train_case(
    name: str,
    recipe: Recipe,
    state: TrainState,
    batch: dict[str, np.ndarray],
    mesh: Mesh,
    mode: str,
) -> Case:
    """Returns a case of the training step alone, with the batch already on the devices.

    The step starts from a copy of `state`.
    """
    step = parallel.compile_step(train_step_of(recipe), mesh, mode, donate=True)
    placed = parallel.put_batch(batch, mesh, mode)
    now = parallel.replicate(jax.tree.map(jnp.copy, state), mesh)

    def run() -> None:
        nonlocal now
        now, metrics = step(now, placed)
        jax.block_until_ready(metrics)

    shape = batch["image"].shape
    flops = len(batch["label"]) * training_flops(recipe.model, shape[1:])
    return Case(name, run, images=len(batch["label"]), flops=flops)


def forward_case(
    name: str,
    recipe: Recipe,
    params: Any,
    batch: dict[str, np.ndarray],
    mesh: Mesh,
    mode: str,
) -> Case:
    """Returns a case of the evaluation step alone: logits, loss and accuracy."""
    eval_step = make_eval_step(
        recipe.model, loss_fn=recipe.loss_fn, axis_name=parallel.AXIS
    )
    step = parallel.compile_step(eval_step, mesh, mode)
    placed = parallel.put_batch(batch, mesh, mode)
    weights = parallel.replicate(params, mesh)
    shape = batch["image"].shape
    flops = len(batch["label"]) * forward_flops(recipe.model, shape[1:])
    return Case(
        name,
        lambda: jax.block_until_ready(step(weights, placed)),
        images=len(batch["label"]),
        flops=flops,
    )


def update_case(
    name: str,
    update: Update,
    state: TrainState,
    *,
    steps: int,
    log_every: int,
    images: int,
) -> Case:
    """Returns a case of `steps` steps as training does them, including their batches.

    Args:
        name: of the case.
        update: a run's update function, starting at step 0.
        state: initial state on the devices; it is donated.
        steps: number of steps in one run of the case.
        log_every: number of steps between two fetches of the metrics.
        images: images per step, summed over all seeds.
    """
    now, first = state, 0

    def run() -> None:
        nonlocal now, first
        end = first + steps
        while first < end:
            last = min(end, first + update.steps_per_call)
            fetch = any(step % log_every == 0 for step in range(first, last))
            now, _ = update(now, range(first, last), fetch=fetch)
            first = last
        jax.block_until_ready(now)

    return Case(name, run, images=steps * images)


def tfdata_case(name: str, batches: Iterator[Any], batch_size: int) -> Case:
    """Returns a case that only takes batches from tf.data.

    It takes many at a time, so that those already in the buffer matter little.
    """

    def run() -> None:
        for _ in range(TFDATA_BATCHES):
            next(batches)

    return Case(name, run, images=TFDATA_BATCHES * batch_size)


def device_case(
    name: str,
    split: Split,
    preprocessing: Preprocessing,
    batch_size: int,
    mesh: Mesh,
    mode: str,
) -> Case:
    """Returns a case that only makes a batch on the devices and sums its pixels."""

    def total(seed: jax.Array, chunk: Any, data: Any) -> jax.Array:
        index, position = chunk["index"][:, 0], chunk["position"][:, 0]
        batch = batches.make_batch(seed, data, index, position, preprocessing)
        return jax.lax.psum(jnp.sum(batch["image"]), parallel.AXIS)

    made = batches.chunk(
        seed=0,
        num_examples=len(split.labels),
        batch_size=batch_size,
        first_step=0,
        num_steps=1,
        capacity=1,
    )
    step = parallel.compile_step(total, mesh, mode, num_whole=1)
    data = parallel.replicate(batches.whole(split), mesh)
    chunk = parallel.put_batch(made, mesh, mode)
    seed = parallel.replicate(np.uint32(0), mesh)
    return Case(
        name,
        lambda: jax.block_until_ready(step(seed, chunk, data)),
        images=batch_size,
    )
