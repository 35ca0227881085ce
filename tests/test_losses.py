import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import losses
from cnnjax.losses import Penalty


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


def test_the_mean_of_the_views_by_hand() -> None:
    shares = np.array([[[0.5, 0.25, 0.25]], [[0.125, 0.75, 0.125]]])
    found = losses.log_mean_softmax(jnp.asarray(np.log(shares) + 3))
    np.testing.assert_allclose(np.exp(found), [[0.3125, 0.5, 0.1875]], 1e-6)


def params() -> dict:
    return {
        "conv1": {"kernel": jnp.full((2, 2), 5.0), "bias": jnp.ones(2)},
        "local3": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.ones(2)},
        "local4": {"kernel": jnp.array([[3.0]]), "bias": jnp.ones(1)},
    }


CHOSEN = ("local3", "local4")


@pytest.mark.parametrize(
    "shape",
    [(), (7,), (losses.BLOCK,), (3, losses.BLOCK - 1), (5, 5, 64, 64), (2304, 384)],
)
def test_the_sum_of_squares_is_that_of_float64(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = jax.jit(losses.sum_of_squares)(x)
    assert found.dtype == np.float32 and found.shape == ()
    np.testing.assert_allclose(found, np.sum(x.astype(np.float64) ** 2), rtol=1e-6)
    slope = jax.grad(losses.sum_of_squares)(x)
    np.testing.assert_allclose(slope, 2 * x, rtol=1e-6)


def test_l2_touches_exactly_the_kernels_named() -> None:
    penalty = Penalty(l2=0.1, layers=CHOSEN)
    # 0.1 * (1 + 4 + 9) / 2
    np.testing.assert_allclose(penalty.l2_loss(params()), 0.7, 1e-6)
    assert penalty.l1_loss(params()) == 0.0
    grads = jax.grad(penalty.l2_loss)(params())
    np.testing.assert_allclose(grads["local3"]["kernel"], [[0.1, -0.2]], 1e-6)
    np.testing.assert_allclose(grads["local4"]["kernel"], [[0.3]], 1e-6)
    for layer, name in (("conv1", "kernel"), ("conv1", "bias"), ("local3", "bias")):
        np.testing.assert_array_equal(grads[layer][name], 0.0)


def test_no_layers_no_penalty() -> None:
    for penalty in (Penalty(0.1, 0.1, layers=()), Penalty(), Penalty(layers=CHOSEN)):
        assert penalty.l1_loss(params()) == penalty.l2_loss(params()) == 0.0


def test_l1_by_hand() -> None:
    penalty = Penalty(l1=0.1, layers=CHOSEN)
    # 0.1 * (1 + 2 + 3)
    np.testing.assert_allclose(penalty.l1_loss(params()), 0.6, 1e-6)
    assert penalty.l2_loss(params()) == 0.0
    grads = jax.grad(penalty.l1_loss)(params())
    np.testing.assert_allclose(grads["local3"]["kernel"], [[0.1, -0.1]], 1e-6)
    np.testing.assert_array_equal(grads["conv1"]["kernel"], 0.0)


def test_without_names_it_is_of_every_kernel_and_nothing_else() -> None:
    """However deep; neither biases nor what normalisations and embeddings have."""
    tree = {
        "block": {"conv": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.ones(2)}},
        "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
        "embed": {"embedding": jnp.ones((3, 2))},
        "kernel": jnp.array([3.0]),
        "kernels": {"other": jnp.ones(1)},
    }
    penalty = Penalty(l1=1.0, l2=1.0, layers=None)
    assert penalty == Penalty(1.0, 1.0)
    assert penalty.is_penalised(tree) == {
        "block": {"conv": {"kernel": True, "bias": False}},
        "norm": {"scale": False, "bias": False},
        "embed": {"embedding": False},
        "kernel": True,
        "kernels": {"other": False},
    }
    assert penalty.l1_loss(tree) == 4 * 2 + 3
    assert penalty.l2_loss(tree) == (4 * 4 + 9) / 2
    named = Penalty(l1=1.0, layers=("conv",))
    assert named.l1_loss(tree) == 4 * 2, "the layer is the part before the kernel"
