"""What the versions allowed in pyproject.toml are relied on for."""

import jax
import jax.numpy as jnp


def test_the_compiler_sums_rightly() -> None:
    """jaxlib 0.10.2 loses terms of this sum on CPU (jax issue 39103)."""
    rows = jnp.zeros((2**15 + 1, 3)).at[:, 0].set(jnp.arange(2**15 + 1.0))

    @jax.jit
    def sums(matrix: jax.Array, rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows)

    assert sums(jnp.eye(3), rows)[-1] == 2.0**30
