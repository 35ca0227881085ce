"""Peers: the same networks in other libraries, and the check that they are the same.

A peer's step does the same work as this project's: forward, backward, L2 penalty and
Adam, from the same weights on the same batch.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from cnnjax.errors import RunError

# Allows for another order of summation in float32, and for TF32 on a GPU, which has 11
# bits: kernels of 1% more make a difference of 1%.
TOLERANCE = {"cpu": 1e-3, "gpu": 5e-3}
TOLERANCE_HALF = 5e-2


@dataclasses.dataclass(frozen=True)
class Job:
    """The work that a peer has to do in each step.

    Attributes:
        network: "CifarCNN" or "SimpleCNN".
        params: initial weights, layer -> kernel (HWIO or [in, out]) and bias.
        image: float32 [batch, height, width, channels].
        label: int32 [batch].
        learning_rate: that of Adam.
        l2: weight of sum(w**2) / 2 over the kernels of `penalised`.
        penalised: names of layers.
        keep_prob: dropout's probability of keeping a value before the last layer; 1
            means no dropout.
    """

    network: str
    params: dict[str, dict[str, np.ndarray]]
    image: np.ndarray
    label: np.ndarray
    learning_rate: float
    l2: float
    penalised: tuple[str, ...]
    keep_prob: float


@dataclasses.dataclass(frozen=True)
class Peer:
    """A network in another library.

    Attributes:
        name: the library and how it is used.
        forward: returns the batch's logits for the current weights, without dropout.
        train: does so many training steps, and then waits for the last one's result.
        half: whether it computes in bfloat16.
        slow_to_compile: whether its compilation takes minutes rather than seconds.
    """

    name: str
    forward: Callable[[], np.ndarray]
    train: Callable[[int], object]
    half: bool = False
    slow_to_compile: bool = False


def check(peer: Peer, logits: np.ndarray) -> None:
    """Raises RunError if a peer's logits differ, so that it is not the same network.

    Args:
        peer: a peer before its first training step.
        logits: this project's logits for the same weights and batch.
    """
    difference = np.linalg.norm(peer.forward() - logits) / np.linalg.norm(logits)
    tolerance = TOLERANCE_HALF if peer.half else TOLERANCE[jax.default_backend()]
    if not difference < tolerance:
        raise RunError(
            f"{peer.name} is not the same network: its logits differ by"
            f" {difference:.1e} (relative norm); its time would say nothing"
        )
