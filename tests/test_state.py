"""A state is a tree whose paths its checkpoints bear: the same in every version."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.recipe import make_recipe
from cnnjax.state import TrainState, init_state

SHAPE = (6, 8, 3)


class Plain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2, name="logits")(x.reshape(len(x), -1))


class Normalised(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        return Plain()(nn.BatchNorm(use_running_average=not train, name="norm")(x))


def paths(tree) -> list[str]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [jax.tree_util.keystr(path) for path, _ in leaves]


# What `flax.struct.dataclass` gave, and what the checkpoints of version 0.1.0 bear.
OF_0_1_0 = """
    .step
    .seed
    .params['logits']['bias']
    .params['logits']['kernel']
    .opt_state[0].count
    .opt_state[0].mu['logits']['bias']
    .opt_state[0].mu['logits']['kernel']
    .opt_state[0].nu['logits']['bias']
    .opt_state[0].nu['logits']['kernel']
    .opt_state[1].count
"""
OF_AVERAGE = """
    .ema_params['logits']['bias']
    .ema_params['logits']['kernel']
"""


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_without_collections_the_paths_are_those_of_the_first_version(
    ema_decay: float,
) -> None:
    recipe = make_recipe(Plain(), ema_decay=ema_decay)
    state = init_state(recipe, SHAPE, seed=2**32 - 1)
    expected = OF_0_1_0 + (OF_AVERAGE if ema_decay else "")
    assert paths(state) == expected.split()
    # Orbax stores None too, but not what the tree leaves out.
    nothing, _ = jax.tree_util.tree_flatten_with_path(state, lambda x: x is None)
    absent = [jax.tree_util.keystr(path) for path, leaf in nothing if leaf is None]
    assert absent == ([] if ema_decay else [".ema_params"])
    assert (state.collections, state.ema_collections) == (None, None)
    assert (state.step.dtype, state.seed.dtype) == (jnp.int32, jnp.uint32)
    assert (int(state.step), int(state.seed)) == (0, 2**32 - 1)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_collections_are_added_at_the_end(ema_decay: float) -> None:
    state = init_state(make_recipe(Normalised(), ema_decay=ema_decay), SHAPE, seed=0)
    found = paths(state)
    own = [f"['batch_stats']['norm']['{name}']" for name in ("mean", "var")]
    ends = [f".collections{name}" for name in own]
    ends += [f".ema_collections{name}" for name in own] if ema_decay else []
    assert found[-len(ends) :] == ends
    assert not any("collections" in path for path in found[: -len(ends)])
    assert found[:2] == [".step", ".seed"]


@pytest.mark.parametrize("model", [Plain(), Normalised()], ids=["plain", "normalised"])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_what_is_taken_apart_is_put_together(model, ema_decay: float) -> None:
    state = init_state(make_recipe(model, ema_decay=ema_decay), SHAPE, seed=0)
    leaves, structure = jax.tree.flatten(state)
    again = jax.tree.unflatten(structure, leaves)
    assert again == state
    assert jax.tree.structure(again) == structure
    with_path, same = jax.tree_util.tree_flatten_with_path(state)
    assert same == structure
    assert [id(leaf) for _, leaf in with_path] == [id(leaf) for leaf in leaves]
    none = TrainState(state.step, state.seed, {}, ())
    empty = TrainState(state.step, state.seed, {}, (), collections={})
    assert jax.tree.structure(none) != jax.tree.structure(empty)


def test_variables_are_what_a_module_takes() -> None:
    plain = init_state(make_recipe(Plain()), SHAPE, seed=0)
    assert plain.variables == {"params": plain.params}
    assert plain.ema_variables is None
    state = init_state(make_recipe(Normalised(), ema_decay=0.9), SHAPE, seed=0)
    images = jnp.ones((2, *SHAPE))
    for variables in (state.variables, state.ema_variables):
        assert variables.keys() == {"params", "batch_stats"}
        assert Normalised().apply(variables, images, train=False).shape == (2, 2)
    jax.tree.map(np.testing.assert_array_equal, state.variables, state.ema_variables)
    # Each has memory of its own: one may be given away with the state, see `donate`.
    assert (
        state.ema_params["Plain_0"]["logits"]["bias"]
        is not (state.params["Plain_0"]["logits"]["bias"])
    )


def test_it_is_made_for_what_the_network_is_fed() -> None:
    recipe = make_recipe(Plain(), crop=4)
    state = init_state(recipe, SHAPE, seed=0)
    assert state.params["logits"]["kernel"].shape == (4 * 4 * 3, 2)
