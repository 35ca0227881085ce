"""Checks of training: steps, devices, evaluation, the same bytes, stop and resume."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import math
import multiprocessing
import os
import tempfile
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from cnnjax import launch
from cnnjax.config import default_config
from cnnjax.data.dataset import Dataset, Split, make_dataset
from cnnjax.parallel import Part, make_partitioner
from cnnjax.recipe import make_recipe
from cnnjax.run import Run, make_run, restore
from cnnjax.runtime import backend
from cnnjax.runtime.clocks import Clocks
from cnnjax.state import init_state
from cnnjax.step import make_train_step
from verification import numpy_data
from verification.check import (
    FLOAT32,
    LEAF,
    LEAF_WINOGRAD,
    Check,
    Outcome,
    Parts,
    default_rounding,
    network_bounds,
    worst,
)
from verification.networks import Params, cases, inputs
from verification.numpy_ops import Array, cross_entropy

RATE, L2, EMA, SEED = 1e-3, 0.004, 0.999, 5
STEPS, BATCH, TRAINING, TEST, SIDE, CROP = 20, 8, 60, 30, 32, 24
DISTORTIONS = ("crop", "flip", "brightness", "contrast")
CIFAR = cases()[0]

# DESIGN has the losses of the first five steps within 1e-5, for batches of 128. A ReLU
# that a rounding switches weighs as much more as this batch is smaller; before the
# first update there is nothing to enlarge. Later, Adam enlarges roundings, whose first
# updates are signs of gradients: two correct programs were apart by 4e-3 after twenty.
FIRST_FIVE, LATER = 1e-5 * 128 / BATCH, 3e-2


def made_data() -> Dataset:
    """Returns noise on a pattern for each class, from a fixed seed."""
    random = np.random.default_rng(0)
    patterns = random.integers(0, 192, (10, SIDE, SIDE, 3))

    def split(count: int) -> Split:
        labels = np.arange(count) % 10
        noise = random.integers(0, 64, (count, SIDE, SIDE, 3))
        return Split((patterns[labels] + noise).astype(np.uint8), labels)

    names = tuple(str(label) for label in range(10))
    return make_dataset("made pictures", "1", split(TRAINING), split(TEST), names)


def make_config(steps: int = STEPS) -> ConfigDict:
    """Returns the chapter's recipe with a small batch, and averaged weights."""
    config = default_config("CifarCNN")
    config.seed = SEED
    config.data.pipeline, config.data.crop = "device", CROP
    config.data.distortions = DISTORTIONS
    config.optim.learning_rate, config.optim.l2 = RATE, L2
    config.optim.schedule, config.optim.ema_decay = "constant", EMA
    config.train.steps, config.train.steps_per_call = steps, 5
    config.train.batch_size, config.eval.batch_size = BATCH, 16
    config.train.tensorboard = False
    config.parallel.num_devices = math.gcd(BATCH, jax.device_count())
    return config


def _flat(tree: Any) -> Params:
    leaves = traverse_util.flatten_dict(jax.device_get(tree), sep="/")
    return {name: np.asarray(leaf, float) for name, leaf in leaves.items()}


def _loss_and_grads(
    params: Params, images: Array, labels: Array
) -> tuple[float, float, Params]:
    """Returns the cross-entropy, the penalty, and the gradients of their sum."""
    entropy, grads, _ = CIFAR.loss_and_grads(params, images, labels)
    penalty = 0.0
    for name in ("local3/kernel", "local4/kernel"):
        penalty += L2 / 2 * (params[name] ** 2).sum()
        grads[name] = grads[name] + L2 * params[name]
    return entropy, penalty, grads


