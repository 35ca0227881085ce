"""The references' gradients agree with finite differences of their values."""

from functools import partial

import numpy as np
import pytest

from verification import numpy_data, numpy_ops

IMAGES, FEATURES = (2, 6, 4, 5), (3, 7)
LABELS = np.arange(3)
CASES = {
    "conv SAME": (
        partial(numpy_ops.conv, padding="SAME"),
        [IMAGES, (5, 3, 5, 4), (4,)],
    ),
    "conv VALID": (
        partial(numpy_ops.conv, padding="VALID"),
        [IMAGES, (3, 2, 5, 4), (4,)],
    ),
    "max_pool": (partial(numpy_ops.max_pool, window=3, stride=2), [IMAGES]),
    "mean_pool": (numpy_ops.mean_pool, [IMAGES]),
    "sub_sampling": (numpy_ops.sub_sampling, [IMAGES, (5,), (5,)]),
    "lrn": (partial(numpy_ops.lrn, radius=1, bias=2.0, alpha=0.5, beta=0.7), [IMAGES]),
    "dense": (numpy_ops.dense, [FEATURES, (7, 5), (5,)]),
    "relu": (numpy_ops.relu, [FEATURES]),
    "squash": (numpy_ops.squash, [FEATURES]),
    "flatten": (numpy_ops.flatten, [IMAGES]),
    "scale": (partial(numpy_ops.scale, factors=np.arange(7.0)), [FEATURES]),
    "distances": (
        partial(numpy_ops.distances, targets=np.ones((4, 7))),
        [FEATURES],
    ),
    "cross_entropy": (
        partial(numpy_ops.cross_entropy, labels=LABELS, smoothing=0.1),
        [FEATURES],
    ),
    "rejection": (
        partial(numpy_ops.cross_entropy, labels=LABELS, rejection=0.3),
        [FEATURES],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_gradient_is_that_of_the_value(name: str) -> None:
    op, shapes = CASES[name]
    random = np.random.default_rng(0)
    arguments = [random.normal(size=shape) for shape in shapes]
    value, pull = op(*arguments)
    g = random.normal(size=value.shape)
    grads = pull(g)
    assert len(grads) == len(arguments)
    for i, grad in enumerate(grads):
        direction, step = random.normal(size=shapes[i]), 1e-6
        ends = []
        for sign in (1, -1):
            moved = list(arguments)
            moved[i] = moved[i] + sign * step * direction
            ends.append((op(*moved)[0] * g).sum())
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx((grad * direction).sum(), rel=1e-6)


def test_threefry_gives_the_published_numbers() -> None:
    """The first and the last known answer of Random123's `kat_vectors`."""
    for key, count, want in (
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        (
            (0x13198A2E, 0x03707344),
            (0x243F6A88, 0x85A308D3),
            (0xC4923A9C, 0x483DF7A0),
        ),
    ):
        words = [np.array([word], np.uint32) for word in key]
        got = numpy_data.threefry((words[0], words[1]), *count)
        assert [int(word[0]) for word in got] == list(want)
