import pytest
from scipy.stats import binomtest

from cnnjax.reporting import numbers


@pytest.mark.parametrize("correct", [0, 1, 57, 99, 100])
def test_the_interval_is_wilson_s(correct):
    low, high = numbers.wilson(correct, 100)
    known = binomtest(correct, 100).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx(known, abs=1e-6)


def test_nothing_observed_may_be_anything():
    assert numbers.wilson(0, 0) == (0, 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.924, "0.92 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (98.31, "1 min 38 s"),
        (3599.6, "1 h 0 min"),
        (7595.1, "2 h 7 min"),
        (4e6, "1,111 h 7 min"),
    ],
)
def test_durations(seconds, text):
    assert numbers.duration(seconds) == text


def test_results_have_their_units():
    final = {
        "dataset": "cifar10",
        "num_params": 1068298,
        "test/accuracy": 0.7252,
        "test/correct": 7252,
        "test/count": 10000,
        "test_multiview_ema/accuracy": [0.8, 0.9],
        "test_multiview_ema/accuracy/mean": 0.85,
        "test_multiview_ema/accuracy/std": 0.0707,
        "val/loss": 0.79715,
        "compile_seconds": 61.2,
        "perf/examples_per_sec": 3905.98,
        "odd": None,
        "best/step": 400,
        "best/eval_accuracy": 0.5,
    }
    known = {
        "data set": "cifar10",
        "parameters": "1,068,298",
        "test accuracy": "72.52% (71.64% to 73.39%)",
        "test correct": "7,252",
        "test count": "10,000",
        "test accuracy, multiview, averaged weights": "85.00% ± 7.07",
        "validation loss": "0.7972",
        "compilation time": "1 min 1 s",
        "images per second": "3,906",
        "odd": "None",
        "best checkpoint's step": "400",
        "best checkpoint's accuracy in validation": "50.00%",
    }
    shown = [key for key in final if not key.endswith(("/mean", "/std"))]
    found = {numbers.label(key): numbers.result(final, key) for key in shown}
    assert found == known
    assert numbers.result(final, "missing") == numbers.MISSING
