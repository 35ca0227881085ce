"""All that a run changes as it trains, in one tree of arrays."""

import dataclasses
from collections.abc import Hashable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax import prng
from cnnjax.models.forward import init_variables
from cnnjax.recipe import Recipe

# Left out of the tree where they are None, so that the states of networks without such
# collections, and their checkpoints, are as they were before there were any.
OPTIONAL = ("collections", "ema_collections")


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The parameters and what is needed to go on from them.

    Attributes:
        step: number of updates done, int32 [].
        seed: of the run, uint32 []; every key of every step derives from it.
        params: the network's parameters, a tree of float32 arrays.
        opt_state: the state of the optax chain.
        ema_params: the moving average of `params`, or None where none is kept.
        collections: the network's other Flax collections by name, such as
            `batch_stats`, or None where it has none.
        ema_collections: their moving average, or None.
    """

    step: jax.Array
    seed: jax.Array
    params: Any
    opt_state: Any
    ema_params: Any = None
    collections: Any = None
    ema_collections: Any = None

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes: the parameters and the other collections."""
        return {"params": self.params, **(self.collections or {})}

    @property
    def ema_variables(self) -> dict[str, Any] | None:
        """The same of the moving averages, or None where none are kept."""
        if self.ema_params is None:
            return None
        return {"params": self.ema_params, **(self.ema_collections or {})}

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], Hashable]:
        """Returns the fields with their names as keys, and which fields they are."""
        names = tuple(
            field.name
            for field in dataclasses.fields(self)
            if field.name not in OPTIONAL or getattr(self, field.name) is not None
        )
        keys = map(jax.tree_util.GetAttrKey, names)
        return [(key, getattr(self, key.name)) for key in keys], names

    @classmethod
    def tree_unflatten(
        cls, names: tuple[str, ...], values: Iterable[Any]
    ) -> "TrainState":
        """Returns the state that `tree_flatten_with_keys` took apart."""
        return cls(**dict(zip(names, values, strict=True)))


def init_state(
    recipe: Recipe, image_shape: tuple[int, int, int], *, seed: int | jax.Array
) -> TrainState:
    """Returns the state before the first update; a pure function of its arguments.

    Args:
        recipe: network, optimiser, and whether moving averages are kept; they start at
            the first values.
        image_shape: (height, width, channels) of the pictures, before any crop.
        seed: in [0, 2**32).
    """
    seed = jnp.asarray(seed, jnp.uint32)
    shape = recipe.preprocessing.output_shape(image_shape)
    variables = init_variables(recipe.model, prng.from_seed(seed, prng.PARAMS), shape)
    params = variables.pop("params")

    def average(tree: Any) -> Any:
        return jax.tree.map(jnp.copy, tree) if recipe.ema_decay and tree else None

    return TrainState(
        # An array and not a Python integer, which is weakly typed and compiles twice.
        step=jnp.zeros((), jnp.int32),
        seed=seed,
        params=params,
        opt_state=recipe.tx.init(params),
        ema_params=average(params),
        collections=variables or None,
        ema_collections=average(variables),
    )
