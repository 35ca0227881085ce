"""What a network's class may say about itself, and what holds where it does not."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax

from cnnjax import losses

LossFn = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts about a network that its training, its reports and its scripts need.

    A network states them as the attribute `facts` of its class, or as a property where
    they depend on its fields. A stock Linen module that states none has these defaults.

    Attributes:
        loss: (logits, labels) -> loss of each example, float32 [batch]; it may take
            `label_smoothing` too.
        penalised: the layers whose kernels L1 and L2 penalise; None for every kernel.
        normalise: how its input is scaled, see `data.augment.normalise`.
        first_conv: the name of the first convolution, whose kernel is shown as
            pictures; "" where there is none.
        output_layer: the name of the layer of the logits.
        activation: what follows every other layer with weights, for summaries.
        has_dropout: whether accuracy on a training batch needs a pass without dropout,
            which the chapter prints for such networks.
        dataset: what a script trains it on where no data set is named.
        stand_in: the embedded data set that replaces `dataset` where it is missing.
    """

    loss: Callable[..., jax.Array] = losses.cross_entropy
    penalised: tuple[str, ...] | None = None
    normalise: str = "per_image"
    first_conv: str = ""
    output_layer: str = "logits"
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    has_dropout: bool = False
    dataset: str = "cifar10"
    stand_in: str = "shapes"


def facts_of(model: nn.Module) -> Facts:
    """Returns what a network states about itself, or the defaults."""
    facts: Facts = getattr(model, "facts", Facts())
    return facts
