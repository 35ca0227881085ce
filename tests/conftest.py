"""What every test runs under: eight CPU devices, strict shapes, a quiet Orbax."""

import jax
import pytest

from cnnjax.runtime import backend

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_sessionstart() -> None:
    """Silences what Orbax also raises, as the scripts do."""
    # Only now, as pytest has by now set its own hook for what cannot be raised.
    backend.quieten()


@pytest.fixture
def key() -> jax.Array:
    """A PRNG key; tests that need several split it."""
    return jax.random.key(0)
