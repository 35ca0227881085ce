"""How much the benchmark's cases do: one set of sizes for a CPU, one for a GPU."""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes that suit a kind of device.

    Attributes:
        matrix: rows and columns of the matrices whose product is timed.
        stream_bytes: bytes of each array of the triad, more than the caches hold.
        steps: training steps in a row, before the result is waited for. A GPU is given
            the next step while it computes this one, as in a training; on a CPU the
            host is the device.
        batches: batch sizes of the group `batches`.
        steps_per_call: of the group `calls`.
        seeds: numbers of networks in one program, of the group `seeds`.
        seed_steps: steps a call of the group `seeds`.
        traced_steps: steps in a trace of the group `kernels`.
    """

    matrix: int
    stream_bytes: int
    steps: int
    batches: tuple[int, ...]
    steps_per_call: tuple[int, ...]
    seeds: tuple[int, ...]
    seed_steps: int
    traced_steps: int


SIZES = {
    "cpu": Sizes(
        matrix=2048,
        stream_bytes=1 << 28,
        steps=1,
        batches=(128, 512),
        steps_per_call=(1, 10),
        seeds=(1, 4),
        seed_steps=5,
        traced_steps=3,
    ),
    "gpu": Sizes(
        matrix=8192,
        stream_bytes=1 << 32,
        steps=20,
        batches=(128, 512, 2048),
        steps_per_call=(1, 10, 100, 1000),
        seeds=(1, 4, 16, 64),
        seed_steps=50,
        traced_steps=20,
    ),
}


def here() -> Sizes:
    """Returns the sizes of this machine's default device."""
    return SIZES[jax.default_backend()]
