"""Chunks of any batch are large enough, fit, and change no result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops import chunks


@pytest.mark.parametrize("most", [1, 2, 7, 8, 24, 500])
def test_every_batch_has_chunks_that_are_no_crumbs(most: int) -> None:
    for batch in range(1, 300):
        size = chunks.chunk_size(batch, 1000, 1000 * most)
        assert min(batch, most) / 3 < size <= min(batch, most)
        # Few images are computed twice: fewer than there are chunks.
        assert -(-batch // size) * size - batch < -(-batch // size)
    assert chunks.chunk_size(64, 1000, 8000) == 8  # of the chapter's network
    assert chunks.chunk_size(127, 1000, 8000) == 8


@pytest.mark.parametrize("size", [1, 3, 7, 8, 12, 13])
def test_mapping_over_chunks_changes_nothing(size: int) -> None:
    x = np.arange(13 * 2, dtype=np.float32).reshape(13, 2)

    def f(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x.sum(axis=1), jnp.int8(3) * (x > 4).astype(jnp.int8)

    found = jax.jit(lambda x: chunks.map_chunks(f, x, size, x[0, 0]))(x)
    for part, expected in zip(found, f(jnp.asarray(x)), strict=True):
        np.testing.assert_array_equal(part, expected)
        assert part.dtype == expected.dtype
