"""Which examples make up a step: a pure function of the seed and the step."""

import zlib

import numpy as np


def permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Returns the order of the examples in an epoch, int64 [num_examples].

    The order that sorts `num_examples` raw 64-bit numbers of Philox keyed by the seed
    and the epoch. Raw output and a stable sort are the same in every version of NumPy
    and on every processor; `Generator.permutation` promises neither.

    Args:
        seed: of the run, in [0, 2**32).
        epoch: from 0.
        num_examples: positive.
    """
    # Philox takes a key of two 64-bit words: what the stream is for and the seed in
    # one, the epoch in the other.
    key = (zlib.crc32(b"sampling") << 32 | seed) | epoch << 64
    return np.argsort(np.random.Philox(key=key).random_raw(num_examples), kind="stable")


def example_indices(seed: int, num_examples: int, positions: range) -> np.ndarray:
    """Returns which example stands at each position of a run, int64 [len(positions)].

    Position p is example `permutation(seed, p // n)[p % n]`: batches run across the
    ends of epochs, and every epoch uses every example exactly once.

    Args:
        seed: of the run.
        num_examples: n, the size of the training set.
        positions: consecutive, from `step * batch_size` on.
    """
    first, last = positions[0] // num_examples, positions[-1] // num_examples
    orders = [
        permutation(seed, epoch, num_examples) for epoch in range(first, last + 1)
    ]
    start = positions[0] - first * num_examples
    return np.concatenate(orders)[start : start + len(positions)]
