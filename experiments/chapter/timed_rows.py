"""Claims about speed, measured on the current machine."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chapter.checks import Check, contrast
from chapter.lab import Lab
from chapter.row import Also, Outcome, Row
from cnnjax import assembly
from cnnjax.ops import conv
from cnnjax.state import init_state
from speed import ours
from speed.groups import run_case
from speed.timing import Case, alternate

GTX_1080 = 1800  # images per second, the chapter's figure
WORKERS = (1, 2, 4, 16)


def _speed(lab: Lab) -> Outcome:
    data, config = lab.data_of("cifar"), lab.config("base", steps=10**6)
    recipe = assembly.make_recipe(config, data.num_classes)
    case = run_case("steps", config, recipe, data.train)
    timed = alternate([case], lab.budget.rounds)["steps"]
    devices = assembly.choose_mesh(config).size
    return Outcome(
        [1 / timed.per_image],
        data.name,
        note=f"{config.num_seeds} seeds on {devices} devices, batches included.",
    )


def _threads(lab: Lab) -> Outcome:
    # TensorFlow takes seconds to import, and only this row needs it.
    from cnnjax.data import tf_pipeline

    data, config = lab.data_of("cifar"), lab.config("base", steps=1)
    batch_size = config.train.batch_size
    cases = [
        ours.tfdata_case(
            str(workers),
            tf_pipeline.batches(
                data.train,
                assembly.make_preprocessing(config),
                seed=0,
                batch_size=batch_size,
                first_step=0,
                num_steps=10**6,
                workers=workers,
            ),
            batch_size,
        )
        for workers in WORKERS
    ]
    timed = alternate(cases, lab.budget.rounds)
    rates = [1 / timed[str(workers)].per_image for workers in WORKERS]
    return Outcome(
        [rates[-1] / rates[0] - 1],
        data.name,
        also=[
            Also(f"{workers} workers", rate, "images/s")
            for workers, rate in zip(WORKERS, rates, strict=True)
        ],
        note="tf.data is given no more threads than the machine has cores.",
    )


def _both_ways(function: Callable[..., jax.Array], *arguments: jax.Array) -> Any:
    """Returns a compiled run of `function` forward and backward, without arguments."""

    @jax.jit
    def both(*arguments: jax.Array) -> Any:
        value, pull = jax.vjp(function, *arguments)
        return value, pull(value)

    return lambda: jax.block_until_ready(both(*arguments))


def _conv_share(lab: Lab) -> Outcome:
    config = lab.config(
        "base", steps=1, changes={"num_seeds": 1, "parallel.num_devices": 1}
    )
    recipe = assembly.make_recipe(config, 10)
    mesh = assembly.choose_mesh(config)
    batch = ours.random_batch((24, 24, 3), config.train.batch_size)
    state = init_state(recipe.model, recipe.tx, seed=0, image_shape=(24, 24, 3))
    step = ours.train_case("step", recipe, state, batch, mesh, "jit")
    images = jnp.asarray(batch["image"])
    maps = jnp.ones((config.train.batch_size, 12, 12, 64))
    kernels = [state.params[layer]["kernel"] for layer in ("conv1", "conv2")]
    # The first layer needs no gradient for its input images.
    first = _both_ways(partial(conv.conv, images), kernels[0])
    second = _both_ways(conv.conv, maps, kernels[1])
    cases = [
        dataclasses.replace(step, flops=0),
        Case("conv1", first),
        Case("conv2", second),
    ]
    timed = alternate(cases, lab.budget.rounds)
    seconds = {name: times.seconds for name, times in timed.items()}
    both = seconds["conv1"] + seconds["conv2"]
    return Outcome(
        [both / seconds["step"]],
        also=[
            Also(f"{name}, ms", 1e3 * np.asarray(taken), "")
            for name, taken in seconds.items()
        ],
        note="Forward and backward, in alternation with the step, on one device.",
    )


ROWS = (
    Row(
        "conv-share",
        "5.3",
        "convolutions take most of the training time",
        "conv1 and conv2 forward and backward, against the whole step of base.py",
        (Check("share of the step", 0.5, unit="%"),),
        _conv_share,
    ),
    Row(
        "threads",
        "5.3",
        "distortion needs many threads",
        "tf.data's batches of base.py with 1, 2, 4 and 16 workers",
        (contrast("16 workers / 1 worker - 1", "%"),),
        _threads,
        data="cifar",
    ),
    Row(
        "speed",
        "5.3",
        "1,800 images a second on a GTX 1080",
        "steps of base.py, all seeds in one program, on the machine at hand",
        (Check("images a second", GTX_1080, unit="images/s"),),
        _speed,
        data="cifar",
    ),
)
