import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import optimizers
from cnnjax.config import FIELDS
from cnnjax.losses import Penalty
from cnnjax.models.facts import Facts
from cnnjax.recipe import make_recipe


def schedule(name: str, **changes):
    options = {
        "learning_rate": 0.1,
        "decay_steps": 10,
        "decay_rate": 0.5,
        "staircase": False,
    }
    return optimizers.make_schedule(name, **options | changes)


@pytest.mark.parametrize(
    ("made", "points"),
    [
        (schedule("constant"), [(0, 0.1), (1000, 0.1)]),
        (schedule("exponential"), [(0, 0.1), (5, 0.1 * 0.5**0.5), (20, 0.025)]),
        (
            schedule("exponential", staircase=True),
            [(0, 0.1), (9, 0.1), (10, 0.05), (19, 0.05), (20, 0.025)],
        ),
        (schedule("exponential", decay_rate=1.0), [(0, 0.1), (3000, 0.1)]),
        (schedule("linear", decay_rate=0.0), [(0, 0.1), (5, 0.05), (10, 0), (11, 0)]),
        (schedule("cosine", decay_rate=0.0), [(0, 0.1), (5, 0.05), (10, 0), (11, 0)]),
    ],
)
def test_schedules(made, points: list[tuple[int, float]]) -> None:
    for step, expected in points:
        np.testing.assert_allclose(made(step), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("length", [10, 41, 47, 82, 97, 850, 1171, 80_000])
def test_a_stair_is_as_long_in_a_compiled_step(length: int) -> None:
    """A quotient of floats, compiled, is below the whole number for some of these."""
    made = schedule("exponential", staircase=True, decay_steps=length)
    steps = np.array([stair * length + i for stair in range(1, 9) for i in (-1, 0)])
    for rate in (jax.jit(jax.vmap(made)), made):
        expected = 0.1 * 0.5 ** (steps // length)
        np.testing.assert_allclose(rate(steps), expected, rtol=1e-6)


def test_the_original_86_percent_run_never_decays() -> None:
    # decay_steps = int(50000 / 128 * 350) = 136,718, more than its 100,000 steps.
    made = schedule("exponential", decay_steps=136_718, decay_rate=0.1, staircase=True)
    assert made(99_999) == made(0)


def tree() -> dict:
    return {
        "conv1": {"kernel": jnp.array([1.0, -2.0])},
        "local3": {"kernel": jnp.array([0.5, 3.0]), "bias": jnp.array([0.7])},
    }


def fit(params: dict) -> jax.Array:
    return sum(jnp.sum((p - 0.3) ** 2) for p in jax.tree.leaves(params))


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_l2_in_the_chain_is_l2_in_the_loss(name: str) -> None:
    """The penalty's gradient goes through the optimiser, unlike AdamW's decay."""
    rate = schedule("constant", learning_rate=0.01)
    penalty = Penalty(l2=0.2, layers=("local3",))
    in_chain = optimizers.make_optimizer(name, rate, penalty=penalty, momentum=0.9)
    plain = optimizers.make_optimizer(name, rate, momentum=0.9)
    a, b = tree(), tree()
    state_a, state_b = in_chain.init(a), plain.init(b)
    for _ in range(5):
        updates, state_a = in_chain.update(jax.grad(fit)(a), state_a, a)
        a = optax.apply_updates(a, updates)

        def total(params: dict) -> jax.Array:
            return fit(params) + penalty.l2_loss(params)

        updates, state_b = plain.update(jax.grad(total)(b), state_b, b)
        b = optax.apply_updates(b, updates)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), a, b)


def test_adam_by_hand() -> None:
    tx = optimizers.make_optimizer("adam", schedule("constant", learning_rate=0.1))
    params = jnp.array([1.0])
    state, m, v, x = tx.init(params), 0.0, 0.0, 1.0
    for t, g in enumerate((2.0, -1.0, 0.5), start=1):
        updates, state = tx.update(jnp.array([g]), state, params)
        params = optax.apply_updates(params, updates)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x -= 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(params, [x], rtol=1e-5)


