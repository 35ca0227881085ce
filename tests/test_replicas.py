"""Many seeds in one program against a run of each; replicas share nothing."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import assembly, config, network, parallel, replicas, updates
from cnnjax.data import batches, load
from cnnjax.data.augment import Preprocessing
from cnnjax.data.load import Split
from cnnjax.errors import InputError
from cnnjax.evaluation import Evaluator, summarise
from cnnjax.metrics import of_seed
from cnnjax.runtime.clocks import Clocks
from cnnjax.state import init_state

SEED, NUM_SEEDS, BATCH = 7, 4, 16
CHAPTER = Preprocessing(24, ("crop", "flip", "brightness", "contrast"), "per_image")
UNIT = Preprocessing(0, (), "unit")
SETS = {"CifarCNN": ("shapes", CHAPTER), "MLP": ("digits", UNIT)}


class Small(nn.Module):
    """In float64, as far as the preprocessing allows."""

    @nn.compact
    def __call__(self, images, dropout_keys=None):
        dense = functools.partial(nn.Dense, param_dtype=float, dtype=float)
        hidden = nn.tanh(dense(20)(images.reshape(images.shape[0], -1)))
        if dropout_keys is not None:
            keep = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, (20,)))
            hidden = hidden * keep(dropout_keys)
        return dense(10)(hidden)


def recipe_of(name: str) -> updates.Recipe:
    """The MLP's has dropout; both keep an average."""
    chosen = config.default_config(name)
    chosen.optim.ema_decay = 0.9
    if name == "CifarCNN":
        chosen.model.width = 0.25
    return assembly.make_recipe(chosen, num_classes=10)


def split_of(name: str) -> Split:
    return load.load_embedded(SETS[name][0]).train


def start(name: str, recipe: updates.Recipe, num_devices: int):
    mesh = parallel.make_mesh(num_devices)
    shape = SETS[name][1].output_shape(split_of(name).images.shape[1:])
    state = replicas.start_state(
        recipe, seed=SEED, num_seeds=NUM_SEEDS, image_shape=shape, mesh=mesh
    )
    return state, mesh


def together(name: str, recipe: updates.Recipe, num_devices: int, pieces):
    """Returns the state first and after each piece, and the metrics of every step."""
    state, mesh = start(name, recipe, num_devices)
    update = replicas.make_update(
        recipe,
        split_of(name),
        SETS[name][1],
        seed=SEED,
        num_seeds=NUM_SEEDS,
        batch_size=BATCH,
        steps_per_call=4,
        mesh=mesh,
        clocks=Clocks(),
    )
    states, found = [jax.device_get(state)], []
    for steps in pieces:
        state, metrics = update(state, steps, fetch=True)
        assert state.step.sharding.num_devices == num_devices
        states.append(jax.device_get(state))
        found.append(metrics)
    joined = {k: np.concatenate([m[k] for m in found], axis=-1) for k in found[0]}
    return states, joined


def one_by_one(name: str, recipe: updates.Recipe, num_steps: int):
    """Yields the states and metrics of each seed, trained by the plain step."""
    split, how = split_of(name), SETS[name][1]
    step = jax.jit(updates.train_step_of(recipe, axis_name=None))
    make = jax.jit(functools.partial(batches.make_batch, preprocessing=how))
    data = batches.whole(split)
    for seed in range(SEED, SEED + NUM_SEEDS):
        state = init_state(
            recipe.model,
            recipe.tx,
            seed=seed,
            image_shape=how.output_shape(split.images.shape[1:]),
            ema=recipe.ema_decay > 0,
        )
        states, found = [state], []
        for i in range(num_steps):
            chunk = batches.chunk(
                seed=seed,
                num_examples=len(split.labels),
                batch_size=BATCH,
                first_step=i,
                num_steps=1,
                capacity=1,
            )
            index, position = chunk["index"][:, 0], chunk["position"][:, 0]
            batch = make(np.uint32(seed), data, index, position)
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
    ("name", "num_devices"),
    [pytest.param("CifarCNN", 2, marks=pytest.mark.slow), ("MLP", 4)],
)
def test_each_replica_is_a_run_of_its_seed(name: str, num_devices: int) -> None:
    recipe = recipe_of(name)
    pieces = [range(0, 1), range(1, 5)]
    states, metrics = together(name, recipe, num_devices, pieces)
    for k, (alone, expected) in enumerate(one_by_one(name, recipe, num_steps=5)):
        jax.tree.map(
            np.testing.assert_array_equal, network.replica(states[0], k), alone[0]
        )
        # After one step Adam's first moment is a tenth of the gradient.
        after_one = network.replica(states[1], k)
        assert_close(after_one.opt_state, alone[1].opt_state, 1e-5)
        for metric in ("loss", "cross_entropy", "l2"):
            np.testing.assert_allclose(
                metrics[metric][k], [m[metric] for m in expected], rtol=1e-5
            )
        assert metrics["accuracy"].shape == (NUM_SEEDS, 5)
        after = network.replica(states[2], k)
        assert (after.step, after.seed) == (5, SEED + k)


