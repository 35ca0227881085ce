"""Sums against NumPy and TensorFlow; spreads against the standard library."""

import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.metrics import (
    Metrics,
    first_not_finite,
    is_among_top,
    mean_of,
    of_seed,
    with_spread,
)

NAN = float("nan")


def one(n: int, seed: int) -> tuple[Metrics, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    losses = rng.random(n).astype(np.float32)
    logits = rng.standard_normal((n, 4)).astype(np.float32)
    labels = rng.integers(0, 4, n).astype(np.int32)
    sums = Metrics.of_batch(losses, logits, labels, np.ones(n, np.float32))
    return sums, losses, logits.argmax(-1) == labels


def test_added_sums_are_those_of_the_concatenation() -> None:
    parts = [one(n, seed) for seed, n in enumerate((1, 7, 30))]
    total = jax.tree.map(lambda *sums: sum(sums), *(p[0] for p in parts))
    np.testing.assert_allclose(
        total.loss, np.concatenate([p[1] for p in parts]).sum(), 1e-6
    )
    assert total.correct == np.concatenate([p[2] for p in parts]).sum()
    assert total.count == 38


def test_masked_examples_do_not_count_whatever_they_hold() -> None:
    losses = jnp.array([1.0, NAN])
    logits = jnp.array([[2.0, 1.0], [NAN, NAN]])
    sums = Metrics.of_batch(losses, logits, jnp.array([0, 0]), jnp.array([1.0, 0.0]))
    assert (sums.loss, sums.correct, sums.count) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("logits", "k", "right"),
    [
        ([3.0, 2.0, 1.0, 0.0], 1, True),
        ([2.0, 3.0, 1.0, 0.0], 1, False),
        ([2.0, 3.0, 1.0, 0.0], 2, True),
        ([1.0, 1.0, 1.0, 1.0], 1, False),
        ([1.0, 1.0, 1.0, 1.0], 3, False),
        ([1.0, 1.0, 1.0, 1.0], 4, True),
        ([2.0, 2.0, 1.0, 0.0], 1, False),
        ([NAN, 0.0, 0.0, 0.0], 1, False),
        ([NAN, 0.0, 0.0, 0.0], 4, False),
        ([1.0, NAN, 0.0, 0.0], 1, False),
        ([1.0, NAN, 0.0, 0.0], 2, True),
        ([np.inf, 0.0, 0.0, 0.0], 1, True),
    ],
)
def test_ties_and_nan_are_wrong(logits: list, k: int, right: bool) -> None:
    found = is_among_top(jnp.array([logits]), jnp.array([0]), k)
    assert found.tolist() == [right]


def test_without_ties_it_is_tensorflow_s_in_top_k(key: jax.Array) -> None:
    import tensorflow as tf

    logits = jax.random.normal(key, (200, 10))
    labels = jnp.arange(200, dtype=jnp.int32) % 10
    for k in (1, 3, 5):
        expected = tf.math.in_top_k(np.asarray(labels), np.asarray(logits), k)
        np.testing.assert_array_equal(is_among_top(logits, labels, k), expected)


def test_lists_have_mean_and_deviation() -> None:
    accuracies = [0.7, 0.71, 0.74, 0.69]
    found = with_spread({"test/accuracy": accuracies, "test/count": 100})
    assert found == {
        "test/accuracy": accuracies,
        "test/accuracy/mean": pytest.approx(statistics.mean(accuracies)),
        "test/accuracy/std": pytest.approx(statistics.stdev(accuracies)),
        "test/count": 100,
    }
    assert mean_of(found, "test/accuracy") == found["test/accuracy/mean"]
    assert mean_of(found, "test/count") == 100
    assert of_seed(found, 2)["test/accuracy"] == 0.74
    assert of_seed(found, 2)["test/count"] == 100


def test_figures_of_one_seed_stay() -> None:
    values = {"train/loss": 4.6, "eval/split": "test"}
    assert with_spread(values) == values


def test_what_is_not_finite_is_named_with_its_seed() -> None:
    assert first_not_finite(1.0, 5) == first_not_finite([1.0, 2.0], 5) == ""
    assert first_not_finite(math.nan, 5) == "nan"
    assert first_not_finite([1.0, -math.inf, math.nan], 5) == "-inf for seed 6"
    poisoned = with_spread({"loss": [1.0, math.inf]})
    assert poisoned["loss/mean"] == math.inf and math.isnan(poisoned["loss/std"])
