import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import losses, optimizers


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
    in_chain = optimizers.make_optimizer(
        name, rate, momentum=0.9, l2=0.2, penalised=("local3",)
    )
    plain = optimizers.make_optimizer(name, rate, momentum=0.9)
    a, b = tree(), tree()
    state_a, state_b = in_chain.init(a), plain.init(b)
    for _ in range(5):
        updates, state_a = in_chain.update(jax.grad(fit)(a), state_a, a)
        a = optax.apply_updates(a, updates)

        def total(params: dict) -> jax.Array:
            return fit(params) + losses.l2_penalty(params, ("local3",), 0.2)

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


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="got schedule 'cyclic', need one of constant"):
        schedule("cyclic")
    with pytest.raises(ValueError, match="got optimizer 'lion', need one of adam"):
        optimizers.make_optimizer("lion", schedule("constant"))
