"""Digests, descriptions and identities: whatever differs is noticed and named."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.errors import InputError
from cnnjax.state import TrainState
from cnnjax.workdir import integrity

STATE = TrainState(jnp.int32(3), jnp.uint32(7), {"a": jnp.ones((2, 3))}, ())


def test_the_digest_is_of_path_dtype_shape_and_bytes() -> None:
    trees = [
        {"a": np.zeros(4, np.float32)},
        {"b": np.zeros(4, np.float32)},
        {"a": np.zeros(4, np.int32)},
        {"a": np.zeros((2, 2), np.float32)},
        {"a": np.array([0, 0, 0, -0.0], np.float32)},
    ]
    assert len({json.dumps(integrity.digest(tree)) for tree in trees}) == len(trees)


def test_an_array_is_described_by_its_path() -> None:
    assert integrity.describe(STATE) == {
        ".step": {"dtype": "int32", "shape": []},
        ".seed": {"dtype": "uint32", "shape": []},
        ".params['a']": {"dtype": "float32", "shape": [2, 3]},
    }
    assert integrity.digest(STATE).keys() == integrity.describe(STATE).keys()


def test_every_array_that_is_not_finite_is_named() -> None:
    tree = {"n": np.arange(3), "x": np.ones(3), "y": [np.array([1, np.nan])]}
    assert integrity.not_finite(tree) == ["['y'][0]"]
    tree["x"][1] = -np.inf
    assert integrity.not_finite(tree) == ["['x']", "['y'][0]"]


def test_a_run_is_another_by_any_part_of_its_identity() -> None:
    run = {"config": "abc", "data": "def", "seed": 7}
    integrity.check_same_run("2", run, dict(run))
    # One that was written before there were identities has none.
    with pytest.raises(InputError, match="2 is a checkpoint of another run") as refused:
        integrity.check_same_run("2", {}, run)
    for words in ("configuration None, need abc;", "data None, need def;", "seed None"):
        assert words in str(refused.value)
