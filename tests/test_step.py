"""One step on any number of devices, under jit and pmap: the same step."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import losses, prng
from cnnjax.data import augment, load, sampling
from cnnjax.data.dataset import Split
from cnnjax.models import CifarCNN, SimpleCNN
from cnnjax.parallel import Part, Partitioner, make_mesh
from cnnjax.recipe import Recipe, make_recipe
from cnnjax.state import TrainState, init_state
from cnnjax.step import make_train_step

BATCH = 64


class Stock(nn.Module):
    """As Flax's examples are: its statistics and masks are no business of devices."""

    @nn.compact
    def __call__(self, x, train: bool):
        # A bias would have no gradient but roundings, which Adam makes large.
        x = nn.Conv(8, (5, 5), strides=2, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(10, name="logits")(x)


# Network -> (embedded data set, its recipe): the chapter's, and anybody's.
RECIPES: dict[str, tuple[str, Recipe]] = {
    "CifarCNN": (
        "shapes",
        make_recipe(
            CifarCNN(),
            learning_rate=1e-3,
            l2=0.004,
            ema_decay=0.999,
            crop=24,
            distortions=("crop", "flip", "brightness", "contrast"),
        ),
    ),
    "SimpleCNN": (
        "digits",
        make_recipe(SimpleCNN(), learning_rate=1e-4, ema_decay=0.999),
    ),
    "Stock": ("digits", make_recipe(Stock(), l1=1e-3, l2=0.01, ema_decay=0.999)),
}


@functools.cache
def pictures(name: str) -> Split:
    return load.load_embedded(RECIPES[name][0]).train


def start(name: str, recipe: Recipe) -> TrainState:
    return init_state(recipe, pictures(name).images.shape[1:], seed=0)


def batch_of(step: int, name: str = "CifarCNN") -> dict[str, np.ndarray]:
    split, how = pictures(name), RECIPES[name][1].preprocessing
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


def compiled_for(recipe: Recipe, num_devices: int, mode: str = "jit", **options):
    partitioner = Partitioner(make_mesh(num_devices), mode)
    step = make_train_step(recipe, partitioner.axis_name)
    parts = (Part.STATE, Part.TRAINING_BATCH)
    return partitioner.compile(step, *parts, **options), partitioner


def run(name: str, num_devices: int, mode: str, num_steps: int):
    recipe = RECIPES[name][1]
    compiled, partitioner = compiled_for(recipe, num_devices, mode, donate=True)
    state, found = partitioner.replicate(start(name, recipe)), []
    for number in range(num_steps):
        batch = partitioner.put_batch(batch_of(number, name))
        state, metrics = compiled(state, batch)
        found.append(jax.device_get(metrics))
    if mode == "jit":
        assert compiled._cache_size() == 1, "compiled once, whatever the step"
    return jax.device_get(state), found


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        return nn.Dense(10, use_bias=False, name="logits")(x.reshape(len(x), -1))


def test_the_metrics_by_hand() -> None:
    """All of the parameters before the update, and of the examples of the mask.

    The norm is of the cross-entropy's gradient alone, and not of the update.
    """
    recipe = make_recipe(
        Linear(), optimizer="momentum", learning_rate=0.02, l1=0.01, l2=0.1
    )
    state = init_state(recipe, (4, 4, 1), seed=0)
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(6, 4, 4, 1)), rng.integers(0, 10, 6)
    likeliest = np.argmax(x.reshape(6, -1) @ state.params["logits"]["kernel"], axis=1)
    label[1:] = [*likeliest[1:3], *(likeliest[3:5] + 1) % 10, likeliest[5]]
    mask = np.array([1, 1, 1, 1, 0, 1], np.float32)
    batch = {
        "image": x.astype(np.float32),
        "label": label.astype(np.int32),
        "mask": mask,
        "position": np.arange(6, dtype=np.uint32),
    }
    step = jax.jit(make_train_step(recipe))
    for _ in range(2):  # the second update has a velocity too
        kernel = np.asarray(state.params["logits"]["kernel"], np.float64)
        state, metrics = step(state, batch)
        powers = np.exp(x.reshape(6, -1) @ kernel)
        softmax = powers / powers.sum(axis=1, keepdims=True)
        wrong = softmax - np.eye(10)[label]
        gradient = x.reshape(6, -1).T @ (wrong * mask[:, None]) / mask.sum()
        loss = np.average(-np.log(softmax[np.arange(6), label]), weights=mask)
        l2 = 0.1 * np.sum(kernel**2) / 2
        expected = {
            "loss": loss + l2 + 0.01 * np.sum(np.abs(kernel)),
            "cross_entropy": loss,
            "l2": l2,
            "accuracy": np.average(softmax.argmax(axis=1) == label, weights=mask),
            "grad_norm": np.sqrt(np.sum(gradient**2)),
        }
        assert 0 < expected["accuracy"] < 1 and metrics.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)


