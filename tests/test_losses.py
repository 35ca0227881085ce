import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import assembly, losses
from cnnjax.config import default_config


def test_cross_entropy_by_hand() -> None:
    logits = jnp.array([[0.0, 0.0], [np.log(3.0), 0.0], [1000.0, 0.0]])
    labels = jnp.array([0, 1, 1])
    # -log(1/2), -log(1/4); a softmax would round to zero and its logarithm to -inf.
    expected = [np.log(2.0), np.log(4.0), 1000.0]
    np.testing.assert_allclose(losses.cross_entropy(logits, labels), expected, 1e-6)


def test_label_smoothing_by_hand() -> None:
    logits, labels = jnp.array([[1.0, 2.0, 4.0, 0.0]]), jnp.array([2])
    log_softmax = np.array([1.0, 2.0, 4.0, 0.0])
    log_softmax -= np.log(np.exp(log_softmax).sum())
    targets = np.array([0.05, 0.05, 0.85, 0.05])
    smoothed = losses.cross_entropy(logits, labels, 0.2)
    np.testing.assert_allclose(smoothed, [-(targets * log_softmax).sum()], 1e-6)


def test_evaluations_smooth_no_labels() -> None:
    config = default_config("CifarCNN")
    config.optim.label_smoothing = 0.1
    recipe = assembly.make_recipe(config, 10)
    logits, labels = 30 * jnp.eye(10)[:1], jnp.array([0])
    # Nine other classes get a hundredth each, 30 nats away.
    np.testing.assert_allclose(recipe.loss_fn(logits, labels), [2.7], 1e-5)
    np.testing.assert_allclose(recipe.eval_loss_fn(logits, labels), [0], atol=1e-5)


def params() -> dict:
    return {
        "conv1": {"kernel": jnp.full((2, 2), 5.0), "bias": jnp.ones(2)},
        "local3": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.ones(2)},
        "local4": {"kernel": jnp.array([[3.0]]), "bias": jnp.ones(1)},
    }


def test_l2_touches_exactly_the_kernels_named() -> None:
    layers = ("local3", "local4")
    # 0.1 * (1 + 4 + 9) / 2
    np.testing.assert_allclose(losses.l2_penalty(params(), layers, 0.1), 0.7, 1e-6)
    grads = jax.grad(losses.l2_penalty)(params(), layers, 0.1)
    np.testing.assert_allclose(grads["local3"]["kernel"], [[0.1, -0.2]], 1e-6)
    np.testing.assert_allclose(grads["local4"]["kernel"], [[0.3]], 1e-6)
    for layer, name in (("conv1", "kernel"), ("conv1", "bias"), ("local3", "bias")):
        np.testing.assert_array_equal(grads[layer][name], 0.0)


def test_no_layers_no_penalty() -> None:
    assert losses.l2_penalty(params(), (), 0.1) == 0.0


def test_l1_by_hand() -> None:
    layers = ("local3", "local4")
    # 0.1 * (1 + 2 + 3)
    np.testing.assert_allclose(losses.l1_penalty(params(), layers, 0.1), 0.6, 1e-6)
    grads = jax.grad(losses.l1_penalty)(params(), layers, 0.1)
    np.testing.assert_allclose(grads["local3"]["kernel"], [[0.1, -0.1]], 1e-6)
    np.testing.assert_array_equal(grads["conv1"]["kernel"], 0.0)
