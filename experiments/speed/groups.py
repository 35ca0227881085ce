"""The benchmark's groups: each yields cases to time and pairs of them to compare.

What a group yields at once is timed in alternation, and done before it yields more.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cnnjax.errors import InputError, MissingPackageError, one_line
from cnnjax.models.forward import forward
from cnnjax.run import Run
from search import changed
from speed import keras_peer, machine, ours, peer, plain_flax, sizes, torch_peer
from speed import operations as ops
from speed.timing import Case

Cases = tuple[list[Case], list[tuple[str, str]]]

# Other sizes than those for which the operations were written, with what is changed.
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "28x28 pixels": {"data.crop": 28},
    "32x32 pixels": {"data.crop": 32},
    "half as wide": {"model.width": 0.5},
    "twice as wide": {"model.width": 2.0},
    "batches of 63": {"train.batch_size": 63},
}

PEERS: tuple[Callable[[peer.Job], list[peer.Peer]], ...] = (
    plain_flax.make,
    keras_peer.make,
    torch_peer.make,
)


def networks(configs: Mapping[str, ConfigDict]) -> Iterator[Cases]:
    """Yields cases of every network, forward and training, and of the machine."""
    steps, cases = sizes.here().steps, []
    for name, config in configs.items():
        run, label = ours.noise_run(config), f"{config.model.name} ({name})"
        cases.append(ours.train_case(f"{label}, training", run, steps))
        cases.append(ours.forward_case(f"{label}, forward", run))
    yield [*cases, machine.gemm(), machine.stream()], []


def peers(configs: Mapping[str, ConfigDict]) -> Iterator[Cases]:
    """Yields cases of each CNN, here and in the other libraries installed."""
    for config in (configs["base"], configs["mnist"]):
        run, name = ours.noise_run(config), config.model.name
        others = _usable(run, _installed(run))
        cases, pairs = _training(f"{name} training", run, others)
        own = f"{name} forward, cnnjax"
        cases += [machine.gemm(), ours.forward_case(own, run)]
        for other in others:
            theirs = f"{name} forward, {other.name}"
            pairs.append((own, theirs))
            cases.append(Case(theirs, other.forward, run.config.train.batch_size))
        yield cases, pairs


def batches(configs: Mapping[str, ConfigDict]) -> Iterator[Cases]:
    """Yields training steps of each CNN on batches of several sizes.

    Beside them are the other libraries, without what computes in bfloat16 or takes
    minutes to compile for each size.
    """
    networks = (configs["base"], configs["mnist"])
    usable: dict[str, set[str]] = {}
    for size, config in itertools.product(sizes.here().batches, networks):
        name = config.model.name
        run = ours.noise_run(changed(config, {"train.batch_size": size}))
        others = [
            other
            for other in _installed(run)
            if not other.half and not other.slow_to_compile
        ]
        if name not in usable:
            usable[name] = {other.name for other in _usable(run, others)}
        others = [other for other in others if other.name in usable[name]]
        yield _training(f"{name}, batches of {size}", run, others)


def shapes(configs: Mapping[str, ConfigDict]) -> Iterator[Cases]:
    """Yields training steps of CifarCNN at other sizes, here and in plain Flax."""
    for what, fields in SHAPES.items():
        run = ours.noise_run(changed(configs["base"], fields))
        others = _usable(run, plain_flax.make(_job(run)))
        yield _training(f"CifarCNN, {what}", run, others)


def _training(label: str, run: Run, others: Sequence[peer.Peer]) -> Cases:
    """Returns cases of a network's training step, here and in other libraries.

    A peer in bfloat16 is compared with this project's network in bfloat16. Where a case
    is of several steps in a row, there is one more that makes them all in one call.
    """
    steps, images = sizes.here().steps, run.config.train.batch_size
    cases, pairs = [], []
    for half in sorted({other.half for other in others} | {False}):
        own, names = run, [f"{label}, cnnjax"]
        if half:
            own = ours.noise_run(changed(run.config, {"model.dtype": "bfloat16"}))
            names = [f"{label}, cnnjax, bfloat16"]
        cases.append(ours.train_case(names[0], own, steps))
        if steps > 1:
            names.append(f"{names[0]}, {steps} steps a call")
            cases.append(ours.train_case(names[1], own, steps, steps))
        for other in others:
            if other.half == half:
                theirs = f"{label}, {other.name}"
                train = partial(other.train, steps)
                cases.append(Case(theirs, train, steps * images, steps))
                pairs += [(name, theirs) for name in names]
    return cases, pairs


def _installed(run: Run) -> list[peer.Peer]:
    """Returns a run's network in the other libraries that are installed."""
    job, found = _job(run), []
    for make in PEERS:
        try:
            found += make(job)
        except InputError as error:
            print(f"left out: {error}")
    return found