@pytest.fixture(scope="module", params=RECIPES)
def reference(request):
    return request.param, *run(request.param, 1, "jit", 5)


@pytest.mark.parametrize(
    ("num_devices", "mode"),
    [pytest.param(2, "jit", marks=pytest.mark.slow), (4, "pmap"), (8, "jit")],
)
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
    assert (state.collections is None) == (name != "Stock")
    for statistics in ("collections", "ema_collections"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            getattr(other, statistics),
            getattr(state, statistics),
        )


def test_the_same_devices_give_the_same_bytes() -> None:
    first, _ = run("CifarCNN", 2, "jit", 3)
    second, _ = run("CifarCNN", 2, "jit", 3)
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.fixture(scope="module")
def gradient():
    """A recipe whose update is minus the gradient; a state, a batch, the gradient."""
    recipe = make_recipe(CifarCNN(), optimizer="sgd", learning_rate=1.0, crop=24)
    state, batch = start("CifarCNN", recipe), batch_of(0)

    def mean_loss(params):
        logits = recipe.model.apply({"params": params}, batch["image"])
        return jnp.mean(losses.cross_entropy(logits, batch["label"]))

    return recipe, state, batch, jax.jit(jax.grad(mean_loss))(state.params)


@pytest.mark.parametrize("num_devices", [2, 8])
def test_gradients_are_summed_once(gradient, num_devices: int) -> None:
    """After one SGD step the update is minus the gradient: 1e-5 a leaf."""
    recipe, state, batch, expected = gradient
    compiled, partitioner = compiled_for(recipe, num_devices)
    after, _ = compiled(partitioner.replicate(state), partitioner.put_batch(batch))

    def check(before, updated, gradient):
        error = np.linalg.norm((before - updated) - gradient)
        # The parameter itself is rounded too: an absolute floor of its last bits.
        floor = 1e-7 * np.linalg.norm(before)
        assert error <= 1e-5 * np.linalg.norm(gradient) + floor

    jax.tree.map(check, state.params, jax.device_get(after.params), expected)


@pytest.mark.parametrize("num_devices", [1, 2])
def test_the_mask_leaves_examples_out(num_devices: int) -> None:
    """Also where one device has more of them than another."""
    recipe = make_recipe(CifarCNN(), optimizer="sgd", learning_rate=0.1, crop=24)
    state = start("CifarCNN", recipe)
    batch = batch_of(0)
    batch["mask"][20:] = 0
    part = {name: values[:20] for name, values in batch.items()}
    compiled, partitioner = compiled_for(recipe, num_devices)
    masked, metrics = jax.device_get(
        compiled(partitioner.replicate(state), partitioner.put_batch(batch))
    )
    alone, expected = jax.jit(make_train_step(recipe))(state, part)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        (masked.params, metrics),
        (alone.params, expected),
    )


def test_the_average_follows_the_parameters() -> None:
    recipe = RECIPES["CifarCNN"][1]
    state = start("CifarCNN", recipe)
    after: TrainState
    after, _ = jax.jit(make_train_step(recipe))(state, batch_of(0))
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
            if dropout_keys is None:
                return jnp.zeros((len(images), 10))
            return draw(dropout_keys)

    recipe = make_recipe(Fed(), optimizer="sgd", learning_rate=0.1)
    step = jax.jit(make_train_step(recipe))
    batch = batch_of(0, "SimpleCNN")
    later = batch | {"position": batch["position"] + BATCH}

    def loss(seed: int, fed: dict) -> float:
        state = init_state(recipe, (28, 28, 1), seed=seed)
        return float(step(state, fed)[1]["loss"])

    assert loss(0, batch) == loss(0, batch)
    assert len({loss(0, batch), loss(1, batch), loss(0, later)}) == 3
    keys = prng.at_positions(prng.from_seed(1, prng.DROPOUT), later["position"])
    logits = jax.vmap(lambda key: jax.random.uniform(key, (10,)))(keys)
    expected = jnp.mean(losses.cross_entropy(logits, batch["label"]))
    np.testing.assert_allclose(loss(1, later), expected, rtol=1e-6)
