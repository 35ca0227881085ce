"""The order of the examples, as a pure function of the seed and the position."""

import functools
import zlib

import numpy as np


# Cached, because every step needs the order of its epoch, and every seed has its own.
@functools.lru_cache(maxsize=64)
def permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Returns the order of the examples in an epoch, a read-only int64 [num_examples].

    It is the order that sorts `num_examples` raw 64-bit numbers of Philox, keyed by the
    seed (in [0, 2**32)) and the epoch (from 0). Raw numbers and a stable sort are the
    same in every version of NumPy and on every processor, which
    `Generator.permutation` does not promise.
    """
    # Philox's key has two 64-bit words: one holds the stream's name and the seed, the
    # other the epoch.
    key = (zlib.crc32(b"sampling") << 32 | seed) | epoch << 64
    raw = np.random.Philox(key=key).random_raw(num_examples)
    order = np.argsort(raw, kind="stable")
    order.flags.writeable = False
    return order


def example_indices(seed: int, num_examples: int, positions: range) -> np.ndarray:
    """Returns the example at each position of a run, int64 [len(positions)].

    With n = `num_examples`, position p is example `permutation(seed, p // n)[p % n]`.
    So batches continue across the ends of epochs, and every epoch uses every example
    exactly once. Row i of a step's batch has position `step * batch_size + i`.
    """
    parts = []
    position = positions.start
    while position < positions.stop:
        epoch, start = divmod(position, num_examples)
        order = permutation(seed, epoch, num_examples)
        parts.append(order[start : start + positions.stop - position])
        position += len(parts[-1])
    return np.concatenate(parts)
