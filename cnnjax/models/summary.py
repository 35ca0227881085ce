"""How large a network is: parameters, and operations by formula from the shapes."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.models.cifar import ACTIVATIONS
from cnnjax.models.layers import Conv
from cnnjax.models.lenet import LeNet5, PartialConv, squash
from cnnjax.ops import conv


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
        name: as in the parameters.
        output_shape: of one example, after what the layer ends with.
        num_params: trainable numbers.
        multiply_adds: for one example forward; two arithmetic operations each.
    """

    name: str
    output_shape: tuple[int, ...]
    num_params: int
    multiply_adds: int


def layers(model: nn.Module, image_shape: tuple[int, int, int]) -> list[Layer]:
    """Returns the layers with weights, in order.

    A convolution costs height * width * kernel_height * kernel_width * in * out, with
    zeros around the picture counted as the hardware would; a dense layer in * out; any
    other without a method `multiply_adds` each number of its `kernel`, where it has
    one, at each place of its output.
    Pooling, normalisation, activations and biases are not counted. The compiler's own
    analysis leaves the zeros out and means nothing for Winograd's convolution.

    Args:
        model: a network of `cnnjax.models`.
        image_shape: (height, width, channels) of what it is fed.
    """
    found: list[Layer] = []

    def record(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = next_fun(*args, **kwargs)
        module = context.module
        if context.method_name == "__call__" and "params" in module.variables:
            weights = module.variables["params"]
            if any(isinstance(leaf, jax.Array) for leaf in weights.values()):
                size = sum(leaf.size for leaf in jax.tree.leaves(weights))
                shape = tuple(out.shape[1:])
                cost = _multiply_adds(module, args[0].shape[1:], shape)
                found.append(Layer(str(module.name), shape, size, cost))
        return out

    def forward(images: jax.Array) -> Any:
        with nn.intercept_methods(record):
            return model.init(jax.random.key(0), images)

    jax.eval_shape(forward, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    return found


def _multiply_adds(
    module: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> int:
    if hasattr(module, "multiply_adds"):
        return module.multiply_adds(input_shape)
    kernel = module.variables["params"].get("kernel")
    return 0 if kernel is None else math.prod(kernel.shape + output_shape[:-1])


def table(found: list[Layer], total_params: int) -> str:
    """Returns the layers as lines of text, with the totals below."""
    rows = [("layer", "output", "parameters", "multiply-adds")]
    for layer in found:
        shape = "x".join(str(n) for n in layer.output_shape)
        sizes = (f"{layer.num_params:,}", f"{layer.multiply_adds:,}")
        rows.append((layer.name, shape, *sizes))
    cost = sum(layer.multiply_adds for layer in found)
    rows.append(("all", "", f"{total_params:,}", f"{cost:,}"))
    lines = [f"{a:<8} {b:>10} {c:>12} {d:>14}" for a, b, c, d in rows]
    lines.append(f"{2 * cost:,} arithmetic operations forward per image")
    return "\n".join(lines)


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
