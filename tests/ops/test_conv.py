"""The convolution against NumPy in float64, and its speed inside a scan."""

import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops import winograd
from cnnjax.ops.conv import CACHE_BYTES, conv

Arrays = tuple[Any, Any, Any]

CONV2 = ((16, 12, 12, 64), (5, 5, 64, 64), "SAME")
CONV1 = ((7, 24, 24, 3), (5, 5, 3, 64), "SAME")
WINOGRAD = [
    CONV2,
    ((25, 14, 14, 32), (5, 5, 32, 64), "SAME"),
    ((12, 11, 15, 33), (5, 5, 33, 40), "SAME"),
    ((37, 12, 12, 32), (5, 5, 32, 32), "SAME"),  # chunks of 13, the last from 24 on
]
LIBRARY = [
    CONV1,
    ((11, 24, 24, 3), (5, 5, 3, 64), "SAME"),  # two chunks of four and one of three
    ((5, 9, 8, 4), (3, 1, 4, 6), "SAME"),
    ((5, 7, 6, 2), (2, 4, 2, 3), "SAME"),
    ((5, 28, 28, 1), (5, 5, 1, 6), "VALID"),
    ((5, 12, 12, 6), (5, 5, 6, 16), "VALID"),
    ((5, 12, 12, 32), (5, 5, 32, 32), "VALID"),
    ((5, 6, 4, 2), (6, 3, 2, 3), "VALID"),
    ((5, 3, 4, 2), (2, 4, 2, 3), "VALID"),
]


def inputs(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], padding: str):
    rng = np.random.default_rng(0)
    less = np.array(kernel_shape[:2]) - 1 if padding == "VALID" else np.zeros(2, int)
    size = np.array(x_shape[1:3]) - less
    g_shape = (x_shape[0], *size, kernel_shape[3])
    return [
        rng.standard_normal(shape).astype(np.float32)
        for shape in (x_shape, kernel_shape, g_shape)
    ]


def numpy_conv_and_vjp(x: Any, kernel: Any, g: Any, padding: str) -> Arrays:
    """The sum over the kernel's pixels, and its transposes, in float64."""
    x, kernel, g = (np.asarray(a, np.float64) for a in (x, kernel, g))
    high, wide = kernel.shape[:2]
    same = padding == "SAME"
    top, left = ((high - 1) // 2, (wide - 1) // 2) if same else (0, 0)
    height, width = g.shape[1:3]
    padded = np.zeros((len(x), height + high - 1, width + wide - 1, x.shape[3]))
    rows, columns = slice(top, top + x.shape[1]), slice(left, left + x.shape[2])
    padded[:, rows, columns] = x
    out, d_padded, d_kernel = (np.zeros_like(a) for a in (g, padded, kernel))
    for a in range(high):
        for b in range(wide):
            here = np.s_[:, a : a + height, b : b + width]
            out += padded[here] @ kernel[a, b]
            d_padded[here] += g @ kernel[a, b].T
            d_kernel[a, b] = np.tensordot(padded[here], g, ((0, 1, 2), (0, 1, 2)))
    return out, d_padded[:, rows, columns], d_kernel


def conv_and_vjp(x: Any, kernel: Any, g: Any, padding: str = "SAME") -> Arrays:
    out, vjp = jax.vjp(lambda x, kernel: conv(x, kernel, padding), x, kernel)
    return out, *vjp(g)


def assert_close(got: Any, want: Any, tolerance: float) -> None:
    for ours, theirs in zip(got, want, strict=True):
        error = np.linalg.norm(np.asarray(ours, np.float64) - theirs)
        assert error < tolerance * np.linalg.norm(theirs)


@pytest.mark.parametrize("case", LIBRARY)
def test_equals_numpy(case: Any) -> None:
    arrays = inputs(*case)
    got = jax.jit(conv_and_vjp, static_argnums=3)(*arrays, case[2])
    assert_close(got, numpy_conv_and_vjp(*arrays, case[2]), 1e-5)


@pytest.mark.parametrize("case", WINOGRAD)
def test_winograd_equals_numpy(case: Any) -> None:
    assert winograd.is_worthwhile(*case[:2])
    arrays = inputs(*case)
    got = jax.jit(conv_and_vjp)(*arrays)
    assert_close(got, numpy_conv_and_vjp(*arrays, "SAME"), 1e-5)


@pytest.mark.parametrize("case", [CONV2, LIBRARY[1]])
def test_transformations_change_nothing(case: Any) -> None:
    arrays = [jnp.stack([a, 2 * a, a + 1]) for a in map(jnp.asarray, inputs(*case))]
    run = jax.jit(conv_and_vjp)
    each = [run(*(a[i] for a in arrays)) for i in range(3)]
    want = [np.stack(parts) for parts in zip(*each, strict=True)]
    assert_close(jax.jit(jax.vmap(conv_and_vjp))(*arrays), want, 1e-5)
    scanned = jax.lax.scan(lambda _, a: (None, conv_and_vjp(*a)), None, tuple(arrays))
    assert_close(scanned[1], want, 1e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(jnp.bfloat16, 2e-3), (jnp.float16, 3e-4), (jnp.float8_e4m3fn, 4e-2)],
)
def test_narrow_floats_are_rounded_once(dtype: Any, tolerance: float) -> None:
    (_, *size), kernel_shape, _ = CONV1
    arrays = [jnp.asarray(a, dtype) for a in inputs((20, *size), kernel_shape, "SAME")]
    with jax.numpy_dtype_promotion("strict"):
        got = jax.jit(conv_and_vjp)(*arrays)
    assert {a.dtype for a in got} == {jnp.dtype(dtype)}
    assert_close(got, numpy_conv_and_vjp(*arrays, "SAME"), tolerance)


