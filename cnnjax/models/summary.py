"""How large a network is: parameters, and operations by formula from the shapes."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


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
