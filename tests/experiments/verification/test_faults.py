"""Faults that are planted in the library fail their rows."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from cnnjax import losses, step
from cnnjax.data import augment
from cnnjax.models import mnist
from cnnjax.ops import conv, dropout, lrn, pool, winograd
from cnnjax.workdir.checkpoints import Checkpoints
from verification import networks, operations, training


def row_of(module, name):
    (found,) = [check for check in module.checks() if check.name == name]
    return found.run()


def exponent(patch):
    """LRN with 0.74 in place of 0.75."""
    patch.setattr(lrn, "_powers", lambda y, beta: (y ** -(beta - 0.01), 1 / y))


def last_of_ties(patch):
    """The last of several largest values gets the gradient."""
    original = pool._planes

    def largest_and_last(x, window, strides, pads):
        planes = original(x, window, strides, pads)
        largest = jnp.max(jnp.stack(planes), axis=0)
        last = jnp.zeros(largest.shape, jnp.uint8)
        for i, plane in enumerate(planes):
            last = jnp.where(plane == largest, jnp.array(i, jnp.uint8), last)
        return largest, last

    patch.setattr(pool, "_largest_and_first", largest_and_last)


def winograd_matrix(patch):
    """One of the numbers of Winograd's transforms is a thousandth too large."""
    changed = winograd._B_T.copy()
    changed[2, 3] *= 1.001
    patch.setattr(winograd, "_B_T", changed)


def another_padding(patch):
    """The convolution is moved by a pixel."""
    original = conv._library_conv

    def moved(x, kernel, pads, *dtype):
        (top, bottom), columns = pads
        return original(x, kernel, ((top + 1, bottom - 1), columns), *dtype)

    patch.setattr(conv, "_library_conv", moved)


def unscaled(patch):
    """Dropout keeps the values as they are."""
    original = dropout.dropout

    def kept(x, keep_prob, keys):
        return keep_prob * original(x, keep_prob, keys)

    patch.setattr(dropout, "dropout", kept)
    patch.setattr(mnist, "dropout", kept)


def brightness(patch):
    """Brightness from a narrower range."""
    original = augment.draw  # compiled, so that its constants cannot be replaced

    def narrower(*arguments):
        drawn = original(*arguments)
        return drawn._replace(brightness=62 / 63 * drawn.brightness)

    patch.setattr(augment, "draw", narrower)


def by_the_variance(patch):
    """Pictures are normalised by the variance, as the chapter's text says."""
    original = augment.normalise

    def divided(x, how):
        made = original(x, how)
        return made / jnp.std(x, axis=(1, 2, 3), keepdims=True)

    patch.setattr(augment, "normalise", divided)


def half(patch):
    """The L2 penalty without its half."""
    whole = losses.Penalty.l2_loss
    patch.setattr(losses.Penalty, "l2_loss", lambda self, w: 2 * whole(self, w))


FAULTS = [
    (exponent, operations, "LRN, beta 0.75"),
    (last_of_ties, operations, "max pool 3x3, stride 2, ties"),
    pytest.param(
        winograd_matrix,
        operations,
        "Winograd's convolution, highest",
        marks=pytest.mark.slow,
    ),
    (another_padding, operations, "convolution 3x1, 4 to 6"),
    (unscaled, operations, "dropout, its masks"),
    (unscaled, networks, "MLP, float32"),
    (brightness, operations, "distortions, their random numbers"),
    pytest.param(
        by_the_variance,
        operations,
        "distortions, their random numbers",
        marks=pytest.mark.slow,
    ),
    (half, operations, "L1 and L2 penalties"),
]


@pytest.mark.parametrize(
    ("plant", "module", "name"),
    FAULTS,
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_fault_fails_its_row(monkeypatch, plant, module, name) -> None:
    plant(monkeypatch)
    found = row_of(module, name)
    assert not found.passed
    assert found.error > 2 * found.bound


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (operations, "LRN, beta 0.75"),
        (operations, "max pool 3x3, stride 2, ties"),
        (operations, "dropout, its masks"),
        (networks, "MLP, float32"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_without_a_fault_they_pass(module, name) -> None:
    assert row_of(module, name).passed


@pytest.fixture
def in_this_process(monkeypatch):
    """Runs are trained here, where a fault can be planted."""
    monkeypatch.setattr(training, "in_new_process", training.train_in)
    monkeypatch.setattr(training.backend, "start", lambda **how: None)
    # Its content, not the folder, decides whether it is used.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    training._three_runs.cache_clear()
    yield
    training._three_runs.cache_clear()


@pytest.mark.slow
def test_a_resumed_run_that_skips_a_step_is_found(monkeypatch, in_this_process) -> None:
    original = Checkpoints.restore_latest

    def a_step_late(self, like):
        found = original(self, like)
        if found is None or int(found[0].step) != 3:
            return found
        state, *others = found
        return (type(state)(**{**vars(state), "step": state.step + 1}), *others)

    monkeypatch.setattr(Checkpoints, "restore_latest", a_step_late)
    assert row_of(training, "the same bytes twice").passed
    assert not row_of(training, "stop and resume: the same").passed


@pytest.mark.slow
def test_gradients_that_are_not_summed_over_the_devices_are_found(monkeypatch) -> None:
    monkeypatch.setattr(step, "_sum_over", lambda axis_name, tree: tree)
    training._one_step.cache_clear()
    assert not row_of(training, "8 devices against 1").passed
    assert row_of(training, "one step, 1 device, highest").passed
    training._one_step.cache_clear()


@pytest.mark.slow
def test_an_optimiser_that_climbs_is_found(monkeypatch) -> None:
    original = training.make_run
    training._run.cache_clear()

    def climbing(config, dataset):
        run = original(config, dataset)
        tx, up = run.recipe.tx, partial(jax.tree.map, jnp.negative)

        def update(grads, state, params):
            updates, state = tx.update(grads, state, params)
            return up(updates), state

        recipe = dataclasses.replace(run.recipe, tx=tx._replace(update=update))
        return dataclasses.replace(run, recipe=recipe)

    monkeypatch.setattr(training, "make_run", climbing)
    assert not row_of(training, "twenty steps, highest").passed
    training._run.cache_clear()
