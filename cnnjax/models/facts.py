"""Facts that a network's class states about itself, with their defaults."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax

from cnnjax import losses

LossFn = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts about a network that training, reports and scripts need.

    A network's class states them as the attribute `facts`, or as a property where they
    depend on its fields. A stock Linen module without one has these defaults.

    Attributes:
        loss: (logits, labels) -> loss of each example, float32 [batch]; it may take
            `label_smoothing` too.
        penalised: the layers whose kernels L1 and L2 penalise; None for every kernel.
        normalise: how the input is scaled, see `data.augment.normalise`.
        output_layer: name of the layer that returns the logits; "" is none. Without a
            layer of this name summaries take the last one, and Muon leaves out none.
        activation: of every other layer with weights, for summaries.
        has_dropout: whether the training accuracy takes an extra pass without dropout,
            as the chapter prints it for such networks.
        dataset: what it is trained on where neither user nor script names one.
        stand_in: the embedded data set that replaces `dataset` if that is missing.
    """

    loss: Callable[..., jax.Array] = losses.cross_entropy
    penalised: tuple[str, ...] | None = None
    normalise: str = "per_image"
    output_layer: str = "logits"
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    has_dropout: bool = False
    dataset: str = "cifar10"
    stand_in: str = "shapes"


def facts_of(model: nn.Module) -> Facts:
    """Returns the facts that a network states, or the defaults."""
    facts: Facts = getattr(model, "facts", Facts())
    return facts