def test_replicas_agree_with_runs_in_float64() -> None:
    with jax.enable_x64(True):
        recipe = dataclasses.replace(
            recipe_of("MLP"),
            model=Small(),
            tx=optax.adam(1e-3, eps=jnp.float64(1e-8)),
        )
        pieces = [range(i, i + 4) for i in range(0, 20, 4)]
        states, metrics = together("MLP", recipe, 2, pieces)
        for k, (alone, expected) in enumerate(one_by_one("MLP", recipe, 20)):
            loss = [m["loss"] for m in expected]
            assert loss[0].dtype == np.float64
            np.testing.assert_allclose(metrics["loss"][k], loss, rtol=1e-9)
            after = network.replica(states[-1], k)
            assert_close(after.params, alone[-1].params, 1e-9)


@pytest.fixture(scope="module")
def trained_mlp():
    return together("MLP", recipe_of("MLP"), 2, [range(0, 4), range(4, 6)])


def test_the_bytes_do_not_depend_on_how_steps_are_cut_into_calls(trained_mlp) -> None:
    states, metrics = trained_mlp
    pieces = [range(0, 3), range(3, 4), range(4, 6)]
    others, found = together("MLP", recipe_of("MLP"), 2, pieces)
    jax.tree.map(np.testing.assert_array_equal, states[-1], others[-1])
    np.testing.assert_array_equal(metrics["loss"], found["loss"])


def test_every_replica_is_evaluated_exactly(trained_mlp) -> None:
    state, recipe = trained_mlp[0][-1], recipe_of("MLP")
    test = load.load_embedded("digits").test
    options = {"batch_size": BATCH, "top_k": 2, "clocks": Clocks()}
    mesh, one = parallel.make_mesh(4), parallel.make_mesh(1)
    evaluate = Evaluator(
        recipe.model,
        recipe.loss_fn,
        UNIT,
        mesh=mesh,
        mode="jit",
        num_seeds=NUM_SEEDS,
        **options,
    )
    evaluate_one = Evaluator(
        recipe.model, recipe.loss_fn, UNIT, mesh=one, mode="jit", **options
    )
    params = replicas.put(state.params, mesh)
    for n in (1, BATCH - 1, BATCH, 3 * BATCH + 7):
        split = Split(test.images[:n], test.labels[:n])
        found = summarise("test", evaluate(params, split))
        for k in range(NUM_SEEDS):
            own = parallel.replicate(network.replica(state, k).params, one)
            expected = summarise("test", evaluate_one(own, split))
            mine = of_seed(found, k)
            assert mine["test/correct"] == expected["test/correct"]
            assert mine["test/accuracy"] == expected["test/accuracy"]
            assert mine["test/count"] == expected["test/count"] == n
            assert mine["test/loss"] == pytest.approx(expected["test/loss"], 1e-5)


def test_accuracy_of_a_log_line_is_without_dropout(trained_mlp) -> None:
    """The first of a call is of the parameters before it, with every unit there."""
    states, metrics = trained_mlp
    recipe, split = recipe_of("MLP"), split_of("MLP")
    for k in range(NUM_SEEDS):
        chunk = batches.chunk(
            seed=SEED + k,
            num_examples=len(split.labels),
            batch_size=BATCH,
            first_step=4,
            num_steps=1,
            capacity=1,
        )
        index = chunk["index"][:, 0]
        params = network.replica(states[1], k).params
        logits = recipe.model.apply({"params": params}, split.images[index] / 255)
        right = np.mean(np.argmax(logits, axis=-1) == split.labels[index])
        assert metrics["accuracy"][k, 4] == pytest.approx(right)


@pytest.mark.parametrize(
    ("num_seeds", "available", "expected"),
    [(4, 1, 1), (4, 2, 2), (4, 3, 2), (4, 8, 4), (6, 4, 3), (7, 2, 1), (16, 8, 8)],
)
def test_choose_num_devices(num_seeds: int, available: int, expected: int) -> None:
    assert replicas.choose_num_devices(num_seeds, available) == expected
    replicas.check_divisible(num_seeds, expected)


def test_devices_that_do_not_divide_the_seeds() -> None:
    with pytest.raises(ValueError, match=r"6 seeds for 4 .* take 1, 2, 3 or 6 devices"):
        replicas.check_divisible(6, 4)


def test_a_replica_that_there_is_not() -> None:
    recipe = recipe_of("MLP")
    state, mesh = start("MLP", recipe, 2)
    for k in (-1, NUM_SEEDS):
        with pytest.raises(InputError, match=f"got replica {k}, need 0 to 3: .* of 4"):
            network.replica(state, k)
    single = replicas.start_state(
        recipe, seed=SEED + 1, num_seeds=1, image_shape=(28, 28, 1), mesh=mesh
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        network.replica(single, 0),
        network.replica(state, 1),
    )
    with pytest.raises(InputError, match="got replica 1, need 0 to 0"):
        network.replica(single, 1)
