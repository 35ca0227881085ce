"""LRN against a NumPy loop, TensorFlow and its own properties."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from cnnjax.ops import lrn

CHAPTER = {"depth_radius": 4, "bias": 1.0, "alpha": 0.001 / 9, "beta": 0.75}


def numpy_lrn(
    x: np.ndarray,
    g: np.ndarray,
    depth_radius: int,
    bias: float,
    alpha: float,
    beta: float,
) -> tuple[np.ndarray, np.ndarray]:
    """LRN and its vector-Jacobian product, one channel and one pair at a time."""
    x = x.astype(np.float64)
    channels = x.shape[-1]
    near = [
        range(max(0, c - depth_radius), min(channels, c + depth_radius + 1))
        for c in range(channels)
    ]
    y = np.empty_like(x)
    for c in range(channels):
        y[..., c] = bias + alpha * sum(x[..., j] ** 2 for j in near[c])
    dx = g * y**-beta
    for c in range(channels):
        for j in near[c]:
            slope = -beta * y[..., c] ** (-beta - 1) * 2 * alpha * x[..., j]
            dx[..., j] += g[..., c] * x[..., c] * slope
    return x * y**-beta, dx


def value_and_vjp(
    x: np.ndarray, g: np.ndarray, **arguments: Any
) -> tuple[jax.Array, jax.Array]:
    f = functools.partial(lrn.local_response_normalization, **arguments)

    @jax.jit
    def run(x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        out, vjp = jax.vjp(f, x)
        return out, vjp(g)[0]

    return run(jnp.asarray(x), jnp.asarray(g))


def relative_error(got: Any, want: Any) -> float:
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@settings(max_examples=15, deadline=None)
@given(
    lead=st.lists(st.integers(1, 4), max_size=3),
    channels=st.integers(1, 20),
    depth_radius=st.integers(0, 25),
    bias=st.floats(0.1, 4),
    alpha=st.floats(0, 2),
    beta=st.sampled_from([0.5, 0.75]) | st.floats(0, 2),
    seed=st.integers(0, 2**31),
)
def test_equals_the_loop(
    lead: list[int], channels: int, seed: int, **arguments: Any
) -> None:
    rng = np.random.default_rng(seed)
    x, g = 2 * rng.standard_normal((2, *lead, channels)).astype(np.float32)
    want, want_dx = numpy_lrn(x, g, **arguments)
    got, got_dx = value_and_vjp(x, g, **arguments)
    assert relative_error(got, want) < 1e-5
    assert relative_error(got_dx, want_dx) < 1e-5


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ((2, 12, 12, 64), CHAPTER),
        ((3, 4, 5, 7), {}),
        ((2, 3, 3, 16), {"depth_radius": 2, "bias": 2.0, "alpha": 0.5, "beta": 1.3}),
        ((2, 3, 3, 5), {"depth_radius": 0, "bias": 0.5, "alpha": 2.0, "beta": 0.5}),
        ((2, 3, 3, 5), {"depth_radius": 9, "bias": 1.0, "alpha": 0.1, "beta": 1.0}),
    ],
)
def test_equals_tensorflow(shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    x, g = 3 * rng.standard_normal((2, *shape)).astype(np.float32)
    variable = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(variable)
        want = tf.nn.local_response_normalization(variable, **arguments)
    want_dx = tape.gradient(want, variable, output_gradients=tf.constant(g))
    got, got_dx = value_and_vjp(x, g, **arguments)
    assert relative_error(got, want.numpy()) < 1e-5
    assert relative_error(got_dx, want_dx.numpy()) < 1e-5


def test_gradient_stays_in_the_window() -> None:
    x = np.random.default_rng(0).standard_normal(20).astype(np.float32)
    jacobian = np.asarray(
        jax.jacrev(lambda x: lrn.local_response_normalization(x, 3))(x)
    )
    channel = np.arange(20)
    inside = abs(channel[:, None] - channel) <= 3
    np.testing.assert_array_equal(jacobian != 0, inside)


@pytest.mark.parametrize("beta", [0.5, 0.75, 1.7])
def test_alpha_zero_is_the_identity(beta: float) -> None:
    x = np.random.default_rng(0).standard_normal((4, 9)).astype(np.float32)
    out, dx = value_and_vjp(x, x, alpha=0.0, beta=beta)
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(dx, x)


def test_without_channels_nothing_is_divided() -> None:
    x = np.zeros((2, 0), np.float32)
    assert [part.shape for part in value_and_vjp(x, x)] == [(2, 0), (2, 0)]


@pytest.mark.parametrize("beta", [0.75, 1.7])
def test_transformations_change_nothing(beta: float) -> None:
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 4, 9)).astype(np.float32)
    chapter = CHAPTER | {"alpha": 0.3, "beta": beta}
    f = functools.partial(lrn.local_response_normalization, **chapter)

    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(f(x)))

    plain = np.asarray(f(x)), np.asarray(jax.grad(loss)(jnp.asarray(x)))
    both = jax.vmap(lambda x: (f(x), jax.grad(loss)(x)))
    scanned = jax.lax.scan(lambda _, x: (None, (f(x), jax.grad(loss)(x))), None, x)[1]
    for other in (
        (jax.jit(f)(x), jax.jit(jax.grad(loss))(x)),
        jax.jit(both)(x),
        scanned,
    ):
        for got, want in zip(other, plain, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_float64_agrees_with_finite_differences() -> None:
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 8)))
        f = functools.partial(lrn.local_response_normalization, beta=0.75)
        assert f(x).dtype == jnp.float64
        check_grads(f, (x,), order=2, modes=["rev"])


def test_bfloat16_is_computed_in_float32() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 64)).astype(np.float32)
    x = jnp.asarray(x, jnp.bfloat16)
    out, dx = value_and_vjp(x, x, **CHAPTER)
    wide = np.asarray(x, np.float32)
    want, want_dx = value_and_vjp(wide, wide, **CHAPTER)
    assert out.dtype == dx.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, want.astype(jnp.bfloat16))
    np.testing.assert_array_equal(dx, want_dx.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("x", "arguments", "message"),
    [
        (np.ones((2, 3), np.int32), {}, r"x of int32\[2, 3\], needs float"),
        (np.float32(1), {}, r"x of float32\[\], needs float"),
        (np.ones(3), {"depth_radius": -1}, "depth_radius=-1, need an integer"),
        (np.ones(3), {"depth_radius": 1.5}, "depth_radius=1.5, need an integer"),
        (np.ones(3), {"bias": 0.0}, "bias=0.0, need a finite number above 0"),
        (np.ones(3), {"bias": float("inf")}, "bias=inf, need a finite number"),
        (np.ones(3), {"alpha": float("nan")}, "alpha=nan, need a finite number"),
        (np.ones(3), {"beta": float("inf")}, "beta=inf, need a finite number"),
    ],
)
def test_bad_arguments_are_refused(
    x: np.ndarray, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        lrn.local_response_normalization(jnp.asarray(x), **arguments)
