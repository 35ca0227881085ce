"""Stock networks: masks by example, and statistics of the global batch."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from cnnjax import prng
from cnnjax.models import MLP, MODELS, SimpleCNN
from cnnjax.models.forward import forward, init_variables, intermediates
from cnnjax.parallel import AXIS, make_mesh

BATCH, SHAPE = 8, (8, 8, 3)
CUT, WHOLE = PartitionSpec(AXIS), PartitionSpec()


class Stock(nn.Module):
    """As Flax's examples write it."""

    rate: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for features in (8, 12, 16):
            x = nn.Conv(features, (3, 3), use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        return nn.Dense(10, name="logits")(x)


@partial(jax.jit, static_argnums=(0, 2))
def init(model: nn.Module, key: jax.Array, shape: tuple[int, int, int] = SHAPE) -> dict:
    return init_variables(model, key, shape)


@pytest.fixture(scope="module")
def variables() -> dict:
    """Of `Stock`; no value is one that a new network has."""
    random = np.random.default_rng(0)

    def moved(leaf: jax.Array) -> jax.Array:
        return leaf + jnp.asarray(random.uniform(0.05, 0.3, leaf.shape), jnp.float32)

    return jax.tree.map(moved, init(Stock(), jax.random.key(0)))


@pytest.fixture(scope="module")
def images() -> jax.Array:
    """Whose mean and deviation differ from one to the next."""
    scale = jnp.arange(1.0, BATCH + 1).reshape(-1, 1, 1, 1)
    return (jax.random.normal(jax.random.key(1), (BATCH, *SHAPE)) + 1) * scale / 4


def keys_at(first: int, count: int = BATCH) -> jax.Array:
    positions = jnp.arange(first, first + count, dtype=jnp.uint32)
    return prng.at_positions(prng.from_seed(0, prng.DROPOUT), positions)


def assert_close(found, expected, atol=1e-6) -> None:
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-6, atol=atol), found, expected
    )


@pytest.mark.parametrize("name", ["CifarCNN", "SimpleCNN", "MLP", "LeNet5"])
def test_logits_are_not_rounded_to_the_bits_of_the_computation(name: str) -> None:
    """In bfloat16 several classes would have the same score, and none be right."""
    model = MODELS[name](num_classes=10, dtype=jnp.dtype(jnp.bfloat16))
    shape = (24, 24, 3) if name == "CifarCNN" else (28, 28, 1)
    images = jax.random.uniform(jax.random.key(0), (4, *shape))
    made = jax.tree.map(lambda leaf: leaf + 0.01, init(model, jax.random.key(1), shape))
    logits = jax.jit(lambda images: forward(model, made, images)[0])(images)
    assert logits.dtype == jnp.float32
    assert np.any(logits != logits.astype(jnp.bfloat16))


def test_a_stock_network_is_called_by_its_arguments(variables, images) -> None:
    assert variables.keys() == {"params", "batch_stats"}
    logits, own = forward(Stock(), variables, images)
    plain = Stock().apply(variables, images, train=False)
    np.testing.assert_array_equal(logits, plain)
    assert own.keys() == {"batch_stats"}
    jax.tree.map(
        np.testing.assert_array_equal, own["batch_stats"], variables["batch_stats"]
    )


