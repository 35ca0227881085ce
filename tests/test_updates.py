"""Updates with the data on the devices against batches from tf.data, and seed by seed.

Several seeds in one program are runs of one seed each: they share devices, not numbers.
"""

import dataclasses
import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax.data import batches, load, sampling, tf_pipeline
from cnnjax.data.dataset import Split
from cnnjax.models import MLP, CifarCNN, LeNet5, SimpleCNN
from cnnjax.models.facts import Facts
from cnnjax.parallel import Part, Partitioner, make_mesh
from cnnjax.recipe import Recipe, make_recipe
from cnnjax.run import of_one_seed
from cnnjax.runtime.clocks import Clocks
from cnnjax.state import init_state
from cnnjax.step import make_multi_step, make_train_step
from cnnjax.updates import ResidentUpdate, StreamedUpdate

SEED, NUM_SEEDS, BATCH = 7, 4, 16


class Small(nn.Module):
    """In float64, as far as the preprocessing allows."""

    facts = Facts(normalise="unit", has_dropout=True)

    @nn.compact
    def __call__(self, images, dropout_keys=None):
        dense = functools.partial(nn.Dense, param_dtype=float, dtype=float)
        hidden = nn.tanh(dense(20)(images.reshape(images.shape[0], -1)))
        if dropout_keys is not None:
            keep = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (20,)))
            hidden = hidden * keep(dropout_keys)
        return dense(10)(hidden)


