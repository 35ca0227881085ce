"""One step on any number of devices, under jit and pmap: the same step."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import losses, optimizers, parallel, prng
from cnnjax.data import augment, load, sampling
from cnnjax.data.augment import Preprocessing
from cnnjax.data.load import Split
from cnnjax.models import MODELS, cifar
from cnnjax.state import TrainState, init_state
from cnnjax.step import make_train_step

BATCH = 64
L2 = 0.004
CHAPTER = Preprocessing(24, ("crop", "flip", "brightness", "contrast"), "per_image")
UNIT = Preprocessing(0, (), "unit")
# Network -> (embedded data set, preprocessing, learning rate): the chapter's recipes.
RECIPES = {"CifarCNN": ("shapes", CHAPTER, 1e-3), "SimpleCNN": ("digits", UNIT, 1e-4)}


@functools.cache
def pictures(name: str) -> Split:
    return load.load_embedded(RECIPES[name][0]).train


def batch_of(step: int, name: str = "CifarCNN") -> dict[str, np.ndarray]:
    split, how = pictures(name), RECIPES[name][1]
    positions = range(step * BATCH, (step + 1) * BATCH)
    index = sampling.example_indices(0, len(split.labels), positions)
    position = np.array(positions, np.uint32)
    params = augment.draw(
        prng.from_seed(0, prng.DATA), position, how, split.images.shape[1:]
    )
    return {
        "image": np.asarray(augment.apply(split.images[index], params, how)),
        "label": split.labels[index],
        "mask": np.ones(BATCH, np.float32),
        "position": position,
    }


def make(name: str):
    model = MODELS[name]()
    rate = optimizers.make_schedule(
        "constant",
        learning_rate=RECIPES[name][2],
        decay_steps=1,
        decay_rate=1.0,
        staircase=False,
    )
    l2 = L2 if name == "CifarCNN" else 0.0
    tx = optimizers.make_optimizer("adam", rate, l2=l2, penalised=cifar.PENALISED)
    shape = RECIPES[name][1].output_shape(pictures(name).images.shape[1:])
    state = init_state(model, tx, seed=0, image_shape=shape, ema=True)
    step = make_train_step(
        model,
        tx,
        loss_fn=losses.cross_entropy,
        l2=l2,
        penalised=cifar.PENALISED,
        ema_decay=0.999,
        axis_name=parallel.AXIS,
    )
    return step, state


def run(name: str, num_devices: int, mode: str, num_steps: int):
    step, state = make(name)
    mesh = parallel.make_mesh(num_devices)
    compiled = parallel.compile_step(step, mesh, mode, donate=True)
    state, found = parallel.replicate(state, mesh), []
    for number in range(num_steps):
        batch = batch_of(number, name)
        state, metrics = compiled(state, parallel.put_batch(batch, mesh, mode))
        found.append(jax.device_get(metrics))
    if mode == "jit":
        assert compiled._cache_size() == 1, "compiled once, whatever the step"
    return jax.device_get(state), found


@pytest.fixture(scope="module", params=RECIPES)
def reference(request):
    return request.param, *run(request.param, 1, "jit", 5)


@pytest.mark.parametrize(("num_devices", "mode"), [(2, "jit"), (4, "pmap"), (8, "jit")])
def test_devices_and_modes_agree(reference, num_devices: int, mode: str) -> None:
    name, state, expected = reference
    other, found = run(name, num_devices, mode, 5)
    for step in range(5):
        for metric in ("loss", "cross_entropy", "l2", "accuracy"):
            np.testing.assert_allclose(
                found[step][metric],
                expected[step][metric],
                rtol=1e-5,
                atol=1e-7,
                err_msg=f"{metric} of step {step}",
            )
    np.testing.assert_allclose(
        found[0]["grad_norm"], expected[0]["grad_norm"], rtol=1e-5
    )
    assert other.step == state.step == 5


def test_the_same_devices_give_the_same_bytes() -> None:
    first, _ = run("CifarCNN", 2, "jit", 3)
    second, _ = run("CifarCNN", 2, "jit", 3)
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("num_devices", [2, 8])
def test_gradients_are_summed_once(num_devices: int) -> None:
    """After one SGD step the update is minus the gradient: 1e-5 a leaf."""
    model = MODELS["CifarCNN"]()
    rate = optimizers.make_schedule(
        "constant", learning_rate=1.0, decay_steps=1, decay_rate=1.0, staircase=False
    )
    tx = optimizers.make_optimizer("sgd", rate)
    step = make_train_step(
        model, tx, loss_fn=losses.cross_entropy, axis_name=parallel.AXIS
    )
    state = init_state(model, tx, seed=0, image_shape=(24, 24, 3))
    batch = batch_of(0)

    def mean_loss(params):
        logits = model.apply({"params": params}, batch["image"])
        return jnp.mean(losses.cross_entropy(logits, batch["label"]))

    expected = jax.jit(jax.grad(mean_loss))(state.params)
    mesh = parallel.make_mesh(num_devices)
    compiled = parallel.compile_step(step, mesh)
    after, _ = compiled(
        parallel.replicate(state, mesh), parallel.put_batch(batch, mesh)
    )

    def check(before, updated, gradient):
        error = np.linalg.norm((before - updated) - gradient)
        # The parameter itself is rounded too: an absolute floor of its last bits.
        floor = 1e-7 * np.linalg.norm(before)
        assert error <= 1e-5 * np.linalg.norm(gradient) + floor

    jax.tree.map(check, state.params, jax.device_get(after.params), expected)


def test_the_mask_leaves_examples_out() -> None:
    _, state = make("CifarCNN")
    single = jax.jit(
        make_train_step(
            MODELS["CifarCNN"](),
            optimizers.make_optimizer("sgd", lambda _: 0.1),
            loss_fn=losses.cross_entropy,
        )
    )
    sgd = optimizers.make_optimizer("sgd", lambda _: 0.1)
    state = dataclasses.replace(state, opt_state=sgd.init(state.params))
    batch = batch_of(0)
    batch["mask"][16:] = 0
    part = {name: values[:16] for name, values in batch.items()}
    masked, metrics = single(state, batch)
    alone, expected = single(state, part)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        (masked.params, metrics),
        (alone.params, expected),
    )


def test_the_average_follows_the_parameters() -> None:
    step, state = make("CifarCNN")
    mesh = parallel.make_mesh(1)
    batch = parallel.put_batch(batch_of(0), mesh)
    after: TrainState
    after, _ = parallel.compile_step(step, mesh)(parallel.replicate(state, mesh), batch)
    decay = 2 / 11  # (1 + step) / (10 + step) after the first update
    expected = jax.tree.map(
        lambda old, new: decay * old + (1 - decay) * new, state.params, after.params
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        after.ema_params,
        expected,
    )


def test_dropout_masks_follow_seed_and_position() -> None:
    """The loss with dropout differs by step and by seed, and not without."""

    class Fed(nn.Module):
        @nn.compact
        def __call__(self, images, dropout_keys=None):
            draw = jax.vmap(lambda key: jax.random.uniform(key, (10,)))
            self.param("unused", nn.initializers.zeros, (1,))
            return draw(dropout_keys) if dropout_keys is not None else images

    tx = optimizers.make_optimizer("sgd", lambda _: 0.1)
    step = jax.jit(make_train_step(Fed(), tx, loss_fn=losses.cross_entropy))
    batch = batch_of(0, "SimpleCNN")
    later = batch | {"position": batch["position"] + BATCH}

    def loss(seed: int, fed: dict) -> float:
        state = init_state(Fed(), tx, seed=seed, image_shape=(28, 28, 1))
        return float(step(state, fed)[1]["loss"])

    assert loss(0, batch) == loss(0, batch)
    assert len({loss(0, batch), loss(1, batch), loss(0, later)}) == 3
