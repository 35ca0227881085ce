"""What another library's network offers to the benchmark, and the check that it is one.

A peer does a step's same work: forward, backward, the L2 penalty, Adam, from the same
weights on the same batch.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from cnnjax.errors import RunError

# Two float32 programs of one network, in other orders of sums, or TF32 on a GPU.
TOLERANCE = 1e-3
TOLERANCE_HALF = 5e-2


@dataclasses.dataclass(frozen=True)
class Job:
    """The work of a step.

    Attributes:
        network: "CifarCNN" or "SimpleCNN".
        params: the initial weights, layer -> kernel (HWIO or [in, out]) and bias.
        image: float32 [batch, height, width, channels].
        label: int32 [batch].
        learning_rate: of Adam.
        l2: weight of sum(w**2) / 2 over the kernels of `penalised`.
        penalised: names of layers.
        keep_prob: of dropout before the last layer; 1 where there is none.
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
    """A network of another library.

    Attributes:
        name: of the library and how it is used.
        forward: returns the logits of the batch now, without dropout, on the host.
        train: does one step and waits.
        half: whether it computes in bfloat16.
    """

    name: str
    forward: Callable[[], np.ndarray]
    train: Callable[[], object]
    half: bool = False


def check(peer: Peer, logits: np.ndarray) -> None:
    """Raises RunError where a peer is not the same network.

    Args:
        peer: before its first step.
        logits: this project's, of the same weights and batch.
    """
    difference = np.linalg.norm(peer.forward() - logits) / np.linalg.norm(logits)
    if not difference < (TOLERANCE_HALF if peer.half else TOLERANCE):
        raise RunError(
            f"{peer.name} is not the same network: its logits differ by"
            f" {difference:.1e} (relative norm); its time would say nothing"
        )
