"""A network that cannot be trained is refused in one line, before anything runs."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest

from cnnjax.errors import InputError
from cnnjax.models.checking import check_network
from cnnjax.models.facts import Facts

SHAPE = (8, 8, 3)


def network(call) -> nn.Module:
    """Returns a network of three classes that is called so: (module, x, train)."""

    class Mine(nn.Module):
        num_classes: int = 3

        @nn.compact
        def __call__(self, x: jax.Array, train: bool) -> jax.Array:
            return call(self, x, train)

    return Mine()


def rows(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1)


def dense(x: jax.Array) -> jax.Array:
    return nn.Dense(3)(rows(x))


def raises(error: Exception) -> None:
    raise error


def grows(module: nn.Module, train: bool) -> None:
    seen = module.variable("seen", "n", lambda: jnp.zeros(1, jnp.int32))
    if train:
        seen.value = jnp.append(seen.value, 1)


def count(module: nn.Module) -> None:
    seen = module.variable("seen", "n", lambda: jnp.zeros(()))
    seen.value += 1


def whole_numbers(module: nn.Module) -> jax.Array:
    return module.param("table", lambda key: jnp.arange(3)[None])


FILE = r"\(.*/test_checking\.py:\d+\)"
FIT, EVALUATED, TRAINED = (
    f"Mine {problem} pictures of 8x8x3: "
    for problem in ("does not fit", "cannot be evaluated on", "cannot be trained on")
)
MISTAKES = {
    # What it returns.
    "one-output": (
        lambda m, x, t: nn.Dense(1)(rows(x)),
        r"Mine returns float32 \[2, 1\] for a batch of 2 in evaluation, need one array"
        r" of floats, \[batch, 3\]; end with nn.Dense\(self.num_classes\)",
    ),
    "a-map": (lambda m, x, t: nn.Dense(3)(x), r"returns float32 \[2, 8, 8, 3\] for"),
    "whole": (lambda m, x, t: dense(x).astype(int), r"returns int32 \[2, 3\] for a"),
    "two": (lambda m, x, t: (dense(x), x), "returns a tuple in evaluation, need one"),
    "nothing": (
        lambda m, x, t: print(dense(x)),
        "returns a NoneType .*; return the logits alone",
    ),
    "other-in-training": (
        lambda m, x, t: (dense(x), x) if t else dense(x),
        "returns a tuple in training",
    ),
    "all-in-one-row": (
        lambda m, x, t: nn.Dense(3)(x.reshape(1, -1)),
        f'{EVALUATED}ScopeParamShapeError: .*"kernel" in "/Dense_0".* {FILE}$',
    ),
    # Dropout, statistics and other collections.
    "drop": (
        lambda m, x, t: dense(nn.Dropout(0.5)(x)),
        f"{FIT}.*{FILE}; pass deterministic=not train",
    ),
    "drop-always": (
        lambda m, x, t: dense(nn.Dropout(0.5, deterministic=False)(x)),
        f'{EVALUATED}InvalidRngError: Dropout_0 needs PRNG for "dropout" {FILE}; only',
    ),
    "other-stream": (
        lambda m, x, t: dense(x) + (len(m.make_rng("noise")) if t else 0),
        f'{TRAINED}InvalidRngError: .* "noise" {FILE}; .* of the stream .dropout.',
    ),
    "norm": (
        lambda m, x, t: dense(nn.BatchNorm()(x)),
        f"{FIT}.*{FILE}; pass use_running_average=not train",
    ),
    "norm-always": (
        lambda m, x, t: dense(nn.BatchNorm(use_running_average=False)(x)),
        f'{EVALUATED}.*"mean" .* is immutable. {FILE}; .* use_running_average=not',
    ),
    "counts-always": (
        lambda m, x, t: (count(m), dense(x))[1],
        f'{EVALUATED}.*"n" .* is immutable. {FILE}; only training changes',
    ),
    "grows": (
        lambda m, x, t: (grows(m, t), dense(x))[1],
        r"{seen: {n: int32\[1\]}} before a step and {seen: {n: int32\[2\]}} after it",
    ),
    "layer-of-training": (
        lambda m, x, t: dense(nn.Dense(4)(x) if t else x),
        f"{TRAINED}ScopeParamShapeError: .*{FILE}$",
    ),
    # Parameters.
    "none": (lambda m, x, t: rows(x)[:, :3], "has no parameters, need some to train"),
    "of-integers": (
        lambda m, x, t: dense(x) + whole_numbers(m),
        r"Mine has parameters\['table'\] of int32, need float32; make it a",
    ),
    "of-few-bits": (
        lambda m, x, t: nn.Dense(3, param_dtype=jnp.bfloat16)(rows(x)),
        r"\['Dense_0'\]\['bias'\] of bfloat16, need float32; .* by dtype, not by param",
    ),
    # What it raises itself.
    "value": (
        lambda m, x, t: raises(ValueError("need\n28x28")),
        f"{FIT}need 28x28 {FILE}$",
    ),
    "attribute": (
        lambda m, x, t: m.layer(x),
        f'{FIT}AttributeError: "Mine" object has no attribute "layer". {FILE}$',
    ),
    "if": (
        lambda m, x, t: dense(-x if x.mean() > 0 else x),
        f"{FIT}TracerBoolConversionError: .*{FILE}; .* choose with jnp.where",
    ),
    "no-derivative": (
        lambda m, x, t: jax.lax.while_loop(
            lambda y: y.sum() < 0, lambda y: y + 1, dense(x)
        ),
        f"{TRAINED}Reverse-mode differentiation does not work",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_in_a_network_is_one_line(case: str) -> None:
    call, message = MISTAKES[case]
    with pytest.raises(InputError, match=message) as raised:
        check_network(network(call), SHAPE)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("loss", "got"),
    [
        (lambda logits, labels: jnp.sum(logits), r"'s facts.loss returns \[\] for a"),
        (lambda logits, labels: logits[:, :1], r"'s facts.loss returns \[2, 1\] for a"),
        (optax.sigmoid_binary_cross_entropy, " cannot be trained on .* shapes"),
    ],
)
def test_a_loss_of_one_s_own_is_of_each_example(loss: Any, got: str) -> None:
    class Mine(nn.Module):
        facts = Facts(loss=loss)

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dense(3)(rows(x))

    with pytest.raises(InputError, match=f"^Mine{got}"):
        check_network(Mine(), SHAPE)


def test_a_network_s_arguments_and_classes() -> None:
    class Other(nn.Module):
        classes: int = 3

        @nn.compact
        def __call__(self, x: jax.Array, deterministic: bool = True) -> jax.Array:
            return nn.Dense(self.classes)(rows(x))

    class Needs(Other):
        @nn.compact
        def __call__(self, x: jax.Array, y: jax.Array, train: bool) -> jax.Array:
            return dense(x + y)

    class Good(Other):
        @nn.compact
        def __call__(self, x: jax.Array, scale: float = 2.0) -> jax.Array:
            return nn.Dense(self.classes)(rows(x) * scale)

    for model, name in ((Other(), "deterministic"), (Needs(), "y")):
        message = rf"is called with {name}, need __call__\(self, x\) or"
        with pytest.raises(InputError, match=message):
            check_network(model, SHAPE)
    check_network(Good(), SHAPE, num_classes=3, data="noise")
    with pytest.raises(InputError, match=r"need .* \[batch, 4\]"):
        check_network(Good(), SHAPE, num_classes=4, data="noise")
    failing = network(MISTAKES["value"][0])
    with pytest.raises(InputError, match=r"^Mine does not fit noise: need 28x28"):
        check_network(failing, SHAPE, data="noise")
