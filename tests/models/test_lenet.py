from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.models import summary
from cnnjax.models.lenet import (
    TARGETS,
    LeNet5,
    PartialConv,
    SubSampling,
    rbf,
    rejection_cross_entropy,
    squash,
)

FLOAT32 = jnp.dtype(jnp.float32)

# The paper's Table 1 in words (sec. II.B): the first six maps of C3 see three
# neighbouring maps of S2, the next six four neighbours, three see four that are not
# neighbours, and the last one sees all.
SEEN = [
    *({i, (i + 1) % 6, (i + 2) % 6} for i in range(6)),
    *({i, (i + 1) % 6, (i + 2) % 6, (i + 3) % 6} for i in range(6)),
    *({0, 1, 3, 4}, {1, 2, 4, 5}, {0, 2, 3, 5}),
    {0, 1, 2, 3, 4, 5},
]


@partial(jax.jit, static_argnums=0)
def init(model: LeNet5, key: jax.Array) -> dict:
    return model.init(key, jnp.zeros((1, 28, 28, 1)))["params"]


def sizes(model: LeNet5) -> dict[str, int]:
    params = jax.eval_shape(partial(init, model), jax.random.key(0))
    return {
        name: sum(leaf.size for leaf in layer.values())
        for name, layer in params.items()
    }


@pytest.fixture(scope="module")
def params() -> dict:
    return init(LeNet5(), jax.random.key(0))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.random((4, 28, 28, 1), np.float32)


def test_parameters_of_1998() -> None:
    counted = sizes(LeNet5())
    assert counted == {
        "C1": 156,
        "S2": 12,
        "C3": 1_516,
        "S4": 32,
        "C5": 48_120,
        "F6": 10_164,
    }
    assert sum(counted.values()) == 60_000


def test_parameters_of_the_modern_variant() -> None:
    assert sizes(LeNet5(variant="modern")) == {
        "C1": 156,
        "C3": 5 * 5 * 6 * 16 + 16,
        "C5": 48_120,
        "F6": 10_164,
        "logits": 84 * 10 + 10,
    }


def test_initial_weights_are_uniform_in_the_paper_s_bounds(params: dict) -> None:
    fan_ins = {"C1": 25, "S2": 4, "S4": 4, "C5": 400, "F6": 120}
    for name, fan_in in fan_ins.items():
        for leaf in params[name].values():
            assert np.abs(leaf).max() <= 2.4 / fan_in
    for name in ("C5", "F6"):
        std = 2.4 / fan_ins[name] / np.sqrt(3)
        np.testing.assert_allclose(np.std(params[name]["kernel"]), std, rtol=0.02)
    # The dense kernel of C3, from its response to an impulse: [..., in, map].
    impulses = np.zeros((6, 9, 9, 6), np.float32)
    impulses[np.arange(6), 4, 4, np.arange(6)] = 1
    c3 = params["C3"] | {"bias": jnp.zeros(16)}
    responses = PartialConv(FLOAT32).apply({"params": c3}, impulses)
    largest = np.abs(responses).max(axis=(1, 2))
    for map_, seen in enumerate(SEEN):
        bound = 2.4 / (25 * len(seen))
        assert 0.8 * bound < largest[list(seen), map_].min()
        assert largest[:, map_].max() <= bound


def test_c3_sees_only_its_connections(key: jax.Array) -> None:
    """The gradient of map m of C3 with respect to map i of S2 is not zero iff i in m.

    It is taken through the whole layer, at random parameters and inputs, so that a
    connection too many or too few in the scattered kernel would show.
    """
    c3 = PartialConv(FLOAT32)
    x = jax.random.normal(key, (1, 14, 14, 6))
    variables = c3.init(key, x)
    jacobian = jax.jacrev(lambda x: c3.apply(variables, x).sum((0, 1, 2)))(x)

    sees = np.any(np.asarray(jacobian) != 0, axis=(1, 2, 3))
    expected = [[i in seen for i in range(6)] for seen in SEEN]
    np.testing.assert_array_equal(sees, expected)
    assert sees.sum() == 60


def test_sub_sampling_equals_a_loop(key: jax.Array, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 4, 6, 3), np.float32)
    layer = SubSampling(FLOAT32)
    params = layer.init(key, x)["params"]

    expected = np.empty((2, 2, 3, 3))
    for n, i, j, c in np.ndindex(expected.shape):
        total = sum(x[n, 2 * i + a, 2 * j + b, c] for a in (0, 1) for b in (0, 1))
        activation = params["coefficient"][c] * total + params["bias"][c]
        expected[n, i, j, c] = 1.7159 * np.tanh(2 / 3 * activation)
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, rtol=1e-5)


def test_squash_keeps_the_targets() -> None:
    """F(1) = 1 and f(-1) = -1, to the digits that the paper gives; A = 1.7159."""
    x = jnp.array([1.0, -1.0, 100.0, 0.0])
    np.testing.assert_allclose(squash(x), [1, -1, 1.7159, 0], atol=2e-5)


def test_targets_are_ten_different_bitmaps() -> None:
    assert TARGETS.shape == (10, 12 * 7)
    assert set(np.unique(TARGETS)) == {-1, 1}
    differences = (TARGETS[:, None] != TARGETS[None]).sum(axis=-1)
    assert differences[~np.eye(10, dtype=bool)].min() >= 12


