"""What the versions allowed in pyproject.toml are relied on for."""

import jax
import jax.numpy as jnp


def test_the_compiler_sums_rightly() -> None:
    """jaxlib 0.10.2 loses terms of this sum on CPU (jax issue 39103)."""
    n = 2**15 + 1
    rows = jnp.full((n, 32), 1.0)

    @jax.jit
    def sum_of_squares(rows: jax.Array, vector: jax.Array) -> jax.Array:
        return jnp.sum(jax.vmap(lambda row: row @ vector)(rows) ** 2)

    assert sum_of_squares(rows, jnp.ones(32)) == n * 32.0**2
