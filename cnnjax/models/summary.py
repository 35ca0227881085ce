"""A network's layers: sizes, numbers of operations, first kernel and activations."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cnnjax.models.facts import facts_of
from cnnjax.models.forward import Variables, init_variables, intermediates


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer with weights.

    Attributes:
        name: its path in the parameters, joined by "/"; "" for the network itself.
        output_shape: of one example, after any pooling that the layer includes.
        num_params: number of trainable values, without those of layers inside it.
        multiply_adds: in the forward pass of one example; two operations each.
    """

    name: str
    output_shape: tuple[int, ...]
    num_params: int
    multiply_adds: int


def layers(model: nn.Module, input_shape: tuple[int, int, int]) -> list[Layer]:
    """Returns the layers with weights, in order; each once, however often it is called.

    Multiply-adds are of one call, by formula. A convolution has height * width *
    kernel_height * kernel_width * in * out, padding included; a dense layer in * out.
    Any other layer states them as a method `multiply_adds`, or uses each value of its
    `kernel`, if it has one, at each position of its output. Pooling, normalisation,
    activations and biases are not counted. The compiler's own analysis omits the
    padding and does not fit Winograd's convolution.

    `input_shape` is (height, width, channels) of the network's input.
    """
    found: dict[str, Layer] = {}

    def record(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out = next_fun(*args, **kwargs)
        module = context.module
        own = [v for v in _weights(module).values() if isinstance(v, jax.Array)]
        if context.method_name == "__call__" and own:
            # A layer may return several arrays, and take its input by name, or none.
            into, out_of = (
                np.shape(leaves[0])[1:] if (leaves := jax.tree.leaves(values)) else ()
                for values in ((args, kwargs), out)
            )
            cost = _multiply_adds(module, into, out_of)
            size = sum(leaf.size for leaf in own)
            name = "/".join(module.path)
            found.setdefault(name, Layer(name, out_of, size, cost))
        return out

    with nn.intercept_methods(record):
        jax.eval_shape(lambda: init_variables(model, jax.random.key(0), input_shape))
    return list(found.values())


def _multiply_adds(
    module: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
) -> int:
    if hasattr(module, "multiply_adds"):
        return module.multiply_adds(input_shape)
    kernel = _weights(module).get("kernel")
    # Of a kernel that makes several axes at once, as for the heads of an attention.
    axes = np.size(module.features) if isinstance(module, nn.DenseGeneral) else 1
    return 0 if kernel is None else math.prod(kernel.shape + output_shape[:-axes])


def table(found: list[Layer]) -> str:
    """Returns the layers as a table of text, with the totals below."""
    rows = [("layer", "output", "parameters", "multiply-adds")]
    for layer in found:
        shape = "x".join(str(n) for n in layer.output_shape)
        sizes = (f"{layer.num_params:,}", f"{layer.multiply_adds:,}")
        rows.append((layer.name, shape, *sizes))
    total = sum(layer.num_params for layer in found)
    cost = sum(layer.multiply_adds for layer in found)
    rows.append(("all", "", f"{total:,}", f"{cost:,}"))
    width = max([8, *(len(layer.name) for layer in found)])
    lines = [f"{a:<{width}} {b:>10} {c:>12} {d:>14}" for a, b, c, d in rows]
    lines.append(f"{2 * cost:,} arithmetic operations forward per image")
    return "\n".join(lines)


def first_kernel(
    model: nn.Module, params: Any, input_shape: tuple[int, int, int]
) -> np.ndarray | None:
    """Returns the kernel of a network's first convolution, if it can be shown.

    It is float32 [height, width, in, out]; `input_shape` is as in `layers`. None if
    there is none, or if it reads neither grey nor RGB pictures: 1 or 3 channels.
    """
    for layer in layers(model, input_shape):
        weights = params
        for name in filter(None, layer.name.split("/")):
            weights = weights[name]
        kernel = weights.get("kernel")
        if np.ndim(kernel) == 4:
            return kernel if kernel.shape[2] in (1, 3) else None
    return None


def activations(
    model: nn.Module, variables: Variables, images: jax.Array
) -> dict[str, jax.Array]:
    """Returns the activations of each layer with a kernel: name -> float [batch, ...].

    Those of a convolution are taken before pooling, as in the tutorial, although the
    network pools first; the logits have no activation. `images` are the network's
    input, float32 [batch, height, width, channels].

    Source: `_activation_summary` of tensorflow/models' tutorials/image/cifar10.
    """
    unpooled: dict[str, jax.Array | None] = {}
    facts = facts_of(model)

    def record(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        out, module = next_fun(*args, **kwargs), context.module
        if context.method_name == "__call__" and "kernel" in _weights(module):
            pools = hasattr(module, "unpooled")
            name = "/".join(module.path)
            unpooled[name] = module.unpooled(args[0]) if pools else None
        return out

    with nn.intercept_methods(record):
        # Flax's own record, as values of a module inside a loop do not leave the loop.
        outs = intermediates(model, variables, images)
    found = {
        name: outs[name] if value is None else value
        for name, value in unpooled.items()
        if name in outs
    }
    outputs = facts.output_layer
    if found and outputs and outputs not in found:  # a stock module's own name for it
        *_, outputs = found
    return {k: v if k == outputs else facts.activation(v) for k, v in found.items()}


def _weights(module: nn.Module) -> Mapping[str, Any]:
    weights: Mapping[str, Any] = module.variables.get("params", {})
    return weights