@functools.cache
def _one_step(
    num_devices: int,
    precision: str | None,
    first_labels: tuple[int, ...] = (0,),
    vmap_seeds: bool = False,
) -> dict[str, Any]:
    """Returns the gradients and metrics of the first step on so many devices.

    There are eight pictures, whose ReLUs and windows are clear of switching, each as
    often as it takes to share them out; so the means are those of eight. Each of
    `first_labels` is a seed, the label of whose first picture is so much higher;
    several are trained in one program, and then every array leads with their number.
    """
    params, images, labels = inputs(CIFAR, 8)
    recipe = make_recipe(CIFAR.model, learning_rate=RATE, l2=L2)
    size, num_seeds = math.lcm(8, num_devices), len(first_labels)
    where = make_partitioner(
        num_devices,
        mode="jit",
        num_seeds=num_seeds,
        batch_size=size,
        vmap_seeds=vmap_seeds,
    )
    state = init_state(recipe, CIFAR.image_shape, seed=SEED)
    nested = traverse_util.unflatten_dict(params, sep="/")
    state = where.put_each([dataclasses.replace(state, params=nested)] * num_seeds)
    which = np.repeat(np.arange(8), size // 8)  # so devices have different pictures
    batches = [
        {
            "image": images[which],
            "label": ((labels + more * (np.arange(8) == 0)) % 10)[which].astype("i4"),
            "mask": np.ones(size, np.float32),
            "position": np.arange(size, dtype=np.uint32),
        }
        for more in first_labels
    ]
    parts = (Part.STATE, Part.TRAINING_BATCH)
    with jax.default_matmul_precision(precision):
        step = where.compile(make_train_step(recipe, where.axis_name), *parts)
        state, metrics = step(state, where.put_each(batches, Part.TRAINING_BATCH))
    # Adam's mean of the gradients is a tenth of the first.
    grads = _flat(optax.tree.get(state.opt_state, "mu"))
    found = {name: 10 * g for name, g in grads.items()}
    return found | {name: np.asarray(v, float) for name, v in metrics.items()}


def _step_against_numpy(num_devices: int, precision: str | None) -> Outcome:
    params, images, labels = inputs(CIFAR, 8)
    double = {name: value.astype(float) for name, value in params.items()}
    entropy, penalty, grads = _loss_and_grads(double, images, labels)
    got = _one_step(num_devices, precision)
    rounding = FLOAT32 if precision else default_rounding()
    value, leaves = network_bounds(rounding, wide=True)
    parts: Parts = {name: (got[name], grads[name], leaves) for name in grads}
    parts["loss"] = (got["loss"], entropy + penalty, value)
    parts["l2"] = (got["l2"], penalty, value)
    return worst(parts)


def _devices_against_one() -> Outcome:
    many, one = _one_step(jax.device_count(), "highest"), _one_step(1, "highest")
    return worst({name: (many[name], one[name], LEAF_WINOGRAD) for name in one})


def _seeds_against_one(vmap_seeds: bool) -> Outcome:
    """Compares two seeds in one program with a program of one seed for each."""
    two = _one_step(1, "highest", (0, 1), vmap_seeds)
    parts: Parts = {}
    for seed in (0, 1):
        one = _one_step(1, "highest", (seed,))
        for name in one:
            parts[f"{name} of seed {seed}"] = (
                two[name][seed],
                one[name],
                LEAF_WINOGRAD,
            )
    return worst(parts)


def _order(epochs: int) -> Array:
    """Returns the training pictures in their order, epoch after epoch."""
    key = zlib.crc32(b"sampling") << 32 | SEED
    drawn = [
        np.random.Philox(key=key | e << 64).random_raw(TRAINING) for e in range(epochs)
    ]
    return np.concatenate([np.argsort(numbers, kind="stable") for numbers in drawn])


def _train_in_numpy(params: Params, split: Split) -> tuple[list[float], Params]:
    """Returns the loss of each step, and the average of the weights after five."""
    losses, kept, order = [], params, _order(STEPS * BATCH // TRAINING + 1)
    mean = {k: np.zeros_like(w) for k, w in params.items()}
    square = dict(mean)
    average = params
    for t in range(1, STEPS + 1):
        positions = np.arange((t - 1) * BATCH, t * BATCH, dtype=np.uint32)
        shape = split.images.shape[1:]
        drawn = numpy_data.draw(SEED, positions, shape, CROP, DISTORTIONS)
        index = order[positions]
        images = numpy_data.distort(split.images[index], drawn, CROP)
        entropy, penalty, grads = _loss_and_grads(params, images, split.labels[index])
        losses.append(entropy + penalty)
        mean = {k: 0.9 * mean[k] + 0.1 * g for k, g in grads.items()}
        square = {k: 0.999 * square[k] + 0.001 * g * g for k, g in grads.items()}
        rate = RATE / (1 - 0.9**t)
        params = {
            k: w - rate * mean[k] / (np.sqrt(square[k] / (1 - 0.999**t)) + 1e-8)
            for k, w in params.items()
        }
        decay = min(EMA, (1 + t) / (10 + t))
        average = {k: decay * average[k] + (1 - decay) * w for k, w in params.items()}
        kept = average if t == 5 else kept
    return losses, kept


@functools.cache
def _run() -> Run:
    return make_run(make_config(), made_data())


def _twenty_steps() -> Outcome:
    """Trains as a run does, from uint8 pictures on the device, and in NumPy."""
    run = _run()
    state = run.init_state()
    want, average = _train_in_numpy(_flat(state.params), run.dataset.train)
    losses: list[float] = []
    parts: Parts = {}
    with jax.default_matmul_precision("highest"):
        update = run.updates(0, Clocks())
        for first in range(0, STEPS, 5):
            state, metrics = update(state, range(first, first + 5), fetch=True)
            losses.extend(metrics["loss"])
            if first == 0:
                got = _flat(state.ema_params)
                parts = {f"average of {k}": (got[k], average[k], LATER) for k in got}
    bounds = [LEAF] + [FIRST_FIVE] * 4 + [LATER] * (STEPS - 5)
    for step, both in enumerate(zip(losses, want, bounds, strict=True)):
        parts[f"loss of step {step}"] = both
    return worst(parts)


def _evaluation() -> Outcome:
    """Evaluates 30 pictures in batches of 16, with padding, by the initial weights."""
    run = _run()
    state, test = run.init_state(), run.dataset.test
    with jax.default_matmul_precision("highest"):
        got = run.evaluator(Clocks())(state.variables, test)
    images = numpy_data.distort(test.images, {}, CROP)
    logits, _ = CIFAR.run(_flat(state.params), images)
    losses, _ = cross_entropy(logits, test.labels)
    correct = (logits.argmax(axis=1) == test.labels).sum()
    return worst(
        {
            "loss": (got.loss, losses.sum(), LEAF),
            "correct": (got.correct, correct, 0.0),
            "count": (got.count, TEST, 0.0),
        }
    )


Digests = dict[str, str]


def train_in(folder: str, *all_stops: tuple[int, ...]) -> list[Digests]:
    """Trains runs, each stopped and resumed after the given numbers of steps.

    Returns for each run the SHA-256 of each array of its last checkpoint, by name. XLA
    reads its settings once, so a process of its own has to call this.
    """
    os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/compiled"
    backend.start(deterministic=True)
    data, found = made_data(), []
    for run, stops in enumerate(all_stops):
        workdir = Path(folder) / str(run)
        with contextlib.redirect_stdout(io.StringIO()):
            for steps in stops:
                config = make_config(steps)
                config.deterministic = True
                launch.train(config, workdir, dataset=data)
        state = restore(workdir, make_run(config, data).abstract_state())
        leaves = jax.tree_util.tree_leaves_with_path(state)
        found.append(
            {
                jax.tree_util.keystr(path): hashlib.sha256(
                    np.asarray(leaf).tobytes()
                ).hexdigest()
                for path, leaf in leaves
            }
        )
    return found


def in_new_process(*arguments: Any) -> list[Digests]:
    """Calls `train_in` in a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(train_in, *arguments).result()


@functools.cache
def _three_runs() -> list[Digests]:
    """Returns a run of one process, and from another the same and a stopped one."""
    found = []
    for all_stops in ([(8,)], [(8,), (3, 8)]):
        with tempfile.TemporaryDirectory() as folder:
            found += in_new_process(folder, *all_stops)
    return found


def _same_bytes(first: int, second: int) -> Outcome:
    """Counts the arrays that differ between two runs."""
    want, got = _three_runs()[first], _three_runs()[second]
    differ = [leaf for leaf in want if got[leaf] != want[leaf]]
    return Outcome(float(len(differ)), 0.0, f"arrays that differ: {', '.join(differ)}")


def checks() -> list[Check]:
    """Returns the checks of training, those of several devices where there are some."""
    devices = jax.device_count()
    found = []
    for count in sorted({1, devices}):
        name = "one step, 1 device" if count == 1 else f"one step, {count} devices"
        check = partial(_step_against_numpy, count)
        found.append(Check(f"{name}, highest", partial(check, "highest")))
        if default_rounding() > FLOAT32:
            found.append(Check(name, partial(check, None)))
    if devices > 1:
        found.append(Check(f"{devices} devices against 1", _devices_against_one))
    return [
        *found,
        Check("two seeds in a loop against 1", partial(_seeds_against_one, False)),
        Check("two seeds by vmap against 1", partial(_seeds_against_one, True)),
        Check("twenty steps, highest", _twenty_steps),
        Check("evaluation, highest", _evaluation),
        Check("the same bytes twice", partial(_same_bytes, 0, 1)),
        Check("stop and resume: the same", partial(_same_bytes, 1, 2)),
    ]