def _usable(run: Run, others: Sequence[peer.Peer]) -> list[peer.Peer]:
    """Returns those other libraries that compute the same logits, and train.

    An error of one of them must not end the measurement of the rest.
    """
    apply = jax.jit(lambda variables, x: forward(run.recipe.model, variables, x)[0])
    logits = apply(run.init_state().variables, ours.batch_of(run)["image"])
    usable = []
    for other in others:
        try:
            peer.check(other, np.asarray(logits))
            other.train(1)
        except Exception as error:  # a library raises what its compiler raises
            print(f"left out: {other.name} ({one_line(error, 300)})")
        else:
            usable.append(other)
    return usable


def operations(configs: Mapping[str, ConfigDict]) -> Iterator[Cases]:
    """Yields cases of the project's own operations and those that they replace."""
    yield ops.cases(configs["base"].train.batch_size)


def pipelines(configs: Mapping[str, ConfigDict]) -> Iterator[Cases]:
    """Yields cases of both input pipelines alone: tf.data and on the device."""
    cases = []
    for name in ("base", "mnist", "mnist_augmented"):
        run = ours.noise_run(configs[name])
        workers = run.config.data.workers
        cases += _with_tensorflow(
            partial(ours.tfdata_case, f"{name}, tfdata", run, workers)
        )
        cases.append(ours.device_case(f"{name}, device", run))
    yield cases, []


def runs(configs: Mapping[str, ConfigDict]) -> Iterator[Cases]:
    """Yields cases of CIFAR steps with their batches, and of the step alone."""
    run = ours.noise_run(configs["base"])
    alone = ours.train_case("step alone", run, ours.RUN_STEPS)
    device = _resident(configs["base"], 1)
    cases = [alone, ours.run_case("device", ours.noise_run(device))]
    tfdata = changed(device, {"data.pipeline": "tfdata"})
    cases += _with_tensorflow(lambda: ours.run_case("tfdata", ours.noise_run(tfdata)))
    yield cases, [(case.name, alone.name) for case in cases[1:]]


def calls(configs: Mapping[str, ConfigDict]) -> Iterator[Cases]:
    """Yields cases of CIFAR steps whose batches are made on the device, many a call.

    They are compared with one step a call.
    """
    cases = []
    for steps in sizes.here().steps_per_call:
        run = ours.noise_run(_resident(configs["base"], steps))
        name = f"{steps} steps a call" if steps > 1 else "1 step a call"
        cases.append(ours.run_case(name, run, max(steps, ours.RUN_STEPS)))
    yield cases, [(case.name, cases[0].name) for case in cases[1:]]


def seeds(configs: Mapping[str, ConfigDict]) -> Iterator[Cases]:
    """Yields cases of programs that train several seeds, looped over and batched.

    They are compared with one seed, by the images of all of them, and with each other.
    """
    here = sizes.here()
    cases, pairs = [], []
    for num_seeds in here.seeds:
        names = {"1 seed": False}
        if num_seeds > 1:
            looped, batched = f"{num_seeds} seeds, looped", f"{num_seeds} seeds, vmap"
            names = {looped: False, batched: True}
            pairs += [(looped, "1 seed"), (batched, "1 seed"), (batched, looped)]
        for name, vmap in names.items():
            config = _resident(configs["base"], here.seed_steps)
            several = {"num_seeds": num_seeds, "parallel.vmap_seeds": vmap}
            run = ours.noise_run(changed(config, several))
            cases.append(ours.run_case(name, run, here.seed_steps))
    yield cases, pairs


def _resident(config: ConfigDict, steps_per_call: int) -> ConfigDict:
    """Returns a configuration that makes its batches on the device, and never ends."""
    fields = {
        "data.pipeline": "device",
        "train.steps_per_call": steps_per_call,
        "train.steps": 2**32 // config.train.batch_size,
    }
    return changed(config, fields)


def _with_tensorflow(make: Callable[[], Case]) -> list[Case]:
    try:
        return [make()]
    except MissingPackageError as error:
        print(f"left out: {error}")
        return []


def _job(run: Run) -> peer.Job:
    recipe, batch = run.recipe, ours.batch_of(run)
    params = jax.device_get(run.init_state().params)
    chosen = recipe.penalty.is_penalised(params)
    layers = [name for name, is_chosen in chosen.items() if is_chosen["kernel"]]
    return peer.Job(
        network=run.config.model.name,
        params=params,
        image=batch["image"],
        label=batch["label"],
        learning_rate=run.config.optim.learning_rate,
        l2=recipe.penalty.l2,
        penalised=tuple(layers) if recipe.penalty.l2 else (),
        keep_prob=getattr(recipe.model, "keep_prob", 1.0),
    )


GROUPS = {
    "networks": networks,
    "peers": peers,
    "operations": operations,
    "pipelines": pipelines,
    "runs": runs,
    "batches": batches,
    "shapes": shapes,
    "calls": calls,
    "seeds": seeds,
}
