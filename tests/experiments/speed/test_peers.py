"""The networks of other libraries do the same step as this project's."""

import dataclasses
import importlib.util

import jax
import numpy as np
import pytest

from cnnjax.errors import InputError, RunError
from cnnjax.models import MODELS
from cnnjax.models.forward import forward
from cnnjax.recipe import make_recipe
from cnnjax.state import init_state
from cnnjax.step import make_train_step
from speed import keras_peer, ours, peer, plain_flax, torch_peer

SHAPES = {"CifarCNN": (24, 24, 3), "SimpleCNN": (28, 28, 1)}
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")
# Large enough to move the logits by much more than two programs differ.
LEARNING_RATE, L2 = 1e-3, 0.4

# Keras on TensorFlow takes long to import and to compile.
pytestmark = pytest.mark.slow


@pytest.fixture(
    scope="module",
    params=["CifarCNN", "SimpleCNN"],
)
def job_and_logits(request):
    """A job without dropout, and this project's logits before and after a step."""
    name = request.param
    options = {"keep_prob": 1.0} if name == "SimpleCNN" else {}
    model = MODELS[name](**options)
    l2 = L2 if name == "CifarCNN" else 0.0
    recipe = make_recipe(model, optimizer="adam", learning_rate=LEARNING_RATE, l2=l2)
    state = init_state(recipe, SHAPES[name], seed=0)
    batch = ours.random_batch(SHAPES[name], 8)
    after, _ = jax.jit(make_train_step(recipe))(state, batch)
    apply = jax.jit(lambda of: forward(model, of, batch["image"])[0])
    logits = [np.asarray(apply(of.variables)) for of in (state, after)]
    job = peer.Job(
        network=name,
        params=jax.device_get(state.params),
        image=batch["image"],
        label=batch["label"],
        learning_rate=LEARNING_RATE,
        l2=l2,
        penalised=model.facts.penalised if l2 else (),
        keep_prob=1.0,
    )
    return job, logits


@pytest.mark.parametrize(
    "make",
    [
        plain_flax.make,
        keras_peer.make,
        pytest.param(torch_peer.make, marks=needs_torch),
    ],
)
def test_a_step_is_the_same_work(job_and_logits, make) -> None:
    job, (before, after) = job_and_logits
    moved = np.linalg.norm(after - before)
    for other in make(job):
        peer.check(other, before)
        other.train(1)
        # Adam's first step is the gradient's sign: where that is rounding, it differs.
        assert np.linalg.norm(other.forward() - after) < 0.01 * moved


def test_another_network_is_not_timed(job_and_logits) -> None:
    job, (before, _) = job_and_logits
    changed = jax.tree.map(np.copy, job.params)
    changed["conv2"]["kernel"] *= 1.01
    (other,) = plain_flax.make(dataclasses.replace(job, params=changed))
    with pytest.raises(RunError, match="plain Flax is not the same network"):
        peer.check(other, before)


@pytest.mark.skipif(HAS_TORCH, reason="PyTorch is installed")
def test_a_library_that_is_missing_is_named(job_and_logits) -> None:
    with pytest.raises(InputError, match="got no PyTorch, need it to compare with"):
        torch_peer.make(job_and_logits[0])


def test_operations_of_a_step_by_formula() -> None:
    """105.3 million for an image of CifarCNN, forward and backward."""
    model = MODELS["CifarCNN"]()
    assert ours.forward_flops(model, (24, 24, 3)) == 36_941_568
    conv1 = 2 * 24 * 24 * 5 * 5 * 3 * 64
    assert ours.training_flops(model, (24, 24, 3)) == 3 * 36_941_568 - conv1