def test_shard_map_checks_it() -> None:
    """Also with its check of what differs from device to device, which is on."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    for case in (CONV1, CONV2):
        x, kernel, g = inputs((16, *case[0][1:]), *case[1:])
        cut, whole = jax.P("data"), jax.P()

        def gradient(kernel: jax.Array, x: jax.Array, g: jax.Array) -> jax.Array:
            _, vjp = jax.vjp(
                lambda k: conv(x, k), jax.lax.pcast(kernel, "data", to="varying")
            )
            return jax.lax.psum(vjp(g)[0], "data")

        mapped = jax.shard_map(
            gradient, mesh=mesh, in_specs=(whole, cut, cut), out_specs=whole
        )
        want = numpy_conv_and_vjp(x, kernel, g, "SAME")[2]
        assert_close([jax.jit(mapped)(kernel, x, g)], [want], 1e-5)

        # A kernel of its own on each device, and the same pictures.
        kernels = np.stack([kernel, 2 * kernel])
        each = jax.shard_map(
            lambda kernels, x: conv(x, kernels[0]),
            mesh=mesh,
            in_specs=(cut, whole),
            out_specs=cut,
        )
        want = numpy_conv_and_vjp(x, kernel, g, "SAME")[0]
        assert_close(
            [jax.jit(each)(kernels, x)], [np.concatenate([want, 2 * want])], 1e-5
        )


def test_unusual_shapes_have_gradients() -> None:
    none = conv_and_vjp(
        jnp.ones((2, 8, 8, 0)), jnp.ones((3, 3, 0, 4)), jnp.ones((2, 8, 8, 4))
    )
    assert [a.shape for a in none] == [(2, 8, 8, 4), (2, 8, 8, 0), (3, 3, 0, 4)]
    height, width = jax.export.symbolic_shape("h, w")
    x, kernel, g = inputs((6, 9, 8, 3), (3, 3, 3, 4), "SAME")
    shapes = [
        jax.ShapeDtypeStruct((6, height, width, 3), jnp.float32),
        jax.ShapeDtypeStruct(kernel.shape, jnp.float32),
        jax.ShapeDtypeStruct((6, height, width, 4), jnp.float32),
    ]
    exported = jax.export.export(jax.jit(conv_and_vjp))(*shapes)
    want = numpy_conv_and_vjp(x, kernel, g, "SAME")
    assert_close(exported.call(x, kernel, g), want, 1e-5)


def test_float64_is_exact() -> None:
    with jax.enable_x64(True):
        arrays = [jnp.asarray(a, jnp.float64) for a in inputs(*CONV2)]
        got = jax.jit(conv_and_vjp)(*arrays)
        assert {a.dtype for a in got} == {jnp.dtype(jnp.float64)}
        assert_close(got, numpy_conv_and_vjp(*arrays, "SAME"), 1e-13)


def test_an_unknown_batch_size_is_exported() -> None:
    (batch,) = jax.export.symbolic_shape("batch")
    x, kernel, g = inputs(*CONV2)
    shapes = [
        jax.ShapeDtypeStruct((batch, *x.shape[1:]), jnp.float32),
        jax.ShapeDtypeStruct(kernel.shape, jnp.float32),
        jax.ShapeDtypeStruct((batch, *g.shape[1:]), jnp.float32),
    ]
    exported = jax.export.export(jax.jit(conv_and_vjp))(*shapes)
    want = numpy_conv_and_vjp(x, kernel, g, "SAME")
    assert_close(exported.call(x, kernel, g), want, 1e-5)


def test_each_platform_gets_its_own_program() -> None:
    arrays = inputs(*CONV2)

    def program(platform: str) -> str:
        export = jax.export.export(jax.jit(conv_and_vjp), platforms=[platform])
        return export(*arrays).mlir_module()

    assert "stablehlo.convolution" not in program("cpu")
    assert program("cuda").count("stablehlo.convolution") == 3
    assert "stablehlo.while" not in program("cuda")
    compiled = jax.jit(conv_and_vjp).lower(*arrays).compile()
    assert " conditional(" not in compiled.as_text()


def test_an_unused_gradient_is_not_computed() -> None:
    x, kernel, _ = inputs(*CONV1)

    def loss(kernel: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(conv(x, kernel)))

    def convolutions(argnums: Any) -> int:
        compiled = jax.jit(jax.grad(loss, argnums)).lower(kernel, x).compile()
        return compiled.as_text().count(" convolution(")

    assert convolutions((0, 1)) == convolutions(0) + 1


@pytest.mark.parametrize("batch", [1, 7, 128])
def test_a_kernel_gradient_stays_in_the_cache(batch: int) -> None:
    """Its convolutions take the gradient of some pictures at a time as their kernel."""
    (_, *size), kernel_shape, _ = CONV1
    x, kernel, g = inputs((batch, *size), kernel_shape, "SAME")
    export = jax.export.export(jax.jit(conv_and_vjp), platforms=["cpu"])
    program = export(x, kernel, g).mlir_module()
    found = re.findall(r"stablehlo.convolution.*, tensor<([x\d]+)xf32>\) ->", program)
    kernels = [tuple(map(int, shape.split("x"))) for shape in found]
    pictures = [n for high, _, n, _ in kernels if high == size[0]]
    assert sum(pictures) == {1: 1, 7: 4 + 3, 128: 4}[batch]  # the loop's body once
    assert max(4 * np.prod(shape) for shape in kernels) <= CACHE_BYTES


def best_of_5(f: Callable[..., Any], *arguments: Any) -> float:
    jax.block_until_ready(f(*arguments))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(f(*arguments))
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@pytest.mark.parametrize(
    "case", [CONV2, ((16, 12, 12, 16), (5, 5, 16, 24), "SAME")], ids=["winograd", "xla"]
)
def test_a_scan_is_not_slow(case: Any) -> None:
    """XLA runs autodiff's gradients of a convolution 17 times slower in a loop."""
    steps = 4
    x, kernel, g = (jnp.asarray(a) for a in inputs(*case))

    def step(kernel: jax.Array, x: jax.Array, g: jax.Array) -> jax.Array:
        out, dx, d_kernel = conv_and_vjp(x, kernel, g)
        return kernel - 1e-6 * d_kernel * (1 + jnp.mean(out) * jnp.mean(dx))

    @jax.jit
    def scanned(kernel: jax.Array, x: jax.Array, g: jax.Array) -> jax.Array:
        return jax.lax.scan(
            lambda kernel, _: (step(kernel, x, g), None), kernel, None, steps
        )[0]

    once = best_of_5(jax.jit(step), kernel, x, g)
    assert best_of_5(scanned, kernel, x, g) < 3 * steps * once


