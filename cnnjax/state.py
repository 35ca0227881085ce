"""The training state: everything that an update changes, as one tree of arrays."""

import dataclasses
from collections.abc import Hashable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from cnnjax import prng
from cnnjax.errors import InputError
from cnnjax.models.checking import check_network
from cnnjax.models.forward import init_variables
from cnnjax.recipe import Recipe

# Left out of the tree where they are None: the checkpoints of networks without other
# collections keep the form that they had before these fields existed.
OPTIONAL = ("collections", "ema_collections")


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The parameters and everything else that the next update needs.

    Attributes:
        step: number of completed updates, int32 [].
        seed: of the run, uint32 []; the keys of all steps are derived from it.
        params: the network's parameters, a tree of float32 arrays.
        opt_state: the state of the optax chain.
        ema_params: the moving average of `params`, or None where none is kept.
        collections: the network's other Flax collections by name, such as
            `batch_stats`, or None where it has none.
        ema_collections: their moving average, or None.

    Example:
        >>> state = cj.init_state(cj.make_recipe(cj.MLP()), (28, 28, 1), seed=0)
        >>> int(state.step), sorted(state.params)
        (0, ['hidden', 'logits'])
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
        """The argument of `model.apply`: parameters and other collections by name."""
        return {"params": self.params, **(self.collections or {})}

    @property
    def ema_variables(self) -> dict[str, Any] | None:
        """The moving averages in the form of `variables`, or None if not kept."""
        if self.ema_params is None:
            return None
        return {"params": self.ema_params, **(self.ema_collections or {})}

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], Hashable]:
        """Returns (key, value) of each field in the tree, and the fields' names."""
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

    `image_shape` is (height, width, channels) before any crop, and `seed` is in
    [0, 2**32). Moving averages, if the recipe keeps them, start at the initial values.

    Raises:
        InputError: the network cannot be trained on such images, or the recipe
            penalises a layer that it does not have.

    Example:
        >>> recipe = cj.make_recipe(cj.MLP(), ema_decay=0.999)
        >>> one, two = (cj.init_state(recipe, (28, 28, 1), seed=0) for _ in range(2))
        >>> one, two = (state.params["hidden"]["kernel"] for state in (one, two))
        >>> bool((one == two).all())
        True
    """
    seed = jnp.asarray(seed, jnp.uint32)
    shape = recipe.preprocessing.output_shape(image_shape)
    check_network(recipe.model, shape)
    variables = init_variables(recipe.model, prng.from_seed(seed, prng.PARAMS), shape)
    params = variables.pop("params")
    _check_penalised(recipe, params)

    def average(tree: Any) -> Any:
        return jax.tree.map(jnp.copy, tree) if recipe.ema_decay and tree else None

    return TrainState(
        # A Python integer would be weakly typed, and the step would compile twice.
        step=jnp.zeros((), jnp.int32),
        seed=seed,
        params=params,
        opt_state=recipe.tx.init(params),
        ema_params=average(params),
        collections=variables or None,
        ema_collections=average(variables),
    )


def _check_penalised(recipe: Recipe, params: Any) -> None:
    paths, penalty = traverse_util.flatten_dict(params), recipe.penalty
    layers = [path[-2] for path in paths if path[-1] == "kernel" and len(path) > 1]
    for layer in penalty.layers or ():
        if layer not in layers and (penalty.l1 or penalty.l2):
            raise InputError(
                f"got penalised={layer!r}, need layers of"
                f" {type(recipe.model).__name__} that have a kernel:"
                f" {', '.join(layers) or 'it has none'}; name some of these"
            )