def test_momentum_by_hand() -> None:
    """Nesterov's: the step looks ahead by the velocity that the gradient just made."""
    tx = optimizers.make_optimizer(
        "momentum", schedule("constant", learning_rate=0.1), momentum=0.5
    )
    params, velocity, x = jnp.array([1.0]), 0.0, 1.0
    state = tx.init(params)
    for g in (2.0, -1.0, 0.5):
        updates, state = tx.update(jnp.array([g]), state, params)
        params = optax.apply_updates(params, updates)
        velocity = g + 0.5 * velocity
        x -= 0.1 * (g + 0.5 * velocity)
        np.testing.assert_allclose(params, [x], rtol=1e-5)


def test_adamw_is_optax_s_on_the_kernels() -> None:
    rate = schedule("linear", learning_rate=0.1)
    ours = optimizers.make_optimizer("adamw", rate, weight_decay=0.2)
    mask = {
        "conv1": {"kernel": True},
        "local3": {"kernel": True, "bias": False},
    }
    theirs = optax.adamw(rate, weight_decay=0.2, mask=mask)
    a, b = tree(), tree()
    state_a, state_b = ours.init(a), theirs.init(b)
    for _ in range(5):
        updates, state_a = ours.update(jax.grad(fit)(a), state_a, a)
        a = optax.apply_updates(a, updates)
        updates, state_b = theirs.update(jax.grad(fit)(b), state_b, b)
        b = optax.apply_updates(b, updates)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


def test_adamw_decays_apart_from_the_gradient() -> None:
    """Without one by rate * decay * w; of the gradient of l2 Adam keeps the sign."""
    rate, params = schedule("constant", learning_rate=0.1), tree()
    zeros = jax.tree.map(jnp.zeros_like, params)

    def updated(name: str, **options) -> dict:
        tx = optimizers.make_optimizer(name, rate, **options)
        return tx.update(zeros, tx.init(params), params)[0]

    decayed = updated("adamw", weight_decay=0.2)
    coupled = updated("adam", weight_decay=0.2, penalty=Penalty(l2=0.2))
    for layer in params:
        kernel = params[layer]["kernel"]
        np.testing.assert_allclose(decayed[layer]["kernel"], -0.02 * kernel, 1e-6)
        by_sign = -0.1 * jnp.sign(kernel)
        np.testing.assert_allclose(coupled[layer]["kernel"], by_sign, 1e-5)
    assert decayed["local3"]["bias"] == coupled["local3"]["bias"] == 0
    for name in set(optimizers.OPTIMIZERS) - {"adamw"}:
        assert not any(map(jnp.any, jax.tree.leaves(updated(name, weight_decay=0.2))))


def test_adagrad_starts_from_a_tenth() -> None:
    tx = optimizers.make_optimizer("adagrad", schedule("constant", learning_rate=0.3))
    updates, _ = tx.update(jnp.array([2.0]), tx.init(jnp.array([1.0])))
    np.testing.assert_allclose(updates, [-0.3 * 2 / np.sqrt(4.1)], rtol=1e-5)


def test_ema_by_hand() -> None:
    ema, value = jnp.array(1.0), 1.0
    for step, new in enumerate((2.0, 4.0, 8.0, 16.0, 32.0), start=1):
        ema = optimizers.update_ema(ema, jnp.array(new), jnp.int32(step), 0.3)
        decay = min(0.3, (1 + step) / (10 + step))
        value = decay * value + (1 - decay) * new
        np.testing.assert_allclose(ema, value, rtol=1e-6)


