"""Checks that a user's own network can be trained and evaluated, before it is."""

import contextlib
import inspect
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax.errors import InputError, one_line, raised_at
from cnnjax.models.facts import facts_of
from cnnjax.models.forward import forward, init_variables

# What to do about an exception, by a word of its type or text.
ADVICE = {
    "use_running_average": "pass use_running_average=not train",
    "deterministic": "pass deterministic=not train",
    "InvalidRngError": "only training has keys, and only of the stream 'dropout': pass"
    " nn.Dropout deterministic=not train",
    "ModifyScopeVariableError": "only training changes what is no parameter: pass"
    " nn.BatchNorm use_running_average=not train",
    "Tracer": "values are not known while a network is compiled: compute with"
    " jax.numpy, and choose with jnp.where",
}
# Names of arguments that other code gives to a network in place of `train`.
NOT_TRAIN = ("training", "is_training", "deterministic", "eval", "inference")


def check_network(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    num_classes: int | None = None,
    data: str = "",
) -> int:
    """Returns the number of a network's outputs; computes nothing.

    Raises InputError if it cannot be evaluated and trained. What its own code raises is
    part of the message, with the file and the line.

    Args:
        model: as for `forward`.
        image_shape: that of the network's input.
        num_classes: the number of its outputs; None for its own `num_classes`, if any.
        data: name of the data set, for the message.
    """
    if num_classes is None:
        num_classes = getattr(model, "num_classes", None)
    check = _check_network
    with contextlib.suppress(TypeError):  # of a module with a list, for example
        hash(model)
        check = _check_once  # as tracing takes tenths of a second
    pictures = f"pictures of {'x'.join(map(str, image_shape))}"
    try:
        return check(model, image_shape, num_classes, pictures)
    except InputError as error:
        if not data:
            raise
        message = str(error).replace(pictures, data, 1)
        raise InputError(message) from error.__cause__


def _check_network(
    model: nn.Module, image_shape: tuple[int, int, int], num_classes: Any, data: str
) -> int:
    name, key = type(model).__name__, jax.random.key(0)
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    _check_arguments(model)

    def training_loss(
        params: Any, others: Any, images: jax.Array
    ) -> tuple[jax.Array, Any]:
        keys = jax.random.split(key, len(images))
        logits, own = forward(model, {**others, "params": params}, images, keys)
        _check_logits(model, logits, num_classes, "in training")
        each = facts_of(model).loss(logits, jnp.zeros(len(images), jnp.int32))
        if jnp.shape(each) != (len(images),):
            raise InputError(
                f"{name}'s facts.loss returns {list(jnp.shape(each))} for a batch of"
                " 2, need a loss for each example, [batch]; sum or average no batch"
            )
        return jnp.sum(each), own

    with _explained(model, f"{name} does not fit {data}"):
        others = jax.eval_shape(lambda: init_variables(model, key, image_shape))
    params = others.pop("params", None)
    if not jax.tree.leaves(params):
        raise InputError(f"{name} has no parameters, need some to train; add a layer")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        is_float = jnp.issubdtype(leaf.dtype, jnp.floating)
        if not is_float or leaf.dtype.itemsize < 4:
            advice = "compute in fewer bits by dtype, not by param_dtype"
            raise InputError(
                f"{name} has parameters{jax.tree_util.keystr(path)} of {leaf.dtype},"
                " need float32; "
                + (advice if is_float else "make it a variable of another collection")
            )
    with _explained(model, f"{name} cannot be evaluated on {data}"):
        logits, _ = jax.eval_shape(
            partial(forward, model), {**others, "params": params}, images
        )
    _check_logits(model, logits, num_classes, "in evaluation")
    with _explained(model, f"{name} cannot be trained on {data}"):
        step = jax.grad(training_loss, has_aux=True)
        _, own = jax.eval_shape(step, params, others, images)
    if _types(own) != _types(others):
        raise InputError(
            f"{name} has {_types(others)} before a step and {_types(own)} after it,"
            " need the same arrays, of the same shapes and types; correct its variables"
        )
    return logits.shape[1]


_check_once = lru_cache(maxsize=32)(_check_network)


def _check_arguments(model: nn.Module) -> None:
    takes = inspect.signature(type(model).__call__).parameters
    known = {"train", "dropout_keys"} & set(takes)
    for parameter in list(takes.values())[2:]:
        if parameter.name in known or parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            continue
        needed = parameter.default is inspect.Parameter.empty
        if needed or (not known and parameter.name in NOT_TRAIN):
            raise InputError(
                f"{type(model).__name__} is called with {parameter.name}, need"
                " __call__(self, x) or __call__(self, x, train: bool); take train in"
                " its place, or give it a default"
            )


def _check_logits(
    model: nn.Module, logits: Any, num_classes: int | None, when: str
) -> None:
    need = f"one array of floats, [batch, {num_classes or 'classes'}]"
    got = f"{type(model).__name__} returns a {type(logits).__name__} {when}"
    advice = "return the logits alone"
    if hasattr(logits, "shape"):
        got = f"{type(model).__name__} returns {logits.dtype} {list(logits.shape)}"
        got += f" for a batch of 2 {when}"
        advice = (
            "end with nn.Dense(self.num_classes), a field of the class, on rows such as"
            " x.reshape(len(x), -1)"
        )
        if (
            jnp.issubdtype(logits.dtype, jnp.floating)
            and len(logits.shape) == 2
            and logits.shape[0] == 2
            and logits.shape[1] == (num_classes or max(2, logits.shape[1]))
        ):
            return
    raise InputError(f"{got}, need {need}; {advice}")


def _types(variables: Any) -> str:
    types = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", variables)
    return str(types).replace("'", "")


@contextlib.contextmanager
def _explained(model: nn.Module, problem: str) -> Iterator[None]:
    """Raises InputError, which names the file and the line, for any exception."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # A network is a program and may raise anything.
        kind, text = type(error).__name__, one_line(error).split(" (https://")[0]
        text = text.split(" The error occurred while tracing")[0]
        advice = [ADVICE[word] for word in ADVICE if word in f"{kind} {text}"]
        said = text[:300] if isinstance(error, ValueError) else f"{kind}: {text[:300]}"
        place = raised_at(error, type(model).__module__)
        raise InputError(
            "; ".join([f"{problem}: {said}{place}", *advice[:1]])
        ) from error