def test_in_training_it_does_what_flax_does(variables, images) -> None:
    without_dropout = Stock(rate=0.0)
    logits, own = forward(without_dropout, variables, images, keys_at(0))
    plain, changed = without_dropout.apply(
        variables, images, train=True, mutable=["batch_stats"]
    )
    np.testing.assert_array_equal(logits, plain)
    jax.tree.map(np.testing.assert_array_equal, own, dict(changed))
    before = jax.tree.leaves(variables["batch_stats"])
    after = jax.tree.leaves(own["batch_stats"])
    assert all(np.any(a != b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("model", [SimpleCNN(), MLP()])
def test_the_chapter_s_networks_get_their_keys(key, model) -> None:
    variables = init(model, key, (28, 28, 1))
    # The logits of the MLP begin at zero.
    variables = jax.tree.map(lambda leaf: leaf + 0.01, variables)
    digits = jax.random.uniform(key, (BATCH, 28, 28, 1))
    for keys in (None, keys_at(0)):
        logits, own = forward(model, variables, digits, keys)
        plain = model.apply(variables, digits, dropout_keys=keys)
        np.testing.assert_array_equal(logits, plain)
        assert own == {}
    assert np.any(forward(model, variables, digits)[0] != logits)


def test_a_network_that_takes_images_only(key, images) -> None:
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array) -> jax.Array:
            return nn.Dense(3)(images.reshape(len(images), -1))

    variables = init(Plain(), key)
    expected = Plain().apply(variables, images)
    for keys in (None, keys_at(0)):
        np.testing.assert_array_equal(
            forward(Plain(), variables, images, keys)[0], expected
        )


def test_intermediates_are_named_and_in_the_order_of_the_calls(
    variables, images
) -> None:
    found = intermediates(Stock(), variables, images)
    layers = [f"{kind}_{i}" for i in range(3) for kind in ("Conv", "BatchNorm")]
    assert list(found) == [*layers, "Dropout_0", "logits"]
    logits = Stock().apply(variables, images, train=False)
    np.testing.assert_array_equal(found["logits"], logits)
    kernel = variables["params"]["Conv_0"]
    first = nn.Conv(8, (3, 3), use_bias=False).apply({"params": kernel}, images)
    np.testing.assert_array_equal(found["Conv_0"], first)


class Drop(nn.Module):
    """Dropout and nothing else."""

    rate: float = 0.25
    broadcast_dims: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        drop = nn.Dropout(self.rate, self.broadcast_dims, deterministic=not train)
        return drop(x)


def dropped(model: nn.Module, x: jax.Array, keys: jax.Array | None) -> np.ndarray:
    return np.asarray(forward(model, {}, x, keys)[0])


def test_a_mask_belongs_to_its_example() -> None:
    x, keys = jnp.ones((BATCH, 4, 5, 6)), keys_at(0)
    whole = dropped(Drop(), x, keys)
    assert len(np.unique(whole.reshape(BATCH, -1), axis=0)) == BATCH
    order = np.random.default_rng(0).permutation(BATCH)
    np.testing.assert_array_equal(dropped(Drop(), x[order], keys[order]), whole[order])
    parts = [dropped(Drop(), x[i : i + 2], keys[i : i + 2]) for i in range(0, BATCH, 2)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    later = dropped(Drop(), x, keys_at(3))
    np.testing.assert_array_equal(later[:-3], whole[3:])
    np.testing.assert_array_equal(dropped(Drop(), x, None), x)


def test_a_stock_network_s_masks_belong_to_their_examples(images) -> None:
    """With the statistics fixed nothing else joins the examples of a batch."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            x = nn.Conv(8, (3, 3))(x)
            x = nn.relu(nn.BatchNorm(use_running_average=True)(x)).mean((1, 2))
            x = nn.Dropout(0.5, deterministic=not train)(x)
            return nn.Dense(10)(x)

    variables = init(Net(), jax.random.key(0))
    keys, call = keys_at(0), jax.jit(partial(forward, Net()))
    whole, _ = call(variables, images, keys)
    order = np.random.default_rng(0).permutation(BATCH)
    shuffled, _ = call(variables, images[order], keys[order])
    assert_close(shuffled, whole[order])
    half, _ = call(variables, images[4:], keys[4:])
    assert_close(half, whole[4:])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_scale(rate: float) -> None:
    size = 20_000
    found = dropped(Drop(rate), jnp.ones((BATCH, size)), keys_at(0))
    kept = found != 0
    np.testing.assert_allclose(found[kept], 1 / (1 - rate), rtol=1e-6)
    # Four standard deviations of the mean of so many Bernoulli draws.
    tolerance = 4 * np.sqrt(rate * (1 - rate) / kept.size)
    assert abs(kept.mean() - (1 - rate)) < tolerance
    np.testing.assert_allclose(found.mean(), 1, atol=tolerance / (1 - rate))


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_rate_of_none_and_of_all(rate: float) -> None:
    x = jnp.ones((BATCH, 30))
    np.testing.assert_array_equal(dropped(Drop(rate), x, keys_at(0)), x * (1 - rate))


@pytest.mark.parametrize("dims", [(1, 2), (3,), (-1,), (1, -2)])
def test_broadcast_dims_share_a_mask(dims: tuple[int, ...]) -> None:
    x = jnp.ones((BATCH, 5, 6, 70))
    found = dropped(Drop(0.5, dims), x, keys_at(0))
    one = np.take(found, [0], axis=dims[0])
    for axis in dims:
        one = np.take(one, [0], axis=axis)
    np.testing.assert_array_equal(found, np.broadcast_to(one, found.shape))
    flat = one.reshape(BATCH, -1)
    assert len(np.unique(flat, axis=0)) == BATCH
    assert 0.35 < (flat == 0).mean() < 0.65
    whole = dropped(Drop(0.5, dims), x[3:5], keys_at(3, 2))
    np.testing.assert_array_equal(whole, found[3:5])


class Twice(nn.Module):
    """Masks of ones: one module called twice, and another."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        once, other = nn.Dropout(0.5), nn.Dropout(0.5)
        deterministic = not train
        calls = [
            once(x, deterministic),
            once(x, deterministic=deterministic),
            other(inputs=x, deterministic=deterministic),
        ]
        return jnp.stack(calls, axis=1)


def test_every_call_draws_a_mask_of_its_own() -> None:
    x = jnp.ones((BATCH, 100))
    masks = dropped(Twice(), x, keys_at(0)) != 0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        agree = (masks[:, i] == masks[:, j]).mean()
        assert 0.4 < agree < 0.6, "as coins do"
    # And the same ones every time, compiled or not.
    again = jax.jit(lambda x: forward(Twice(), {}, x, keys_at(0))[0])(x)
    np.testing.assert_array_equal(again != 0, masks)


def test_every_turn_of_a_scan_draws_masks_of_its_own() -> None:
    class Turn(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            return x, nn.Dropout(0.5, deterministic=False)(x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            turns = nn.scan(Turn, split_rngs={"dropout": True}, length=3)
            return turns()(x, None)[1].swapaxes(0, 1)

    masks = dropped(Net(), jnp.ones((BATCH, 100)), keys_at(0)) != 0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert 0.4 < (masks[:, i] == masks[:, j]).mean() < 0.6, "as coins do"
    half = dropped(Net(), jnp.ones((2, 100)), keys_at(3, 2)) != 0
    np.testing.assert_array_equal(half, masks[3:5])


def test_what_is_drawn_for_the_whole_batch_is_the_same_on_every_device(key) -> None:
    """As attention draws its masks: from Flax's key, not by `nn.Dropout`."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            return x * jax.random.uniform(self.make_rng("dropout"), x.shape[1:])[None]

    x = jnp.ones((BATCH, 50))
    whole, _ = forward(Net(), {}, x, keys_at(0), key=key)
    part, _ = forward(Net(), {}, x[4:], keys_at(4, 4), key=key)
    np.testing.assert_array_equal(part, whole[4:])
    later, _ = forward(Net(), {}, x, keys_at(0), key=jax.random.fold_in(key, 1))
    assert np.all(np.any(later != whole, axis=1))


def test_a_dropout_with_a_key_of_its_own_or_off_the_batch_is_left_alone(key) -> None:
    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            drop = nn.Dropout(0.5, deterministic=not train)
            weights = drop(jnp.ones(x.shape[1:]))  # its first axis is not the batch
            return jnp.stack([drop(x, rng=key), x * weights[None]], axis=1)

    x = jnp.ones((BATCH, 50))
    found = dropped(Odd(), x, keys_at(0))
    plain = nn.Dropout(0.5, deterministic=False).apply({}, x, rng=key)
    np.testing.assert_array_equal(found[:, 0], plain)
    assert len(np.unique(found[:, 1], axis=0)) == 1
    assert set(np.unique(found[:, 1])) == {0, 2}


def on_devices(count: int, model: nn.Module, variables, images, keys):
    """Returns what `forward` does on so many devices, which share the batch."""
    mapped = jax.shard_map(
        partial(forward, model, axis_name=AXIS),
        mesh=make_mesh(count),
        in_specs=(WHOLE, CUT, CUT),
        out_specs=(CUT, WHOLE),
        check_vma=False,
    )
    return jax.jit(mapped)(variables, images, keys)


def worst_error(found, expected) -> float:
    """Returns the largest relative error of an array, by its norm."""
    errors = jax.tree.map(
        lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b), found, expected
    )
    return max(jax.tree.leaves(errors))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_statistics_are_of_the_global_batch(count: int, variables, images) -> None:
    expected = jax.jit(partial(forward, Stock()))(variables, images, keys_at(0))
    found = on_devices(count, Stock(), variables, images, keys_at(0))
    assert worst_error(found, expected) < 1e-6


@pytest.mark.parametrize("count", [1, 2, 4])
def test_statistics_are_numpy_s(count: int, images) -> None:
    class Norm(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            norm = nn.BatchNorm(momentum=0.7, epsilon=1e-3, name="norm")
            return norm(x, use_running_average=not train)

    scale, bias = np.float32([[2, 0.5, 1], [-1, 0, 3]])
    mean, var = np.float32([[0.1, -0.2, 0.3], [0.5, 1.5, 2]])
    variables = {
        "params": {"norm": {"scale": scale, "bias": bias}},
        "batch_stats": {"norm": {"mean": mean, "var": var}},
    }
    found, own = on_devices(count, Norm(), variables, images, keys_at(0))
    x = np.asarray(images, np.float64)
    batch_mean, batch_var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    expected = (x - batch_mean) / np.sqrt(batch_var + 1e-3) * scale + bias
    np.testing.assert_allclose(found, expected, atol=1e-5)
    running = {
        "mean": 0.7 * mean + 0.3 * batch_mean,
        "var": 0.7 * var + 0.3 * batch_var,
    }
    assert_close(own["batch_stats"]["norm"], running)

    evaluated, unchanged = forward(Norm(), variables, images)
    expected = (x - mean) / np.sqrt(var + 1e-3) * scale + bias
    np.testing.assert_allclose(evaluated, expected, atol=1e-5)
    assert unchanged == {"batch_stats": variables["batch_stats"]}


def test_statistics_of_parts_would_be_others(variables, images) -> None:
    """Else the tests above would show nothing."""
    whole, _ = forward(Stock(), variables, images, keys_at(0))
    half, _ = forward(Stock(), variables, images[:4], keys_at(0, 4))
    assert np.abs(half - whole[:4]).max() > 0.01


@pytest.mark.parametrize("mapped_by", ["shard_map", "pmap"])
@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_gradients_are_those_of_one_device(
    count: int, mapped_by: str, variables, images
) -> None:
    weights = jax.random.normal(jax.random.key(2), (BATCH, 10))
    own = {"batch_stats": variables["batch_stats"]}

    def gradients(params, images, weights, keys, axis_name=None):
        def loss(params, images):
            both = {"params": params, **own}
            logits, _ = forward(Stock(), both, images, keys, axis_name)
            return jnp.sum(logits * weights)

        of_params, of_images = jax.grad(loss, argnums=(0, 1))(params, images)
        if axis_name is not None:
            of_params = jax.lax.psum(of_params, axis_name)
        return of_params, of_images

    arguments = (variables["params"], images, weights, keys_at(0))
    expected = jax.jit(gradients)(*arguments)
    share = partial(gradients, axis_name=AXIS)
    if mapped_by == "shard_map":
        mapped = jax.shard_map(
            share,
            mesh=make_mesh(count),
            in_specs=(WHOLE, CUT, CUT, CUT),
            out_specs=(WHOLE, CUT),
            check_vma=False,
        )
        found = jax.jit(mapped)(*arguments)
    else:
        params, *rest = arguments
        cut = [array.reshape(count, -1, *array.shape[1:]) for array in rest]
        mapped = jax.pmap(share, AXIS, in_axes=(None, 0, 0, 0), out_axes=(None, 0))
        of_params, of_images = mapped(params, *cut)
        found = of_params, of_images.reshape(images.shape)
    assert worst_error(found, expected) < 1e-5


def test_other_ways_to_write_batch_norm(images) -> None:
    """Shared, without parameters, over another axis, and of groups of devices."""

    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            shared = nn.BatchNorm(use_running_average=not train)
            x = shared(x) + shared(2 * x)
            bare = nn.BatchNorm(
                use_running_average=not train, use_scale=False, use_bias=False
            )
            rows = nn.BatchNorm(use_running_average=not train, axis=1)
            return bare(x) + rows(x)

    class Pairs(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            # It says itself what it wants, which is left as it is.
            groups = [[0, 1], [2, 3]]
            norm = nn.BatchNorm(axis_name=AXIS, axis_index_groups=groups)
            return norm(x, use_running_average=not train)

    variables = init(Odd(), jax.random.key(0))
    expected = forward(Odd(), variables, images, keys_at(0))
    assert_close(on_devices(4, Odd(), variables, images, keys_at(0)), expected, 5e-6)

    variables = init(Pairs(), jax.random.key(0))
    found, _ = on_devices(4, Pairs(), variables, images, keys_at(0))
    x = np.asarray(images, np.float64).reshape(2, 4, *SHAPE)
    mean, var = (f(x, (1, 2, 3), keepdims=True) for f in (np.mean, np.var))
    expected = ((x - mean) / np.sqrt(var + 1e-5)).reshape(images.shape)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_axis_that_a_module_names_is_not_looked_for(images) -> None:
    """As Flax's ImageNet example, which trains under a `pmap` of its own."""

    class Named(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            return nn.BatchNorm(use_running_average=not train, axis_name="theirs")(x)

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            return nn.BatchNorm(use_running_average=not train)(x)

    variables = init(Named(), jax.random.key(0))
    expected = forward(Plain(), variables, images, keys_at(0))
    for found in (
        forward(Named(), variables, images, keys_at(0)),
        on_devices(4, Named(), variables, images, keys_at(0)),
    ):
        assert worst_error(found, expected) < 1e-6
    evaluated, _ = forward(Named(), variables, images)
    np.testing.assert_array_equal(evaluated, forward(Plain(), variables, images)[0])
