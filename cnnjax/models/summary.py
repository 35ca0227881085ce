"""A network's layers: their sizes, operations by formula, first kernel, activations."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.facts import facts_of
from cnnjax.models.forward import Variables, forward, init_variables


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
        name: its path in the parameters, with "/" between the parts.
        output_shape: of one example, after what the layer ends with.
        num_params: trainable numbers.
        multiply_adds: for one example forward; two arithmetic operations each.
    """

    name: str
    output_shape: tuple[int, ...]
    num_params: int
    multiply_adds: int


def layers(model: nn.Module, input_shape: tuple[int, int, int]) -> list[Layer]:
    """Returns the layers with weights, in order.

    A convolution costs height * width * kernel_height * kernel_width * in * out, with
    zeros around the picture counted as the hardware would; a dense layer in * out; any
    other without a method `multiply_adds` each number of its `kernel`, where it has
    one, at each place of its output.
    Pooling, normalisation, activations and biases are not counted. The compiler's own
    analysis leaves the zeros out and means nothing for Winograd's convolution.

    Args:
        model: a network of `cnnjax.models`.
        input_shape: (height, width, channels) of what it is fed.
    """
    found: list[Layer] = []

    def record(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = next_fun(*args, **kwargs)
        module = context.module
        weights = _weights(module)
        own = any(isinstance(leaf, jax.Array) for leaf in weights.values())
        if context.method_name == "__call__" and own:
            size = sum(leaf.size for leaf in jax.tree.leaves(weights))
            shape = tuple(out.shape[1:])
            cost = _multiply_adds(module, args[0].shape[1:], shape)
            found.append(Layer("/".join(module.path), shape, size, cost))
        return out

    with nn.intercept_methods(record):
        jax.eval_shape(lambda: init_variables(model, jax.random.key(0), input_shape))
    return found


def _multiply_adds(
    module: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> int:
    if hasattr(module, "multiply_adds"):
        return module.multiply_adds(input_shape)
    kernel = _weights(module).get("kernel")
    return 0 if kernel is None else math.prod(kernel.shape + output_shape[:-1])


def table(found: list[Layer]) -> str:
    """Returns the layers as lines of text, with the totals below."""
    rows = [("layer", "output", "parameters", "multiply-adds")]
    for layer in found:
        shape = "x".join(str(n) for n in layer.output_shape)
        sizes = (f"{layer.num_params:,}", f"{layer.multiply_adds:,}")
        rows.append((layer.name, shape, *sizes))
    total = sum(layer.num_params for layer in found)
    cost = sum(layer.multiply_adds for layer in found)
    rows.append(("all", "", f"{total:,}", f"{cost:,}"))
    width = max(8, *(len(layer.name) for layer in found))
    lines = [f"{a:<{width}} {b:>10} {c:>12} {d:>14}" for a, b, c, d in rows]
    lines.append(f"{2 * cost:,} arithmetic operations forward per image")
    return "\n".join(lines)


def first_kernel(
    model: nn.Module, params: Any, input_shape: tuple[int, int, int]
) -> np.ndarray | None:
    """Returns the kernel of a network's first convolution; None where it has none.

    Args:
        model: a Linen module.
        params: its parameters.
        input_shape: (height, width, channels) of what it is fed.

    Returns:
        float32 [height, width, in, out].
    """
    for layer in layers(model, input_shape):
        weights = params
        for name in layer.name.split("/"):
            weights = weights[name]
        if np.ndim(weights.get("kernel")) == 4:
            kernel: np.ndarray = weights["kernel"]
            return kernel
    return None


def activations(
    model: nn.Module, variables: Variables, images: jax.Array
) -> dict[str, jax.Array]:
    """Returns what each layer with a kernel gives, after its activation.

    A convolution is taken before its pooling, as in the tutorial, and not as the
    network computes it; the logits have no activation.

    Args:
        model: a Linen module.
        variables: its parameters and other collections.
        images: float32 [batch, height, width, channels], as the network is fed.

    Returns:
        layer -> float [batch, ...], in the order of the layers.

    Source: `_activation_summary` of tensorflow/models' tutorials/image/cifar10.
    """
    found: dict[str, jax.Array] = {}
    facts = facts_of(model)

    def record(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out, module = next_fun(*args, **kwargs), context.module
        if context.method_name == "__call__" and "kernel" in _weights(module):
            name = "/".join(module.path)
            whole = module.unpooled(args[0]) if hasattr(module, "unpooled") else out
            is_last = name == facts.output_layer
            found[name] = whole if is_last else facts.activation(whole)
        return out

    with nn.intercept_methods(record):
        forward(model, variables, images)
    return found


def _weights(module: nn.Module) -> Mapping[str, Any]:
    weights: Mapping[str, Any] = module.variables.get("params", {})
    return weights
