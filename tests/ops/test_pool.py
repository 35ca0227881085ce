"""Max pooling against Flax's, in value and gradient, ties included."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops.pool import max_pool

Pair = tuple[int, int]


def check_equals_flax(x: jax.Array, window: Pair, strides: Pair, padding: str) -> None:
    def run(pool: Callable[..., jax.Array], x: jax.Array) -> tuple[jax.Array, ...]:
        out, vjp = jax.vjp(lambda x: pool(x, window, strides, padding), x)
        # Small integers: their sums are exact, in bfloat16 too.
        g = jnp.arange(out.size, dtype=jnp.int32) % 31 + 1
        return out, *vjp(g.reshape(out.shape).astype(out.dtype))

    want = jax.jit(run, static_argnums=0)(nn.max_pool, x)
    got = jax.jit(run, static_argnums=0)(max_pool, x)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == x.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("window", "strides", "sizes"),
    [
        ((3, 3), (2, 2), [(24, 24), (12, 12), (7, 5), (3, 4)]),
        ((2, 2), (2, 2), [(28, 28), (7, 7), (5, 4), (2, 3)]),
        ((2, 2), (1, 1), [(5, 6)]),
        ((3, 2), (1, 3), [(5, 8)]),
        ((2, 1), (3, 2), [(7, 6), (8, 5)]),
        ((5, 4), (2, 3), [(11, 9), (6, 7)]),
        ((9, 8), (2, 3), [(11, 9)]),  # of too many values for a plane each
    ],
)
def test_equals_flax(
    window: Pair, strides: Pair, sizes: list[Pair], padding: str
) -> None:
    rng = np.random.default_rng(0)
    for height, width in sizes:
        # Few different values: most windows have ties.
        x = rng.integers(-1, 2, (6, height, width, 3)).astype(np.float32)
        check_equals_flax(jnp.asarray(x), window, strides, padding)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_small_floats_keep_their_dtype(dtype: jnp.dtype) -> None:
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 7, 7, 4)), dtype)
    check_equals_flax(x, (3, 3), (2, 2), "SAME")


@pytest.mark.parametrize("shape", [(0, 6, 6, 2), (3, 6, 6, 0)])
def test_without_pictures_or_channels_there_is_nothing(shape: tuple[int, ...]) -> None:
    def total(x: jax.Array) -> jax.Array:
        return max_pool(x, (3, 3), (2, 2)).sum()

    value, gradient = jax.value_and_grad(total)(jnp.zeros(shape))
    assert value == 0 and gradient.shape == shape


def test_nan_is_not_hidden() -> None:
    x = jnp.zeros((1, 6, 6, 1)).at[0, 3, 3, 0].set(jnp.nan)
    np.testing.assert_array_equal(
        max_pool(x, (3, 3), (2, 2)), nn.max_pool(x, (3, 3), (2, 2), "SAME")
    )


def loss(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sin(max_pool(x, (3, 3), (2, 2))))


def test_transformations_change_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((3, 5, 8, 8, 4)).astype(np.float32)
    run = jax.value_and_grad(loss)
    want = [run(jnp.asarray(images)) for images in x]
    want_loss, want_grad = (np.stack(part) for part in zip(*want, strict=True))
    scanned = jax.lax.scan(lambda _, images: (None, run(images)), None, x)[1]
    for got_loss, got_grad in (jax.jit(jax.vmap(run))(x), scanned):
        np.testing.assert_allclose(got_loss, want_loss, rtol=1e-5)
        np.testing.assert_allclose(got_grad, want_grad, atol=1e-6)


def test_an_unknown_batch_size_is_exported() -> None:
    (batch,) = jax.export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, 8, 8, 2), jnp.float32)
    exported = jax.export.export(jax.jit(jax.grad(loss)))(shape)
    x = np.random.default_rng(0).standard_normal((5, 8, 8, 2)).astype(np.float32)
    want = jax.jit(jax.grad(loss))(x)
    np.testing.assert_allclose(exported.call(x), want, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "dtype", "arguments", "message"),
    [
        ((6, 6, 1), "float32", ((3, 3), (2, 2)), r"\[6, 6, 1\], needs float \[batch"),
        ((1, 6, 6, 1), "int32", ((3, 3), (2, 2)), r"x of int32\[1, 6, 6, 1\], needs"),
        ((1, 6, 6, 1), "float32", ((0, 3), (2, 2)), r"window=\(0, 3\), needs two"),
        ((1, 6, 6, 1), "float32", ((3, 3), (2,)), r"strides=\(2,\), needs two"),
        ((1, 6, 6, 1), "float32", ((3, 3), (2, 2), "same"), "padding='same', needs"),
        ((1, 2, 6, 1), "float32", ((3, 3), (2, 2), "VALID"), "pictures of 2x6, needs"),
        ((1, 0, 6, 1), "float32", ((3, 3), (2, 2)), "pictures of 0x6, needs"),
    ],
)
def test_bad_arguments_are_refused(
    shape: tuple[int, ...], dtype: str, arguments: tuple, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        max_pool(jnp.zeros(shape, dtype), *arguments)
