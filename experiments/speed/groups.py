"""The benchmark's groups: each returns the cases to time and the pairs to compare."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np
from ml_collections import ConfigDict

from cnnjax import assembly
from cnnjax.data.dataset import Split
from cnnjax.errors import InputError
from cnnjax.replicas import start_state
from cnnjax.runtime.clocks import Clocks
from cnnjax.state import TrainState, init_state
from cnnjax.updates import Recipe
from speed import keras_peer, machine, ours, peer, plain_flax, torch_peer
from speed import operations as ops
from speed.timing import Case

Cases = tuple[list[Case], list[tuple[str, str]]]

PEERS: tuple[Callable[[peer.Job], list[peer.Peer]], ...] = (
    plain_flax.make,
    keras_peer.make,
    torch_peer.make,
)
RUN_STEPS = 20
MANY_STEPS = f"device, {RUN_STEPS} steps a call"
MANY_SEEDS = f"4 seeds, {RUN_STEPS} steps a call"
# [examples, height, width, channels] of the two training sets.
SHAPES = {"cifar10": (50_000, 32, 32, 3), "mnist": (60_000, 28, 28, 1)}


def networks(configs: Mapping[str, ConfigDict]) -> Cases:
    """Returns cases of every network, forward and training, and of the machine."""
    return [*network_cases(configs), machine.gemm(), machine.stream()], []


def network_cases(configs: Mapping[str, ConfigDict]) -> list[Case]:
    """Returns the training step and forward pass of each configuration's network."""
    cases = []
    for name, config in configs.items():
        recipe, state, batch = _setup(config)
        mesh, mode = assembly.choose_mesh(config), config.parallel.mode
        label = f"{config.model.name} ({name})"
        cases += [
            ours.train_case(f"{label}, training", recipe, state, batch, mesh, mode),
            ours.forward_case(
                f"{label}, forward", recipe, state.params, batch, mesh, mode
            ),
        ]
    return cases


def peers(configs: Mapping[str, ConfigDict]) -> Cases:
    """Returns cases of both CNNs, here and in the other libraries installed."""
    cases, pairs = [machine.gemm()], []
    for config in (configs["base"], configs["mnist"]):
        recipe, state, batch = _setup(config)
        mesh, mode = assembly.choose_mesh(config), config.parallel.mode
        name = config.model.name
        training, forward = f"{name} training, cnnjax", f"{name} forward, cnnjax"
        cases += [
            ours.train_case(training, recipe, state, batch, mesh, mode),
            ours.forward_case(forward, recipe, state.params, batch, mesh, mode),
        ]
        logits = recipe.model.apply({"params": state.params}, batch["image"])
        for other in _installed(_job(config, recipe, state, batch)):
            peer.check(other, np.asarray(logits))
            theirs = f"{name} training, {other.name}"
            pairs.append((training, theirs))
            cases.append(Case(theirs, other.train, len(batch["label"])))
            theirs = f"{name} forward, {other.name}"
            pairs.append((forward, theirs))
            cases.append(Case(theirs, other.forward, len(batch["label"])))
    return cases, pairs


def _installed(job: peer.Job) -> list[peer.Peer]:
    found = []
    for make in PEERS:
        try:
            found += make(job)
        except InputError as error:
            print(f"left out: {error}")
    return found


def operations(configs: Mapping[str, ConfigDict]) -> Cases:
    """Returns cases of the project's own operations and those that they replace."""
    return ops.cases(configs["base"].train.batch_size)


def pipelines(configs: Mapping[str, ConfigDict]) -> Cases:
    """Returns cases of both input pipelines alone: tf.data and on the device."""
    from cnnjax.data import tf_pipeline

    cases = []
    for name in ("base", "mnist", "mnist_augmented"):
        config = configs[name]
        split = _noise("cifar10" if name == "base" else "mnist")
        how, batch_size = assembly.make_preprocessing(config), config.train.batch_size
        batches = tf_pipeline.batches(
            split,
            how,
            seed=0,
            batch_size=batch_size,
            first_step=0,
            num_steps=2**32 // batch_size,
            workers=config.data.workers,
        )
        mesh, mode = assembly.choose_mesh(config), config.parallel.mode
        cases += [
            ours.tfdata_case(f"{name}, tfdata", batches, batch_size),
            ours.device_case(f"{name}, device", split, how, batch_size, mesh, mode),
        ]
    return cases, []


