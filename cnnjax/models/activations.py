"""What the layers of a network pass on for a batch, as the tutorial summarised them."""

from typing import Any

import flax.linen as nn
import jax

from cnnjax.models.cifar import ACTIVATIONS
from cnnjax.models.layers import Conv
from cnnjax.models.lenet import LeNet5
from cnnjax.models.lenet_layers import PartialConv, squash
from cnnjax.ops import conv


def activations(
    model: nn.Module, params: Any, images: jax.Array
) -> dict[str, jax.Array]:
    """Returns what each convolution and dense layer gives, after its activation.

    A convolution is taken before its pooling, as in the tutorial, and not as the
    network computes it; the logits have no activation.

    Args:
        model: a network of `cnnjax.models`.
        params: its parameters.
        images: float32 [batch, height, width, channels], as the network is fed.

    Returns:
        layer -> float [batch, ...], in the order of the layers.

    Source: `_activation_summary` of tensorflow/models' tutorials/image/cifar10.
    """
    found: dict[str, jax.Array] = {}
    relu = ACTIVATIONS[getattr(model, "activation", "relu")]
    activation = squash if isinstance(model, LeNet5) else relu

    def record(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out, module = next_fun(*args, **kwargs), context.module
        if isinstance(module, Conv | PartialConv | nn.Dense):
            name = str(module.name)
            whole = _unpooled(module, args[0]) if isinstance(module, Conv) else out
            found[name] = whole if name == "logits" else activation(whole)
        return out

    with nn.intercept_methods(record):
        model.apply({"params": params}, images)
    return found


def _unpooled(module: Conv, x: jax.Array) -> jax.Array:
    weights = module.variables["params"]
    kernel = weights["kernel"].astype(module.dtype)
    y = conv.conv(x.astype(module.dtype), kernel, module.padding)
    return y + weights["bias"].astype(module.dtype).reshape(1, 1, 1, -1)