def test_counters_are_not_averaged_and_types_stay() -> None:
    old = {"n": jnp.int32(3), "half": jnp.bfloat16(1)}
    new = {"n": jnp.int32(8), "half": jnp.bfloat16(2)}
    ema = optimizers.update_ema(old, new, jnp.int32(10**6), 0.5)
    assert {k: (v.dtype, float(v)) for k, v in ema.items()} == {
        "n": (jnp.int32, 8.0),
        "half": (jnp.bfloat16, 1.5),
    }


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="got schedule 'cyclic', need one of constant"):
        schedule("cyclic")
    with pytest.raises(ValueError, match="got optimizer 'lion', need one of adam"):
        optimizers.make_optimizer("lion", schedule("constant"))


def test_defaults_are_the_same_wherever_they_stand() -> None:
    """Here, in `make_recipe`, in a configuration and in what a network states."""
    ours = inspect.signature(optimizers.make_optimizer).parameters
    of_recipe = inspect.signature(make_recipe).parameters
    for name in ("momentum", "weight_decay"):
        assert ours[name].default == of_recipe[name].default
        assert ours[name].default == FIELDS[f"optim.{name}"].default
    warmup = inspect.signature(optimizers.make_schedule).parameters["warmup_steps"]
    assert warmup.default == of_recipe["warmup_steps"].default == 0
    assert ours["output_layer"].default == Facts().output_layer
    assert not ours["penalty"].default.l1 and not ours["penalty"].default.l2


@pytest.mark.parametrize("name", optimizers.SCHEDULES)
def test_warm_up_is_a_ramp_to_the_schedule(name: str) -> None:
    whole, warm = schedule(name), schedule(name, warmup_steps=4)
    for step, share in ((0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (9, 1.0)):
        np.testing.assert_allclose(warm(step), share * whole(step), rtol=1e-6)


def test_l1_in_the_chain_is_l1_in_the_loss() -> None:
    rate = schedule("constant", learning_rate=0.01)
    penalty = Penalty(l1=0.2, layers=("local3",))
    tx = optimizers.make_optimizer("sgd", rate, penalty=penalty)
    params = tree()
    updates, _ = tx.update(jax.grad(fit)(params), tx.init(params), params)

    def total(params: dict) -> jax.Array:
        return fit(params) + penalty.l1_loss(params)

    expected = jax.tree.map(lambda g: -0.01 * g, jax.grad(total)(params))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), updates, expected
    )


def test_muon_by_hand() -> None:
    """Against NumPy: Newton-Schulz five times, scaled; the rest is Adam's."""
    rate = schedule("constant", learning_rate=0.1)
    random = np.random.default_rng(0)
    shapes = {"conv1": (3, 3, 2, 4), "local3": (5, 3), "logits": (5, 3)}
    grads = {
        layer: {
            "kernel": jnp.asarray(random.normal(size=shape), jnp.float32),
            "bias": jnp.ones(shape[-1]),
        }
        for layer, shape in shapes.items()
    }

    def by_hand(grad: jax.Array) -> np.ndarray:
        x = np.asarray(grad, np.float64).reshape(-1, grad.shape[-1])
        scale = 0.2 * np.sqrt(max(x.shape))
        x /= np.linalg.norm(x)
        for _ in range(5):  # Jordan 2024, "Muon: An optimizer for hidden layers"
            a = x @ x.T
            x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
        return -0.1 * scale * x.reshape(grad.shape)

    adam = optax.adam(rate, nesterov=True)
    others, _ = adam.update(grads, adam.init(grads))
    for name, output_layer, layers in (
        ("muon", "logits", ("conv1", "local3")),
        ("muon", "local3", ("conv1", "logits")),
        ("muon_conv", "logits", ("conv1",)),
    ):
        tx = optimizers.make_optimizer(name, rate, output_layer=output_layer)
        updates, _ = tx.update(grads, tx.init(grads), grads)
        for layer in shapes:
            kernel = others[layer]["kernel"]
            if layer in layers:
                kernel = by_hand(grads[layer]["kernel"])
            np.testing.assert_allclose(updates[layer]["kernel"], kernel, atol=2e-4)
            bias = others[layer]["bias"]
            np.testing.assert_allclose(updates[layer]["bias"], bias, rtol=1e-5)