def runs(configs: Mapping[str, ConfigDict]) -> Cases:
    """Returns cases of CIFAR steps with their batches, and of the step alone."""
    base = configs["base"]
    recipe, state, batch = _setup(base)
    size = base.train.batch_size
    step = ours.train_case(
        "step alone",
        recipe,
        state,
        batch,
        assembly.choose_mesh(base),
        base.parallel.mode,
    )
    alone = dataclasses.replace(
        step,
        run=lambda: [step.run() for _ in range(RUN_STEPS)],
        images=RUN_STEPS * size,
        flops=RUN_STEPS * step.flops,
    )
    cases, split = [alone], _noise("cifar10")
    for name, pipeline, steps_per_call, num_seeds in (
        ("tfdata", "tfdata", 1, 1),
        ("device", "device", 1, 1),
        (MANY_STEPS, "device", RUN_STEPS, 1),
        (MANY_SEEDS, "device", RUN_STEPS, 4),
    ):
        config = base.copy_and_resolve_references().unlock()
        config.data.pipeline, config.train.steps_per_call = pipeline, steps_per_call
        config.train.steps, config.num_seeds = 2**32 // size, num_seeds
        cases.append(run_case(name, config, recipe, split))
    pairs = [(case.name, alone.name) for case in cases[1:4]]
    return cases, [*pairs, (MANY_STEPS, "device"), (MANY_SEEDS, MANY_STEPS)]


def _noise(name: str) -> Split:
    random, shape = np.random.default_rng(0), SHAPES[name]
    images = random.integers(0, 256, shape, np.uint8)
    return Split(images, random.integers(0, 10, shape[0]).astype(np.int32))


def _setup(config: ConfigDict) -> tuple[Recipe, TrainState, dict[str, np.ndarray]]:
    recipe = assembly.make_recipe(config, num_classes=10)
    name = "cifar10" if config.model.name == "CifarCNN" else "mnist"
    shape = assembly.make_preprocessing(config).output_shape(SHAPES[name][1:])
    state = init_state(
        recipe.model, recipe.tx, seed=0, image_shape=shape, ema=recipe.ema_decay > 0
    )
    return recipe, state, ours.random_batch(shape, config.train.batch_size)


def _job(
    config: ConfigDict,
    recipe: Recipe,
    state: TrainState,
    batch: Mapping[str, np.ndarray],
) -> peer.Job:
    has = set(state.params)
    return peer.Job(
        network=config.model.name,
        params=jax.device_get(state.params),
        image=batch["image"],
        label=batch["label"],
        learning_rate=config.optim.learning_rate,
        l2=recipe.l2,
        penalised=tuple(layer for layer in recipe.penalised if layer in has),
        keep_prob=config.model.get("keep_prob", 1.0),
    )


GROUPS = {
    "networks": networks,
    "peers": peers,
    "operations": operations,
    "pipelines": pipelines,
    "runs": runs,
}


def run_case(name: str, config: ConfigDict, recipe: Recipe, split: Split) -> Case:
    """Returns a case of `RUN_STEPS` steps of all seeds, including their batches."""
    mesh, how = assembly.choose_mesh(config), assembly.make_preprocessing(config)
    start = start_state(
        recipe,
        seed=0,
        num_seeds=config.num_seeds,
        image_shape=how.output_shape(split.images.shape[1:]),
        mesh=mesh,
    )
    return ours.update_case(
        name,
        assembly.make_update(config, recipe, split, how, mesh)(0, Clocks()),
        start,
        steps=RUN_STEPS,
        log_every=config.train.log_every,
        images=config.num_seeds * config.train.batch_size,
    )
