"""Calls Linen modules: the chapter's networks and stock ones, in one way.

The chapter's networks take one dropout key per example. A stock module, written as
Flax's examples are, takes `train` and uses `nn.Dropout` and `nn.BatchNorm`, whose
results would depend on how a batch is split over devices. Here they do not: each
example draws its own dropout mask, and batch statistics are those of the global batch.
What else draws at random has one key for all devices.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from cnnjax import prng

Variables = Mapping[str, Any]


def init_variables(
    model: nn.Module, key: jax.Array, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Returns the initial parameters and other collections of a network, by name.

    `key` is a typed PRNG key; `image_shape` is that of the network's input.
    """
    images = jnp.zeros((1, *image_shape), jnp.float32)
    return dict(model.init(key, images, **_arguments(model, None)))


def forward(
    model: nn.Module,
    variables: Variables,
    images: jax.Array,
    keys: jax.Array | None = None,
    axis_name: str | None = None,
    key: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, Any]]:
    """Calls a network on a batch.

    Args:
        model: a network of `cnnjax.models`, or any Linen module that is called with
            images, or with images and `train`.
        variables: its parameters and other collections, by name.
        images: float32 [batch, height, width, channels].
        keys: for training, one typed dropout key per example, [batch]; None evaluates.
        axis_name: the mapped axis over which batch statistics are taken; None if this
            device has the full batch.
        key: for training, the key of what a stock module draws for the whole batch, the
            same on every device; None takes a fixed one.

    Returns:
        logits [batch, num_classes], float32 of the chapter's networks, and the
        collections other than the parameters after the call, which training changes.
    """
    arguments = _arguments(model, keys)
    own = {name: value for name, value in variables.items() if name != "params"}
    if keys is None or "dropout_keys" in arguments:
        evaluated: Any = model.apply(variables, images, **arguments)
        return evaluated, own
    with (
        nn.intercept_methods(_dropout_by_example(keys)),
        nn.intercept_methods(_batch_norm_over(axis_name)),
    ):
        logits, changed = model.apply(
            variables,
            images,
            rngs={"dropout": prng.from_seed(0, prng.DROPOUT) if key is None else key},
            mutable=list(own),
            **arguments,
        )
    return logits, dict(changed)


def intermediates(
    model: nn.Module, variables: Variables, images: jax.Array
) -> dict[str, jax.Array]:
    """Returns the outputs of a network's modules by name, in the order of calls.

    A module that returns several arrays is left out. The arguments are as in `forward`;
    dropout is off, and nothing is updated.
    """
    _, state = model.apply(
        variables,
        images,
        capture_intermediates=True,
        mutable=["intermediates"],
        **_arguments(model, None),
    )
    found = {}
    for path, values in traverse_util.flatten_dict(state["intermediates"]).items():
        name = "/".join(part for part in path if part != "__call__")
        if name and isinstance(values[0], jax.Array):  # "" is the network itself
            found[name] = values[0]
    return found


def _arguments(model: nn.Module, keys: jax.Array | None) -> dict[str, Any]:
    takes = inspect.signature(type(model).__call__).parameters
    if "dropout_keys" in takes:
        return {"dropout_keys": keys}
    return {"train": keys is not None} if "train" in takes else {}


Interceptor = Callable[[Any, Any, Any, nn.module.InterceptorContext], Any]


def _dropout_by_example(keys: jax.Array) -> Interceptor:
    """Makes every `nn.Dropout` draw each example's mask from that example's key."""

    def dropout(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if not isinstance(context.module, nn.Dropout):
            return call(*args, **kwargs)
        given = dict(zip(("inputs", "deterministic", "rng"), args, strict=False))
        given |= kwargs
        x, rng = given.pop("inputs"), given.pop("rng", None)
        if rng is not None or len(x) != len(keys):  # its first axis is not the batch
            return call(*args, **kwargs)
        # Flax's own key differs between modules, calls and turns of a scan.
        shared = context.module.make_rng(context.module.rng_collection)
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, jax.random.bits(shared))
        # A batch axis of length one keeps the axes that `broadcast_dims` refers to.
        masked = jax.vmap(lambda key, row: call(row[None], rng=key, **given)[0])
        return masked(own, x)

    return dropout


def _batch_norm_over(axis_name: str | None) -> Interceptor:
    """Makes every `nn.BatchNorm` take its statistics over `axis_name`, none for None.

    This also replaces an axis that the module names itself, as in Flax's ImageNet
    example, since that axis is not mapped here.
    """

    def batch_norm(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if not isinstance(module, nn.BatchNorm) or module.axis_name == axis_name:
            return call(*args, **kwargs)
        same = module.clone(parent=None, name=None, axis_name=axis_name)
        y, changed = same.apply(
            module.variables, *args, mutable=["batch_stats"], **kwargs
        )
        for name, value in changed["batch_stats"].items():
            module.put_variable("batch_stats", name, value)
        return y

    return batch_norm
