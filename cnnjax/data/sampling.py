"""Which examples make up a step: a pure function of the seed and the step."""

import functools
import zlib

import numpy as np


# A call for a step sorts a whole epoch; many seeds at a time each have their own.
@functools.lru_cache(maxsize=64)
def permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Returns the order of the examples in an epoch, int64 [num_examples].

    The order that sorts `num_examples` raw 64-bit numbers of Philox keyed by the seed
    and the epoch. Raw output and a stable sort are the same in every version of NumPy
    and on every processor; `Generator.permutation` promises neither.

    Args:
        seed: of the run, in [0, 2**32).
        epoch: from 0.
        num_examples: positive.

    Returns:
        an array that is shared, and cannot be written to.
    """
    # Philox takes a key of two 64-bit words: what the stream is for and the seed in
    # one, the epoch in the other.
    key = (zlib.crc32(b"sampling") << 32 | seed) | epoch << 64
    raw = np.random.Philox(key=key).random_raw(num_examples)
    order = np.argsort(raw, kind="stable")
    order.flags.writeable = False
    return order


def example_indices(seed: int, num_examples: int, positions: range) -> np.ndarray:
    """Returns which example stands at each position of a run, int64 [len(positions)].

    Position p is example `permutation(seed, p // n)[p % n]`: batches run across the
    ends of epochs, and every epoch uses every example exactly once.

    Args:
        seed: of the run.
        num_examples: n, the size of the training set.
        positions: consecutive, from `step * batch_size` on.
    """
    parts = []
    position = positions.start
    while position < positions.stop:
        epoch, start = divmod(position, num_examples)
        order = permutation(seed, epoch, num_examples)
        parts.append(order[start : start + positions.stop - position])
        position += len(parts[-1])
    return np.concatenate(parts)