def test_rbf_equals_numpy(rng: np.random.Generator) -> None:
    features = rng.standard_normal((3, 84), np.float32)
    expected = [[np.linalg.norm(f - t) ** 2 for t in TARGETS] for f in features]
    np.testing.assert_allclose(
        rbf(jnp.asarray(features), jnp.asarray(TARGETS)), expected, rtol=1e-5
    )


def test_logits_of_1998_are_distances_to_the_bitmaps(
    params: dict, images: np.ndarray
) -> None:
    """With no weights F6 is squash(bias): a bitmap as bias is a perfect digit."""
    params = jax.tree.map(jnp.zeros_like, params)
    params["F6"]["bias"] = jnp.asarray(TARGETS[3])
    logits = jax.jit(LeNet5().apply)({"params": params}, images)

    expected = -np.square(TARGETS - TARGETS[3]).sum(axis=1)
    np.testing.assert_allclose(logits, np.tile(expected, (4, 1)), rtol=1e-4, atol=1e-4)


def test_images_become_32x32_with_the_paper_s_grey_levels(params: dict) -> None:
    """C1 sees background -0.1 and ink 1.175, and four more rows and columns."""
    images = jnp.zeros((1, 28, 28, 1)).at[0, 0, 0, 0].set(1)
    _, seen = LeNet5().apply(
        {"params": params}, images, capture_intermediates=True, mutable="intermediates"
    )
    c1 = seen["intermediates"]["C1"]["__call__"][0]

    assert c1.shape == (1, 28, 28, 6)
    kernel, bias = params["C1"]["kernel"], params["C1"]["bias"]
    background = -0.1 * kernel.sum((0, 1, 2)) + bias
    np.testing.assert_allclose(c1[0, -1, -1], background, rtol=1e-5, atol=1e-6)
    # The corner pixel of the image is the centre of the first window.
    np.testing.assert_allclose(
        c1[0, 0, 0], background + 1.275 * kernel[2, 2, 0], rtol=1e-5, atol=1e-6
    )


def test_rejection_cross_entropy_by_hand() -> None:
    # Distances ln 2 and ln 4 and j = ln 8: the sum is 1/2 + 1/4 + 1/8 = 7/8.
    logits = -jnp.log(jnp.array([[2.0, 4.0], [2.0, 4.0]]))
    loss = rejection_cross_entropy(logits, jnp.array([0, 1]), float(np.log(8)))
    np.testing.assert_allclose(loss, np.log([7 / 4, 7 / 2]), rtol=1e-6)


def test_rejection_cross_entropy_is_stable_and_stops_pushing() -> None:
    """Equation 9 as printed overflows here: exp(-1000) is 0 and its logarithm -inf."""
    logits = jnp.array([[-1000.0, -1200.0]])
    labels = jnp.array([0])
    loss, gradient = jax.value_and_grad(
        lambda logits: rejection_cross_entropy(logits, labels, 10.0).sum()
    )(logits)
    np.testing.assert_allclose(loss, 990, rtol=1e-6)
    np.testing.assert_array_equal(gradient, [[-1, 0]])


@pytest.mark.parametrize("variant", ["1998", "modern"])
def test_half_precision_stores_and_returns_float32(
    images: np.ndarray, variant: str
) -> None:
    half = LeNet5(dtype=jnp.dtype(jnp.bfloat16), variant=variant)
    params = jax.eval_shape(partial(init, half), jax.random.key(0))
    logits = jax.eval_shape(half.apply, {"params": params}, images)

    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {FLOAT32}
    assert (logits.shape, logits.dtype) == ((4, 10), FLOAT32)


def test_half_precision_is_the_same_network(params: dict, images: np.ndarray) -> None:
    half = LeNet5(dtype=jnp.dtype(jnp.bfloat16))
    got = jax.jit(half.apply)({"params": params}, images)
    want = jax.jit(LeNet5().apply)({"params": params}, images)

    # bfloat16 has 8 bits: far from float32's 1e-7.
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    assert 1e-5 < error < 3e-2


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (
            LeNet5(),
            (2, 28, 28, 3),
            r"got images of shape .*, need \[batch, 28, 28, 1\]",
        ),
        (
            LeNet5(variant="2024"),
            (2, 28, 28, 1),
            "got variant='2024', need one of 1998",
        ),
        (LeNet5(num_classes=47), (2, 28, 28, 1), "num_classes=47, need at most 10"),
    ],
)
def test_bad_input(
    key: jax.Array, model: LeNet5, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model.init(key, jnp.zeros(shape))


@pytest.mark.parametrize("variant", ["1998", "modern"])
def test_multiply_adds_are_the_paper_s_connections(variant: str) -> None:
    """Section II.B counts connections with one for each unit's bias."""
    found = {
        layer.name: layer.multiply_adds
        for layer in summary.layers(LeNet5(variant=variant), (28, 28, 1))
    }
    assert found["C1"] + 28 * 28 * 6 == 122_304
    assert found["C5"] + 120 == 48_120
    assert found["F6"] + 84 == 10_164
    if variant == "1998":
        assert found["C3"] + 10 * 10 * 16 == 151_600
        # The paper counts a unit's four inputs, which share one multiplication.
        assert 4 * found["S2"] + 14 * 14 * 6 == 5_880
        assert 4 * found["S4"] + 5 * 5 * 16 == 2_000
