"""Means and deviations against the standard library's."""

import math
import statistics

import pytest

from cnnjax.metrics import first_not_finite, mean_of, of_seed, with_spread


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