@pytest.mark.parametrize(
    ("x", "kernel", "padding", "message"),
    [
        (np.ones((1, 6, 6, 2)), np.ones((3, 3, 1, 1)), "SAME", "give both the same"),
        (np.ones((6, 6, 2)), np.ones((3, 3, 2, 1)), "SAME", r"\[6, 6, 2\] and kernel"),
        (
            np.ones((1, 6, 6, 2)),
            np.ones((3, 3, 2, 1), np.float16),
            "SAME",
            "x of float32 and kernel of float16, needs one floating",
        ),
        (
            np.ones((1, 6, 6, 2), np.int32),
            np.ones((3, 3, 2, 1), np.int32),
            "SAME",
            "x of int32 and kernel of int32, needs one floating",
        ),
        (np.ones((1, 6, 6, 2)), np.ones((3, 3, 2, 1)), "valid", "padding='valid'"),
        (np.ones((1, 2, 6, 2)), np.ones((3, 3, 2, 1)), "VALID", "pictures of 2x6"),
        (np.ones((1, 6, 2, 2)), np.ones((3, 3, 2, 1)), "VALID", "pictures of 6x2"),
    ],
)
def test_bad_arguments_are_refused(
    x: np.ndarray, kernel: np.ndarray, padding: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        conv(jnp.asarray(x), jnp.asarray(kernel), padding)