class Stock(nn.Module):
    """As Flax's examples are, with a state of its own."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(nn.Dense(20, use_bias=False)(x.reshape(len(x), -1)))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(10)(x)


def recipe_of(name: str, **options) -> Recipe:
    """The MLP's has dropout, of which the chapter's console line knows nothing."""
    if name == "CifarCNN":
        return make_recipe(
            CifarCNN(width=0.25),
            l2=0.004,
            crop=24,
            distortions=("crop", "flip", "brightness", "contrast"),
            **options,
        )
    models = {"MLP": MLP(), "Small": Small(), "Stock": Stock()}
    return make_recipe(models[name], **options)


@functools.cache
def split_of(name: str) -> Split:
    return load.load_embedded("shapes" if name == "CifarCNN" else "digits").train


def start(name: str, recipe: Recipe, partitioner: Partitioner):
    shape = split_of(name).images.shape[1:]
    seeds = range(SEED, SEED + partitioner.num_seeds)
    return partitioner.put_each([init_state(recipe, shape, seed=k) for k in seeds])


def trained(
    name: str,
    recipe: Recipe,
    pieces,
    num_devices=1,
    mode="jit",
    num_seeds=1,
    vmap_seeds=False,
):
    """Returns the state first and after each piece, and the metrics of every step."""
    partitioner = Partitioner(make_mesh(num_devices), mode, num_seeds, vmap_seeds)
    clocks, state = Clocks(), start(name, recipe, partitioner)
    update = ResidentUpdate(
        recipe,
        split_of(name),
        partitioner,
        seed=SEED,
        batch_size=BATCH,
        steps_per_call=4,
        clocks=clocks,
    )
    states, found = [jax.device_get(state)], []
    for steps in pieces:
        state, metrics = update(state, steps, fetch=True)
        assert state.step.sharding.num_devices == num_devices
        states.append(jax.device_get(state))
        found.append(metrics)
    assert clocks.compile_seconds > 0 and clocks.train_seconds > 0
    joined = {k: np.concatenate([m[k] for m in found], axis=-1) for k in found[0]}
    return states, joined


@pytest.mark.parametrize(
    ("name", "num_devices", "mode"),
    [
        pytest.param("CifarCNN", 1, "jit", marks=pytest.mark.slow),
        pytest.param("CifarCNN", 2, "pmap", marks=pytest.mark.slow),
        ("MLP", 2, "jit"),
    ],
)
def test_updates_are_those_of_streamed_batches(
    name: str, num_devices: int, mode: str
) -> None:
    recipe = recipe_of(name, learning_rate=1e-4)
    pieces = [range(i, i + 1) for i in range(5)]
    _, found = trained(name, recipe, pieces, num_devices, mode)

    streamed = tf_pipeline.batches(
        split_of(name),
        recipe.preprocessing,
        seed=SEED,
        batch_size=BATCH,
        steps=range(5),
        workers=2,
    )
    partitioner = Partitioner(make_mesh(num_devices), mode)
    state = start(name, recipe, partitioner)
    update = StreamedUpdate(recipe, streamed, partitioner, Clocks())
    for steps in pieces:
        state, metrics = update(state, steps, fetch=True)
        for metric in ("loss", "cross_entropy", "accuracy"):
            np.testing.assert_allclose(
                found[metric][steps.start], np.ravel(metrics[metric])[0], rtol=1e-5
            )


@pytest.fixture(scope="module")
def trained_mlp():
    recipe = recipe_of("MLP", ema_decay=0.9)
    pieces = [range(0, 4), range(4, 6)]
    return recipe, *trained("MLP", recipe, pieces, 2, num_seeds=NUM_SEEDS)


def test_the_bytes_do_not_depend_on_how_steps_are_cut_into_calls(trained_mlp) -> None:
    recipe = recipe_of("CifarCNN", learning_rate=1e-4)
    at_once = trained("CifarCNN", recipe, [range(0, 4), range(4, 6)])
    one_by_one = trained("CifarCNN", recipe, [range(i, i + 1) for i in range(6)])
    jax.tree.map(np.testing.assert_array_equal, at_once[0][-1], one_by_one[0][-1])
    jax.tree.map(np.testing.assert_array_equal, at_once[1], one_by_one[1])

    recipe, states, metrics = trained_mlp
    pieces = [range(0, 3), range(3, 4), range(4, 6)]
    others, found = trained("MLP", recipe, pieces, 2, num_seeds=NUM_SEEDS)
    jax.tree.map(np.testing.assert_array_equal, states[-1], others[-1])
    np.testing.assert_array_equal(metrics["loss"], found["loss"])


def one_by_one(name: str, recipe: Recipe, num_steps: int):
    """Yields the states and metrics of each seed, trained by the plain step."""
    split, step = split_of(name), jax.jit(make_train_step(recipe))
    for seed in range(SEED, SEED + NUM_SEEDS):
        state = init_state(recipe, split.images.shape[1:], seed=seed)
        states, found = [state], []
        fed = batches.batches(
            split, recipe, seed=seed, batch_size=BATCH, steps=range(num_steps)
        )
        for batch in fed:
            state, metrics = step(state, batch)
            states.append(state)
            found.append(metrics)
        yield jax.device_get(states), jax.device_get(found)


def assert_close(found, expected, tolerance: float) -> None:
    """Relative norm of every array; 1e-12 of a float counts as nothing."""

    def check(a, b):
        assert a.dtype == b.dtype and a.shape == b.shape
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b) + 1e-12

    jax.tree.map(check, found, expected)


@pytest.mark.parametrize(
    ("name", "num_devices", "vmap_seeds"),
    [
        pytest.param("CifarCNN", 2, False, marks=pytest.mark.slow),
        pytest.param("CifarCNN", 2, True, marks=pytest.mark.slow),
        ("MLP", 4, False),
        pytest.param("MLP", 2, True, marks=pytest.mark.slow),
        pytest.param("Stock", 2, False, marks=pytest.mark.slow),
        pytest.param("Stock", 2, True, marks=pytest.mark.slow),
    ],
)
def test_each_seed_is_trained_as_alone(
    name: str, num_devices: int, vmap_seeds: bool
) -> None:
    recipe = recipe_of(name, ema_decay=0.9)
    pieces = [range(0, 1), range(1, 5)]
    states, metrics = trained(
        name, recipe, pieces, num_devices, "jit", NUM_SEEDS, vmap_seeds
    )
    for k, (alone, expected) in enumerate(one_by_one(name, recipe, num_steps=5)):
        jax.tree.map(np.testing.assert_array_equal, of_one_seed(states[0], k), alone[0])
        # After one step Adam's first moment is a tenth of the gradient.
        after_one = of_one_seed(states[1], k)
        assert_close(after_one.opt_state, alone[1].opt_state, 1e-5)
        assert_close(after_one.collections, alone[1].collections, 1e-5)
        for metric in ("loss", "cross_entropy", "l2"):
            np.testing.assert_allclose(
                metrics[metric][k], [m[metric] for m in expected], rtol=1e-5
            )
        assert metrics["accuracy"].shape == (NUM_SEEDS, 5)
        after = of_one_seed(states[2], k)
        assert (after.step, after.seed) == (5, SEED + k)


@pytest.mark.parametrize("vmap_seeds", [False, True])
def test_each_seed_is_trained_as_alone_in_float64(vmap_seeds: bool) -> None:
    with jax.enable_x64(True):
        recipe = dataclasses.replace(
            recipe_of("Small", ema_decay=0.9),
            tx=optax.adam(1e-3, eps=jnp.float64(1e-8)),
        )
        pieces = [range(i, i + 4) for i in range(0, 20, 4)]
        states, metrics = trained(
            "Small", recipe, pieces, 2, "jit", NUM_SEEDS, vmap_seeds
        )
        for k, (alone, expected) in enumerate(one_by_one("Small", recipe, 20)):
            loss = [m["loss"] for m in expected]
            assert loss[0].dtype == np.float64
            np.testing.assert_allclose(metrics["loss"][k], loss, rtol=1e-9)
            after = of_one_seed(states[-1], k)
            assert_close(after.params, alone[-1].params, 1e-9)


def test_accuracy_of_a_log_line_is_without_dropout(trained_mlp) -> None:
    """The first of a call is of the parameters before it, with every unit there."""
    recipe, states, metrics = trained_mlp
    split = split_of("MLP")
    for k in range(NUM_SEEDS):
        positions = range(4 * BATCH, 5 * BATCH)
        index = sampling.example_indices(SEED + k, len(split.labels), positions)
        variables = of_one_seed(states[1], k).variables
        logits = recipe.model.apply(variables, split.images[index] / 255)
        right = np.mean(np.argmax(logits, axis=-1) == split.labels[index])
        assert metrics["accuracy"][k, 4] == pytest.approx(right)


def test_a_chunk_is_which_examples_the_next_steps_take() -> None:
    """The batch leads; what there is room for and no step has is zero."""
    make = functools.partial(batches.chunk, seed=1, num_examples=40, batch_size=8)
    epochs = [make(first_step=k, num_steps=5, capacity=5)["index"] for k in (0, 5)]
    for index in epochs:
        assert index.shape == (8, 5)
        assert sorted(index.ravel()) == list(range(40))
    order = sampling.permutation(1, 0, 40)
    np.testing.assert_array_equal(epochs[0].T.ravel(), order)
    longer = make(first_step=4, num_steps=3, capacity=7)
    assert {k: (v.dtype, v.shape) for k, v in longer.items()} == {
        "index": (np.int32, (8, 7)),
        "position": (np.uint32, (8, 7)),
    }
    np.testing.assert_array_equal(longer["index"][:, 0], epochs[0][:, 4])
    np.testing.assert_array_equal(longer["index"][:, 1:3], epochs[1][:, :2])
    np.testing.assert_array_equal(longer["position"][:, :3].T.ravel(), range(32, 56))
    assert not longer["index"][:, 3:].any() and not longer["position"][:, 3:].any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("mode", "num_seeds", "vmap_seeds"),
    [("jit", 1, False), ("pmap", 1, False), ("jit", 4, False), ("jit", 4, True)],
)
@pytest.mark.parametrize(
    ("model", "size", "convolutions"),
    [
        (CifarCNN, (32, 32, 3), 2),
        (SimpleCNN, (28, 28, 1), 2),
        (LeNet5, (28, 28, 1), 3),
        (MLP, (28, 28, 1), 0),
    ],
)
def test_the_program_for_a_gpu(
    model: type[nn.Module],
    size: tuple[int, int, int],
    convolutions: int,
    mode: str,
    num_seeds: int,
    vmap_seeds: bool,
    dtype: str,
) -> None:
    """It has the library's convolutions, and a loop over the steps and none in them.

    Lowering for CUDA takes no GPU.
    """
    recipe = make_recipe(
        model(dtype=jnp.dtype(dtype)),
        distortions=("flip", "contrast") if model is CifarCNN else (),
    )
    partitioner = Partitioner(make_mesh(2), mode, num_seeds, vmap_seeds)
    split = Split(np.zeros((40, *size), np.uint8), np.zeros(40, np.int32))

    def arguments():
        chunk = batches.chunk(
            seed=0,
            num_examples=40,
            batch_size=BATCH,
            first_step=0,
            num_steps=2,
            capacity=2,
        )
        own = init_state(recipe, size, seed=0), chunk
        if num_seeds > 1:
            own = jax.tree.map(lambda x: jnp.stack([x] * num_seeds), own)
        elif mode == "pmap":
            halves = {k: v.reshape(2, BATCH // 2, 2) for k, v in chunk.items()}
            own = own[0], halves
        return *own, batches.whole(split), np.int32(2)

    make_batch = functools.partial(
        batches.make_batch, preprocessing=recipe.preprocessing
    )
    step = make_multi_step(make_train_step(recipe, partitioner.axis_name), make_batch)
    parts = (Part.STATE, Part.TRAINING_BATCH, Part.WHOLE, Part.WHOLE)
    compiled = jax.jit(partitioner.compile(step, *parts, donate=True))
    traced = compiled.trace(*jax.eval_shape(arguments))
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    # Forward, and the gradients of the kernel and of the input, which the first layer
    # does not need.
    found = program.count("stablehlo.convolution")
    assert max(0, 3 * convolutions - 1) <= found <= 3 * convolutions
    loops = 1 if num_seeds == 1 or vmap_seeds else 2
    assert program.count("stablehlo.while") == loops
    groups = re.findall(r"feature_group_count = (\d+)", program)
    assert len(groups) == found
    assert {*groups} <= {"2" if vmap_seeds else "1"}, "the seeds of a device are groups"
    assert ("bf16" in program) == (dtype == "bfloat16")
    assert "f64" not in program
