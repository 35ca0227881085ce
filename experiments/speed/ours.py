"""Cases: this project's own training steps, forward passes and input pipelines."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cnnjax import loading
from cnnjax.data import batches
from cnnjax.data.dataset import Dataset, Split
from cnnjax.models import summary
from cnnjax.models.facts import facts_of
from cnnjax.parallel import Part
from cnnjax.run import Run, make_run
from cnnjax.runtime.clocks import Clocks
from cnnjax.step import METRICS, make_eval_step, make_train_step
from speed.timing import Case

TFDATA_BATCHES = 100
RUN_STEPS = 20
# [examples, height, width, channels] of the two training sets.
SHAPES = {"cifar10": (50_000, 32, 32, 3), "mnist": (60_000, 28, 28, 1)}
NUM_CLASSES = 10


def noise_run(config: ConfigDict) -> Run:
    """Returns the run of a configuration on noise in the shape of its data set."""
    facts = facts_of(loading.make_model(config, NUM_CLASSES))
    return make_run(config, _noise(facts.dataset))


@functools.cache
def _noise(name: str) -> Dataset:
    random, shape = np.random.default_rng(0), SHAPES[name]
    images = random.integers(0, 256, shape, np.uint8)
    labels = random.integers(0, NUM_CLASSES, shape[0]).astype(np.int32)
    train, test = Split(images, labels), Split(images[:0], labels[:0])
    class_names = tuple(str(label) for label in range(NUM_CLASSES))
    return Dataset(f"noise like {name}", "", train, test, class_names, "")


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
    image_shape: tuple[int, int, int], batch_size: int
) -> dict[str, np.ndarray]:
    """Returns a batch as a pipeline makes it, of standard normal noise."""
    random = np.random.default_rng(0)
    return {
        "image": random.normal(size=(batch_size, *image_shape)).astype(np.float32),
        "label": random.integers(0, NUM_CLASSES, batch_size).astype(np.int32),
        "mask": np.ones(batch_size, np.float32),
        "position": np.arange(batch_size, dtype=np.uint32),
    }


def batch_of(run: Run) -> dict[str, np.ndarray]:
    """Returns the batch on which a run's steps are timed: always the same noise."""
    return random_batch(run.input_shape, run.config.train.batch_size)


def training_step(run: Run, steps_per_call: int = 1) -> tuple[Any, Any, Any]:
    """Returns a compiled training step, the initial state and a batch, on the devices.

    With several steps a call they all train on that batch, in a loop of the program.
    """
    where = run.partitioner
    one = make_train_step(run.recipe, where.axis_name)

    def several(state: Any, batch: Any) -> Any:
        nothing = {name: jnp.zeros(()) for name in METRICS}
        return jax.lax.fori_loop(
            0, steps_per_call, lambda _, carry: one(carry[0], batch), (state, nothing)
        )

    step = where.compile(
        one if steps_per_call == 1 else several,
        Part.STATE,
        Part.TRAINING_BATCH,
        donate=True,
    )
    placed, state = where.put_batch(batch_of(run)), run.init_state()
    return step.lower(state, placed).compile(), state, placed


def train_case(name: str, run: Run, steps: int = 1, steps_per_call: int = 1) -> Case:
    """Returns a case of the training step alone, with the batch already on the devices.

    It starts from the run's initial state and waits for the last of `steps` steps.
    """
    size = run.config.train.batch_size
    made: Any = None

    def train() -> None:
        nonlocal made
        step, state, batch = made or training_step(run, steps_per_call)
        for _ in range(steps // steps_per_call):
            state, metrics = step(state, batch)
            run.partitioner.wait_for(metrics)
        jax.block_until_ready(metrics)
        made = step, state, batch

    flops = steps * size * training_flops(run.recipe.model, run.input_shape)
    return Case(name, train, images=steps * size, steps=steps, flops=flops)


def forward_case(name: str, run: Run) -> Case:
    """Returns a case of the evaluation step alone: logits, loss and accuracy."""
    where, size = run.partitioner, run.config.train.batch_size

    @functools.cache
    def made() -> tuple[Any, Any, Any]:
        step = where.compile(
            make_eval_step(run.recipe, axis_name=where.axis_name, prepared=True),
            Part.STATE,
            Part.EVALUATION_BATCH,
        )
        return step, run.init_state().variables, where.put_batch(batch_of(run))

    def test() -> None:
        step, variables, placed = made()
        jax.block_until_ready(step(variables, placed))

    flops = size * forward_flops(run.recipe.model, run.input_shape)
    return Case(name, test, images=size, flops=flops)


def run_case(name: str, run: Run, steps: int = RUN_STEPS) -> Case:
    """Returns a case of `steps` steps of all seeds, including their batches."""
    log_every = run.config.train.log_every
    made: Any = None
    first = 0

    def train() -> None:
        nonlocal made, first
        update, state = made or (run.updates(0, Clocks()), run.init_state())
        end = first + steps
        while first < end:
            last = min(end, first + update.steps_per_call)
            fetch = any(step % log_every == 0 for step in range(first, last))
            state, _ = update(state, range(first, last), fetch=fetch)
            first = last
        jax.block_until_ready(state)
        made = update, state

    images = steps * run.config.num_seeds * run.config.train.batch_size
    return Case(name, train, images=images, steps=steps)


def tfdata_case(name: str, run: Run, workers: int) -> Case:
    """Returns a case that only takes a run's batches from tf.data.

    It takes many at a time, so that those already in the buffer matter little.
    """
    # TensorFlow takes seconds to import, and only this case needs it.
    from cnnjax.data import tf_pipeline

    size = run.config.train.batch_size
    made = tf_pipeline.batches(
        run.dataset.train,
        run.recipe.preprocessing,
        seed=0,
        batch_size=size,
        steps=range(2**32 // size),
        workers=workers,
    )

    def take() -> None:
        for _ in range(TFDATA_BATCHES):
            next(made)

    return Case(name, take, images=TFDATA_BATCHES * size)


def device_case(name: str, run: Run) -> Case:
    """Returns a case that only makes a run's batch on the devices and sums its pixels.

    The run is of one seed.
    """
    where, size, split = run.partitioner, run.config.train.batch_size, run.dataset.train

    def total(seed: jax.Array, chunk: Any, data: Any) -> jax.Array:
        index, position = chunk["index"][:, 0], chunk["position"][:, 0]
        how = run.recipe.preprocessing
        batch = batches.make_batch(seed, data, index, position, how)
        return jax.lax.psum(jnp.sum(batch["image"]), where.axis_name)

    made = batches.chunk(
        seed=0,
        num_examples=len(split.labels),
        batch_size=size,
        first_step=0,
        num_steps=1,
        capacity=1,
    )
    step = where.compile(total, Part.WHOLE, Part.TRAINING_BATCH, Part.WHOLE)
    data, chunk = where.replicate(batches.whole(split)), where.put_batch(made)
    seed = where.replicate(np.uint32(0))
    return Case(
        name,
        lambda: jax.block_until_ready(step(seed, chunk, data)),
        images=size,
    )
