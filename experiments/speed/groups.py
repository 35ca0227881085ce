"""The benchmark's groups: each returns the cases to time and the pairs to compare."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from cnnjax.errors import InputError
from cnnjax.models.forward import forward
from cnnjax.run import Run
from speed import keras_peer, machine, ours, peer, plain_flax, torch_peer
from speed import operations as ops
from speed.ours import RUN_STEPS
from speed.timing import Case

Cases = tuple[list[Case], list[tuple[str, str]]]

PEERS: tuple[Callable[[peer.Job], list[peer.Peer]], ...] = (
    plain_flax.make,
    keras_peer.make,
    torch_peer.make,
)
MANY_STEPS = f"device, {RUN_STEPS} steps a call"
MANY_SEEDS = f"4 seeds, {RUN_STEPS} steps a call"


def networks(configs: Mapping[str, ConfigDict]) -> Cases:
    """Returns cases of every network, forward and training, and of the machine."""
    return [*network_cases(configs), machine.gemm(), machine.stream()], []


def network_cases(configs: Mapping[str, ConfigDict]) -> list[Case]:
    """Returns the training step and forward pass of each configuration's network."""
    cases = []
    for name, config in configs.items():
        run, label = ours.noise_run(config), f"{config.model.name} ({name})"
        cases.append(ours.train_case(f"{label}, training", run))
        cases.append(ours.forward_case(f"{label}, forward", run))
    return cases


def peers(configs: Mapping[str, ConfigDict]) -> Cases:
    """Returns cases of both CNNs, here and in the other libraries installed."""
    cases, pairs = [machine.gemm()], []
    for config in (configs["base"], configs["mnist"]):
        run, name = ours.noise_run(config), config.model.name
        batch, variables = ours.batch_of(run), run.init_state().variables
        training, test = f"{name} training, cnnjax", f"{name} forward, cnnjax"
        cases.append(ours.train_case(training, run))
        cases.append(ours.forward_case(test, run))
        images = jnp.asarray(batch["image"])
        logits, _ = forward(run.recipe.model, variables, images)
        for other in _installed(_job(run)):
            peer.check(other, np.asarray(logits))
            for own, part, do in (
                (training, "training", other.train),
                (test, "forward", other.forward),
            ):
                theirs = f"{name} {part}, {other.name}"
                pairs.append((own, theirs))
                cases.append(Case(theirs, do, len(batch["label"])))
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
    cases = []
    for name in ("base", "mnist", "mnist_augmented"):
        run = ours.noise_run(configs[name])
        workers = run.config.data.workers
        cases.append(ours.tfdata_case(f"{name}, tfdata", run, workers))
        cases.append(ours.device_case(f"{name}, device", run))
    return cases, []


def runs(configs: Mapping[str, ConfigDict]) -> Cases:
    """Returns cases of CIFAR steps with their batches, and of the step alone."""
    base = configs["base"]
    step = ours.train_case("step alone", ours.noise_run(base))
    alone = dataclasses.replace(
        step,
        run=lambda: [step.run() for _ in range(RUN_STEPS)],
        images=RUN_STEPS * step.images,
        flops=RUN_STEPS * step.flops,
    )
    cases = [alone]
    for name, pipeline, steps_per_call, num_seeds in (
        ("tfdata", "tfdata", 1, 1),
        ("device", "device", 1, 1),
        (MANY_STEPS, "device", RUN_STEPS, 1),
        (MANY_SEEDS, "device", RUN_STEPS, 4),
    ):
        config = base.copy_and_resolve_references().unlock()
        config.data.pipeline, config.train.steps_per_call = pipeline, steps_per_call
        config.train.steps = 2**32 // base.train.batch_size
        config.num_seeds = num_seeds
        cases.append(ours.run_case(name, ours.noise_run(config)))
    pairs = [(case.name, alone.name) for case in cases[1:4]]
    return cases, [*pairs, (MANY_STEPS, "device"), (MANY_SEEDS, MANY_STEPS)]


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
}
